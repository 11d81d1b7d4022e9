"""A user's own chain: `--chain module:attr` or `./file.py:attr`, any LangChain Runnable, factory or function.

Imported from installed packages, from the named file and from `--app-dir` only; the working directory is not searched.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lcbatch import jsontext
from lcbatch.chains.imports import attribute_of, file_digest, import_module
from lcbatch.chains.inputs import NOTHING, Needs, of_function
from lcbatch.chains.output import to_json
from lcbatch.errors import ConfigError, UsageError
from lcbatch.job import ChainOptions
from lcbatch.records import Fields, Json

if TYPE_CHECKING:
    from lcbatch.chains.compiled.chain import PartReport


@dataclass(frozen=True, slots=True)
class CustomChain:
    """A Runnable called with all fields of a row, or with one value if it takes no object. What it raises is the row's failure,
    kind `chain`.

    `parts` says how each of its parts is run; it is empty for functions, and where compiling was not wanted.
    """

    run: Callable[[Any], Any]
    uses: frozenset[str] | None
    identity: Mapping[str, Json]
    parts: tuple[PartReport, ...] = ()
    needs: Needs = NOTHING

    def missing(self, fields: Fields) -> str | None:
        """The first field that `--key` or the chain's own input schema names and the row lacks."""
        unkeyed = next((name for name in sorted(self.uses or ()) if name not in fields), None)
        return unkeyed or self.needs.missing(fields, self._key)

    async def __call__(self, fields: Fields) -> Json:
        return to_json(await self.run(self.needs.value(fields, self._key)))

    @property
    def _key(self) -> str | None:
        """The one field that --key names."""
        return next(iter(self.uses)) if self.uses is not None and len(self.uses) == 1 else None


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
    if _is_runnable(runnable):
        return _of_runnable(
            runnable, attribute, CustomChain(runnable, uses or None, identity), compiled=options.compile
        )
    needs = NOTHING if hasattr(runnable, "ainvoke") else of_function(runnable)
    return CustomChain(_as_async(runnable), uses or None, identity, needs=needs)


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
            f"--chain {chain} names a value of type {type(target).__name__}",
            hint="name a Runnable, a factory or a function",
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


def _is_runnable(target: Any) -> bool:
    core = sys.modules.get("langchain_core.runnables")  # where nobody has imported it, there is no Runnable
    return core is not None and isinstance(target, core.Runnable)


def _of_runnable(runnable: Any, attribute: str, chain: CustomChain, *, compiled: bool) -> CustomChain:
    """The chain over a LangChain Runnable, as plain calls where that is wanted.

    It is given a config that says whose row it is, for callbacks, tracers and whatever else looks at it.
    """
    from lcbatch.chains.compiled.inputs import of_runnable  # noqa: PLC0415 - LangChain loads late
    from lcbatch.chains.naming import listening, row_config, run_name  # noqa: PLC0415

    name, needs = run_name(runnable, attribute), of_runnable(runnable)
    if not compiled:
        return replace(chain, run=lambda value: runnable.ainvoke(value, listening(row_config(name))), needs=needs)
    from lcbatch.chains.compiled.chain import compile_chain  # noqa: PLC0415 - imports what a function does not need

    calls = compile_chain(runnable, listening, lambda: row_config(name))
    return replace(chain, run=calls, parts=tuple(calls.report), needs=needs)


def _as_async(runnable: Any) -> Callable[[Any], Any]:
    """One way to call it. What is only sync runs in a thread (LangChain's own `ainvoke` does the same)."""
    if hasattr(runnable, "ainvoke"):
        call: Callable[[Any], Any] = runnable.ainvoke
        return call
    return _in_config(_function(runnable))


def _function(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return function
    return lambda value: asyncio.to_thread(_in_thread, function, value)


def _in_config(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function whose Runnables, if it calls any, find the row's config around them, as in a chain of LangChain's."""
    if "langchain_core.runnables" not in sys.modules:  # it may import them later: then they know nothing of the row
        return run
    from langchain_core.runnables.config import var_child_runnable_config  # noqa: PLC0415 - LangChain is there already

    from lcbatch.chains.naming import listening, row_config  # noqa: PLC0415

    async def call(value: Any) -> Any:
        token = var_child_runnable_config.set(listening(row_config(None), outermost=True))
        try:
            return await run(value)
        finally:
            var_child_runnable_config.reset(token)

    return call


def _in_thread(function: Callable[[Any], Any], value: Any) -> Any:
    """StopIteration never leaves a thread: asyncio cannot hand it on, and the row would wait for ever."""
    try:
        return function(value)
    except StopIteration as error:
        raise RuntimeError("the chain raised StopIteration") from error
