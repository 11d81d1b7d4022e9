"""What is run: how many rows, how many at once, against which provider, by whom and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bench.contestants import Contestant, Role

EVERYBODY: frozenset[Role] = frozenset({"ours", "floor", "langchain", "script", "peer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`slow_rows` are for contestants marked slow. `provider` are the simulator's settings. `roles` take part (of them only
    `names`, if any are given); those of `repeated` as often as `repetitions` says, the others once. `continues`: it finds what
    the scenario before it left, every row done, and is to make no call. `timeout_s` ends a run that got stuck.
    """

    name: str
    title: str
    rows: int
    slow_rows: int
    concurrency: int
    provider: Mapping[str, float] = field(default_factory=dict)
    tls: bool = False
    roles: frozenset[Role] = EVERYBODY
    repeated: frozenset[Role] = frozenset({"ours", "floor"})
    names: tuple[str, ...] = ()
    repetitions: int = 3
    continues: bool = False
    timeout_s: float = 240.0

    def rows_for(self, contestant: Contestant) -> int:
        return self.slow_rows if contestant.slow else self.rows

    def repetitions_for(self, contestant: Contestant) -> int:
        if contestant.role not in self.roles or (self.names and contestant.name not in self.names):
            return 0
        return self.repetitions if contestant.role in self.repeated else 1


_FEW = 16
START = Scenario(
    name="start",
    title="From start to first request, and what a run of 16 rows takes",
    rows=_FEW,
    slow_rows=_FEW,
    concurrency=64,
    roles=EVERYBODY | {"import"},
    repeated=frozenset({"ours", "floor", "import"}),
    repetitions=5,
)
ZERO_64 = Scenario(
    name="zero-64",
    title="Zero latency, 64 at once",
    rows=20_000,
    slow_rows=1_000,
    concurrency=64,
    repeated=EVERYBODY,
)
ZERO_512 = Scenario(
    name="zero-512",
    title="Zero latency, 512 at once",
    rows=20_000,
    slow_rows=1_000,
    concurrency=512,
)
TLS_64 = Scenario(
    name="tls-64",
    title="Zero latency, 64 at once, over TLS",
    rows=20_000,
    slow_rows=1_000,
    concurrency=64,
    tls=True,
    repetitions=1,
)
LOGNORMAL_1000 = Scenario(
    name="lognormal-1000",
    title="5,000 calls of 1 s (lognormal, sigma 0.5), 1,000 at once",
    rows=5_000,
    slow_rows=5_000,
    concurrency=1_000,
    provider={"latency_s": 1.0, "latency_sigma": 0.5},
)
LOGNORMAL_5000 = Scenario(
    name="lognormal-5000",
    title="5,000 calls of 1 s (lognormal, sigma 0.5), all at once",
    rows=5_000,
    slow_rows=5_000,
    concurrency=5_000,
    provider={"latency_s": 1.0, "latency_sigma": 0.5},
    repetitions=1,
)
FIXED_5000 = Scenario(
    name="fixed-5000",
    title="50,000 calls of exactly 2 s, 5,000 at once",
    rows=50_000,
    slow_rows=50_000,
    concurrency=5_000,
    provider={"latency_s": 2.0},
    names=("lcbatch", "raw-sockets"),
    repetitions=1,
)
_OURS: frozenset[Role] = frozenset({"ours"})
_MILLION = Scenario(
    name="million",
    title="A million rows, zero latency, 64 at once",
    rows=1_000_000,
    slow_rows=1_000_000,
    concurrency=64,
    roles=_OURS,
    names=("lcbatch",),
    repetitions=1,
    timeout_s=3600.0,
)
MILLION = (
    replace(_MILLION, name="100k", title="A hundred thousand rows, zero latency, 64 at once", rows=100_000),
    _MILLION,
    replace(_MILLION, name="million-again", title="The same command again, every row done before", continues=True),
)
"""The last two in this order: what is there again was made by the one before."""

SCENARIOS = (START, ZERO_64, ZERO_512, TLS_64, LOGNORMAL_1000, LOGNORMAL_5000, FIXED_5000)


def quick() -> tuple[Scenario, ...]:
    """What takes two minutes: no peers, no repetition, fewer rows. Good for a look, not for a claim."""
    start = replace(START, roles=frozenset({"ours", "floor", "langchain", "import"}), repetitions=1)
    zero = replace(ZERO_64, rows=4_000, slow_rows=1_000, roles=frozenset({"ours", "floor", "langchain"}), repetitions=1)
    lognormal = replace(LOGNORMAL_1000, roles=frozenset({"ours", "floor"}), repetitions=1)
    return (start, zero, lognormal)


def ideal_s(scenario: Scenario) -> float:
    """How long calls of a fixed latency take when every slot is always in use."""
    return scenario.rows / scenario.concurrency * scenario.provider["latency_s"]
