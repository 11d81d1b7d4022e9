"""Writes docs/options.md from the declarations in lcbatch/job.py:

python docs/make_options.py
"""
# ruff: noqa: E501 - the lines of the page are as long as they are

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any

from lcbatch.job import ALL_TASKS, Job, declared_options

PAGE = Path(__file__).with_name("options.md")

HEAD = """\
# Options

<!-- Written by docs/make_options.py from lcbatch/job.py. Change that file, then run the script. -->

Options of `lcbatch run`, `lcbatch summarize` and `lcbatch embed`. A value comes from the first place that has one:

1. the flag: `--max-output-tokens 300`
2. the environment: `LCBATCH_MAX_OUTPUT_TOKENS=300`
3. the file that `--config FILE` (or `LCBATCH_CONFIG`) names; without it `lcbatch.toml` in the working directory; without that `[tool.lcbatch]` in its
   `pyproject.toml`: `max_output_tokens = 300`. A table named after a command, `[run]`, `[summarize]` or `[embed]`, holds what is meant for that command alone.
   [`samples/lcbatch.toml`](../samples/lcbatch.toml) is an example
4. the default

From Python the same options are arguments of [`Job.of`](python.md), under the same names with underscores.

Times read `90s`, `15m`, `8h`, `1h30m`, or a plain number of seconds. Sizes read `500k`, `64m`, `2g`, or a plain number of bytes.
An option that is marked repeatable is given once for each value; in a file or in Python it takes a list.

Keys are no option: they come from the environment only, from the provider's usual variable (`OPENAI_API_KEY`) or from the one that `--api-key-env` names.
"""

TAIL = """
## Of the other commands

| command | options |
| --- | --- |
| `lcbatch status OUT` | `--watch` shows it again every second until the run ends; `--json`; `--store PATH` |
| `lcbatch retry OUT` | `--kind KIND,...` takes only rows that failed so; `--store PATH`; the options above of the groups Model and Display, \
`--concurrency`, `--rpm`, `--tpm`, `--max-cost`, `--max-total-tokens`, `--limit`, `--on-change`, `--max-failures`, `--max-time`, `--row-timeout`, `--max-wait`, \
`--outage-timeout`, `--fail-on`, `--if-locked`, `--drain-timeout`. Of the run that made the output it takes over the groups Input, Chain, Model and Output, and the first \
five of Running named here; all else was said of that run alone |
| `lcbatch reparse OUT` | `--schema`, `--app-dir`, `--chain-version`, `--output-field`, `--flatten`, `--fail-on`, `--if-locked`, `--store PATH`, the options above of the group \
Display; the rest is as in the run that made the output |
| `lcbatch export OUT` | the options above of the group Output (without `--errors` and `--normalize`); those that are not given are those of the run that made the output, `-o` is stdout |
| `lcbatch stop OUT` | `--store PATH` |
| `lcbatch doctor` | the options above of the group Model, `--chain`, `--app-dir` |
| `lcbatch simulate` | its own: see `lcbatch simulate --help` |
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_sections()) + TAIL


def _sections() -> Iterator[str]:
    groups: dict[str, list[Field[Any]]] = {}
    for group, spec in declared_options():
        groups.setdefault(group, []).append(spec)
    for group, specs in groups.items():
        title = str(type(getattr(Job(), group)).__doc__)
        yield f"\n## {title}\n\n| option | default | what it does |\n| --- | --- | --- |\n"
        yield from map(_line, specs)


def _line(spec: Field[Any]) -> str:
    return f"| {_flags(spec)} | {_default(spec)} | {_what(spec)} |\n"


def _flags(spec: Field[Any]) -> str:
    if spec.metadata["flag"] == "":
        return f"`[[{spec.name}]]` in the config file"
    name = "--" + spec.name.replace("_", "-")
    value = "" if str(spec.type).startswith("bool") else f" {spec.metadata['metavar'] or _choice(spec)}"
    short = f", `{spec.metadata['flag']}`" if spec.metadata["flag"] else ""
    opposite = f", `--no-{name[2:]}`" if str(spec.type).startswith("bool") and spec.default is not False else ""
    return f"`{name}{value}`{short}{opposite}"


def _choice(spec: Field[Any]) -> str:
    return "CHOICE" if spec.metadata["choices"] else spec.name.upper()


def _default(spec: Field[Any]) -> str:
    value: Any = spec.default
    if value in (None, (), False):
        return ""
    if value is True:
        return "on"
    if spec.metadata["parse"] == "bytes":
        return f"`{value // 1024**2}m`"
    return f"`{value:g}s`" if spec.metadata["parse"] == "duration" else f"`{value}`"


def _what(spec: Field[Any]) -> str:
    text = str(spec.metadata["help"]).replace("|", "\\|")
    if spec.metadata["choices"]:
        text += " One of " + ", ".join(f"`{choice}`" for choice in spec.metadata["choices"]) + "."
    tasks = spec.metadata["tasks"]
    if len(tasks) == 1:
        text += f" Only for `{tasks[0]}`."
    elif len(tasks) < len(ALL_TASKS):
        text += "".join(f" Not for `{task}`." for task in ALL_TASKS if task not in tasks)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
