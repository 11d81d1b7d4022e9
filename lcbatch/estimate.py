"""What calls will take before they are made: tokens, money, and the seconds of an answer.

Rows are measured by running the real chain over a call that answers with made-up text of the expected length, so that a chain
of several calls counts right. What is known of earlier answers goes before assumptions, and every figure names its method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from lcbatch.calls.budget import longest_of
from lcbatch.calls.rate import CHARS_PER_TOKEN, FIRST_OUTPUT_TOKENS, Estimate
from lcbatch.calls.stored import StoredLayouts, stored
from lcbatch.choosing import Over
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.job import EMBED, SUMMARIZE, Job
from lcbatch.ports import Call, DocumentReader, Price, Replies
from lcbatch.records import Json, Reply, Request, Row, RowScope, Usage, current_row
from lcbatch.store.reading import PastRow, past_rows
from lcbatch.store.schema import connect

_TOKENS_PER_WORD = 4 / 3
"""OpenAI's rule of thumb for English: 100 tokens to 75 words."""

_FIRST_TOKEN_S = 0.5
_TOKEN_S = 0.015
"""A small hosted model begins to answer after about half a second and writes some 65 tokens a second."""


@dataclass(frozen=True, slots=True)
class Method:
    """How the figures are known: one clause each, for people."""

    prompt: str
    answer: str
    latency: str


@dataclass(frozen=True, slots=True)
class Basis:
    """What is taken for known of a call. `replies` are (answer tokens, seconds) of earlier ones; () where none are known."""

    tokens_per_char: float
    answer_tokens: float
    replies: tuple[tuple[int, float], ...]
    method: Method
    first_s: float = _FIRST_TOKEN_S
    token_s: float = _TOKEN_S

    def prompt_tokens(self, request: Request) -> float:
        """Tokens of a request, counted as the limiter counts them."""
        return Estimate(tokens_per_char=self.tokens_per_char, output_tokens=0.0).of(request)

    def latency_s(self, answer_tokens: float) -> float:
        """Seconds that an answer of this length takes where no earlier one says."""
        return self.first_s + self.token_s * answer_tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """A row with all of its fields, a document's text too, and the requests that its chain made; or why it would fail.

    `requests` are those that no stored reply answers; `chars` are those of all its requests, and `parts` what a long document
    was cut into, answered ones among them.
    """

    row: Row
    requests: tuple[Request, ...] = ()
    failure: Failure | None = None
    parts: int = 0
    chars: float = 0.0

    @property
    def parts_to_map(self) -> int:
        """Those of its parts that no stored reply answers."""
        return sum(request.step == "map" for request in self.requests)


@dataclass(frozen=True, slots=True)
class RowCost:
    """What a row takes on average, over `sampled` rows. Money in US dollars, None where no price is known.

    `most_usd` is with the longest answers that the user allows, None without such a bound.
    """

    sampled: int
    calls: float
    prompt_tokens: float
    answer_tokens: float
    usd: float | None
    most_usd: float | None

    @property
    def tokens(self) -> float:
        """Prompt and answer together."""
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a model costs. `longest` is its longest answer in tokens, None where nothing bounds it; `allowed` the user's bound.

    Only that one gives a worst case that says anything: models' own are a hundred times what they answer.
    """

    model: str
    price: Price
    longest: int | None
    allowed: int | None


async def measured(
    rows: Sequence[Row], over: Over, answer_tokens: float, read: DocumentReader, replies: Replies | None = None
) -> list[Measured]:
    """Run the chain over each row without calling anybody. Documents are read with `read`; `replies` answer what they can."""
    taken: list[Request] = []
    parts, chars = 0, 0.0
    text = "word " * max(1, round(answer_tokens / _TOKENS_PER_WORD))

    async def take(request: Request) -> Reply:
        taken.append(request)
        return Reply(text=text, message={"content": text}, model="")

    call: Call = take if replies is None else stored(replies)(take)

    async def counted(request: Request) -> Reply:
        nonlocal parts, chars
        parts += request.step == "map"
        chars += characters(request)
        return await call(request)

    chain = over(counted) if replies is None else over(counted, StoredLayouts(replies))
    found = []
    for row in rows:
        taken.clear()
        parts, chars = 0, 0.0
        current_row.set(RowScope(row, 0.0))
        whole, failure = row, row.failure
        try:
            if failure is None:
                whole = await _whole(row, read)
                await chain(whole.fields)
        except CallFailed as error:
            failure = error.failure if not taken else None
        except Exception as error:  # noqa: BLE001 - with a request out, it is the made-up text that the chain cannot use
            failure = Failure(Kind.CHAIN, f"{type(error).__name__}: {error}") if not taken else None
        found.append(Measured(whole, tuple(taken), failure, parts, chars))
    return found


async def _whole(row: Row, read: DocumentReader) -> Row:
    """The row with its document's text among its fields."""
    if row.document is None or "text" in row.fields:
        return row
    return replace(row, fields={**row.fields, "text": await read(row.document)})


def past_of(path: Path, identity: Mapping[str, Json], most: int) -> list[PastRow]:
    """The latest answered rows of a store, also beside a run that works on it. Reads: call it in a thread."""
    with closing(connect(path, read_only=True)) as connection:
        return past_rows(connection, identity, most)


def assumed(job: Job, longest: int | None) -> Basis:
    """What is taken for known before anything was ever answered."""
    if job.task == SUMMARIZE:
        tokens, method = job.chain.words * _TOKENS_PER_WORD, f"assumed from --words {job.chain.words}"
    elif job.task == EMBED:
        tokens, method = 0.0, "a vector is no tokens"
    else:
        tokens, method = FIRST_OUTPUT_TOKENS, "assumed"
    if longest is not None and longest < tokens:
        tokens, method = float(longest), "the longest that is allowed"
    latency = f"assumed: {_FIRST_TOKEN_S:g} s, and {_TOKEN_S * 1000:g} ms a token of the answer"
    return Basis(1 / CHARS_PER_TOKEN, tokens, (), Method(f"{CHARS_PER_TOKEN:g} characters a token", method, latency))


def learned(basis: Basis, past: Sequence[PastRow], longest: int | None) -> Basis:
    """The basis with the answers' length and latency as they were earlier."""
    replies = tuple(reply for row in past for reply in row.replies if reply[1] > 0)
    lengths = [tokens for tokens, _ in replies if tokens]
    if not replies:
        return basis
    method = replace(basis.method, latency=f"as in {len(replies):,} earlier answers")
    basis = replace(basis, replies=replies, method=method)
    if not lengths:
        return basis
    mean = sum(lengths) / len(lengths)
    method = replace(method, answer=f"as in {len(lengths):,} earlier answers")
    return replace(basis, answer_tokens=mean if longest is None else min(mean, longest), method=method)


async def calibrated(
    basis: Basis,
    past: Sequence[PastRow],
    sample: Sequence[Measured],
    again: Callable[[Sequence[Row]], Awaitable[list[Measured]]],
) -> Basis:
    """The basis with tokens a character as the provider counted them earlier. `again` measures earlier rows."""
    texts = [row for row in past if row.fields is not None and row.usage.prompt_tokens]
    documents = [row for row in past if row.document_bytes and row.usage.prompt_tokens]
    if texts:
        remade = await again([_row_of(row.fields or {}) for row in texts])
        pairs = [(row, one) for row, one in zip(texts, remade, strict=True) if len(one.requests) == row.calls]
        chars = sum(characters(request) for _, one in pairs for request in one.requests)
        tokens = sum(row.usage.prompt_tokens for row, _ in pairs)
        return _with_ratio(basis, tokens, chars, len(pairs))
    if documents:
        now = [one for one in sample if one.chars]
        chars = sum(one.chars for one in now)
        bytes_now = sum(one.row.document.size for one in now if one.row.document is not None)
        bytes_then = sum(row.document_bytes or 0 for row in documents)
        tokens = sum(row.usage.prompt_tokens for row in documents)
        return _with_ratio(basis, tokens * bytes_now, chars * bytes_then, len(documents))
    return basis


def _with_ratio(basis: Basis, tokens: float, chars: float, rows: int) -> Basis:
    if not tokens or not chars:
        return basis
    method = replace(basis.method, prompt=f"{chars / tokens:.1f} characters a token, as in {rows:,} earlier rows")
    return replace(basis, tokens_per_char=tokens / chars, method=method)


def _row_of(fields: Mapping[str, object]) -> Row:
    return Row(0, b"", "", fields, "", 0)


def characters(request: Request) -> float:
    """Characters of a request, as the limiter counts them."""
    return Estimate(tokens_per_char=1.0, output_tokens=0.0).of(request)


def row_cost(sample: Sequence[Measured], basis: Basis, pricing: Pricing, *, scale: float = 1.0) -> RowCost | None:
    """What a row takes on average; `scale` is by how much all rows are longer than those of the sample. None: no sample."""
    if not sample:
        return None
    calls, prompt_tokens, answer_tokens = 0, 0.0, 0.0
    usd: float | None = 0.0
    most: float | None = 0.0
    for request in (request for one in sample for request in one.requests):
        asked = basis.prompt_tokens(request) * scale
        longest = longest_of(request, pricing.longest)
        answer = basis.answer_tokens if longest is None else min(basis.answer_tokens, longest)
        usd = _plus(usd, pricing, request, Usage(round(asked), round(answer)))
        worst = longest_of(request, pricing.allowed)
        most = None if worst is None else _plus(most, pricing, request, Usage(round(asked), worst))
        calls, prompt_tokens, answer_tokens = calls + 1, prompt_tokens + asked, answer_tokens + answer
    count = len(sample)
    return RowCost(
        count,
        calls / count,
        prompt_tokens / count,
        answer_tokens / count,
        None if usd is None else usd / count,
        None if most is None else most / count,
    )


def past_cost(past: Sequence[PastRow]) -> RowCost | None:
    """What a row of a user's own chain took on average, which is all that can be known without running it."""
    if not past:
        return None
    count, total = len(past), sum((row.usage for row in past), Usage())
    known = [row.cost_usd for row in past if row.cost_usd is not None]
    usd = sum(known) if len(known) == count else None
    return RowCost(
        count,
        sum(row.calls for row in past) / count,
        total.prompt_tokens / count,
        total.completion_tokens / count,
        None if usd is None else usd / count,
        None,
    )


def _plus(usd: float | None, pricing: Pricing, request: Request, usage: Usage) -> float | None:
    """The sum; None stays None, and so does what has no price."""
    more = pricing.price(str(request.params.get("model") or pricing.model), usage)
    return None if usd is None or more is None else usd + more
