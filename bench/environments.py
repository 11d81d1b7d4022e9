"""Virtual environments of the peers: made once with pip alone, kept in the build folder, remade when their pins change.

Wheels only: a source distribution would run code of its own at install. litellm is pinned wherever it comes in, to a release from
between its two compromised ones (1.82.7 and 1.82.8 of March 2026, 1.107.0 of October 2026) that pip can still resolve.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "build" / "bench"
_INSTALL_TIMEOUT_S = 1200
_LONGEST_REASON = 160
_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


class UnavailableError(Exception):
    """It could not be made; the message is pip's."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment and the requirements that it holds, each pinned."""

    name: str
    requirements: tuple[str, ...]

    def python(self) -> Path:
        """Its interpreter, installed first where need be. Raises UnavailableError."""
        home = FOLDER / "env" / self.name
        python, ready = home / "bin" / "python", home / "ready"
        wanted = "\n".join(self.requirements)
        if not (ready.is_file() and ready.read_text() == wanted):
            _run([sys.executable, "-m", "venv", "--clear", str(home)])
            _run([str(python), "-m", "pip", "install", "--only-binary", ":all:", *_QUIET, *self.requirements])
            ready.write_text(wanted)
        return python


_QUIET = ("--quiet", "--disable-pip-version-check", "--no-input")
_LITELLM = "litellm==1.100.5"

TOOLS = Environment("tools", ("cryptography==50.0.2",))
LITELLM = Environment("litellm", (_LITELLM,))
BATCHLLM = Environment("batchllm-ai", ("batchllm-ai==0.2.0",))
FLEXLLM = Environment("flexllm", ("flexllm==0.17.10",))
ONDINE = Environment("ondine", ("ondine==2.1.1", _LITELLM))
CURATOR = Environment("bespokelabs-curator", ("bespokelabs-curator==0.1.31",))  # it pins litellm 1.83.7 itself


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Of the named packages, as installed there."""
    found = subprocess.run([python, "-c", _VERSIONS, *packages], capture_output=True, text=True, check=True)
    answer: dict[str, str] = json.loads(found.stdout)
    return answer


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"not installed within {_INSTALL_TIMEOUT_S} s") from exc
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["ERROR: pip failed"]
        reason = errors[0].removeprefix("ERROR:").partition(" (from versions")[0].strip()
        raise UnavailableError(f"does not install: {reason[:_LONGEST_REASON]}")
