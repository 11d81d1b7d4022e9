"""Parts of a document that survive edits: where they are cut is decided by what stands there, not by where it stands.

From the beginning of a part, the next cut is looked for in the last eighth of what the context holds: a heading there, else a
paragraph's end; of several the one whose surroundings have the least hash. An insertion moves the window along the text, and
as long as the same place has the least hash in it, all that follows is cut as before (content-defined chunking; compare FastCDC,
Xia et al., 2016, whose sizes vary more than a context allows). That does it nine times in ten. The tenth time an edited document
is cut where its last version was: the cuts of the last version are noted by their surroundings, and looked for first.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.chains.structure import Structure

_WINDOW = 0.125
"""Share of a part's greatest size in which its end may lie. Parts are on average a sixteenth shorter than they could be."""

_TAIL = 1.25
"""Below that many parts of greatest size left, the rest is cut in the middle: no last part of a line or two."""

_AROUND = 96
"""Bytes on either side by which a cut is known."""

OVERLAP_BYTES = 200
"""Of the part before, put before a part that does not begin with a heading: two sentences or so."""

_LINE = re.compile(rb"\n")
_SENTENCE = re.compile(rb"[.!?][\"')\]]*\s+|\n")
_SPACE = re.compile(rb"\s")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a document: data[start:end] is its own, data[before:start] is repeated from the part before."""

    start: int
    end: int
    before: int


def mark(data: bytes, cut: int) -> bytes:
    """What stands around a cut, hashed."""
    return jsontext.digest(data[max(0, cut - _AROUND) : cut], data[cut : cut + _AROUND])


def cut_up(document: Structure, most: int, known: Set[bytes] = frozenset()) -> list[int]:
    """The offsets where parts of at most `most` bytes end, the document's end included. `known` are marks to be cut at first."""
    old = _old_cuts(document.data, known)
    cuts, start, size = list[int](), 0, len(document.data)
    while size - start > most:
        at = bisect_right(old, start + most) - 1
        start = old[at] if at >= 0 and old[at] > start else _next_cut(document, start, most)
        cuts.append(start)
    return [*cuts, size]


def parts_between(document: Structure, cuts: Sequence[int]) -> list[Part]:
    """The parts, each with the overlap that goes before it."""
    starts = [0, *cuts[:-1]]
    return [
        Part(start, end, _overlap(document, start, previous))
        for previous, start, end in zip([0, *starts], starts, cuts, strict=False)
    ]


def _old_cuts(data: bytes, known: Set[bytes]) -> list[int]:
    """Where the document is cut as its last version was: at the ends of lines, as nearly all cuts are."""
    if not known:
        return []
    ends = (match.end() for match in _LINE.finditer(data))
    return [end for end in ends if mark(data, end) in known]


def _next_cut(document: Structure, start: int, most: int) -> int:
    left = len(document.data) - start
    if left <= most * _TAIL:
        return _best_cut(document, start + round(left * 0.4), start + min(most, round(left * 0.6)))
    return _best_cut(document, start + round(most * (1 - _WINDOW)), start + most)


def _best_cut(document: Structure, least: int, most: int) -> int:
    """Of the places within [least, most]: a heading or the like, else a paragraph's end, a line's, a sentence's, a word's."""
    data, cuts = document.data, document.cuts
    inside = cuts[bisect_left(cuts, least) : bisect_right(cuts, most)]
    among: Sequence[int] = [cut for cut in inside if cut in document.strong] or inside
    for finer in (_LINE, _SENTENCE, _SPACE):
        among = among or [match.end() for match in finer.finditer(data, least - 1, most)]
    if among:
        return min(among, key=lambda cut: mark(data, cut))
    while data[most] & 0xC0 == 0x80:  # noqa: PLR2004 - inside a character
        most -= 1
    return most


def _overlap(document: Structure, start: int, previous: int) -> int:
    """Where the text to repeat before a part begins: at a sentence's or a word's beginning in the part before."""
    if start == 0 or start in document.strong:
        return start
    least = max(previous, start - OVERLAP_BYTES)
    for begins in (_SENTENCE, _SPACE):
        found = begins.search(document.data, least, start)
        if found is not None and found.end() < start and document.data[found.end() : start].strip():
            return found.end()
    return start


def grouped(sizes: Sequence[int], marks: Sequence[bytes], most: int) -> list[range]:
    """Runs of neighbours of at most `most` together, as few and as even as can be, each of two or more where that is possible.

    Their ends are chosen by content, too: one part more at the beginning leaves later groups as they were.
    """
    total = sum(sizes)
    count = max(1, -(-total // round(most * (1 - _WINDOW))))
    even = total / count
    upper, lower = min(most, round(even * (1 + _WINDOW))), round(even * (1 - _WINDOW))
    groups, start = list[range](), 0
    while start < len(sizes):
        end = _group_end(sizes, marks, start, lower, upper)
        if end < len(sizes) and sum(sizes[end:]) + sum(sizes[start:end]) <= upper:
            end = len(sizes)
        groups.append(range(start, end))
        start = end
    return _evened(groups, sizes, most)


def _group_end(sizes: Sequence[int], marks: Sequence[bytes], start: int, lower: int, upper: int) -> int:
    taken, ends, fits = 0, list[int](), start + 1
    for end in range(start + 1, len(sizes) + 1):
        taken += sizes[end - 1]
        if taken > upper:
            break
        fits = end
        if taken >= lower and end < len(sizes):
            ends.append(end)
    if fits == len(sizes):
        return fits
    return min(ends, key=lambda end: marks[end]) if ends else fits


def _evened(groups: list[range], sizes: Sequence[int], most: int) -> list[range]:
    """A last group that came out small goes to its neighbour, or takes half of what both have, as near as that can be."""
    if len(groups) < 2 or sum(sizes[i] for i in groups[-1]) * 2 > sum(sizes[i] for i in groups[-2]):  # noqa: PLR2004
        return groups
    first, last = groups[-2].start, groups[-1].stop
    if sum(sizes[first:last]) <= most:
        return [*groups[:-2], range(first, last)]
    # Where the larger half is smallest: halves of equal number may be of very unequal size.
    middle = min(range(first + 1, last), key=lambda at: max(sum(sizes[first:at]), sum(sizes[at:last])))
    return [*groups[:-2], range(first, middle), range(middle, last)]
