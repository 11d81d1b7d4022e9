"""Inline markup to plain text: Markdown, reStructuredText, HTML leftovers."""

from __future__ import annotations

import html
import re
from typing import Final

CODE_OPEN: Final = "\ue000"
CODE_CLOSE: Final = "\ue001"
"""Private-use characters around inline code while sentences are split: a sentence may start with a lower-case
identifier, and a stop inside code ends nothing. `plain` takes them out."""

NOTE_HERE: Final = "\ue002"
"""Stands where a footnote or citation mark was: a sentence that reads "as shown in [3]." has a hole there."""

_MARKS = re.compile(f"[{CODE_OPEN}{CODE_CLOSE}{NOTE_HERE}]")
_EMPTIED = re.compile(rf"\s*[(\[][{NOTE_HERE}\s,;]+[)\]]")
_ROLE = re.compile(r":([A-Za-z][\w+.:-]{0,40}):`([^`]{1,400})`|`([^`]{1,400})`:([A-Za-z][\w+.-]{0,40}):")
_TITLED = re.compile(r"(.*?)\s*<[^<>]*>", re.DOTALL)
_REFERENCE = re.compile(r"`([^`]{1,400})`__?(?!\w)")
_CODE = re.compile(r"(`{1,2})(?!`)([^`]{1,400}(?:`[^`]{1,200})?)\1(?!`)")
_HELD = re.compile(f"{CODE_OPEN}(\\d+){CODE_CLOSE}")
CODE_SPAN: Final = re.compile(f"{CODE_OPEN}[^{CODE_CLOSE}]*{CODE_CLOSE}")
_IMAGE = re.compile(r"!\[[^\]]{0,200}\](?:\([^)]{0,500}\)|\[[^\]]{0,100}\])")
_NOTE = re.compile(
    r"\s*(?:\[\^[^\]\s]{1,60}\]|\[(?:\d{1,3}|#[\w-]{0,60}|\*|[A-Za-z][\w-]{0,40})\]_(?!\w)|"
    r"(?<![\w\]])\[\d{1,3}(?:\s*[,-]\s*\d{1,3})*\](?![(\w]))"
)
_LINK = re.compile(
    r"\[([^\[\]]{0,400})\](?:\([^()\s]{0,500}(?:\([^()]*\)[^()]{0,200})?(?:\s+\"[^\"]*\")?\)|\[[^\]]{0,100}\])"
)
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|br|center|cite|code|col|dd|del|details|div|dl|dt|em|figure|font|h[1-6]|hr|i|img|ins|kbd|"
    r"li|mark|ol|p|picture|pre|q|s|samp|small|source|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|tt|u|ul|var|video)"
    r"(?:\s[^<>]{0,400})?/?>|<!--.{0,2000}?-->",
    re.DOTALL | re.IGNORECASE,
)
"""HTML's own tags: another word in angle brackets is text, such as the <name> of a placeholder."""

_AUTOLINK = re.compile(r"\s*<(?:https?|ftp|mailto):[^<>\s]{1,500}>")
# Not __init__: one lower-case word between double underscores is a Python name, whatever Markdown makes of it.
_STRONG = re.compile(r"(\*\*|__(?![a-z]+__))(?=[^\s*_])([^*\n]{1,400}?)(?<=\S)(?:\*\*|__)(?!\w)")
_EMPHASIS = re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^*]{1,400}?)(?<=[^\s\\])\*(?![\w*])")
_UNDERSCORE = re.compile(r"(?<![\w\\])_(?=[^\s_])([^_]{1,400}?)(?<=[^\s\\])_(?!\w)")
_TARGET = re.compile(r"(?<![\w_])([^\W_][\w.+-]{0,60}?)__?(?![\w(])")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~ ])")
_SUBSTITUTION = re.compile(r"\|([^|\s][^|]{0,60})\|_{0,2}")
_GAP_BEFORE_STOP = re.compile(r"\s+([.,)])(?=\s|$)")
_SPACES = re.compile(r"\s+")


def strip_inline(text: str) -> str:
    """Return `text` without inline markup, in one line, inline code between CODE_OPEN and CODE_CLOSE."""
    # First, because the patterns below begin with optional space: a long run of it would cost its square.
    text = _SPACES.sub(" ", text).strip()
    spans: list[str] = []
    if "`" in text:
        text = _quoted(text, spans)
    if "[" in text:
        text = _LINK.sub(r"\1", _NOTE.sub(NOTE_HERE, _IMAGE.sub("", text)))
    if "<" in text:
        text = _TAG.sub("", _AUTOLINK.sub("", text))
    if "*" in text:
        text = _EMPHASIS.sub(r"\1", _STRONG.sub(r"\2", text))
    if "_" in text:
        text = _TARGET.sub(r"\1", _UNDERSCORE.sub(r"\1", _STRONG.sub(r"\2", text)))
    if "|" in text:
        text = _SUBSTITUTION.sub(r"\1", text)
    if "\\" in text:
        text = _ESCAPE.sub(lambda found: found.group(1).strip(), text)
    if "&" in text:
        text = html.unescape(text)
    text = _GAP_BEFORE_STOP.sub(r"\1", _SPACES.sub(" ", text).strip())
    if spans:
        text = _HELD.sub(lambda found: f"{CODE_OPEN}{spans[int(found.group(1))]}{CODE_CLOSE}", text)
    return text


def plain(text: str) -> str:
    """Take out the marks of inline code and of notes."""
    if NOTE_HERE in text:
        text = _EMPTIED.sub("", text)
    elif CODE_OPEN not in text:
        return text
    return _MARKS.sub("", text)


def code_share(text: str) -> float:
    """Return which share of the characters of marked `text` stands in inline code, 0 to 1."""
    if CODE_OPEN not in text:
        return 0.0
    return sum(len(span) for span in CODE_SPAN.findall(text)) / len(text)


def _quoted(text: str, spans: list[str]) -> str:
    """Resolve roles and references, and set code spans aside in `spans`, where no later rule can touch them."""

    def hold(found: re.Match[str]) -> str:
        spans.append(_SPACES.sub(" ", found.group(2)).strip())
        return f"{CODE_OPEN}{len(spans) - 1}{CODE_CLOSE}"

    text = _ROLE.sub(_role_text, text)
    text = _REFERENCE.sub(lambda found: _visible(found.group(1)), text)
    return _CODE.sub(hold, text)


def _role_text(found: re.Match[str]) -> str:
    name, content = (found.group(1), found.group(2)) if found.group(1) else (found.group(4), found.group(3))
    shown = _visible(content)
    # These two roles of docutils are rendered with their series' name before the number.
    if name.lower() in {"pep", "rfc"} and (number := shown.partition("#")[0]).isdigit():
        return f"{name.upper()} {number}"
    if shown.startswith("~"):
        return shown[1:].rpartition(".")[2]
    return shown.removeprefix("!")


def _visible(content: str) -> str:
    """Return the visible half of `text <target>`."""
    titled = _TITLED.fullmatch(content)
    return titled.group(1) if titled and titled.group(1) else content
