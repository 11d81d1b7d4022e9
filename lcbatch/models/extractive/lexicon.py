"""Plain facts about languages: function words, abbreviations, words that lean on an earlier sentence.

Each list is short on purpose. Function words do two jobs (weighing terms, telling languages apart) and the commonest
thirty to sixty do both; a longer list changes neither. A language that is not listed still works: its terms are
weighed by rarity alone and its sentences end where the Unicode stops stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """What the summarizer knows of one language; every word is lower case."""

    code: str
    """ISO 639-1 code."""
    names: frozenset[str]
    """What users call it, in English and in itself."""
    stopwords: frozenset[str] = frozenset()
    abbreviations: frozenset[str] = frozenset()
    """Words, without their final stop, that are followed by a stop in the middle of a sentence."""
    connectives: tuple[str, ...] = ()
    """Openings that lean on the sentence before: an extract that starts so dangles."""
    openings: tuple[str, ...] = ()
    """The connectives, each with the space after it."""
    anaphors: frozenset[str] = frozenset()
    """Openings that point to something named earlier."""
    selves: frozenset[str] = frozenset()
    """Nouns by which a document speaks of itself ("this report ...")."""
    ordinal_stop: bool = False
    """A stop after a number makes an ordinal ("3. Oktober")."""


def words_of(text: str) -> frozenset[str]:
    """Return the words of a list that is written as one string, which reads better than a page of quotation marks."""
    return frozenset(text.split())


def _lexicon(
    code: str, names: str, *, stop: str = "", abbr: str = "", lean: str = "", point: str = "", me: str = ""
) -> Lexicon:
    leaning = tuple(part.strip() for part in lean.split(",") if part.strip())
    return Lexicon(
        code=code,
        names=words_of(names),
        stopwords=words_of(stop),
        abbreviations=words_of(abbr),
        connectives=leaning,
        openings=tuple(f"{connective} " for connective in leaning),
        anaphors=words_of(point),
        selves=words_of(me),
        ordinal_stop=code in {"de", "nl", "sv", "pl"},
    )


UNIVERSAL_ABBREVIATIONS: Final = words_of("dr mr mrs ms prof st vs cf al ca fig figs eq vol ed eds pp p nr dipl ing")

LANGUAGES: Final[dict[str, Lexicon]] = {
    lexicon.code: lexicon
    for lexicon in (
        _lexicon(
            "en",
            "english en eng",
            stop="a about after all also an and any are as at be because been before being between but by can could did "
            "do does for from had has have he her his how i if in into is it its may more most must my no not of on one "
            "only or other our out over s she should so some such t than that the their them then there these they this "
            "those to up use used using very was we were what when where which while who will with would you your",
            abbr="e.g i.e eg ie jr sr hon rev gen col capt lt sgt gov sen rep pres esq messrs mme no nos vol ch sec sect "
            "approx dept est inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k etc resp",
            lean="however, therefore, thus, hence, but, and, or, so, also, moreover, furthermore, additionally, "
            "consequently, accordingly, instead, otherwise, similarly, likewise, nevertheless, nonetheless, yet, then, "
            "still, finally, lastly, second, secondly, third, thirdly, next, meanwhile, conversely, rather, besides, "
            "again, too, here, for example, for instance, in addition, in contrast, on the other hand, on the one hand, "
            "as a result, in other words, in particular, in this case, in that case, in these cases, in such cases, "
            "in both cases, as such, that said, of course, after all, for this reason, for these reasons, to this end, "
            "to that end, because of this, at the same time, at this point, at that point, as mentioned, as noted, "
            "as described, as shown, as discussed, as above, the following, the above, the latter, the former, the same, "
            "another, others, neither, either way, nor, indeed, in fact, specifically, alternatively, afterwards, "
            "for that reason, in doing so, unfortunately, fortunately, note that, note, note also, see, see also, even so, "
            "even then, equally, actually, presumably, well, oh, yes, no, why, what, in short, to be fair, by contrast, "
            "in the above, in the first, in the second, first, firstly, without this, with this, with these, under this, "
            "from this, by doing, given this, doing so, if so, if not, once this, like this, one of these, some of these, "
            "each of these, all of these, all this, most of these, none of these, both of these",
            point="this these that those it they he she his her its their such both each him them",
            me="document paper article report proposal specification study chapter book guide essay thesis memo survey "
            "tutorial manual",
        ),
        _lexicon(
            "de",
            "german deutsch de ger deu",
            stop="aber als am an auch auf aus bei bis das dass dem den der des die durch ein eine einem einen einer eines er "
            "es für hat haben ich ihr im in ist kann man mit nach nicht noch nur oder sein sich sie sind so über um und "
            "uns von vor war waren was wenn werden wie wir wird wurde wurden zu zum zur",
            abbr="z.b d.h u.a o.ä u.ä v.a i.d.r z.t bzw usw ggf evtl vgl etc sog bspw inkl exkl zzgl abs art bd hr fr str "
            "tel jh jhd mio mrd geb gest nr jan feb apr aug sept okt nov dez z d i v o u b h s a",
            lean="aber, allerdings, also, außerdem, auch, dabei, dadurch, dafür, dagegen, daher, damit, danach, dann, daran, "
            "darauf, daraus, darin, darum, darüber hinaus, davon, dazu, dennoch, denn, deshalb, deswegen, doch, ebenso, "
            "ferner, folglich, hierbei, hierfür, hierzu, im gegensatz dazu, jedoch, mit anderen worten, oder, schließlich, "
            "so, somit, sondern, sonst, trotzdem, und, vielmehr, weiterhin, zudem, zum beispiel, z.b, zunächst, zweitens",
            point="dies diese dieser dieses diesem diesen er sie es ihr ihre sein seine solche solcher solches beide jene",
            me="dokument artikel bericht beitrag arbeit studie vorschlag kapitel buch handbuch text aufsatz leitfaden",
        ),
        _lexicon(
            "fr",
            "french français francais fr fre fra",
            stop="à au aux avec ce ces cette comme dans de des du elle elles en est et été être il ils je la le les leur leurs "
            "lui mais ne nous on ont ou où par pas plus pour qu que qui sa se ses si son sont sur un une vous y d l s n c",
            abbr="p.ex p.e ex m mm mme mmes mlle mgr env art chap éd éds t fasc av apr j.-c c.-à-d id ibid janv févr juil "
            "sept oct nov déc etc",
            lean="ainsi, alors, aussi, autrement dit, au contraire, cependant, c'est pourquoi, car, de même, de plus, donc, "
            "du coup, en effet, en outre, en revanche, en particulier, enfin, ensuite, et, mais, malgré tout, néanmoins, "
            "or, ou, par ailleurs, par conséquent, par contre, par exemple, p. ex, pourtant, puis, toutefois",
            point="ce cet cette ces cela ceci celui celle ceux il ils elle elles leur leurs son sa ses",
            me="document article rapport étude proposition chapitre livre guide mémoire texte travail",
        ),
        _lexicon(
            "es",
            "spanish español espanol castellano es spa",
            stop="a al ante como con contra cuando de del desde donde el ella ellos en entre era es esta este esto fue ha han "
            "hasta hay la las le les lo los más me muy no nos o para pero por porque que se ser si sin sobre son su sus "
            "también un una uno y ya",
            abbr="p.ej ej sr sra srta sres ud uds d dña avda núm pág págs art cap ed ee.uu aprox tel etc a.c d.c",
            lean="además, ahora bien, así, aun así, aunque, de hecho, de este modo, de lo contrario, después, en cambio, "
            "en consecuencia, en efecto, en particular, entonces, es decir, finalmente, mas, no obstante, o, pero, "
            "por consiguiente, por ejemplo, por eso, por lo tanto, por otra parte, por tanto, pues, sin embargo, también, y",
            point="este esta esto estos estas ese esa eso esos esas aquel él ella ellos ellas su sus lo",
            me="documento artículo informe estudio propuesta capítulo libro guía trabajo texto",
        ),
        _lexicon(
            "it",
            "italian italiano it ita",
            stop="a ad ai al alla alle anche che chi ci come con da dal dalla degli dei del della delle di e è ed era gli ha "
            "hanno i il in io la le lo loro ma mi nei nel nella non o per però più quando questa questo se si sono su sua "
            "sul sulla suo tra un una uno",
            abbr="ad.es es sig sig.ra dott dott.ssa ing avv pag pagg art cap ecc a.c d.c tel n",
            lean="ad esempio, allora, altrimenti, anche, anzi, comunque, così, dunque, e, inoltre, infatti, infine, invece, "
            "ma, in altre parole, o, per esempio, per questo, perciò, però, pertanto, poi, quindi, tuttavia",
            point="questo questa questi queste quello quella quelli ciò esso essa essi lui lei loro il suo",
            me="documento articolo rapporto studio proposta capitolo libro guida lavoro testo relazione",
        ),
        _lexicon(
            "pt",
            "portuguese português portugues pt por",
            stop="a ao aos as à às até com como da das de do dos e é ela ele eles em entre era essa esse esta este eu foi há "
            "isso já lhe mais mas muito na nas não no nos o os ou para pela pelo por qual quando que se sem ser seu são "
            "só sua também tem um uma você",
            abbr="p.ex ex sr sra srta dra av núm pág págs art cap ed aprox tel etc a.c d.c",
            lean="além disso, ainda assim, assim, contudo, de fato, e, em particular, enfim, então, entretanto, finalmente, "
            "mas, no entanto, ou, ou seja, pois, por exemplo, por isso, por outro lado, porém, portanto, também, todavia",
            point="este esta isto esse essa isso esses essas aquele ele ela eles elas seu sua",
            me="documento artigo relatório estudo proposta capítulo livro guia trabalho texto",
        ),
        _lexicon(
            "nl",
            "dutch nederlands nl dut nld",
            stop="aan al als bij dan dat de deze die dit door een en er heeft het hij hun ik in is je kan maar met meer men "
            "naar niet nog of om onder ook op over te tot uit van veel voor was wat we wel werd wij worden wordt zal ze "
            "zich zij zijn zo",
            abbr="bijv bv d.w.z enz e.d m.b.t o.a t.o.v n.a.v i.p.v a.u.b dhr mevr drs ir nr blz ca etc",
            lean="bijvoorbeeld, bovendien, daarbij, daarna, daarom, daardoor, daarnaast, dan, dus, echter, en, evenwel, "
            "kortom, maar, niettemin, of, ook, ten slotte, toch, verder, vervolgens, want, zo",
            point="deze dit die dat hij zij ze het hun haar zijn",
            me="document artikel rapport onderzoek voorstel hoofdstuk boek gids studie tekst",
        ),
        _lexicon(
            "sv",
            "swedish svenska sv swe",
            stop="alla att av blev bli den det de dem denna detta du där efter eller en ett för från han har hon i inte jag kan "
            "man med men mot mycket nu när och om på samma sig sin ska som så till under upp ut var vi vid än är över",
            abbr="bl.a t.ex d.v.s dvs m.m o.s.v osv s.k p.g.a resp ca nr kl st etc",
            lean="alltså, också, därför, dessutom, däremot, dock, eller, emellertid, men, och, slutligen, så, till exempel, "
            "trots detta, vidare, ändå",
            point="den det denna detta dessa han hon de sådan",
            me="dokument artikel rapport studie förslag kapitel bok guide text",
        ),
        _lexicon(
            "pl",
            "polish polski pl pol",
            stop="a aby ale bo być był była było były czy dla do gdy go i ich im ja jak jako je jednak jego jej jest już każdy "
            "która które który lub ma może na nad nie niż o od on oraz po pod przez przy są się ta tak te tego tej ten to "
            "tylko tym w we więc z za ze że",
            abbr="np tj tzn tzw m.in itd itp ok godz ul al prof mgr inż św r w ww por zob nr str wyd rys",
            lean="ale, ponadto, dlatego, jednak, jednakże, lecz, na przykład, natomiast, oraz, poza tym, również, tak więc, "
            "także, wreszcie, więc, zatem, zresztą",
            point="ten ta to te ci on ona ono oni one jego jej ich taki takie",
            me="dokument artykuł raport praca badanie propozycja rozdział książka tekst",
        ),
        _lexicon(
            "ru",
            "russian русский ru rus",
            stop="а без более бы был была были было быть в вам вас во вот все всё всех вы где да даже для до его ее её если "
            "есть еще ещё же за и из или им их к как когда который ко кто ли может мы на над не него нее нет ни но о об "
            "однако он она они оно от по под после при с так также такой там то того тоже только том ты у уже чем что "
            "чтобы эта эти это этого этой этот я",
            abbr="т.е т.д т.п т.к т.н др пр г гг в вв см ср рис табл стр гл руб коп тыс млн млрд ул д кв им проф акад напр "
            "и.о н.э янв февр апр авг сент окт нояб дек",
            lean="а, более того, в частности, вместе с тем, впрочем, далее, затем, значит, и, или, иначе, итак, к тому же, "
            "кроме того, например, напротив, но, однако, поэтому, при этом, следовательно, так, также, таким образом, "
            "тем не менее, тогда, то есть, тоже, наконец, зато",
            point="это этот эта эти этого он она оно они его её ее их такой такая такие",
            me="документ статья статье отчёт отчет работа работе исследование предложение глава книга руководство доклад",
        ),
        _lexicon(
            "el",
            "greek ελληνικά el gre ell",
            stop="από αυτά αυτή αυτό αυτός για δεν είναι ένα ένας εκ ή η θα και κατά με μετά μια να ο οι όπως ότι που προς σε "
            "στα στη στην στις στο στον στους τα τη την της τι τις το τον του τους των ως",
            abbr="π.χ κ.λπ κλπ κ.ά δηλ σελ κ κος κα αρ τηλ μ.χ π.μ μ.μ",
            lean="όμως, ωστόσο, επομένως, επίσης, άρα, λοιπόν, και, αλλά, για παράδειγμα, συνεπώς, τέλος, έτσι",
            point="αυτός αυτή αυτό αυτοί αυτές αυτά εκείνος τέτοιο",
        ),
        _lexicon(
            "ar",
            "arabic العربية عربي ar ara",
            stop="أن أو إلى إن التي الذي الذين إذا بعد بين ثم حتى عن على عند غير في قد كان كانت كل كما لا لكن لم لها له ما مع "
            "من منذ هذا هذه ذلك تلك هو هي و يكون قبل أي",
            lean="لكن, ولكن, لذلك, ولذلك, كما, وكذلك, أيضا, مثلا, على سبيل المثال, ومع ذلك, بالإضافة إلى ذلك, ثم, إذن, وبالتالي",
            point="هذا هذه ذلك تلك هو هي هم وهذا وهو وهي هؤلاء",
        ),
        _lexicon(
            "hi",
            "hindi हिन्दी हिंदी hi hin",
            stop="और का की के को में से है हैं था थी थे यह वह ये वे पर भी नहीं तो कि एक ने लिए जो इस उस अपने कर किया गया हो ही या",
            lean="लेकिन, परन्तु, इसलिए, और, उदाहरण के लिए, हालांकि, फिर, इसके अलावा, अतः",
            point="यह वह ये वे इस उस इसका उसका",
        ),
        _lexicon(
            "ja",
            "japanese 日本語 ja jpn",
            lean="しかし, そして, また, したがって, そのため, 例えば, たとえば, さらに, "
            "つまり, だから, ただし, なお, 一方, そこで, それから",
            point="これ それ あれ この その あの ここ そこ 彼 彼女",
        ),
        _lexicon(
            "zh",
            "chinese 中文 汉语 漢語 zh chi zho mandarin",
            lean="但是, 然而, 因此, 所以, 而且, 此外, 例如, 比如, 另外, 于是, 不过, 同时, 其次, 最后, 也就是说, 但, 而",
            point="这 那 它 他 她 他们 她们 它们 此 其",
        ),
        _lexicon(
            "ko",
            "korean 한국어 ko kor",
            lean="그러나, 그리고, 따라서, 하지만, 또한, 예를 들어, 그래서, 그런데, 즉, 게다가",
            point="이것 그것 저것 이 그 저 이는 그는 그녀",
        ),
    )
}

UNKNOWN: Final = Lexicon(code="und", names=frozenset())
