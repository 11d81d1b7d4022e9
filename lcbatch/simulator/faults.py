"""What can go wrong on purpose, and when.

| fault           | what the client sees                                                   | billed | delivered |
| --------------- | ---------------------------------------------------------------------- | ------ | --------- |
| 500             | 500 server_error                                                       | no     |           |
| 503             | 503 overloaded                                                         | no     |           |
| 503-slow-down   | 503 with code slow_down and Retry-After                                | no     |           |
| 529             | 529 overloaded_error with Retry-After                                  | no     |           |
| 429             | 429 rate_limit_exceeded with Retry-After                               | no     |           |
| 429-seconds     | the same, with whole seconds in Retry-After                            | no     |           |
| 429-ms          | the same, with retry-after-ms                                          | no     |           |
| 429-both        | the same, with both of these                                           | no     |           |
| 429-date        | the same, with Retry-After as an HTTP date                             | no     |           |
| 429-garbage     | the same, with "soon" in Retry-After                                   | no     |           |
| 429-negative    | the same, with -5 in Retry-After                                       | no     |           |
| 429-absent      | the same, with no Retry-After                                          | no     |           |
| quota           | 429 insufficient_quota                                                 | no     |           |
| auth            | 401 invalid_api_key                                                    | no     |           |
| forbidden       | 403 of an unsupported region                                           | no     |           |
| notfound        | 404 model_not_found                                                    | no     |           |
| context         | 400 context_length_exceeded                                            | no     |           |
| html            | 200 with an HTML page: a proxy spoke, the model never saw the call     | no     |           |
| errbody         | 200 with {"error": ...}, as OpenRouter does                            | no     |           |
| redirect        | 307 to `redirect_to`                                                   | no     |           |
| echo            | 401 invalid_api_key that quotes the key                                | no     |           |
| echo-400        | 400 whose message quotes the key                                       | no     |           |
| echo-html       | 200 with an HTML page that quotes the key                              | no     |           |
| gzipbomb        | 200, Content-Encoding gzip, `gzipbomb_bytes` when unpacked             | no     |           |
| deflatebomb     | the same under deflate                                                 | no     |           |
| zstdbomb        | the same under zstd                                                    | no     |           |
| nested          | 200 with JSON arrays, 100,000 inside each other                        | no     |           |
| endless         | 200 with a chunked body that never ends                                | no     |           |
| endless-head    | 200 with ever more header fields                                       | no     |           |
| endless-hints   | 103 again and again, and no answer                                     | no     |           |
| reset           | RST before any reply                                                   | no     |           |
| down            | RST as soon as the request's head is there: an outage                  | no     |           |
| hang            | nothing until the client goes away                                     | no     |           |
| hang-billed     | the same, after the work was done                                      | yes    | no        |
| drip            | the body, one byte each `drip_interval_s`                              | yes    | at its end |
| cut             | half of the body, then the connection closes                           | yes    | no        |
| badlength       | the whole body under a Content-Length that is 10 too long, then a close | yes   | no        |
| shortlength     | the whole body under a Content-Length that is 10 too short             | yes    | no        |
| badgzip         | the plain body under Content-Encoding gzip                             | yes    | no        |
| hints           | a hundred times 103, then the answer                                   | yes    | yes       |
| badjson         | 200 with the first half of the JSON, well framed                       | yes    | no        |
| filter          | finish_reason content_filter, no content                               | yes    | yes       |
| refusal         | message.refusal instead of content                                     | yes    | yes       |
| length          | half of the content, finish_reason length                              | yes    | yes       |
| empty           | content ""                                                             | yes    | yes       |
| surrogate       | the content ends in a lone surrogate escape                            | yes    | yes       |
| nul             | the content ends in an escaped U+0000                                  | yes    | yes       |
| big             | the content is padded to `big_bytes`                                   | yes    | yes       |
| brokenschema    | the content, cut so that it is no JSON (text answers stay as they are) | yes    | yes       |

"Billed no" faults come before any limit is looked at and use up none; the others are admitted like any call.
Answers to embeddings know no content faults: they are sent unchanged.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from lcbatch.simulator.choices import RetryAfterForm

Stage = Literal["refuse", "wire", "content"]

THROTTLES: Final[dict[str, RetryAfterForm]] = {f"429-{form}": form for form in get_args(RetryAfterForm)}
"""Throttles that say when to come back in a form of their own, whatever `retry_after` is."""

FAULTS: Final[dict[str, Stage]] = {
    **dict.fromkeys(("500", "503", "503-slow-down", "529", "429", "quota", "auth", "forbidden", "notfound"), "refuse"),
    **dict.fromkeys(THROTTLES, "refuse"),
    **dict.fromkeys(
        ("context", "html", "errbody", "redirect", "echo", "echo-400", "echo-html", "reset", "down"), "refuse"
    ),
    **dict.fromkeys(("gzipbomb", "deflatebomb", "zstdbomb", "nested"), "refuse"),
    **dict.fromkeys(("endless", "endless-head", "endless-hints"), "refuse"),
    **dict.fromkeys(("hang", "hang-billed", "drip", "cut", "badlength", "shortlength"), "wire"),
    **dict.fromkeys(("badjson", "badgzip", "hints"), "wire"),
    **dict.fromkeys(("filter", "refusal", "length", "empty", "surrogate", "nul", "big", "brokenschema"), "content"),
}

_SPEC = re.compile(
    r"(?P<hash>#?)(?P<first>[\d.]+)(?:-(?P=hash)(?P<last>[\d.]+))?:(?P<fault>[\w-]+)(?:@(?P<rate>[\d.]+))?"
)
_MARKER = re.compile(r"\[\[fault:([\w-]+)(?::(\d+))?\]\]")
_MARKER_START: Final = "[[fault:"


@dataclass(frozen=True, slots=True)
class Window:
    """A fault over a stretch: seconds [first, last) since the server's start, or requests first to last, counted from
    1.
    """

    by_number: bool
    first: float
    last: float
    fault: str
    rate: float

    def covers(self, uptime_s: float, number: int) -> bool:
        """Whether the request with this number, that came at this time, lies inside."""
        return self.first <= number <= self.last if self.by_number else self.first <= uptime_s < self.last


def parse_schedule(specs: Sequence[str]) -> tuple[Window, ...]:
    """Windows from `10-20:503`, `#5-#9:html`, `#7:cut`, each with an optional `@0.5`.

    Raises ValueError, naming the spec.
    """
    return tuple(_parse_window(spec) for spec in specs)


def _parse_window(spec: str) -> Window:
    match = _SPEC.fullmatch(spec)
    if not match or (match["last"] is None and not match["hash"]):
        raise ValueError(f"schedule {spec!r} is neither FROM-TO:FAULT in seconds nor #N-#M:FAULT")
    try:
        first, last = float(match["first"]), float(match["last"] or match["first"])
        rate = float(match["rate"] or 1)
    except ValueError as exc:
        raise ValueError(f"schedule {spec!r} has a number that is none") from exc
    if match["fault"] not in FAULTS:
        raise ValueError(f"schedule {spec!r} names an unknown fault")
    if last < first or rate > 1:
        raise ValueError(f"schedule {spec!r} ends before it begins, or its rate is above 1")
    return Window(bool(match["hash"]), first, last, match["fault"], rate)


def marked_fault(text: str, attempt: int) -> str | None:
    """The fault that the prompt itself asks for on its `attempt`-th sending (from 1), or None.

    `[[fault:NAME]]` holds for every attempt, `[[fault:NAME:K]]` for K of them; several markers follow each other.
    """
    for name, times in _MARKER.findall(text):
        if name not in FAULTS:
            continue
        if not times or attempt <= int(times):
            return str(name)
        attempt -= int(times)
    return None


class FaultPicker:
    """Chooses a request's fault: its own marker first, then the schedule, then the dice."""

    def __init__(self, rates: Sequence[tuple[str, float]], schedule: Sequence[str], rng: random.Random) -> None:
        self._rates = tuple(rates)
        self._windows = parse_schedule(schedule)
        self._rng = rng
        self._attempts: dict[bytes, int] = {}

    def reconfigure(self, rates: Sequence[tuple[str, float]], schedule: Sequence[str]) -> None:
        """Go on with other rates and another schedule; the attempts counted for markers stay."""
        self._rates = tuple(rates)
        self._windows = parse_schedule(schedule)

    def pick(self, text: str, digest: bytes, uptime_s: float, number: int) -> str | None:
        """The fault for request `number` (from 1) with this user text, or None. `digest` tells equal requests."""
        if _MARKER_START in text:
            attempt = self._attempts[digest] = self._attempts.get(digest, 0) + 1
            fault = marked_fault(text, attempt)
            if fault:
                return fault
        for window in self._windows:
            if window.covers(uptime_s, number) and (window.rate == 1 or self._rng.random() < window.rate):
                return window.fault
        if self._rates:
            dice = self._rng.random()
            for name, rate in self._rates:
                dice -= rate
                if dice < 0:
                    return name
        return None
