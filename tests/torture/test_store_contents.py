"""A store whose columns hold what no run of ours wrote is called damaged, not full, and nothing is done to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcbatch.cli.commands import app
from lcbatch.errors import RefusedError
from tests.cli.work import Work

_SPOILT = (
    ("export", "UPDATE rows SET fields = CAST(x'7b22ff227d' AS TEXT)"),
    ("export", "UPDATE rows SET place = CAST(x'ff' AS TEXT)"),
    ("status", "UPDATE answers SET account = '{'"),
    ("status", "UPDATE runs SET job = '{', sum = NULL"),
    ("status", "UPDATE answers SET done = 0, sum = NULL"),
    ("retry", "UPDATE runs SET job = '[]', sum = NULL"),
    ("export", "UPDATE rows SET fields = x'7b7d', sum = NULL"),
    ("export", "UPDATE answers SET account = '[1', sum = NULL"),
    ("export", "UPDATE rows SET fields = replace(fields, 'one', 'two')"),
    ("export", "UPDATE answers SET output = replace(output, 'ONE', 'TWO')"),
    ("status", "UPDATE answers SET account = json_set(account, '$.prompt_tokens', 9223372036854775807)"),
    ("status", "DROP TABLE places"),
    ("export", "ALTER TABLE answers RENAME COLUMN output TO other"),
)


@pytest.mark.parametrize(("looks", "spoils"), _SPOILT)
def test_contents_that_cannot_be_read_are_damage(tmp_path: Path, looks: str, spoils: str) -> None:
    work = Work(tmp_path)
    work.write("one", "two", "three")
    assert work.run().exit_code == 0
    store = tmp_path / "out.jsonl.lcbatch"
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(spoils)
    before = store.read_bytes()

    more = ["-o", str(tmp_path / "so-far.jsonl")] if looks == "export" else []
    result = CliRunner().invoke(app, [looks, str(tmp_path / "out.jsonl"), *more])

    assert isinstance(result.exception, RefusedError), result.exception
    assert "is damaged" in result.exception.message
    assert "--fresh" in result.exception.hint
    assert store.read_bytes() == before
