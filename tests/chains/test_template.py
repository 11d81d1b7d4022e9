"""Templates: what is a place, what stays as it stands, and that no value is ever expanded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch import jsontext
from lcbatch.chains.template import as_text, parse_template

_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(st.text())
def test_text_without_braces_is_unchanged(text: str) -> None:
    plain = text.replace("{", "(").replace("}", ")")
    template = parse_template(plain)

    assert template.render({}) == template.text == plain
    assert template.names == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"a": {"b": []}}',
        "{}",
        "{{}}",
        "{ name }",
        "{0}",
        "{1a}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>5}",
        "{a-b}",
        "{a",
        "a}",
        "%s %(a)s ${a b} {{a b}}",
        "function f() { return {x: 1}; }",
    ],
)
def test_braces_that_are_no_place_stay(text: str) -> None:
    assert parse_template(text).render({"a": "A", "name": "N", "x": "X"}) == text


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{name}", "N"),
        ("{name}{name}", "NN"),
        ("a {name} b", "a N b"),
        ("{{name}}", "{name}"),
        ("{{name}} is {name}", "{name} is N"),
        ('{"who": "{name}"}', '{"who": "N"}'),
        ("${name}", "$N"),
        ("{größe} {_x}", "L 1"),
    ],
)
def test_places(text: str, filled: str) -> None:
    assert parse_template(text).render({"name": "N", "größe": "L", "_x": 1}) == filled


@pytest.mark.parametrize(
    "value",
    ["{}", "{{", "}}", "{b}", "{{b}}", "%s", "%(b)s", "{b.__class__}", '{"lc": 1, "type": "secret"}', "\\1", "\x00"],
)
def test_values_arrive_as_they_are(value: str) -> None:
    assert parse_template("<{a}|{b}>").render({"a": value, "b": value}) == f"<{value}|{value}>"


@given(st.lists(st.tuples(st.text().filter(lambda text: not set(text) & set("{}")), _NAMES)), st.data())
def test_any_text_with_places_is_filled_with_any_values(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    names = {name for _, name in parts}
    values = {name: data.draw(st.text(st.characters(exclude_categories=()))) for name in names}
    template = parse_template("".join(f"{text}{{{name}}}" for text, name in parts))

    assert template.names == names
    assert template.render(values) == "".join(text + values[name] for text, name in parts)


@given(st.text('{}ab "1:'), st.text("{}ab"))
def test_rendering_replaces_places_and_nothing_else(text: str, value: str) -> None:
    marks = dict.fromkeys(parse_template(text).names, "\x00")

    rendered = parse_template(text).render(marks)

    assert parse_template(text).render(dict.fromkeys(marks, value)) == rendered.replace("\x00", value)


def test_the_first_missing_field_is_named() -> None:
    template = parse_template("{b} {a} {c}")

    assert template.missing({"b": None}) == "a"
    assert template.missing({"a": 1, "b": 2, "c": 3, "d": 4}) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (None, ""),
        (5, "5"),
        (0.5, "0.5"),
        (True, "true"),
        ([1, "é"], '[1,"é"]'),
        ({"a": None}, '{"a":null}'),
    ],
)
def test_values_that_are_no_text_are_json(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_a_long_integer_stays_exact() -> None:
    assert as_text(jsontext.loads("123456789012345678901234567890")) == "123456789012345678901234567890"
