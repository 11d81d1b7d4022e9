"""A store that knows nothing of the run that wrote its output last."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lcbatch.errors import RefusedError
from tests.cli.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Two outputs, the first with the store of the second."""
    work = Work(tmp_path)
    work.write("a")
    for name in ("out.jsonl", "other.jsonl"):
        assert work.run(output=str(tmp_path / name)).exit_code == 0
    shutil.copy(tmp_path / "other.jsonl.lcbatch", tmp_path / "out.jsonl.lcbatch")
    return work


def test_an_output_that_is_gone_is_made_anew_of_what_the_store_has(work: Work) -> None:
    (work.folder / "out.jsonl").unlink()
    again = work.run()
    assert (again.exit_code, again.snapshot.rows.reused) == (0, 1)


def test_an_output_that_cannot_be_looked_at_is_not_taken_for_one_that_is_gone(work: Work) -> None:
    output = work.folder / "out.jsonl"
    output.unlink()
    output.symlink_to("out.jsonl")
    with pytest.raises(RefusedError, match=f"cannot look at {output}.*symbolic links") as refused:
        work.run()
    assert "another output with -o" in refused.value.hint
