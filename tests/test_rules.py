"""When a run has to stop, and which of its failures stand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lcbatch.errors import ConfigError, Failure, Kind, LcbatchError, UsageError, exit_code_of
from lcbatch.records import Done, Failed, Outcome
from lcbatch.rules import StopRules, check_fail_on, check_max_failures, fails
from lcbatch.testing import make_row


def failed(number: int, kind: Kind = Kind.SERVER, message: str = "no", *, outage: bool = False) -> Failed:
    return Failed(make_row(number), Failure(kind, message, outage=outage))


def done(number: int) -> Done:
    return Done(make_row(number), "answer")


def after(*outcomes: Outcome, rules: StopRules | None = None) -> tuple[StopRules, list[Outcome]]:
    """The rules when these have ended one by one, and what is stored of them."""
    rules = rules or StopRules("openai:m")
    kept: list[Outcome] = []
    for outcome in outcomes:
        kept += rules.judge([outcome])
    return rules, kept


def stop_of(rules: StopRules) -> LcbatchError:
    assert rules.stop is not None
    return rules.stop


def test_who_is_not_trusted_stops_the_run_and_no_row_pays_for_it() -> None:
    untrusted = Failed(make_row(1), Failure(Kind.NOT_FOUND, "expired", untrusted=True))
    for rules in (StopRules("openai:m"), StopRules("", row_models=True)):
        _, kept = after(untrusted, rules=rules)
        assert kept == []
        assert exit_code_of(stop_of(rules)) == 78
        assert "certificate is not trusted: expired" in stop_of(rules).message
        assert "SSL_CERT_FILE" in stop_of(rules).hint


FATAL = {
    Kind.QUOTA: (8, "add credit"),
    Kind.AUTH: (77, "--api-key-env"),
    Kind.NOT_FOUND: (78, "openai:m is not served there: look at -m and --base-url"),
    Kind.THROTTLE: (75, "--max-wait"),
    Kind.LOCAL: (71, "ulimit -n"),
}


@pytest.mark.parametrize("kind", FATAL)
def test_what_is_the_run_s_own_trouble_stops_it_and_leaves_the_row_undone(kind: Kind) -> None:
    code, hint = FATAL[kind]

    rules, kept = after(done(0), failed(1, kind, "said so"), failed(2, kind, "later"))

    assert exit_code_of(stop_of(rules)) == code
    assert "said so" in stop_of(rules).message
    assert hint in stop_of(rules).hint
    assert kept + rules.rest() == [done(0)]


@pytest.mark.parametrize(
    ("kind", "hopeful", "code", "said"),
    [
        (Kind.CONNECTION, False, 69, "nobody answers for openai:m: no"),
        (Kind.SERVER, True, 69, "the provider is down: no"),
        (Kind.BAD_BODY, False, 78, "what answers there is no model provider: no"),
    ],
)
def test_an_outage_stops_the_run(kind: Kind, hopeful: bool, code: int, said: str) -> None:  # noqa: FBT001 - a table
    rules, kept = after(failed(0, kind, outage=True), rules=StopRules("openai:m", hopeful=hopeful))

    assert (exit_code_of(stop_of(rules)), stop_of(rules).message) == (code, said)
    assert kept + rules.rest() == []


@pytest.mark.parametrize("kind", sorted(set(Kind) - set(FATAL)))
def test_every_other_kind_is_the_row_s_failure(kind: Kind) -> None:
    rules, kept = after(done(0), failed(1, kind))

    assert rules.stop is None
    assert kept == [done(0), failed(1, kind)]


def test_a_row_that_names_an_unknown_model_itself_stops_nobody_else() -> None:
    rules, kept = after(done(0), failed(1, Kind.NOT_FOUND), rules=StopRules("rows", row_models=True))

    assert rules.stop is None
    assert kept == [done(0), failed(1, Kind.NOT_FOUND)]


def alike(count: int, kind: Kind = Kind.INVALID_REQUEST) -> Sequence[Failed]:
    """Failures that differ in their numbers only."""
    return [failed(number, kind, f"request {number:08x} at column {number} is wrong") for number in range(count)]


def test_twenty_alike_at_the_start_stop_the_run_and_none_is_marked() -> None:
    rules, kept = after(*alike(19))
    assert (rules.stop, kept) == (None, [])

    rules, kept = after(alike(20)[19], rules=rules)

    assert isinstance(rules.stop, ConfigError)
    assert "the first 20 rows all failed alike: invalid_request: request" in rules.stop.message
    assert kept + rules.rest() == []


def test_what_ends_after_such_a_stop_does_not_mark_them_either() -> None:
    for last in (done(50), failed(51, Kind.PARSE, "else"), failed(52, Kind.SERVER, "else")):
        rules, _ = after(*alike(20))

        _, kept = after(last, rules=rules)

        assert kept + rules.rest() == [last]


@pytest.mark.parametrize("other", [done(90), failed(91, Kind.SERVER, "else"), failed(92, Kind.INVALID_REQUEST, "else")])
def test_one_that_is_different_lets_the_held_ones_go(other: Outcome) -> None:
    rules, kept = after(*alike(7), other, *alike(30))

    assert rules.stop is None
    assert kept == [*alike(7), other, *alike(30)]


def test_a_short_run_s_failures_are_the_rows_own_at_its_end() -> None:
    rules, kept = after(*alike(7))

    assert kept == []
    assert rules.rest() == list(alike(7))
    assert rules.rest() == []


@pytest.mark.parametrize(
    "kind", [Kind.BAD_ROW, Kind.NO_TEXT, Kind.CONTENT_FILTER, Kind.REFUSAL, Kind.CONTEXT_LENGTH, Kind.PARSE]
)
def test_rows_that_are_bad_themselves_are_no_sign_of_anything(kind: Kind) -> None:
    rules, kept = after(*alike(40, kind))

    assert rules.stop is None
    assert kept == list(alike(40, kind))


@pytest.mark.parametrize(
    ("limit", "successes", "failures", "stops"),
    [
        ("3", 0, 2, False),
        ("3", 0, 3, True),
        ("1", 50, 1, True),
        ("0", 50, 1, True),
        ("10%", 10, 9, False),  # too few rows to know a share
        ("10%", 91, 9, False),
        ("10%", 90, 10, True),
        ("2.5%", 97, 3, True),
        ("0%", 50, 1, True),
        (None, 10, 1000, False),
    ],
)
def test_max_failures(limit: str | None, successes: int, failures: int, stops: bool) -> None:  # noqa: FBT001 - a table
    rows = [done(number) for number in range(successes)] + [failed(number) for number in range(failures)]
    if not successes:  # or twenty alike would come first
        rows = [failed(number, Kind.PARSE) for number in range(failures)]

    rules, kept = after(*rows, rules=StopRules("m", max_failures=limit))

    assert kept == rows, "the failures that were too many are the rows' own"
    assert (rules.stop is not None) == stops
    if stops:
        assert exit_code_of(stop_of(rules)) == 4
        assert f"--max-failures {limit}" in stop_of(rules).message


def test_the_first_reason_to_stop_is_the_one_that_is_said() -> None:
    rules, _ = after(failed(0, Kind.QUOTA), failed(1, Kind.AUTH))

    assert exit_code_of(stop_of(rules)) == 8


@pytest.mark.parametrize(
    ("rule", "failed_new", "failed_in_all", "rows", "expected"),
    [
        ("any", 0, 0, 10, False),
        ("any", 0, 1, 10, True),
        ("any", 0, 0, 0, False),
        ("new", 0, 5, 10, False),
        ("new", 1, 1, 10, True),
        ("never", 10, 10, 10, False),
        ("10%", 1, 1, 10, False),
        ("10%", 2, 2, 10, True),
        ("0%", 0, 1, 10, True),
        ("50%", 0, 0, 0, False),
    ],
)
def test_fail_on(rule: str, failed_new: int, failed_in_all: int, rows: int, expected: bool) -> None:  # noqa: FBT001 - a table
    assert fails(rule, failed_new=failed_new, failed=failed_in_all, rows=rows) is expected


@pytest.mark.parametrize("text", ["", "some", "5", "5 %", "-1%", "any "])
def test_a_fail_on_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-on cannot be"):
        check_fail_on(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "5 %"])
def test_a_max_failures_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--max-failures cannot be"):
        check_max_failures(text)


def test_rules_that_can_be() -> None:
    for text in ("any", "new", "never", "5%", "0.5%"):
        check_fail_on(text)
    for limit in (None, "0", "50", "2%", "0.5%"):
        check_max_failures(limit)
