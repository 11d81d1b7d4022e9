"""The figure that is promised, and the bench that measures it."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("bench_quality", ROOT / "bench" / "quality.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_quality"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_quality"]


@pytest.mark.skipif(not (DATA / "peps").is_dir(), reason=f"needs {DATA}/peps, which is read in place and never copied")
def test_rouge_l_reaches_what_is_promised(bench: ModuleType) -> None:
    assert statistics.fmean(bench.scores(bench.ours, bench.load(DATA))) >= 0.20


def test_the_bench_is_skipped_where_there_is_no_data(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--data", str(tmp_path)]) == 0
    assert "skipped" in capsys.readouterr().out


@pytest.mark.parametrize(("gate", "code"), [("0.0", 0), ("1.0", 1)])
def test_the_bench_fails_below_its_gate(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], gate: str, code: int
) -> None:
    (tmp_path / "peps").mkdir()
    (tmp_path / "peps" / "a.rst").write_text("Pumps lift water from the well every single day.\n" * 3, encoding="utf-8")
    (tmp_path / "peps-abstracts.jsonl").write_text('{"file": "a.rst", "title": "A", "abstract": "Pumps lift water."}\n')
    assert bench.main(["--data", str(tmp_path), "--gate", gate]) == code
    assert "leading sentences" in capsys.readouterr().out
