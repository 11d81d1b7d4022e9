# Paths stay text as the user wrote them, undecodable bytes included; and this loop sees every file.
# ruff: noqa: PTH100, PTH112, PTH113, PTH114, PTH118, PTH122
"""Walking a folder: lazily, sorted, and never out of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Final

from lcbatch.errors import InputMissing
from lcbatch.sources.formats import DOCUMENT_SUFFIXES
from lcbatch.sources.rows import printable


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts in a folder. `any_suffix`: a document loader of the user's own decides what it can read.

    `own_outputs` are real paths of what lcbatch writes: files, or folders with all that is in them.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    any_suffix: bool = False
    own_outputs: frozenset[str] = frozenset()

    def wants(self, relative: str) -> bool:
        """Whether the globs let a file in; they are matched against its relative path and its name."""
        return not self.excludes(relative) and (not self.include or _matches(relative, self.include))

    def excludes(self, relative: str) -> bool:
        return _matches(relative, self.exclude)

    def knows(self, relative: str) -> bool:
        """Whether a document has this suffix."""
        return self.any_suffix or os.path.splitext(relative)[1].lower() in DOCUMENT_SUFFIXES


@dataclass(frozen=True, slots=True)
class Found:
    """One document: where it lies, what messages call it, and the user's label. `problem`: it could not be listed."""

    path: str
    shown: str
    label: str
    problem: str | None = None


@dataclass(slots=True)
class Walk:
    """One walk through a folder. Owned by whoever iterates; `passed_over` counts by suffix what is no document."""

    root: str
    rules: Rules
    label_prefix: str = ""
    passed_over: Counter[str] = field(default_factory=Counter)
    _followed: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Found]:
        """Documents in the order of their names, folder by folder; blocking, so not for the event loop.

        Hidden names are left out. A link is followed where it leads to something inside the folder that the walk would
        not come to by itself, and once; so a loop ends and nothing comes twice.
        """
        self.passed_over.clear()
        self._followed.clear()
        real_root = os.path.realpath(self.root)
        open_folders = [iter(self._entries(""))]
        while open_folders:
            relative = next(open_folders[-1], None)
            if relative is None:
                open_folders.pop()
            elif isinstance(relative, Found):
                yield relative
            elif self._is_folder(relative, real_root):
                open_folders.append(iter(self._entries(relative)))
            elif self._takes(relative, real_root):
                yield self._found(relative)

    def _entries(self, folder: str) -> list[str | Found]:
        """Relative paths of what stands in a folder, sorted."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as problem:
            return [self._found(folder, f"cannot be listed ({problem.strerror})")]
        return [f"{folder}/{name}" if folder else name for name in names]

    def _found(self, relative: str, problem: str | None = None) -> Found:
        path = os.path.join(self.root, relative)
        label = printable(self.label_prefix + relative)
        return Found(os.path.abspath(path), printable(path), label, problem)

    def _is_folder(self, relative: str, real_root: str) -> bool:
        """Whether to go in here; a folder that is not entered is silently left out."""
        path = os.path.join(self.root, relative)
        return (
            os.path.isdir(path)
            and not self.rules.excludes(relative)
            and not self._is_own(path)
            and self._is_new(path, real_root)
        )

    def _takes(self, relative: str, real_root: str) -> bool:
        path = os.path.join(self.root, relative)
        if os.path.isdir(path) or not self.rules.wants(relative) or self._is_own(path):
            return False
        if not self.rules.knows(relative) or not os.path.isfile(path):
            self.passed_over[os.path.splitext(relative)[1].lower() or "no suffix"] += 1
            return False
        return self._is_new(path, real_root)

    def _is_own(self, path: str) -> bool:
        return bool(self.rules.own_outputs) and os.path.realpath(path) in self.rules.own_outputs

    def _is_new(self, path: str, real_root: str) -> bool:
        if not os.path.islink(path):
            return True
        target = os.path.realpath(path)
        inside = os.path.relpath(target, real_root)
        if inside.startswith(os.pardir):
            self.passed_over["links out of the folder"] += 1
            return False
        if target in self._followed or self._is_walked_anyway(target, inside):
            return False
        self._followed.add(target)
        return True

    def _is_walked_anyway(self, target: str, inside: str) -> bool:
        """Whether the walk comes to what a link leads to by its own way too."""
        hidden = any(part.startswith(".") for part in PurePath(inside).parts)
        taken = os.path.isdir(target) or (self.rules.wants(inside) and self.rules.knows(inside))
        return not hidden and taken


_MOST_SUFFIXES_NAMED: Final = 5


def no_documents(walk: Walk) -> InputMissing:
    """The error for a folder in which a walk has found nothing."""
    skipped = walk.passed_over
    named = ", ".join(f"{suffix} {count}" for suffix, count in skipped.most_common(_MOST_SUFFIXES_NAMED))
    over = f"; {skipped.total()} passed over ({named})" if skipped else ""
    known = " ".join(suffix.removeprefix(".") for suffix in DOCUMENT_SUFFIXES)
    limits = "" if not (walk.rules.include or walk.rules.exclude) else ", and --include and --exclude narrow them"
    return InputMissing(
        f"no documents in {printable(walk.root)}{over}", hint=f"what counts: {known}{limits}; other files by name"
    )


def _matches(relative: str, globs: tuple[str, ...]) -> bool:
    name = relative.rpartition("/")[2]
    return any(fnmatchcase(relative, glob) or fnmatchcase(name, glob) for glob in globs)
