"""Documents in six languages, written for these tests, each of about ten sentences on one matter and one aside."""

from __future__ import annotations

from typing import Final

ENGLISH: Final = """\
Solar pumps lift water without diesel, and most small farms pay for them within three years. Dr. Adams of the water office
has compared 3.5 thousand pumps since 2015. The pumps need sunlight, a well and a tank for the night. However, the panels
must be cleaned every week in the dry season. The office lends money for solar pumps at a low rate. Farmers with a solar
pump water their fields twice as often as farmers with a diesel pump. A neighbour keeps bees behind the school. The tank
holds water for two cloudy days, which is enough for most fields. Two of three villages now share one solar pump. The water
office expects that solar pumps will replace every diesel pump within ten years.
"""

GERMAN: Final = """\
Solarpumpen fördern Wasser ohne Diesel, und die meisten kleinen Höfe bezahlen sie in drei Jahren ab. Dr. Adam vom Wasseramt
hat am 3. Oktober die Zahlen vorgelegt, z.B. die Kosten je Brunnen. Die Pumpen brauchen Sonne, einen Brunnen und einen Tank
für die Nacht. Allerdings müssen die Platten in der trockenen Zeit jede Woche gereinigt werden. Das Amt verleiht Geld für
Solarpumpen zu einem niedrigen Zins. Ein Nachbar hält Bienen hinter der Schule. Der Tank fasst Wasser für zwei trübe Tage.
Das Wasseramt erwartet, dass Solarpumpen in zehn Jahren jede Dieselpumpe ersetzen.
"""

FRENCH: Final = """\
Les pompes solaires montent l'eau sans gazole, et la plupart des petites fermes les remboursent en trois ans. M. Adam, de
l'office de l'eau, a comparé les pompes, p. ex. leur prix et leur durée. Les pompes ont besoin de soleil, d'un puits et d'une
citerne pour la nuit. Cependant, les panneaux doivent être lavés chaque semaine en saison sèche. L'office prête de l'argent
pour les pompes solaires à un taux bas. Un voisin élève des abeilles derrière l'école. La citerne garde l'eau pour deux jours
couverts. L'office de l'eau pense que les pompes solaires remplaceront toutes les pompes à gazole dans dix ans.
"""

RUSSIAN: Final = """\
Солнечные насосы поднимают воду без дизельного топлива, и небольшие хозяйства окупают их за три года. Водное управление
сравнило насосы в разных районах, т.е. их цену и срок службы. Насосам нужны солнце, колодец и бак на ночь. Однако панели
надо мыть каждую неделю в сухой сезон. Управление даёт деньги на солнечные насосы под низкий процент. Сосед держит пчёл за
школой. Бак хранит воду на два пасмурных дня. Водное управление ждёт, что солнечные насосы заменят все дизельные насосы за
десять лет.
"""

JAPANESE: Final = """\
太陽光ポンプは軽油を使わずに水をくみ上げ、多くの小さな農家は三年で費用を回収する。水道局は各地のポンプの価格と寿命を比べた。\
ポンプには日光と井戸と夜のためのタンクが必要である。しかし、乾季にはパネルを毎週洗わなければならない。\
水道局は太陽光ポンプのために低い利率でお金を貸す。隣の人は学校の裏で蜂を飼っている。タンクは曇りの日二日分の水をためる。\
水道局は太陽光ポンプが十年のうちに軽油のポンプに取って代わると考えている。
"""

ARABIC: Final = """\
ترفع المضخات الشمسية الماء بلا وقود، وتسدد معظم المزارع الصغيرة ثمنها في ثلاث سنوات. قارن مكتب المياه أسعار المضخات وأعمارها \
في مناطق كثيرة. تحتاج المضخات إلى الشمس وبئر وخزان لليل. لكن يجب غسل الألواح كل أسبوع في موسم الجفاف. هل تكفي المياه في الأيام \
الغائمة؟ يحفظ الخزان ماء يومين غائمين. يربي أحد الجيران النحل خلف المدرسة. يتوقع مكتب المياه أن تحل المضخات الشمسية محل كل \
مضخات الوقود في عشر سنوات.
"""

ALL: Final = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "ru": RUSSIAN, "ja": JAPANESE, "ar": ARABIC}
