"""The harness: `python -m bench [--quick] [--only NAME,...] [--million]`. Results go to build/bench/results/."""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from collections.abc import Collection, Sequence
from typing import NoReturn

from bench import environments, machine, report
from bench.contestants import CONTESTANTS, Contestant
from bench.environments import UnavailableError
from bench.measures import Results
from bench.runner import Ready, measured
from bench.scenarios import MILLION, SCENARIOS, Scenario, quick


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    scenarios = _scenarios(options)
    field, skipped = _field(scenarios, options.only)
    machine.raise_file_limit()
    began_s = time.monotonic()
    described = machine.described()
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    signal.signal(signal.SIGTERM, _stopped)
    with machine.on_core(machine.CORES and machine.CORES[1]):
        measures = tuple(measured(scenarios, field, say))
    results = Results(
        when=when,
        machine=described,
        versions={r.contestant.name: environments.versions(r.python, r.contestant.packages) for r in field},
        skipped=skipped,
        quick=options.quick,
        took_s=time.monotonic() - began_s,
        measures=measures,
    )
    say(f"\n{report.write(results)}")
    return 0


def _stopped(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [one.name for one in (*SCENARIOS, *MILLION, *CONTESTANTS)]
    parser = argparse.ArgumentParser(prog="python -m bench", description="lcbatch beside what else one would use.")
    parser.add_argument("--quick", action="store_true", help="two minutes: no peers, no repetition")
    parser.add_argument("--million", action="store_true", help="a million rows as well, and the same again")
    parser.add_argument(
        "--only", metavar="NAME,...", type=lambda text: set(text.split(",")), default=set(), help=", ".join(names)
    )
    options = parser.parse_args(argv)
    unknown = sorted(options.only - set(names))
    if unknown:
        parser.error(f"--only: there is no {unknown[0]}; one of {', '.join(names)}")
    return options


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    usual = quick() if options.quick else SCENARIOS
    offered = [*usual, *(MILLION if options.million or options.only & {s.name for s in MILLION} else ())]
    return [one for one in offered if one.name in options.only] or offered


def _field(scenarios: Collection[Scenario], only: Collection[str]) -> tuple[list[Ready], dict[str, str]]:
    """Those who take part, installed; and who cannot, and why."""
    field: list[Ready] = []
    skipped: dict[str, str] = {}
    for contestant in _wanted(only):
        if not any(scenario.repetitions_for(contestant) for scenario in scenarios):
            continue
        try:
            field.append(Ready(contestant, contestant.python()))
        except UnavailableError as exc:
            skipped[contestant.name] = str(exc)
            say(f"{contestant.title}: skipped, {exc}")
    return field, skipped


def _wanted(only: Collection[str]) -> list[Contestant]:
    return [one for one in CONTESTANTS if one.name in only] or list(CONTESTANTS)


if __name__ == "__main__":
    sys.exit(main())
