from __future__ import annotations

from lcbatch.simulator.stats import Stats


def test_requests_are_counted_by_second_for_a_minute() -> None:
    stats = Stats(1000.5)
    for now in (1000.6, 1000.9, 1002.0, 1003.5):
        stats.arrived(now)
    assert stats.as_json(1003.9)["requests_by_second"][-4:] == [2, 0, 1, 1]
    assert sum(stats.as_json(1061.0)["requests_by_second"]) == 2
    assert sum(stats.as_json(9999.0)["requests_by_second"]) == 0
    assert stats.as_json(9999.0)["requests"] == 4


def test_keys_are_shown_hashed_only() -> None:
    stats = Stats(0)
    for _ in range(2):
        stats.saw_key("Bearer sk-canary")
    assert len(stats.as_json(1)["authorization_sha256"]) == 1
    assert "canary" not in str(stats.as_json(1))


def test_the_peak_in_flight_stays() -> None:
    stats = Stats(0)
    stats.started()
    stats.started()
    stats.in_flight -= 2
    assert (stats.in_flight, stats.in_flight_peak) == (0, 2)


def test_the_first_request_is_remembered() -> None:
    stats = Stats(0)
    assert stats.as_json(1)["first_request_at_s"] is None
    stats.arrived(2.5)
    stats.arrived(3.5)
    assert stats.as_json(4)["first_request_at_s"] == 2.5
