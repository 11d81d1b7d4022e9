"""A user's own chain: `--chain module:attr` or `./file.py:attr`, any LangChain Runnable, factory or function.

Imported from installed packages, from the named file and from `--app-dir` only; the working directory is not searched.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lcbatch import jsontext
from lcbatch.chains.output import to_json
from lcbatch.errors import ConfigError, UsageError
from lcbatch.job import ChainOptions, suggestion
from lcbatch.records import Fields, Json


@dataclass(frozen=True, slots=True)
class CustomChain:
    """A Runnable called with all fields of a row. What it raises is the row's failure, kind `chain`."""

    run: Callable[[Fields], Any]
    uses: frozenset[str] | None
    identity: Mapping[str, Json]

    def missing(self, fields: Fields) -> str | None:
        """Nothing is known of what it needs, but for the fields that `--key` names."""
        return next((name for name in sorted(self.uses or ()) if name not in fields), None)

    async def __call__(self, fields: Fields) -> Json:
        return to_json(await self.run(fields))


def load_custom(options: ChainOptions, key: str | None) -> CustomChain:
    """Import and build the chain. Raises ConfigError naming what is wrong, UsageError for a malformed option."""
    assert options.chain is not None
    module_name, separator, attribute = options.chain.rpartition(":")
    if not separator or not module_name:
        raise UsageError(
            f"--chain {options.chain!r} names no attribute",
            hint="write it like package.module:chain or ./file.py:chain",
        )
    module = _import(module_name, options.app_dir)
    target = _attribute(module, attribute, options.chain)
    arguments = _arguments(options.chain_arg)
    runnable = _built(target, arguments, options.chain)
    version = options.chain_version or _file_digest(module)
    identity = {"chain": options.chain, "arguments": arguments, "version": version}
    uses = frozenset(name.strip() for name in key.split(",")) if key else None
    return CustomChain(_as_async(runnable), uses, identity)


def _import(name: str, app_dir: str | None) -> ModuleType:
    path = Path(name)
    if path.suffix == ".py" or "/" in name:
        return _import_file(path)
    if app_dir is not None and app_dir not in sys.path:
        sys.path.append(app_dir)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise ConfigError(f"--chain {name}: it imports {error.name}, which is not installed") from error
        raise ConfigError(
            f"--chain: there is no module {name!r}",
            hint="name the file (./chains.py:attr), or its folder with --app-dir",
        ) from error
    except Exception as error:
        raise ConfigError(f"--chain {name}: importing it failed: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"--chain: there is no file {str(path)!r}", hint="write it like ./chains.py:attr")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--chain: {str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--chain {path}: importing it failed: {type(error).__name__}: {error}") from error
    return module


def _attribute(module: ModuleType, name: str, chain: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = {attribute: None for attribute in vars(found) if not attribute.startswith("_")}
            raise ConfigError(f"--chain {chain}: there is no {part!r} in it", hint=suggestion(part, known))
        found = getattr(found, part)
    return found


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
    """A Runnable as it is; a factory's product; a function of one row as it is."""
    if hasattr(target, "ainvoke"):
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
        raise ConfigError(f"--chain {chain}: the factory failed: {type(error).__name__}: {error}") from error
    if not hasattr(product, "ainvoke") and not callable(product):
        raise ConfigError(f"--chain {chain}: the factory returned a {type(product).__name__}, which cannot be run")
    return product


def _is_factory(target: Any, arguments: Mapping[str, Json]) -> bool:
    """A function is a factory when it can be called without a row: a row's function needs one positional argument."""
    if arguments:
        return True
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(
        parameter.default is not parameter.empty or parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        for parameter in parameters
    )


def _as_async(runnable: Any) -> Callable[[Fields], Any]:
    """One way to call it. What is only sync runs in a thread (LangChain's own `ainvoke` does the same)."""
    if hasattr(runnable, "ainvoke"):
        return lambda fields: runnable.ainvoke(dict(fields))
    if inspect.iscoroutinefunction(runnable):
        return lambda fields: runnable(dict(fields))
    return lambda fields: asyncio.to_thread(runnable, dict(fields))


def _file_digest(module: ModuleType) -> str:
    path = getattr(module, "__file__", None)
    if path is None:
        return ""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
