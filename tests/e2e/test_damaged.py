"""Inputs that are damaged: what can be read of them is done, the others are read to their ends, and nothing counts as gone."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.support import Shop, cli

_HASHES = [f"{zlib.crc32(bytes([number])):08x}" for number in range(40)]


def lines(name: str, count: int) -> bytes:
    rows = ({"id": f"{name}-{number}", "text": f"{name} {_HASHES[number]}"} for number in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def ended(shop: Shop, *inputs: str, more: Sequence[str] = ()) -> tuple[int, str]:
    done = cli(*shop.words(*inputs), *more, cwd=shop.folder)
    return done.returncode, done.stderr


def ids(shop: Shop) -> list[str]:
    return sorted(row["id"] for row in shop.output())


def of(name: str, count: int) -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


def wrong_sum(packed: bytes) -> bytes:
    return packed[:-8] + bytes(8)


def unpacked_before_the_end(cut: bytes) -> int:
    """How many whole lines zlib can make of it."""
    return zlib.decompressobj(wbits=31).decompress(cut).count(b"\n")


def test_every_whole_line_before_the_damage_is_done(shop: Shop) -> None:
    packed = gzip.compress(lines("a", 30))
    damages = {
        "garbage": (packed + b"garbage!", 30, "incorrect header check"),
        "sum": (wrong_sum(packed), 30, "incorrect data check"),
        "cut": (packed[:-60], unpacked_before_the_end(packed[:-60]), "it ends in the middle"),
    }
    for kind, (raw, whole, problem) in damages.items():
        (shop.folder / "a.jsonl.gz").write_bytes(raw)
        code, said = ended(shop, "a.jsonl.gz", more=["--fresh"])
        assert code == 66, said
        assert f"a.jsonl.gz cannot be unpacked to its end: {'' if kind == 'cut' else 'Error -3'}" in said
        assert problem in said
        assert whole > 10
        assert ids(shop) == sorted(of("a", 30)[:whole]), kind


def test_damaged_inputs_keep_no_other_from_being_done(shop: Shop, tmp_path: Path) -> None:
    before = len(shop.billed())
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines("cut", 20))[:-40])
    (tmp_path / "twice.csv").write_bytes(b"text,text\n1,2\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "good.jsonl").write_bytes(lines("good", 3))
    inputs = ["cut.jsonl.gz", "twice.csv", "bad.parquet", "good.jsonl"]
    for _ in range(2):
        code, said = ended(shop, *inputs)
        assert code == 66, said
        assert "error: cut.jsonl.gz cannot be unpacked to its end: it ends in the middle" in said
        assert "twice.csv: the header has 'text' more than once" in said
        assert "bad.parquet cannot be read as Parquet" in said
        assert "hint: what was read before the damage is done" in said
        assert set(of("good", 3)) < set(ids(shop))
    assert len(shop.billed()) - before == len(ids(shop))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines("cut", 20)))
    code, said = ended(shop, "cut.jsonl.gz", "good.jsonl")
    assert (code, ids(shop)) == (0, sorted(of("cut", 20) + of("good", 3))), said
    assert len(shop.billed()) - before == 23


@pytest.mark.parametrize("removed", ["refuse", "drop"])
def test_rows_of_an_input_that_became_unreadable_are_not_gone(removed: str, shop: Shop, tmp_path: Path) -> None:
    before = len(shop.billed())
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines("a", 20)))
    (tmp_path / "b.jsonl").write_bytes(lines("b", 3))
    assert ended(shop, "a.jsonl.gz", "b.jsonl")[0] == 0
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines("a", 20))[:-80])
    (tmp_path / "b.jsonl").write_bytes(lines("b", 5))
    code, said = ended(shop, "a.jsonl.gz", "b.jsonl", more=["--on-removed", removed])
    assert code == 66, said
    assert ids(shop) == sorted(of("a", 20) + of("b", 5))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines("a", 20)))
    code, said = ended(shop, "a.jsonl.gz", "b.jsonl", more=["--on-removed", removed, "--ordered"])
    assert code == 0, said
    assert [row["id"] for row in shop.output()] == of("a", 20) + of("b", 5)
    assert len(shop.billed()) - before == 25


def test_inputs_of_which_nothing_can_be_read_leave_the_output_alone(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\na-1,one\n")
    assert ended(shop, "a.csv")[0] == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "a.csv").write_bytes(b"text,text\n1,2\n")
    code, said = ended(shop, "a.csv", more=["--on-removed", "drop"])
    assert (code, (tmp_path / "out.jsonl").read_bytes()) == (2, before), said
