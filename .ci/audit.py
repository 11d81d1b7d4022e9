"""Asks a database of known vulnerabilities about the packages of constraints.txt, and says so in words where none can be reached.

Ends with 1 for a package with a known vulnerability alone: without a network, or with a database that knows none of the packages,
there is nothing to be told. A clean answer holds for a day.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PINNED = _ROOT / "constraints.txt"
_CLEAN = Path(sys.prefix) / ".audited"
_DAY_S = 86_400
_MOST_S = 18
_EACH_S = 4


def main() -> int:
    """The exit code."""
    if _CLEAN.exists() and _CLEAN.stat().st_mtime > max(_PINNED.stat().st_mtime, time.time() - _DAY_S):
        return _say("no known vulnerability, as of less than a day ago")
    asked = [sys.executable, "-m", "pip_audit", "--requirement", str(_PINNED), "--no-deps", "--disable-pip"]
    quiet = ["--format", "json", "--timeout", str(_EACH_S), "--progress-spinner", "off"]
    try:
        done = subprocess.run([*asked, *quiet], capture_output=True, text=True, timeout=_MOST_S, check=False)
    except subprocess.TimeoutExpired:
        return _say(f"skipped: the database did not answer within {_MOST_S} s")
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _say(f"skipped: no database could be reached ({why[:200]})")
    return _judged(packages)


def _judged(packages: list[dict[str, object]]) -> int:
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        return _say("skipped: the database that can be reached knows none of the packages")
    bad = [package for package in known if package.get("vulns")]
    for package in bad:
        found = package["vulns"]
        names = ", ".join(str(one.get("id")) for one in found) if isinstance(found, list) else found
        _say(f"{package['name']} {package['version']}: {names}")
    if bad:
        return 1
    _CLEAN.touch()
    return _say(f"{len(known)} packages, no known vulnerability ({len(packages) - len(known)} not in the database)")


def _say(text: str) -> int:
    sys.stdout.write(f"pip-audit: {text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
