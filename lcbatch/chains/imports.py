"""Modules that options name: `module:attr` or `./file.py:attr`.

Imported from installed packages, from the named file and from `--app-dir` only; the working directory is not searched.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lcbatch.errors import ConfigError
from lcbatch.optionvalues import suggestion


def import_module(name: str, app_dir: str | None, *, option: str) -> ModuleType:
    """The module or Python file of this name, for the option that names it. Raises ConfigError."""
    if app_dir is not None:
        _add_app_dir(app_dir)
    path = Path(name)
    is_file = path.suffix == ".py" or "/" in name
    try:
        with _working_directory_unsearched():
            return _import_file(path, option) if is_file else importlib.import_module(name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        lacks = error.name or ""
        if not is_file and (name == lacks or name.startswith(f"{lacks}.")):
            hint = "name the file (./file.py:attr), or its folder with --app-dir"
            raise ConfigError(f"{option}: there is no module {name!r}", hint=hint) from error
        raise ConfigError(
            f"{option} {name}: it imports {lacks}, which is not installed",
            hint=f"pip install {lacks.partition('.')[0]}, or name the folder that holds it with --app-dir",
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{option} {name}: importing it failed: {type(error).__name__}: {error}",
            hint="mend that; python -c 'import ...' shows where it is",
        ) from error


def _add_app_dir(folder: str) -> None:
    if not Path(folder).is_dir():
        raise ConfigError(f"--app-dir: there is no folder {folder!r}", hint="name the folder that holds your module")
    if folder not in sys.path:
        sys.path.append(folder)


@contextmanager
def _working_directory_unsearched() -> Iterator[None]:
    """`python -m lcbatch` puts the working directory first on sys.path: whatever lies there would be run unasked."""
    first = sys.path[0] if sys.path else None
    if first is None or Path(first).resolve() != Path.cwd():
        yield
        return
    sys.path.remove(first)
    try:
        yield
    finally:
        sys.path.insert(0, first)


def _import_file(path: Path, option: str) -> ModuleType:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], n=1)
        hint = f"did you mean {str(path.with_name(near[0]))!r}?" if near else "write it like ./file.py:attr"
        raise ConfigError(f"{option}: there is no file {str(path)!r}", hint=hint)
    name = f"lcbatch_chain_{path.stem}"  # a file named like a package that others import must not stand for it
    if path.suffix != ".py":
        raise ConfigError(f"{option}: {str(path)!r} is no Python file", hint="its name has to end in .py")
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    # Not through an import loader: its bytecode cache tells files apart by second and size, and would run an edit's forerunner.
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - running it is what was asked for
    return module


def attribute_of(module: ModuleType, name: str, *, said: str) -> Any:
    """What stands under a dotted name in a module; `said` is the option as it was given. Raises ConfigError."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = {attribute: None for attribute in dir(found) if not attribute.startswith("_")}
            raise ConfigError(f"{said}: there is no {part!r} in it", hint=suggestion(part, known))
        found = getattr(found, part)
    return found


def file_digest(module: ModuleType) -> str:
    """A hash of the module's file, "" where there is none to read."""
    path = getattr(module, "__file__", None)
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest() if path else ""
    except OSError:  # out of a zip file: what is in there changes with the package
        return ""
