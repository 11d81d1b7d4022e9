"""Runs contestants through scenarios, interleaved: one repetition of all before the next, so that a slow minute of the machine
hits everybody alike.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import environments, machine
from bench.contestants import Contestant, Errand
from bench.measures import Measure
from bench.provider import Certificate, Provider, certificate, serving
from bench.scenarios import Scenario

ROOT = Path(__file__).resolve().parents[1]
WORK = environments.FOLDER / "work"
LOGS = environments.FOLDER / "logs"
_TEXT = (
    "Ordered it for my sister in spring; the box came late and dented, but the thing itself works, is quiet, and has "
    "needed no repair so far. Would I buy it again? Number {n} on my list says: perhaps."
)

_TOO_LONG_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A contestant with its interpreter found or installed."""

    contestant: Contestant
    python: Path


def measured(scenarios: Sequence[Scenario], field: Sequence[Ready], say: Say) -> Iterator[Measure]:
    """Run all that take part, and tell of each run. What failed, or took longer than a minute, is not run again."""
    for scenario in scenarios:
        say(f"\n{scenario.title}")
        tls = certificate() if scenario.tls else None
        once: set[str] = set()
        _warm_up(scenario, field, tls)
        for repetition in range(scenario.repetitions):
            for ready in field:
                contestant = ready.contestant
                if repetition >= scenario.repetitions_for(contestant) or contestant.name in once:
                    continue
                measure = run_once(scenario, ready, tls)
                say(_told(measure, contestant))
                if measure.problem or measure.wall_s > _TOO_LONG_S:
                    once.add(contestant.name)
                yield measure


def _warm_up(scenario: Scenario, field: Sequence[Ready], tls: Certificate | None) -> None:
    """The first start of a program writes its bytecode and reads its files from disk: nobody's steady state."""
    if scenario.name == "start":
        for ready in field:
            if scenario.repetitions_for(ready.contestant):
                run_once(scenario, ready, tls)


def run_once(scenario: Scenario, ready: Ready, tls: Certificate | None = None) -> Measure:
    """One run in a folder of its own, emptied before unless the scenario continues what was left there."""
    contestant = ready.contestant
    home = WORK / contestant.name
    if not scenario.continues:
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    count = scenario.rows_for(contestant)
    out = home / "out.jsonl"
    with serving({**scenario.provider, "ledger": "counts"}, tls) as provider:
        errand = Errand(rows_file(count), out, scenario.concurrency, provider.base_url)
        command = [str(ready.python), *contestant.arguments(errand)]
        log = LOGS / f"{scenario.name}.{contestant.name}.log"
        ended = machine.run(command, _environment(home, errand, tls), home, log, scenario.timeout_s)
        return _measure(scenario, contestant, ended, provider, out)


def _measure(
    scenario: Scenario, contestant: Contestant, ended: machine.Ended, provider: Provider, out: Path
) -> Measure:
    counters = provider.stats()
    first_at_s = counters["first_request_at_s"]
    count = scenario.rows_for(contestant)
    return Measure(
        scenario=scenario.name,
        contestant=contestant.name,
        rows=count,
        wall_s=ended.wall_s,
        cpu_s=ended.cpu_s,
        peak_rss_mb=ended.peak_rss_mb,
        start_s=None if first_at_s is None else first_at_s - ended.started_at_s,
        connections=counters["connections"],
        requests=counters["requests"],
        problem=_problem(scenario, contestant, ended.code, counters["billed"], out),
    )


def _problem(scenario: Scenario, contestant: Contestant, code: int, billed: int, out: Path) -> str | None:
    """Why a run does not count: it did not end well, did not ask for every row exactly once, or did not write every answer."""
    if code:
        return f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    rows = scenario.rows_for(contestant)
    wanted = rows if contestant.calls and not scenario.continues else 0
    if billed != wanted:
        return f"{billed:,} answers for {wanted:,} rows"
    if contestant.writes and (written := _lines(out)) != rows:
        return f"{written:,} of {rows:,} rows written"
    return None


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def rows_file(count: int) -> Path:
    """JSON lines, made once for each length."""
    path = WORK / f"rows-{count}.jsonl"
    if not path.is_file():
        WORK.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        with fresh.open("w") as file:
            for n in range(count):
                file.write(json.dumps({"id": f"r{n:07}", "text": _TEXT.replace("{n}", str(n))}) + "\n")
        fresh.replace(path)
    return path


def _environment(home: Path, errand: Errand, tls: Certificate | None) -> Mapping[str, str]:
    """Nothing of the caller's but PATH. What peers would fetch or report over the network is turned off, and litellm, which
    ondine uses too, gets a pool as large as the concurrency.
    """
    trust = {"SSL_CERT_FILE": str(tls.cert), "REQUESTS_CA_BUNDLE": str(tls.cert)} if tls else {}
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        # What a program keeps there outlives its run, as it would for any user.
        "XDG_CACHE_HOME": str(home.with_suffix(".cache")),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "sk-none",
        "OPENAI_BASE_URL": errand.base_url,
        "AIOHTTP_CONNECTOR_LIMIT": str(errand.concurrency),
        "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": str(errand.concurrency),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "TELEMETRY_ENABLED": "false",
        "HF_HUB_OFFLINE": "1",
        **trust,
    }


def _told(measure: Measure, contestant: Contestant) -> str:
    if measure.problem:
        return f"  {contestant.title:32} {measure.problem}"
    start = f"{measure.start_s:.2f}" if measure.start_s is not None else "-"
    return (
        f"  {contestant.title:32} {measure.rows:>7,} rows {measure.wall_s:7.2f} s  {measure.cpu_s:7.2f} s CPU  "
        f"start {start:>5} s  {measure.peak_rss_mb:6.0f} MB  {measure.connections:>6,} connections"
    )
