"""Documents longer than the context: parts, levels of merging, and what happens when something does not fit after all."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from lcbatch.chains import load_templates, summarizing
from lcbatch.chains.context import Context, request_tokens
from lcbatch.chains.summarize import Reading, SummarizeChain
from lcbatch.errors import CallFailed, ConfigError, Failure, Kind, UsageError
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.job import ChainOptions
from lcbatch.records import Fields, Json, Reply, Request

from .books import book

_BOOK = book(200_000)


@dataclass
class Model:
    """ports.Call of a model that answers in so many words after a second, and refuses what its context does not hold."""

    context_tokens: int = 4096
    words: int = 100
    refuses: str = "\0"
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        text = request.messages[1]["content"]
        if request_tokens(request) > self.context_tokens:
            raise CallFailed(Failure(Kind.CONTEXT_LENGTH, "too long"))
        await asyncio.sleep(1.0)
        if self.refuses in text:
            raise CallFailed(Failure(Kind.REFUSAL, "no"))
        answer = f"{len(self.requests)} " + "word " * self.words if self.words else " "
        return Reply(answer, {"content": answer}, "m")

    @property
    def steps(self) -> Counter[str]:
        return Counter(request.step for request in self.requests)


def summarizing_with(**options: Any) -> SummarizeChain:
    return chain(Model(), **options)


def chain(model: Model, *, context_tokens: int = 4096, strategy: str = "auto", **options: Any) -> SummarizeChain:
    given = ChainOptions(**options)
    reading = Reading(strategy=strategy, context=Context(context_tokens), given_context_tokens=context_tokens)
    return summarizing(given, load_templates(given), model, reading, {"model": "test:m"})


def run(made: SummarizeChain, text: str = _BOOK, **fields: Any) -> tuple[Json, float]:
    """The output, and the seconds that it took."""

    async def timed() -> tuple[Json, float]:
        given: Fields = {"name": "book.txt", "path": "x/book.txt", **fields, "text": text}
        output = await made(given)
        return output, asyncio.get_running_loop().time()

    return run_virtual(timed())


def test_a_document_that_fits_is_one_call() -> None:
    model = Model()
    run(chain(model), text="short")

    assert model.steps == {"whole": 1}


def test_a_long_document_is_mapped_at_once_and_merged_level_by_level() -> None:
    model, levels = Model(context_tokens=2500), 3
    _, took_s = run(chain(model, context_tokens=2500))

    assert took_s == pytest.approx(levels), "one second a level: nothing waits for another part"
    assert model.requests[-1].step == "reduce"
    assert model.steps["map"] > 10
    assert 1 < model.steps["reduce"] < model.steps["map"] / 4
    assert all(request_tokens(request) < 2500 for request in model.requests)


def test_all_but_the_last_call_belong_to_their_requests() -> None:
    model = Model()
    run(chain(model))

    assert [request.shared for request in model.requests] == [True] * (len(model.requests) - 1) + [False]


def test_a_part_is_asked_alike_whatever_stands_around_it() -> None:
    first, second = Model(), Model()
    run(chain(first))
    run(chain(second), text="A paragraph before all.\n\n" + _BOOK)

    asked = [{request.messages[1]["content"] for request in model.requests} for model in (first, second)]
    assert len(asked[1] - asked[0]) < len(asked[1]) / 2


def test_fields_that_leave_no_room_for_the_text_fail_the_row_before_any_call() -> None:
    model = Model(context_tokens=1_000_000)

    with pytest.raises(CallFailed, match="leave no room") as raised:
        run(chain(model, prompt="Compare {reference} with {text}"), reference="word " * 3200)

    assert raised.value.failure.kind is Kind.CONTEXT_LENGTH
    assert model.requests == []


def test_stuff_asks_in_one_call_whatever_the_length() -> None:
    model = Model(context_tokens=1_000_000)
    run(chain(model, strategy="stuff"))

    assert model.steps == {"whole": 1}


def test_stuffed_and_refused_it_fails() -> None:
    with pytest.raises(CallFailed, match="too long"):
        run(chain(Model(), strategy="stuff"))


def test_a_context_smaller_than_was_said_is_found_out() -> None:
    model = Model(context_tokens=2000)
    output, _ = run(chain(model, context_tokens=100_000))

    assert output.endswith("word ")
    assert model.requests[0].step == "whole"
    assert model.requests[-1].step == "reduce"


def test_what_never_fits_fails_with_what_to_do() -> None:
    with pytest.raises(CallFailed) as raised:
        run(chain(Model(words=5000)))

    assert raised.value.failure.kind is Kind.CONTEXT_LENGTH
    assert "--context-tokens" in raised.value.failure.message


def test_one_refused_part_fails_the_document() -> None:
    text = _BOOK[:100_000] + "\n\nforbidden\n\n" + _BOOK[100_000:]

    with pytest.raises(CallFailed) as raised:
        run(chain(Model(refuses="forbidden")), text=text)

    assert raised.value.failure.kind is Kind.REFUSAL


def test_answers_without_a_word_are_not_merged() -> None:
    model = Model(words=0)

    assert run(chain(model))[0] == ""
    assert model.steps["reduce"] == 0


def test_own_prompts_for_parts_and_merging() -> None:
    model = Model()
    run(
        chain(
            model,
            map_prompt="{headings}|{words}|{name}: {text}",
            reduce_prompt="merge to {words}: {text}",
            words=50,
        )
    )

    maps = [request.messages[1]["content"] for request in model.requests if request.step == "map"]
    assert maps[0].startswith("|120|book.txt: Chapter 1")
    assert any(text.startswith("Chapter ") for text in maps)
    assert model.requests[-1].messages[1]["content"].startswith("merge to 50: ")


def test_an_own_prompt_is_put_to_every_part_and_the_answers_are_merged_under_it() -> None:
    model = Model()
    run(chain(model, prompt="List all names in: {text}"))

    maps = [request.messages[1]["content"] for request in model.requests if request.step == "map"]
    assert all(text.startswith("List all names in: ") for text in maps)
    assert "<request>\nList all names in: (the document)\n</request>" in model.requests[-1].messages[1]["content"]


@pytest.mark.parametrize("name", ["map_prompt", "reduce_prompt"])
def test_a_prompt_without_a_place_for_the_text_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} has no {{text}}"):
        summarizing_with(**{name: "Summarize!"})


def test_a_context_without_room_is_refused_before_any_call() -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        chain(Model(), context_tokens=400)


def test_the_identity_tells_apart_what_changes_the_answers_of_long_documents() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"context_tokens": 8000},
        {"strategy": "stuff"},
        {"map_prompt": "{text}"},
        {"reduce_prompt": "{text}"},
    ]
    identities = [str(chain(Model(), **options).identity) for options in asked]

    assert len(set(identities)) == len(asked)
