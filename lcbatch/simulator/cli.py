"""The simulator's command line, for `python -m lcbatch.simulator`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lcbatch.simulator.choices import LedgerDepth, RateHeaders, RetryAfterForm
from lcbatch.simulator.server import Binding, run_blocking
from lcbatch.simulator.settings import Settings, SettingsError

_NUMBERS = (
    ("--latency", "latency_s", float, "seconds to an answer; the mean with --latency-sigma"),
    ("--latency-sigma", "latency_sigma", float, "sigma of a lognormal latency"),
    ("--latency-per-token", "latency_per_token_s", float, "seconds more for each token of an answer"),
    ("--saturate-at", "saturate_at", int, "parallel servers; the rest waits in line"),
    ("--rpm", "rpm", float, "requests a minute"),
    ("--tpm", "tpm", float, "tokens a minute"),
    ("--burst", "burst_s", float, "seconds' worth of its rate that a limit holds (60)"),
    ("--max-concurrency", "max_concurrency", int, "429 beyond this many in flight"),
    ("--retry-after-s", "retry_after_s", float, "what Retry-After says, instead of the computed wait"),
    ("--quota-after", "quota_after", int, "calls until insufficient_quota"),
    ("--answer-tokens", "answer_tokens", int, "words in an answer (16)"),
    ("--answer-sigma", "answer_sigma", float, "sigma of a lognormal answer length"),
    ("--context-tokens", "context_tokens", int, "the context window"),
    ("--seed", "seed", int, "of everything random (0)"),
)
_CHOICES = (
    ("--retry-after", "retry_after", RetryAfterForm, "the form of Retry-After"),
    ("--rate-headers", "rate_headers", RateHeaders, "whose rate headers"),
    ("--ledger", "ledger", LedgerDepth, "how much of each billed call is kept"),
)


def main(argv: Sequence[str] | None = None, prog: str = "python -m lcbatch.simulator") -> int:
    """Parse, serve until a signal, return the exit code. Ends by SystemExit(2) on bad usage."""
    parser = _parser(prog)
    given = parser.parse_args(argv)
    try:
        settings = _settings(given)
    except SettingsError as exc:
        parser.error(str(exc))
    binding = Binding(
        port=given.port,
        port_file=given.port_file,
        ledger_file=given.ledger_file,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        until_stdin_ends=given.until_stdin_ends,
    )
    try:
        return run_blocking(settings, binding)
    except OSError as exc:
        parser.exit(74, f"error: {exc}\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="An OpenAI-shaped provider on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    for name in ("--port-file", "--ledger-file", "--tls-cert", "--tls-key"):
        parser.add_argument(name, type=Path, metavar="PATH")
    for flag, field, kind, text in _NUMBERS:
        parser.add_argument(flag, dest=field, type=kind, help=text)
    for flag, field, choices, text in _CHOICES:
        parser.add_argument(flag, dest=field, choices=get_args(choices), help=text)
    parser.add_argument("--fault", action="append", metavar="NAME=RATE", help="a fault at a probability of 0 to 1")
    parser.add_argument("--schedule", action="append", metavar="SPEC", help="10-20:503, #5-#9:html, #7:cut@0.5")
    parser.add_argument("--require-key", metavar="KEY", help="the one API key let in")
    parser.add_argument("--down", action="store_true", default=None, help="start with an outage")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end when stdin does")
    parser.add_argument("--settings", metavar="JSON", help="any settings by name; flags win over it")
    return parser


def _settings(given: argparse.Namespace) -> Settings:
    try:
        changes: dict[str, Any] = json.loads(given.settings) if given.settings else {}
    except ValueError as exc:
        raise SettingsError(f"--settings is no JSON: {exc}") from exc
    if not isinstance(changes, dict):
        raise SettingsError("--settings must be a JSON object")
    fields = [field for _, field, *_ in (*_NUMBERS, *_CHOICES)] + ["schedule", "require_key", "down"]
    changes |= {field: getattr(given, field) for field in fields if getattr(given, field) is not None}
    if given.fault:
        changes["faults"] = dict(map(_fault, given.fault))
    return Settings().changed(changes)


def _fault(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    try:
        return name, float(rate or 1)
    except ValueError as exc:
        raise SettingsError(f"--fault {text!r} is not NAME=RATE") from exc
