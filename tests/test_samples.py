"""The samples are the first thing that a newcomer runs: each must be what samples/README.md says that it is."""

from __future__ import annotations

import csv
import json
import runpy
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lcbatch.chains.custom import load_custom
from lcbatch.job import ChainOptions

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
DOCS = sorted((SAMPLES / "docs").iterdir())


def read_jsonl(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


def test_there_are_at_least_ten_documents_of_every_kind_that_is_read() -> None:
    assert len(DOCS) >= 10
    assert {path.suffix for path in DOCS} == {".txt", ".md", ".rst", ".html", ".pdf", ".docx"}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_a_document_has_between_2_and_60_kilobytes(path: Path) -> None:
    assert 2_000 <= path.stat().st_size <= 60_000


@pytest.mark.parametrize("path", [path for path in DOCS if path.suffix not in {".pdf", ".docx"}], ids=lambda p: p.name)
def test_a_text_document_is_clean_utf8(path: Path) -> None:
    text = path.read_bytes().decode("utf-8")
    assert "\r" not in text
    assert "\ufffd" not in text
    assert text.endswith("\n")


def test_the_binary_documents_are_the_very_bytes_that_the_script_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(SAMPLES / "make_documents.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    runpy.run_path(script, run_name="__main__")

    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in DOCS if path.suffix in {".pdf", ".docx"}}
    assert made.keys() == kept.keys()
    for name, data in made.items():
        assert data == kept[name], f"{name} differs: run samples/make_documents.py and commit what it writes"


def test_prompts_have_an_id_of_their_own_and_text() -> None:
    rows = read_jsonl("prompts.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) == 20
    assert all(row.keys() == {"id", "text"} and row["text"].strip() for row in rows)


def test_prompts_hold_what_a_careless_template_trips_over() -> None:
    texts = "".join(row["text"] for row in read_jsonl("prompts.jsonl"))
    for trap in ('{"a": 1}', "{name}", "{{price}}", '"', "\n", "ö", "日本語", "☕"):
        assert trap in texts


def tickets() -> list[dict[str, str]]:
    with (SAMPLES / "tickets.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tickets_are_csv_with_commas_quotes_and_line_breaks_in_cells() -> None:
    rows = tickets()
    assert len({row["id"] for row in rows}) == len(rows) == 25
    assert all(row.keys() == {"id", "customer", "subject", "body", "created"} and all(row.values()) for row in rows)
    for trap in (",", '"', "\n", "ü"):
        assert any(trap in row["body"] for row in rows)


def test_messages_are_chats_that_end_with_the_user() -> None:
    rows = read_jsonl("messages.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) == 6
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert set(roles) <= {"system", "user", "assistant"}
        assert roles[-1] == "user"
    assert any(len(row["messages"]) > 4 for row in rows)


def test_batch_requests_have_the_shape_of_openais_format() -> None:
    rows = read_jsonl("openai-batch.jsonl")
    assert len({row["custom_id"] for row in rows}) == len(rows) == 6
    for row in rows:
        assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
        assert {"model", "messages", "max_tokens"} <= row["body"].keys()


def test_the_configuration_is_toml_with_sections_for_commands() -> None:
    config = tomllib.loads((SAMPLES / "lcbatch.toml").read_text(encoding="utf-8"))
    assert config["model"] == "openai:gpt-5-mini"
    assert config["summarize"]["words"] == 120


def test_the_chains_without_a_model_work() -> None:
    chains = runpy.run_path(str(SAMPLES / "chains.py"))
    assert chains["shout"].invoke({"text": "Grüße aus Łódź"}) == "GRÜSSE AUS ŁÓDŹ"
    assert chains["word_count"]({"text": "one two\nthree"}) == {"words": 3, "characters": 13}


def test_triage_is_a_chain_of_the_fields_that_tickets_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-used")
    chain = runpy.run_path(str(SAMPLES / "chains.py"))["triage"](base_url="http://127.0.0.1:9/v1")
    assert set(chain.input_schema.model_fields) == {"subject", "body"}


def test_each_chain_is_one_of_the_fields_that_its_rows_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-used")
    rows = {"agent.py:agent": tickets()[0], "retriever.py:handbook": read_jsonl("questions.jsonl")[0]}
    rows["three_steps.py:report"] = read_jsonl("prompts.jsonl")[0]
    for chain, row in rows.items():
        loaded = load_custom(ChainOptions(chain=f"{SAMPLES}/{chain}"), None)
        assert loaded.needs.fields
        assert loaded.missing(row) is None


def test_the_handbooks_passages_are_found_by_their_words() -> None:
    sample = runpy.run_path(str(SAMPLES / "retriever.py"))
    store = sample["InMemoryVectorStore"].from_documents(sample["_passages"](), sample["CountedWords"]())
    (found,) = store.similarity_search("How long does cold water leave me the strength of my hands?", k=1)
    assert "ten minutes" in found.page_content


def test_the_readme_names_every_file() -> None:
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for path in [*DOCS, *(path for path in SAMPLES.iterdir() if path.is_file() and path.name != "README.md")]:
        assert f"`{path.name}`" in readme
