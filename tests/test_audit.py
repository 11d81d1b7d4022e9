"""What `make lint` makes of an audit's answer: only a known vulnerability is an error."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    spec = importlib.util.spec_from_file_location("audit", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    audit: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    monkeypatch.setattr(audit, "_CLEAN", tmp_path / "clean")
    return lambda *packages: int(audit._judged(list(packages)))


_GOOD = {"name": "good", "version": "1", "vulns": []}
_UNKNOWN = {"name": "odd", "skip_reason": "not found"}
_BAD = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ((_GOOD, _UNKNOWN), 0, "1 packages, no known vulnerability (1 not in the database)"),
        ((_UNKNOWN,), 0, "skipped"),
        ((_GOOD, _BAD), 1, "bad 2: CVE-1, CVE-2"),
    ],
)
def test_a_known_vulnerability_is_an_error_and_nothing_else_is(
    judged: Callable[..., int], capsys: pytest.CaptureFixture[str], packages: Any, code: int, said: str
) -> None:
    assert judged(*packages) == code
    assert said in capsys.readouterr().out


def test_only_a_clean_answer_is_remembered(judged: Callable[..., int], tmp_path: Path) -> None:
    for packages, is_clean in (((_UNKNOWN,), False), ((_GOOD, _BAD), False), ((_GOOD,), True)):
        judged(*packages)
        assert (tmp_path / "clean").exists() == is_clean
