"""The provider's decisions, synchronous and pure on plain state: what becomes of a request that comes at `now`.

A request is admitted (as Work) or refused (with a Reply). Work that has no free server waits in line. When its time is
over, `finish` bills it. Nothing here waits, reads a clock or touches a socket.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from lcbatch.simulator import replies
from lcbatch.simulator.answers import (
    Answer,
    canonical,
    choice_for,
    digest_of_choice,
    last_user_text,
    prompt_tokens,
    request_digest,
    text_tokens,
)
from lcbatch.simulator.embeddings import (
    MAX_REQUEST_TOKENS,
    as_base64,
    embedding_for,
    input_text,
    input_tokens,
    inputs_of,
)
from lcbatch.simulator.faults import FAULTS, FaultPicker
from lcbatch.simulator.ledger import Bill, Ledger
from lcbatch.simulator.limits import Limiter
from lcbatch.simulator.refusals import Refusals
from lcbatch.simulator.replies import ApiError, Reply
from lcbatch.simulator.settings import Settings, SettingsError
from lcbatch.simulator.stats import Stats

Kind = Literal["chat", "embeddings"]
# OpenAI's own bounds, near enough; without any, one request could stop the loop for minutes.
_MAX_CHOICES: Final = 128
_MAX_DIMENSIONS: Final = 65_536


@dataclass(slots=True, eq=False)
class Work:
    """An admitted call. `answers` are a chat's choices; `inputs` an embeddings call's."""

    kind: Kind
    body: Mapping[str, Any]
    digest: bytes
    text: str
    answers: list[Answer]
    inputs: list[Any]
    prompt_tokens: int
    completion_tokens: int
    fault: str | None = None


class InvalidRequestError(ValueError):
    """A body that OpenAI answers with 400. The message is OpenAI's."""


class Provider:
    """All of a simulated provider's state.

    `now` is monotonic and in seconds; `wall_offset_s` added to it gives Unix time.
    """

    def __init__(self, settings: Settings, ledger: Ledger, now: float, wall_offset_s: float = 0.0) -> None:
        self.settings = settings
        self.ledger = ledger
        self.stats = Stats(now)
        self._started_s = now
        self._wall_offset_s = wall_offset_s
        # Latencies have dice of their own, so that adding a fault does not change them.
        self._latencies = random.Random(settings.seed)  # noqa: S311  nothing secret is drawn
        dice = random.Random(settings.seed + 1)  # noqa: S311  the same
        self._picker = FaultPicker(settings.faults, settings.schedule, dice)
        self._limiter = Limiter(settings.rpm, settings.tpm, settings.burst_s, now)
        self._refusals = Refusals(settings)
        self._admitted = 0
        self._serving = 0
        self._queue: deque[Work] = deque()

    def reconfigure(self, changes: Mapping[str, Any], now: float) -> None:
        """Change settings from JSON values, while calls are in flight.

        Raises SettingsError and then changes nothing.
        """
        settings = self.settings.changed(changes)
        for name in ("ledger", "seed"):
            if getattr(settings, name) != getattr(self.settings, name):
                raise SettingsError(f"{name} cannot be changed while the simulator runs")
        self.settings = settings
        self._limiter.retune(settings.rpm, settings.tpm, settings.burst_s, now)
        self._picker.reconfigure(settings.faults, settings.schedule)
        self._refusals = Refusals(settings)

    def admit(self, kind: Kind, body: Mapping[str, Any], authorization: str, now: float) -> Work | Reply:
        """Let a call in, or refuse it. Work that is let in is given to `start`, and `release`d after it."""
        settings = self.settings
        number = self.stats.arrived(now)
        if settings.require_key is not None and authorization != f"Bearer {settings.require_key}":
            return self._refuse("auth", now, {}, authorization)
        try:
            work = self._work(kind, body)
        except InvalidRequestError as exc:
            self.stats.rejected["invalid_request"] += 1
            return replies.error_reply(400, ApiError(str(exc)), self._headers(now))
        fault = self._picker.pick(work.text, work.digest, now - self._started_s, number)
        if fault is not None:
            self.stats.faults[fault] += 1
            if FAULTS[fault] == "refuse":
                return self._refuse(fault, now, body, authorization)
            work.fault = fault
        refusal = self._limits(work, now)
        if refusal is not None:
            return refusal
        self._admitted += 1
        self.stats.started()
        if fault is not None and FAULTS[fault] == "content":
            self._spoil(work, fault)
        return work

    def start(self, work: Work) -> bool:
        """Take a server for the work; False while all are busy: then `release` or `startable` will name it later."""
        limit = self.settings.saturate_at
        if limit and self._serving >= limit:
            self._queue.append(work)
            return False
        self._serving += 1
        return True

    def latency_s(self, work: Work) -> float:
        """The seconds that started work takes. Draws from the dice: ask once."""
        settings = self.settings
        latency_s = settings.latency_s
        if settings.latency_sigma and latency_s:
            sigma = settings.latency_sigma
            latency_s = self._latencies.lognormvariate(math.log(latency_s) - sigma * sigma / 2, sigma)
        # A stream's tokens are spread after its first one, not waited for before.
        if settings.latency_per_token_s and not work.body.get("stream"):
            latency_s += work.completion_tokens * settings.latency_per_token_s
        return latency_s

    def finish(self, work: Work, now: float) -> Reply:
        """Bill the work and word its answer. The caller releases it when the answer is sent or has become pointless."""
        if work.fault == "hang":
            return Reply(b"", ending="hang")
        said: Any = work.answers[0].text if len(work.answers) == 1 else [answer.text for answer in work.answers]
        bill = Bill(
            now,
            work.kind,
            work.digest.hex()[:16],
            work.text if work.kind == "chat" else [input_text(item) for item in work.inputs],
            said if work.kind == "chat" else None,
            work.prompt_tokens,
            work.completion_tokens,
            work.fault,
        )
        number = self.ledger.bill(bill)
        return self._chat(work, number, now) if work.kind == "chat" else self._embeddings(work, number, now)

    def release(self) -> list[Work]:
        """A started call is over. Returns what has thereby been started."""
        self.stats.in_flight -= 1
        self._serving -= 1
        return self.startable() if self._queue else []

    def startable(self) -> list[Work]:
        """Start what stands in line and has a free server; to be asked for after `reconfigure` too."""
        limit = self.settings.saturate_at
        free = max(0, limit - self._serving) if limit else len(self._queue)
        works = [self._queue.popleft() for _ in range(min(free, len(self._queue)))]
        self._serving += len(works)
        return works

    def _work(self, kind: Kind, body: Mapping[str, Any]) -> Work:
        if not isinstance(body, Mapping):
            raise InvalidRequestError("We could not parse the JSON body of your request.")
        if not isinstance(body.get("model"), str) or not body["model"]:
            raise InvalidRequestError("you must provide a model parameter")
        return self._chat_work(body) if kind == "chat" else self._embeddings_work(body)

    def _chat_work(self, body: Mapping[str, Any]) -> Work:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidRequestError("Missing required parameter: 'messages'.")
        settings = self.settings
        digest = request_digest(body)
        count = 1 if body.get("n") is None else body["n"]
        if not isinstance(count, int) or not 1 <= count <= _MAX_CHOICES:
            raise InvalidRequestError(f"Invalid value for 'n': expected an integer of 1 to {_MAX_CHOICES}.")
        try:
            answers = [
                choice_for(body, digest_of_choice(digest, index), settings.answer_tokens, settings.answer_sigma)
                for index in range(count)
            ]
            text = last_user_text(body)
            prompt = prompt_tokens(body)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise InvalidRequestError(f"Invalid request: {exc}") from exc
        completion = sum([text_tokens(answer.text) for answer in answers])
        return Work("chat", body, digest, text, answers, [], prompt, completion)

    def _embeddings_work(self, body: Mapping[str, Any]) -> Work:
        dimensions = body.get("dimensions", 1)
        if not isinstance(dimensions, int) or not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise InvalidRequestError(f"Invalid value for 'dimensions': expected 1 to {_MAX_DIMENSIONS}.")
        try:
            inputs = inputs_of(body)
        except ValueError as exc:
            raise InvalidRequestError(str(exc)) from exc
        text = "\n".join([input_text(item) for item in inputs])
        each = [input_tokens(item) for item in inputs]
        tokens = sum(each)
        if tokens > MAX_REQUEST_TOKENS:
            raise InvalidRequestError(f"Requested {tokens} tokens, max {MAX_REQUEST_TOKENS} tokens per request")
        longest = self.settings.context_tokens
        over = next((at for at, count in enumerate(each) if longest and count > longest), None)
        if over is not None:
            raise InvalidRequestError(f"Invalid 'input[{over}]': maximum context length is {longest} tokens.")
        return Work("embeddings", body, request_digest(body), text, [], inputs, tokens, 0)

    def _limits(self, work: Work, now: float) -> Reply | None:
        settings = self.settings
        if settings.quota_after is not None and self._admitted >= settings.quota_after:
            return self._refuse("quota", now, work.body)
        if work.kind == "chat" and settings.context_tokens and work.prompt_tokens > settings.context_tokens:
            self.stats.rejected["context"] += 1
            return self._refusals.context(work.prompt_tokens, self._headers(now))
        if settings.max_concurrency and self.stats.in_flight >= settings.max_concurrency:
            self.stats.rejected["concurrency"] += 1
            return self._refusals.concurrency(self._headers(now), now + self._wall_offset_s)
        if not settings.rpm and not settings.tpm:
            return None
        tokens = work.prompt_tokens + work.completion_tokens
        exceeded = self._limiter.admit(tokens, now, count_rejected=settings.count_rejected)
        if exceeded is None:
            return None
        self.stats.rejected[exceeded.what] += 1
        return self._refusals.rate(exceeded, str(work.body["model"]), self._headers(now), now + self._wall_offset_s)

    def _refuse(self, fault: str, now: float, body: Mapping[str, Any], authorization: str = "") -> Reply:
        self.stats.rejected[fault] += 1
        headers, wall_s = self._headers(now), now + self._wall_offset_s
        return self._refusals.fault(fault, str(body.get("model")), headers, wall_s, authorization)

    def _headers(self, now: float) -> bytes:
        settings = self.settings
        if not settings.rpm and not settings.tpm:
            return b""
        return self._limiter.headers(settings.rate_headers, now, now + self._wall_offset_s)

    def _spoil(self, work: Work, fault: str) -> None:
        settings = self.settings
        work.answers = [spoiled(answer, fault, settings.big_bytes) for answer in work.answers]
        work.completion_tokens = sum([text_tokens(answer.text) for answer in work.answers])

    def _chat(self, work: Work, number: int, now: float) -> Reply:
        settings, body = self.settings, work.body
        created, model = int(now + self._wall_offset_s), str(body["model"])
        used = replies.usage(work.prompt_tokens, work.completion_tokens)
        headers = b"x-request-id: req_%d\r\n" % number + self._headers(now)
        fault = work.fault if work.fault is not None and FAULTS[work.fault] == "wire" else None
        if not body.get("stream") or fault == "hang-billed":
            answer = replies.chat_body(number, created, model, work.answers, used)
            return replies.billed_reply(number, headers, answer, fault=fault, drip_s=settings.drip_interval_s)
        wants_usage = (body.get("stream_options") or {}).get("include_usage")
        events = replies.chat_events(number, created, model, work.answers, used if wants_usage else None)
        interval_s = settings.drip_interval_s if fault == "drip" else settings.latency_per_token_s
        return replies.stream_reply(number, headers, events, interval_s, fault=fault)

    def _embeddings(self, work: Work, number: int, now: float) -> Reply:
        settings, body = self.settings, work.body
        model = str(body["model"])
        dimensions = body.get("dimensions") or settings.embedding_dimensions
        vectors = [embedding_for(item, dimensions, model) for item in work.inputs]
        packed = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": as_base64(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ]
        used = {"prompt_tokens": work.prompt_tokens, "total_tokens": work.prompt_tokens}
        answer = canonical({"object": "list", "data": data, "model": model, "usage": used})
        fault = work.fault if work.fault is not None and FAULTS[work.fault] == "wire" else None
        headers = b"x-request-id: req_%d\r\n" % number + self._headers(now)
        return replies.billed_reply(number, headers, answer, fault=fault, drip_s=settings.drip_interval_s)


def spoiled(answer: Answer, fault: str, big_bytes: int = 0) -> Answer:
    """An answer as a content fault leaves it."""
    text = answer.text
    spoilt: dict[str, Callable[[], Answer]] = {
        "filter": lambda: Answer("", "content_filter"),
        "refusal": lambda: Answer("", refusal="I'm sorry, but I can't help with that."),
        "empty": lambda: Answer(""),
        "length": lambda: replace(answer, text=text[: len(text) // 2], finish_reason="length"),
        "surrogate": lambda: replace(answer, text=text + "\ud83d"),
        "nul": lambda: replace(answer, text=text + "\0"),
        "big": lambda: replace(answer, text=text + " " + "x" * max(0, big_bytes - len(text) - 1)),
    }
    if fault == "brokenschema" and text.startswith(("{", "[")):
        return replace(answer, text=text[: max(1, len(text) * 2 // 3)])
    return spoilt[fault]() if fault in spoilt else answer
