"""What LangChain makes of a model's options, remembered between runs: the next one need not load LangChain to say the same.

Loading it takes longer than all else that stands before the first request. What is remembered holds as long as the packages it
came from are the same files; it is kept in the user's cache folder, and holds no key.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lcbatch import jsontext
from lcbatch.models.plain import Frame

CHAT = "/chat/completions"
"""What follows the base URL where chat completions are asked for."""

_AUTHORIZATION = "Authorization"
_SHORTEST_SECRET = 8
"""Local servers are given keys like `x` or `EMPTY`, which may stand in any text."""
_MADE_BY = {
    "langchain_openai": ("chat_models/base.py", "data/_profiles.py"),
    "openai": ("_version.py", "_base_client.py"),
    "lcbatch": ("models/outline.py", "models/plain.py", "models/openai.py", "models/shaping.py"),
}
"""The files that decide an outline. That of a package that was exchanged has another time."""


@dataclass(frozen=True, slots=True)
class Outline:
    """All that a plain request to one model needs: where it goes, its headers, its body's frame.

    `headers` hold the key, which no text of an outline does. `longest` is the most tokens an answer can have, None where that is
    not known, `context` the most that the model takes in. `objects` is the way in which it is asked for an object.
    """

    address: str
    headers: Mapping[str, str]
    frame: Frame
    longest: int | None
    objects: str = "native"
    context: int | None = None

    def text(self, key: str) -> str | None:
        """As JSON; None for one that cannot be kept, since the key stands elsewhere than where it belongs."""
        if self.headers.get(_AUTHORIZATION) != f"Bearer {key}":
            return None
        headers = {name: value for name, value in self.headers.items() if name != _AUTHORIZATION}
        text = jsontext.dumps(
            {
                "address": self.address,
                "headers": headers,
                "longest": self.longest,
                "objects": self.objects,
                "context": self.context,
                "head": self.frame.head.decode(),
                "frame_headers": dict(self.frame.headers),
                "roles": None if self.frame.roles is None else dict(self.frame.roles),
            }
        )
        return None if len(key) >= _SHORTEST_SECRET and key in text else text

    @classmethod
    def read(cls, text: str) -> Outline:
        """An outline without its key. Raises ValueError, LookupError, TypeError, AttributeError for any other text."""
        found = jsontext.loads(text)
        frame = Frame(found["head"].encode(), _texts(found["frame_headers"]), found["roles"] and _texts(found["roles"]))
        longest, context = found["longest"], found["context"]
        if not isinstance(found["address"], str) or not all(
            one is None or isinstance(one, int) for one in (longest, context)
        ):
            raise TypeError("no outline")
        return cls(found["address"], _texts(found["headers"]), frame, longest, str(found["objects"]), context)

    def with_key(self, key: str) -> Outline:
        """The same, ready to be used."""
        return replace(self, headers={**self.headers, _AUTHORIZATION: f"Bearer {key}"})


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise TypeError("no texts by name")
    return value


class Memory:
    """Outlines in files of their own, one for each way to set a model up. One that cannot be read is as if there were none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, setup: Mapping[str, Any], base_url: str | None, key: str) -> Outline | None:
        """What was remembered of a model set up so, for the address at which it is now. `base_url` None: the provider's own."""
        try:
            outline = Outline.read(self._file(setup).read_text(encoding="utf-8")).with_key(key)
            return outline if base_url is None else replace(outline, address=base_url.rstrip("/") + CHAT)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, setup: Mapping[str, Any], key: str, outline: Outline) -> None:
        """Remember it, if that can be done."""
        text = outline.text(key)
        if text is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder)  # 0600
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self._file(setup))  # noqa: PTH105 - of a text

    def _file(self, setup: Mapping[str, Any]) -> Path:
        known = jsontext.canonical({"setup": dict(setup), "made_by": _stamps(), "python": sys.version})
        return self._folder / f"model-{jsontext.digest(known).hex()}.json"


def memory_of(env: Mapping[str, str]) -> Memory | None:
    """The user's cache folder, $XDG_CACHE_HOME/lcbatch.

    None where there is none, and where the environment sets up OpenAI's client in more ways than by key and address.
    """
    if any(name.startswith(_SET_IT_UP) and name not in _TAKEN_INTO_ACCOUNT and value for name, value in env.items()):
        return None
    cache = env.get("XDG_CACHE_HOME") or (f"{env['HOME']}/.cache" if env.get("HOME") else "")
    return Memory(Path(cache) / "lcbatch") if cache.startswith("/") else None


_SET_IT_UP = ("OPENAI_", "LANGSMITH_GATEWAY")
_TAKEN_INTO_ACCOUNT = frozenset({"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"})


def _stamps() -> list[list[Any]]:
    stamps = []
    for package, files in _MADE_BY.items():
        spec = find_spec(package)  # finds it without loading it
        for folder in spec.submodule_search_locations or () if spec is not None else ():
            for file in files:
                path = os.path.join(folder, file)  # noqa: PTH118 - half a dozen of them at every start
                known = os.stat(path)  # noqa: PTH116
                stamps.append([path, known.st_mtime_ns, known.st_size])
    return stamps
