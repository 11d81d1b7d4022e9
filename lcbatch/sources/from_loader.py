"""Text of a document through a LangChain document loader that the user names."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from lcbatch.errors import ConfigError
from lcbatch.sources.extract import Extraction


def extract(asked: Extraction) -> str:
    """What `Class(path).load()` gives, its parts set apart by blank lines. Raises ConfigError for a missing module."""
    spec = asked.loader or ""
    loader = _class_of(spec)
    try:
        loaded = loader(asked.path).load()
    except ImportError as missing:
        raise ConfigError(
            f"{spec} needs a package that is not installed: {missing}", hint=_pip(missing.name)
        ) from missing
    return "\n\n".join(str(document.page_content) for document in loaded)


def _class_of(spec: str) -> Any:
    module_name, colon, class_name = spec.partition(":")
    if not colon or not module_name or not class_name:
        raise ConfigError(f"--loader cannot be {spec!r}", hint="write it like package.module:Class")
    try:
        with warnings.catch_warnings():
            # langchain-community tells everybody that it is no longer maintained; whoever names it here has chosen it.
            warnings.filterwarnings("ignore", message=".*langchain-community.*", category=DeprecationWarning)
            module = importlib.import_module(module_name)
            return getattr(module, class_name)
    except ImportError as missing:
        hint = _pip(missing.name or module_name)
        raise ConfigError(f"--loader {spec} cannot be imported: {missing}", hint=hint) from missing
    except AttributeError as missing:
        raise ConfigError(
            f"--loader {spec}: {module_name} has no {class_name}", hint="check the class's name"
        ) from missing


def _pip(module: str | None) -> str:
    package = (module or "the package").partition(".")[0]
    return (
        "pip install 'lcbatch[community]'"
        if package == "langchain_community"
        else f"pip install {package.replace('_', '-')}"
    )
