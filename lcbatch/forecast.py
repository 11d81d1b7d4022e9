"""How long a run will take: the real engine, in virtual time, against a provider that only counts and waits.

Window, limiter, concurrency, retry and breaker are those of a real run; what is simulated is the answers: their length, the
seconds they take, and the limits a minute of a provider that says 429 beyond them.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from lcbatch.bounds import Window, bounds_of
from lcbatch.calls.budget import longest_of
from lcbatch.calls.waiting import unhurried
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.estimate import Basis
from lcbatch.events import CallEnded, CallStarted, Event, Gate, RowsFinished, RunStarted
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.job import Job
from lcbatch.observers.stats import Stats
from lcbatch.ports import Call, Chain, Clock
from lcbatch.records import Answer, Document, Failed, Json, Outcome, Reply, Request, Row, Usage
from lcbatch.watching import sampling
from lcbatch.wiring import Ended, Line, Surroundings, batching_of, call_stack
from lcbatch.work import make_work

_MOST_ROWS = 10_000
"""Enough for -j auto to reach its limit of 1,000 and to run under it for a while; some two seconds of computing."""

_ROUNDS = 8
"""A wider window than that is simulated for so many rounds of calls."""

_MOST_CHARS = 200_000_000
"""The engine hashes every request: long documents are simulated fewer times."""

_FEWEST_ROWS = 500

_STEADY_FROM, _STEADY_TO = 0.5, 0.85
"""Shares of the simulated rows between which the rate is steady: before it the run finds its pace, after it rows run out."""

_ROW_CPU_S = 0.0005
"""What this machine computes for a row (prompt, request, answer, store, output), whatever the provider does."""

_SPREAD = 0.4
"""Of the logarithm of latency, where no earlier answers show it: the slowest in twenty takes twice as long as most."""

_SAMPLES = 0.001
"""The gates are looked at a thousand times or so in however long a run."""

_MINUTE_S = 60.0
_SEED = 20_260_701


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is to be run: so many `rows` like those of `sample`, their fields complete.

    `limits` are a provider's own by label of the endpoint, as an earlier run learned them: requests and tokens a minute, None
    where there is none. `chars` are those of a row's requests; `machine_s` is what this machine needs for a row beyond the
    engine's own work: a document to read, a model that runs here.
    """

    job: Job
    rows: int
    sample: Sequence[Row]
    over: Callable[[Call], Chain]
    lines: Sequence[Line]
    basis: Basis
    limits: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    chars: float = 0.0
    machine_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a run would go. `held` are the shares of its time by what holds it up, longest first, together 1.

    `simulated` of the `rows` were run in virtual time, the rest goes on at the steady rate. `ends` are (seconds, rows ended).
    `failed` of the simulated rows failed although they could be read, the first of them with `failure`.
    """

    seconds: float
    rows: int
    simulated: int
    rows_per_s: float
    peak_calls: int
    throttled: int
    held: Mapping[str, float]
    ends: Sequence[tuple[float, int]]
    failed: int = 0
    failure: str = ""

    def rows_by(self, seconds: float) -> int:
        """Rows that will have ended by then."""
        if seconds >= self.seconds:
            return self.rows
        last_s, last = self.ends[-1]
        if seconds >= last_s:
            return min(self.rows, last + int((seconds - last_s) * self.rows_per_s))
        at = bisect_left(self.ends, (seconds, 0))
        return self.ends[at - 1][1] if at else 0


def forecast(scene: Scene) -> Forecast:
    """Run the scene in virtual time. Computes for some seconds, and must not be called while a loop runs in this thread."""
    count = _to_simulate(scene)
    stage = run_virtual(_play(scene, count))
    floor_s = _ROW_CPU_S + scene.machine_s
    rate = min(_steady_rate(stage.ends), 1 / floor_s)
    last_s = stage.ends[-1][0]
    seconds = max(last_s + (scene.rows - count) / rate, scene.rows * floor_s)
    held = stage.held() if seconds > scene.rows * floor_s else {Gate.CPU.value: 1.0}
    return Forecast(
        seconds=seconds,
        rows=scene.rows,
        simulated=count,
        rows_per_s=scene.rows / seconds,
        peak_calls=stage.peak,
        throttled=stage.throttled,
        held=held,
        ends=stage.ends,
        failed=len(stage.failures),
        failure=stage.failures[0].message if stage.failures else "",
    )


def _to_simulate(scene: Scene) -> int:
    affordable = int(_MOST_CHARS / max(scene.chars, 1.0))
    wanted = max(_MOST_ROWS, _ROUNDS * bounds_of(scene.job).start)
    return min(scene.rows, wanted, max(_FEWEST_ROWS, affordable))


def _steady_rate(ends: Sequence[tuple[float, int]]) -> float:
    """Rows a second once the pace is found; infinite where rows take no time."""
    rows = ends[-1][1]
    first = next(end for end in ends if end[1] >= rows * _STEADY_FROM)
    last = next(end for end in ends if end[1] >= rows * _STEADY_TO)
    took_s = last[0] - first[0]
    if took_s > 0:
        return (last[1] - first[1]) / took_s
    return rows / ends[-1][0] if ends[-1][0] > 0 else float("inf")


@dataclass(slots=True)
class _Stage:
    """What is noted of the play."""

    stats: Stats = field(default_factory=Stats)
    ends: list[tuple[float, int]] = field(default_factory=list)
    out: int = 0
    peak: int = 0
    throttled: int = 0
    failures: list[Failure] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.stats.on_event(event)
        if type(event) is CallStarted:
            self.out += 1
            self.peak = max(self.peak, self.out)
        elif type(event) is CallEnded:
            self.out -= 1
            self.throttled += event.failure is not None and event.failure.kind is Kind.THROTTLE

    def ended(self, now_s: float, outcomes: Sequence[Outcome]) -> None:
        before = self.ends[-1][1] if self.ends else 0
        self.ends.append((now_s, before + len(outcomes)))
        self.failures += [one.failure for one in outcomes if isinstance(one, Failed) and one.row.failure is None]
        self.emit(RowsFinished(now_s, tuple(outcomes)))

    def held(self) -> dict[str, float]:
        held_s = self.stats.snapshot(0.0).held_s
        whole_s = sum(held_s.values())
        return {gate: seconds / whole_s for gate, seconds in held_s.items()} if whole_s else {}


async def _play(scene: Scene, count: int) -> _Stage:
    stage, job = _Stage(), scene.job
    clock: Clock = asyncio.get_running_loop().time
    bounds = bounds_of(job)
    executor = LocalExecutor(bounds.rows, stage.emit)
    window = Window(executor.resize, bounds)
    around = Surroundings(
        clock=clock,
        emit=stage.emit,
        window=window,
        wait=unhurried,
        within=asyncio.timeout,
        batching=batching_of(job, unhurried, window),
        hopeful=True,
    )
    chance = random.Random(_SEED)  # noqa: S311 - the same forecast each time, no secret
    lines = [
        replace(line, ends=tuple(_acted(scene, line, end, chance, clock) for end in line.ends)) for line in scene.lines
    ]
    chain = scene.over(call_stack(job, lines, _Forgetful(), around))
    stage.emit(RunStarted(clock(), job.task, lines[0].label, "", bounds.start))
    async with AsyncExitStack() as stack:
        watching = sampling(around.waiting, stage.emit, clock, sleep=_ever_longer(clock), cpu_s=lambda: 0.0)
        await stack.enter_async_context(watching)
        work = make_work(chain, _read_before, clock)
        finished = await stack.enter_async_context(executor.run(_drawn(scene.sample, count, chance), work))
        async for outcomes in finished:
            stage.ended(clock(), outcomes)
    return stage


async def _drawn(sample: Sequence[Row], count: int, chance: random.Random) -> AsyncGenerator[Row]:
    """Rows like those of the sample. Each of these once before any is taken again, so that few rows are these very rows."""
    order = list(sample)
    for start in range(0, count, len(order)):
        if count > len(order):
            chance.shuffle(order)
        for row in order[: count - start]:
            yield replace(row, document=None)


def _ever_longer(clock: Clock) -> Callable[[float], Awaitable[None]]:
    """Sleeps as asked, and in a run of hours longer: an hour's figures need no sample five times a second."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(max(seconds, _SAMPLES * clock()))

    return sleep


async def _read_before(document: Document) -> str:
    raise AssertionError(f"{document.path} was to be read before")


class _Forgetful:
    """ports.Replies that has none and keeps none."""

    chain_fingerprint = b""

    def reply(self, row: Row, key: bytes) -> Reply | None:  # noqa: ARG002 - ports.Replies
        return None

    def keep_reply(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:  # noqa: ARG002
        """Nothing is kept."""
        kept()

    def shared_reply(self, row: Row, key: bytes) -> tuple[Reply, bool] | None:  # noqa: ARG002 - ports.Replies
        return None

    def keep_shared(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:  # noqa: ARG002
        """Nothing is kept."""
        kept()

    async def all_kept(self) -> None:
        """There is nothing to wait for."""

    def layout(self, row: Row) -> Json | None:  # noqa: ARG002 - ports.Replies
        return None

    def keep_layout(self, row: Row, layout: Json) -> None:
        """Nothing is noted."""


def _acted(scene: Scene, line: Line, end: Ended, chance: random.Random, clock: Clock) -> Ended:
    """The same end with an actor in the provider's place."""
    own = scene.limits.get(line.name_of(end), {})
    actor = _Actor(scene, end.max_output_tokens, own.get("rpm"), own.get("tpm"), chance, clock)
    listen = actor.listen if actor.requests or actor.tokens else None
    return replace(end, ask=actor.ask, listen=listen)


class _Actor:
    """Plays a provider: waits as long as answers take, and refuses what is beyond its limits, which its headers tell."""

    def __init__(
        self,
        scene: Scene,
        longest: int | None,
        rpm: float | None,
        tpm: float | None,
        chance: random.Random,
        clock: Clock,
    ) -> None:
        self._scene = scene
        self._longest = longest
        self._chance = chance
        self._clock = clock
        self._text = "word " * round(scene.basis.answer_tokens)
        self.requests = _Bucket(rpm) if rpm else None
        self.tokens = _Bucket(tpm) if tpm else None
        self._headers = {
            f"x-ratelimit-limit-{name}": f"{limit:.3f}" for name, limit in (("requests", rpm), ("tokens", tpm)) if limit
        }
        self._heard: Callable[[Mapping[str, str]], None] = lambda _headers: None

    def listen(self, heard: Callable[[Mapping[str, str]], None]) -> None:
        self._heard = heard

    async def ask(self, request: Request) -> Answer:
        basis = self._scene.basis
        asked = basis.prompt_tokens(request)
        answer, latency_s = self._drawn()
        longest = longest_of(request, self._longest)
        answer = answer if longest is None else min(answer, longest)
        now_s = self._clock()
        self._heard(self._headers)
        waits = [
            bucket.refused(amount, now_s)
            for bucket, amount in ((self.requests, 1.0), (self.tokens, asked + answer))
            if bucket is not None
        ]
        if any(waits):
            raise CallFailed(Failure(Kind.THROTTLE, "beyond the limit", retry_after_s=max(waits), status=429))
        await asyncio.sleep(latency_s)
        usage = Usage(round(asked), round(answer))
        message = {"content": self._text, "vectors": [""] * len(request.messages)}
        return Answer(self._text, message, "", "stop", usage)

    def _drawn(self) -> tuple[float, float]:
        """(answer tokens, seconds) of an earlier answer, or as assumed."""
        basis = self._scene.basis
        if basis.replies:
            answer, latency_s = self._chance.choice(basis.replies)
            return float(answer or basis.answer_tokens), latency_s
        spread = self._chance.lognormvariate(-_SPREAD * _SPREAD / 2, _SPREAD)
        return basis.answer_tokens, basis.latency_s(basis.answer_tokens) * spread


@dataclass(slots=True)
class _Bucket:
    """A limit as providers keep it: a minute's worth at once, filled again all the time."""

    per_minute: float
    _left: float = field(init=False)
    _at_s: float = 0.0

    def __post_init__(self) -> None:
        self._left = self.per_minute

    def refused(self, amount: float, now_s: float) -> float:
        """Take the amount, or say in how many seconds it will be there."""
        per_s = self.per_minute / _MINUTE_S
        self._left, self._at_s = min(self.per_minute, self._left + (now_s - self._at_s) * per_s), now_s
        if amount <= self._left:
            self._left -= amount
            return 0.0
        return (amount - self._left) / per_s


@dataclass(frozen=True, slots=True)
class Typical:
    """ports.Chain in a user's own chain's place: so many calls, one after the other, of so many characters each."""

    call: Any
    calls: int
    chars: int
    identity: Mapping[str, Json] = field(default_factory=dict)
    uses: frozenset[str] | None = None

    def missing(self, fields: Mapping[str, Json]) -> str | None:  # noqa: ARG002 - ports.Chain
        """Nothing is needed."""
        return None

    async def __call__(self, fields: Mapping[str, Json]) -> Json:  # noqa: ARG002 - ports.Chain
        for _ in range(self.calls):
            await self.call(Request([{"role": "user", "content": "x" * self.chars}]))
        return ""
