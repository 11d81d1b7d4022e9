from __future__ import annotations

from typing import Any

import pytest

from lcbatch.simulator.settings import Settings, SettingsError


def test_settings_survive_the_way_through_json() -> None:
    settings = Settings(latency_s=0.5, faults=(("500", 0.25),), schedule=("1-2:html",), quota_after=3, models=("a",))
    assert Settings().changed(settings.as_json()) == settings


def test_an_integer_may_stand_where_seconds_are_wanted() -> None:
    assert Settings().changed({"latency_s": 2}).latency_s == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latncy_s": 1}, "unknown setting 'latncy_s'; did you mean 'latency_s'?"),
        ({"latency_s": "1"}, "latency_s must be of type float"),
        ({"latency_s": -1}, "latency_s must be a number of at least 0"),
        ({"latency_s": float("nan")}, "latency_s must be a number"),
        ({"rpm": True}, "rpm must be of type float"),
        ({"down": 1}, "down must be of type bool"),
        ({"saturate_at": 1.5}, "saturate_at must be of type int"),
        ({"saturate_at": None}, "saturate_at must be of type int"),
        ({"burst_s": 0}, "burst_s must be above 0"),
        ({"retry_after": "soonish"}, "retry_after must be one of"),
        ({"faults": {"5000": 0.1}}, "unknown fault '5000'; did you mean '500'?"),
        ({"faults": {"500": 1.5}}, "must be within 0 and 1"),
        ({"faults": {"500": 0.6, "503": 0.6}}, "together must be at most 1"),
        ({"faults": ["500"]}, "faults must be an object"),
        ({"schedule": "1-2:500"}, "schedule must be a list"),
        ({"schedule": ["1-2"]}, "schedule '1-2' is neither"),
        ({"models": [1]}, "models must be a list of strings"),
    ],
)
def test_a_bad_setting_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings().changed(changes)
    assert says in str(caught.value)


def test_what_may_be_absent_may_be_null() -> None:
    assert Settings(quota_after=3, require_key="k").changed({"quota_after": None, "require_key": None}) == Settings()
