"""Templates: `{name}` is replaced where name is a plain identifier; every other brace stays as it stands.

`{"a": 1}` needs no escaping, and `{{name}}` gives `{name}`. Values are put in as they are and never expanded again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.records import Fields, Json

_PLACE = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: `parts` alternates literal text and field names, beginning and ending with text."""

    text: str
    parts: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The fields that it needs."""
        return frozenset(self.parts[1::2])

    def missing(self, fields: Fields) -> str | None:
        """The first needed field that is not there."""
        return next((name for name in self.parts[1::2] if name not in fields), None)

    def render(self, fields: Fields) -> str:
        """The text with every place filled. Raises KeyError for a missing field."""
        filled = list(self.parts)
        for index in range(1, len(filled), 2):
            filled[index] = as_text(fields[filled[index]])
        return "".join(filter(None, filled))  # of one part alone it is that part, not a copy


def parse_template(text: str) -> Template:
    """Read a template; any text is one."""
    parts = [""]
    end = 0
    for match in _PLACE.finditer(text):
        parts[-1] += text[end : match.start()]
        end = match.end()
        escaped, name = match.groups()
        if escaped is not None:
            parts[-1] += f"{{{escaped}}}"
        else:
            parts += [name, ""]
    parts[-1] += text[end:]
    return Template(text, tuple(parts))


def as_text(value: Json) -> str:
    """A field's value inside a prompt: text as it is, nothing for null, JSON for the rest."""
    if isinstance(value, str):
        return value
    return "" if value is None else jsontext.dumps(value)
