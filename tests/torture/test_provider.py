"""A provider that hurts: each fault is known for what it is, costs its row and no other, and neither time nor memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop
from tests.torture.network import KEY, Ended, measured, way
from tests.torture.scale import WHOLE, cases, note

_TIMEOUT_S = 8
_SLACK_S = 5
_BACKOFF_S = 1
_ATTEMPTS = 2
"""Of what may have been billed."""
_MOST_MB = 300

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("hang", "hang-billed", "drip", "endless-hints"), "timeout"),
    **dict.fromkeys(("cut", "badlength"), "truncated"),
    **dict.fromkeys(("html", "badjson", "shortlength", "badgzip", "nested", "echo-html"), "bad_body"),
    **dict.fromkeys(("gzipbomb", "deflatebomb", "zstdbomb", "endless", "endless-head"), "bad_body"),
    "echo-400": "invalid_request",
    "filter": "content_filter",
    "refusal": "refusal",
}
"""Faults that end a row, and by what name they are known."""

_PASSING = ("reset", "500", "503", "errbody")
"""Not billed and over after a while: tried again."""
_ANSWERS = ("surrogate", "nul", "big", "hints", "length", "empty")
"""Odd, and answers all the same."""

_OF_A_COMMAND = frozenset({"filter", "refusal"})
"""Empty answers, which a chain of one's own makes of them what it likes."""

_HEAVY = frozenset({"gzipbomb", "deflatebomb", "endless", "big"})
"""Each takes what one answer may have in memory; how much that is can be told where one is in flight at a time."""

_OTHERWISE = {"endless-head": {"bad_body", "truncated", "connection"}, "shortlength": {"bad_body", "truncated"}}
"""What the SDK's HTTP client tells less well."""


@pytest.fixture(scope="module")
def hostile() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(big_bytes=cases(10_000_000, 50_000_000), drip_interval_s=5) as running:
        yield running


def _run(shop: Shop, name: str, texts: list[str], in_flight: int) -> Ended:
    shop.write("in.jsonl", [{"text": text} for text in texts])
    more = ["--timeout", f"{_TIMEOUT_S}s", "-j", str(in_flight), "-o", "out.jsonl"]
    return measured("run", "in.jsonl", *way(name, shop), *more, cwd=shop.folder, env={"OPENAI_API_KEY": KEY})


def _failed(shop: Shop) -> dict[str, str]:
    """Kind by text."""
    path = shop.folder / "out.jsonl.errors.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["text"]: row["_lcbatch_error"]["kind"] for row in rows}


def _judge(shop: Shop, name: str, texts: list[str], billed_before: int) -> None:
    """Every row done or failed, once; what is done says what was billed last for it; what failed is known by its name."""
    failed, done = _failed(shop), {row["text"]: row["output"] for row in shop.output()}
    assert sorted([*failed, *done]) == sorted(texts)
    for text, kind in failed.items():
        fault = text.partition("fault:")[2].partition("]")[0]
        known = {_kind(fault, name) or "none: it should be done"}
        assert kind in (known if name == "lane" else _OTHERWISE.get(fault, known)), text
    calls = shop.provider.ledger(billed_before)
    answered = {call["prompt"].removeprefix("Say "): call["answer"] for call in calls}
    assert {text: answered[text] for text in done} == done
    for text in done:
        assert sum(call["prompt"] == f"Say {text}" for call in calls) == 1, f"paid twice: {text}"
    assert all(sum(call["prompt"] == f"Say {text}" for call in calls) <= _ATTEMPTS for text in failed)


def _kind(fault: str, name: str) -> str | None:
    """By what name the fault ends a row; None where it does not."""
    return None if name == "own" and fault in _OF_A_COMMAND else _KINDS.get(fault)


def _marked(fault: str) -> str:
    return f"[[fault:{fault}:2]]" if fault in _PASSING else f"[[fault:{fault}]]"


def test_faults_among_good_rows_cost_those_rows_alone(hostile: SimulatorProcess, tmp_path: Path) -> None:
    shop = Shop(hostile, tmp_path)
    before = len(hostile.ledger())
    bad = [_marked(fault) for fault in (*_KINDS, *_PASSING, *_ANSWERS) if fault not in _HEAVY]
    texts = [*(f"good {index}" for index in range(400)), *bad, *(f"late {index}" for index in range(50))]
    ended = _run(shop, "lane", texts, in_flight=16)
    assert ended.code == 3, ended.said
    _judge(shop, "lane", texts, before)
    assert sorted(_failed(shop)) == sorted(f"[[fault:{fault}]]" for fault in _KINDS if fault not in _HEAVY)
    assert KEY not in ended.said + ended.out
    assert ended.rss_mb < 2 * _MOST_MB, "several of the heavier ones may be there at once"


_EACH = [(fault, name) for fault in (*_KINDS, *_PASSING, *_ANSWERS) for name in ("lane", "own")]
_ALONE = _EACH if WHOLE else [("gzipbomb", "lane"), ("endless", "own"), ("big", "lane")]


@pytest.mark.parametrize(("fault", "name"), _ALONE)
def test_a_fault_holds_up_no_run_and_fills_no_memory(
    hostile: SimulatorProcess, tmp_path: Path, fault: str, name: str
) -> None:
    """Each by itself, so that its own time and memory can be told."""
    shop, before = Shop(hostile, tmp_path), len(hostile.ledger())
    texts = ["good", _marked(fault), "late"]
    began_s = time.monotonic()
    ended = _run(shop, name, texts, in_flight=1)
    calls = hostile.ledger(before)
    _judge(shop, name, texts, before)
    assert ended.code == (3 if _kind(fault, name) else 0), ended.said
    assert calls[0]["at_s"] >= began_s, "one clock"
    waited_s = ended.at_s - float(calls[0]["at_s"])
    attempts = 3 if fault in _PASSING else _ATTEMPTS
    assert waited_s < attempts * (_TIMEOUT_S + _BACKOFF_S) + _SLACK_S, waited_s
    # 50 MB stand up to four times in memory on their way: as bytes, as text, as SQLite's, in the line of the output. Of hints
    # the parser makes an object each, and the event loop hands it 8 MB of them at a time.
    most_mb = 2 * _MOST_MB if fault in {"big", "endless-hints"} else _MOST_MB
    assert ended.rss_mb < most_mb, ended.rss_mb
    note(
        f"provider: {fault} ({'fast lane' if name == 'lane' else 'the SDK'})",
        f"{_kind(fault, name) or 'done'}; within {_ATTEMPTS} timeouts of {_TIMEOUT_S} s + {_SLACK_S} s; below {most_mb} MB",
        f"{next(iter(_failed(shop).values()), 'done')} after {waited_s:.1f} s, {ended.rss_mb:.0f} MB",
    )
