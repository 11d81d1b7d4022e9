"""A user's own chain: `--chain module:attr` or `./file.py:attr`, any LangChain Runnable, factory or function.

Imported from installed packages, from the named file and from `--app-dir` only; the working directory is not searched.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcbatch import jsontext
from lcbatch.chains.imports import attribute_of, file_digest, import_module
from lcbatch.chains.output import to_json
from lcbatch.errors import ConfigError, UsageError
from lcbatch.job import ChainOptions
from lcbatch.records import Fields, Json

if TYPE_CHECKING:
    from lcbatch.chains.compiled.chain import PartReport


@dataclass(frozen=True, slots=True)
class CustomChain:
    """A Runnable called with all fields of a row. What it raises is the row's failure, kind `chain`.

    `parts` says how each of its parts is run; it is empty for functions, and where compiling was not wanted.
    """

    run: Callable[[Fields], Any]
    uses: frozenset[str] | None
    identity: Mapping[str, Json]
    parts: tuple[PartReport, ...] = ()

    def missing(self, fields: Fields) -> str | None:
        """Nothing is known of what it needs, but for the fields that `--key` names."""
        return next((name for name in sorted(self.uses or ()) if name not in fields), None)

    async def __call__(self, fields: Fields) -> Json:
        return to_json(await self.run(fields))


def load_custom(options: ChainOptions, key: str | None) -> CustomChain:
    """Import and build the chain. Raises ConfigError naming what is wrong, UsageError for a malformed option."""
    assert options.chain is not None
    module_name, _, attribute = options.chain.rpartition(":")
    if not module_name or not attribute:
        raise UsageError(
            f"--chain {options.chain!r} names no attribute",
            hint="write it like package.module:chain or ./file.py:chain",
        )
    module = import_module(module_name, options.app_dir, option="--chain")
    target = attribute_of(module, attribute, said=f"--chain {options.chain}")
    arguments = _arguments(options.chain_arg)
    runnable = _built(target, arguments, options.chain)
    version = options.chain_version or file_digest(module)
    identity = {"chain": options.chain, "arguments": arguments, "version": version}
    uses = frozenset(name.strip() for name in (key or "").split(",")) - {""}
    run, parts = _compiled(runnable) if options.compile else (None, ())
    return CustomChain(run or _as_async(runnable), uses or None, identity, parts)


def _arguments(texts: tuple[str, ...]) -> dict[str, Json]:
    arguments: dict[str, Json] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--chain-arg {text!r} has no '='", hint="write it like model=gpt-5-mini")
        try:
            arguments[name] = jsontext.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


def _built(target: Any, arguments: Mapping[str, Json], chain: str) -> Any:
    """A Runnable as it is; a factory's (or a class's) product; a function of one row as it is."""
    if hasattr(target, "ainvoke") and not isinstance(target, type):
        if arguments:
            raise ConfigError(f"--chain {chain} is a Runnable and takes no --chain-arg", hint="name a factory function")
        return target
    if not callable(target):
        raise ConfigError(
            f"--chain {chain} is a {type(target).__name__}", hint="name a Runnable, a factory or a function"
        )
    if not _is_factory(target, arguments):
        return target
    try:
        product = target(**arguments)
    except Exception as error:
        raise ConfigError(
            f"--chain {chain}: the factory failed: {type(error).__name__}: {error}",
            hint="mend that, or give it what it needs with --chain-arg",
        ) from error
    if inspect.iscoroutine(product):
        product.close()
    if not hasattr(product, "ainvoke") and not callable(product):
        raise ConfigError(
            f"--chain {chain}: the factory returned a {type(product).__name__}, which cannot be run",
            hint="let a plain function return a Runnable, or let it take the row's fields as its argument",
        )
    return product


def _is_factory(target: Any, arguments: Mapping[str, Json]) -> bool:
    """A function is a factory when it can be called without a row: a row's function needs one positional argument."""
    if arguments or isinstance(target, type):
        return True
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(
        parameter.default is not parameter.empty or parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        for parameter in parameters
    )


def _compiled(runnable: Any) -> tuple[Callable[[Fields], Any] | None, tuple[PartReport, ...]]:
    """A LangChain Runnable as plain calls; of anything else there are no parts."""
    core = sys.modules.get("langchain_core.runnables")  # where nobody has imported it, there is no Runnable
    if core is None or not isinstance(runnable, core.Runnable):
        return None, ()
    from lcbatch.chains.compiled.chain import compile_chain  # noqa: PLC0415 - imports what a function does not need

    compiled = compile_chain(runnable)
    return (lambda fields: compiled(dict(fields))), tuple(compiled.report)


def _as_async(runnable: Any) -> Callable[[Fields], Any]:
    """One way to call it. What is only sync runs in a thread (LangChain's own `ainvoke` does the same)."""
    if hasattr(runnable, "ainvoke"):
        return lambda fields: runnable.ainvoke(dict(fields))
    if inspect.iscoroutinefunction(runnable) or inspect.iscoroutinefunction(type(runnable).__call__):
        return lambda fields: runnable(dict(fields))
    return lambda fields: asyncio.to_thread(_in_thread, runnable, dict(fields))


def _in_thread(function: Callable[[dict[str, Json]], Any], fields: dict[str, Json]) -> Any:
    """StopIteration never leaves a thread: asyncio cannot hand it on, and the row would wait for ever."""
    try:
        return function(fields)
    except StopIteration as error:
        raise RuntimeError("the chain raised StopIteration") from error
