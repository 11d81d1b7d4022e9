"""`lcbatch doctor`: what is wrong here, and how to mend it."""

from __future__ import annotations

import importlib.util
import os
import resource
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lcbatch.cli.config import config_options
from lcbatch.cli.options import job_options
from lcbatch.errors import LcbatchError, exit_code_of
from lcbatch.job import RUN, Job, declared_options
from lcbatch.sources.rows import printable
from lcbatch.store.lock import refuse_network_file_system
from lcbatch.world import working_folder

if TYPE_CHECKING:
    from lcbatch.chains.custom import CustomChain

_OPTIONS = frozenset(spec.name for group, spec in declared_options() if group == "model") | {"chain", "app_dir"}
_EXTRAS = {
    "parquet": "pyarrow",
    "zstd": "zstandard",
    "pdfium": "pypdfium2",
    "community": "langchain_community",
    "providers": "langchain",
}
_FEW_FILES = 1024


@dataclass(frozen=True, slots=True)
class _Finding:
    good: bool
    what: str
    remedy: str = ""
    exit_code: int = 0


@job_options(RUN, only=_OPTIONS)
def doctor(given: dict[str, Any]) -> int:
    """Check this machine, and with -m or --chain the model and chain that a run would use. Makes no call."""
    code = 0
    for finding in _findings(given):
        typer.echo(f"{'ok  ' if finding.good else 'BAD '} {finding.what}")
        if finding.remedy:
            typer.echo(f"       {finding.remedy}")
        code = code or finding.exit_code
    return code


def _findings(given: dict[str, Any]) -> Iterator[_Finding]:
    yield _Finding(good=True, what=f"lcbatch {version('lcbatch')}, Python {sys.version.split()[0]}, {sys.platform}")
    yield from _packages()
    yield _files()
    yield _certificates()
    yield from _environment()
    yield _config()
    yield _folder()
    if given:
        yield from _job(given)


def _packages() -> Iterator[_Finding]:
    for name in ("langchain-core", "langchain-openai", "openai", "aiohttp", "uvloop"):
        try:
            yield _Finding(good=True, what=f"{name} {version(name)}")
        except PackageNotFoundError:
            yield _Finding(good=name == "uvloop", what=f"{name} is not installed", remedy=f"pip install {name}")
    missing = [extra for extra, module in _EXTRAS.items() if importlib.util.find_spec(module) is None]
    if missing:
        yield _Finding(
            good=True,
            what=f"extras not installed: {', '.join(missing)}",
            remedy=f"pip install 'lcbatch[{','.join(missing)}]'",
        )


def _files() -> _Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= _FEW_FILES
    remedy = "" if enough else "one call in flight takes one: raise it with ulimit -n 4096"
    return _Finding(good=enough, what=f"open files: {soft} at most", remedy=remedy)


def _certificates() -> _Finding:
    paths = ssl.get_default_verify_paths()
    file = os.environ.get("SSL_CERT_FILE") or paths.cafile
    found = bool(file and Path(file).exists()) or bool(paths.capath and Path(paths.capath).is_dir())
    remedy = "" if found else "install ca-certificates, or point SSL_CERT_FILE at a bundle"
    return _Finding(good=found, what=f"TLS certificates: {file or paths.capath or 'none'}", remedy=remedy)


def _environment() -> Iterator[_Finding]:
    keys = sorted(name for name in os.environ if name.endswith("_API_KEY") and os.environ[name])
    yield _Finding(good=True, what=f"keys in the environment: {', '.join(keys) or 'none'}")
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        if os.environ.get(name, "").lower() in {"true", "1"}:
            yield _Finding(good=True, what=f"{name} is set: custom chains send their inputs and outputs to LangSmith")


def _config() -> _Finding:
    try:
        options = config_options(RUN, None, working_folder())
    except LcbatchError as error:
        return _Finding(good=False, what=error.message, remedy=error.hint, exit_code=exit_code_of(error))
    return _Finding(good=True, what=f"config file: {', '.join(sorted(options)) or 'none, or nothing in it'}")


def _folder() -> _Finding:
    try:
        here = working_folder()
        refuse_network_file_system(here)
    except LcbatchError as error:
        return _Finding(good=False, what=error.message, remedy=error.hint)
    return _Finding(good=True, what=f"{printable(str(here))} can hold a run store")


def _job(given: dict[str, Any]) -> Iterator[_Finding]:
    """Whether the model and the chain can be built."""
    from lcbatch.chains.custom import load_custom  # noqa: PLC0415 - LangChain loads only where it is asked about
    from lcbatch.models import load_model  # noqa: PLC0415

    job = Job.of(**given)
    try:
        if job.model.model is not None:
            yield _Finding(good=True, what=f"model: {load_model(job.model, env=os.environ, connections=1).label}")
        if job.chain.chain is not None:
            own = load_custom(job.chain, None)
            yield _Finding(good=True, what=f"chain: {job.chain.chain}")
            yield from _parts(own)
    except LcbatchError as error:
        yield _Finding(good=False, what=error.message, remedy=error.hint, exit_code=exit_code_of(error))


def _parts(chain: CustomChain) -> Iterator[_Finding]:
    """How a run would run each part of the chain."""
    for part in chain.parts:
        way = "as plain calls" if part.why is None else f"as itself: {part.why}"
        yield _Finding(good=True, what=" ".join(filter(None, ("  part", part.at, f"{part.what},", way))))
    if not any(part.why is None for part in chain.parts):
        return
    from lcbatch.chains.compiled.chain import held_back  # noqa: PLC0415 - LangChain loads only where it is asked about

    why = held_back()
    if why is not None:
        yield _Finding(good=True, what=f"  for now all parts run as themselves: {why}")
