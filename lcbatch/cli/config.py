"""The config file: `--config FILE`, else `lcbatch.toml` or `[tool.lcbatch]` of `pyproject.toml` in the working directory.

Keys are the long options without dashes in front (`max-time` or `max_time`); a table named like a command holds what counts
for that command alone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcbatch.errors import InputMissing, UsageError
from lcbatch.job import ALL_TASKS, Job, declared_options
from lcbatch.optionvalues import suggestion
from lcbatch.smallfiles import read_small


def config_options(task: str, path: str | None, folder: Path) -> dict[str, Any]:
    """The options that a config file gives for a task. Raises UsageError naming the file and key that are wrong."""
    where, table = _table(path, folder)
    flat = {key: value for key, value in table.items() if key not in ALL_TASKS}
    own = table.get(task, {})
    if not isinstance(own, Mapping):
        raise UsageError(f"{where}: [{task}] is no table")
    for name in set(ALL_TASKS) - {task}:
        _named(table.get(name, {}), where, name)
    known = _for_task(task)
    general = {name: value for name, value in _named(flat, where, None).items() if name in known}
    return general | _named(own, where, task)


def _table(path: str | None, folder: Path) -> tuple[str, Mapping[str, Any]]:
    if path is not None:
        return path, _read(Path(path))
    own = folder / "lcbatch.toml"
    if own.is_file():
        return str(own), _read(own)
    project = folder / "pyproject.toml"
    table: Any = _read(project) if project.is_file() else {}
    for name in ("tool", "lcbatch"):
        table = table.get(name, {})
        if not isinstance(table, Mapping):
            raise UsageError(f"{project}: [tool.lcbatch] is no table")
    return str(project), table


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(read_small(path).decode())
    except OSError as error:
        raise InputMissing(f"cannot read the config file {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: it is nested too deep") from error
    except ValueError as error:  # no TOML, no UTF-8, too large, or a number of more digits than Python reads
        raise UsageError(f"{path}: {error}", hint='the file is TOML: key = "text", key = 3, key = true') from error


def _named(table: Mapping[str, Any], where: str, section: str | None) -> dict[str, Any]:
    known = _for_task(section) if section else {spec.name: None for _, spec in declared_options()}
    options = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            place = f"{where}: [{section}] {key}" if section else f"{where}: {key}"
            raise UsageError(f"{place} is no option", hint=suggestion(name, known))
        options[name] = _checked(name, value, where)
    return options


def _checked(name: str, value: Any, where: str) -> Any:
    """The value, tried on its own, so that what is wrong with it is said with the file's name."""
    try:
        Job.of(**{name: value})
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
    return value


def _for_task(task: str) -> dict[str, None]:
    return {spec.name: None for _, spec in declared_options() if task in spec.metadata["tasks"]}
