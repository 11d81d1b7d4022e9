from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator import ledger as module
from lcbatch.simulator.ledger import Bill, Ledger


def bill(text: str = "p", fault: str | None = None) -> Bill:
    return Bill(1.5, "chat", "00ff", text, "echo", 3, 4, fault)


def read(ledger: Ledger, since: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(ledger.lines(since)).splitlines()]


def test_a_line_tells_all_of_a_call() -> None:
    ledger = Ledger("full")
    ledger.settle(ledger.bill(bill(fault="drip")), delivered=True)
    assert read(ledger) == [
        {
            "number": 1,
            "at_s": 1.5,
            "kind": "chat",
            "sha": "00ff",
            "prompt": "p",
            "answer": "echo",
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "fault": "drip",
            "delivered": True,
        }
    ]


def test_what_is_on_its_way_is_neither_delivered_nor_lost() -> None:
    ledger = Ledger("full")
    for _ in range(3):
        ledger.bill(bill())
    ledger.settle(1, delivered=True)
    ledger.settle(2, delivered=False)
    assert [line["delivered"] for line in read(ledger)] == [True, False, None]
    assert (ledger.billed, ledger.delivered, ledger.prompt_tokens, ledger.completion_tokens) == (3, 1, 9, 12)


def test_a_delivery_may_be_taken_back() -> None:
    ledger = Ledger("full")
    ledger.settle(ledger.bill(bill()), delivered=True)
    ledger.retract(1)
    assert (ledger.delivered, read(ledger)[0]["delivered"]) == (0, False)


@pytest.mark.parametrize("since", [0, 1, 9, 10, 11, 24, 25, 99])
def test_lines_after_a_number_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch, since: int) -> None:
    monkeypatch.setattr(module, "_BLOCK_CALLS", 10)
    ledger = Ledger("full")
    for number in range(1, 26):
        ledger.settle(ledger.bill(bill(f"text {number}\n")), delivered=number % 2 == 0)
    lines = read(ledger, since)
    assert [line["number"] for line in lines] == list(range(since + 1, 26))
    assert all(line["delivered"] == (line["number"] % 2 == 0) for line in lines)
    assert all(line["prompt"] == f"text {line['number']}\n" for line in lines)


def test_a_block_that_closes_while_it_is_read_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_CALLS", 2)
    ledger = Ledger("full")
    for _ in range(3):
        ledger.bill(bill())
    blocks = ledger.lines()
    seen = next(blocks)
    for _ in range(3):
        ledger.bill(bill())
    numbers = [json.loads(line)["number"] for line in (seen + b"".join(blocks)).splitlines()]
    assert numbers == [1, 2, 3]


def test_large_answers_close_a_block_early() -> None:
    ledger = Ledger("full")
    for _ in range(3):
        ledger.bill(bill("x" * 5_000_000))
    assert len(list(ledger.lines())) == 3


def test_counts_keep_no_lines() -> None:
    ledger = Ledger("counts")
    ledger.settle(ledger.bill(bill()), delivered=True)
    assert (ledger.billed, ledger.delivered, read(ledger)) == (1, 1, [])


def test_a_lone_surrogate_is_kept() -> None:
    ledger = Ledger("full")
    ledger.bill(bill("a\ud83d"))
    assert read(ledger)[0]["prompt"] == "a\ud83d"


def test_a_file_gets_each_call_when_its_end_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger("none", path) as ledger:
        for _ in range(3):
            ledger.bill(bill())
        ledger.settle(2, delivered=True)
        ledger.flush()
        assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [2]
        ledger.settle(1, delivered=True)
        ledger.retract(1)
    last = {line["number"]: line["delivered"] for line in map(json.loads, path.read_text().splitlines())}
    assert last == {1: False, 2: True, 3: False}
