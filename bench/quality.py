"""How good the embedded summarizer's extracts are: ROUGE-L F1 of 120 words against the abstracts that authors wrote.

    python bench/quality.py [--data ../shared/data] [--gate 0.19] [--check]

Exit 0 when the mean reaches the gate, or when there is no data to measure on (it says so); 1 when it does not. `--check` adds
how the figure moves with each constant, and what tuning on one half of the documents is worth on the other.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]  # it ships no stubs

from lcbatch.models.extractive.cues import Weights
from lcbatch.models.extractive.fitness import is_quotable
from lcbatch.models.extractive.inline import plain
from lcbatch.models.extractive.language import count_words, lexicon_for, terms
from lcbatch.models.extractive.markup import strip_markup
from lcbatch.models.extractive.rank import lexrank, tfidf
from lcbatch.models.extractive.select import OVERRUN, RELEVANCE
from lcbatch.models.extractive.sentences import split_sentences
from lcbatch.models.extractive.summarize import summarize_with

WORDS = 120
SEED = 20260101
RANDOM_DRAWS = 5
RESAMPLES = 5_000
HALVES = 20
DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Document:
    """One document and what its authors wrote about it."""

    name: str
    text: str
    abstract: str


@dataclass(frozen=True, slots=True)
class Setting:
    """The summarizer's constants in one trial."""

    weights: Weights = field(default_factory=Weights)
    relevance: float = RELEVANCE


Summarizer = Callable[[str], str]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    documents = load(options.data)
    if not documents:
        say(f"quality: skipped, there are no documents with abstracts in {options.data} (see --data)")
        return 0
    mean = _report_table(documents)
    if options.check:
        _report_check(documents)
    verdict = "reached" if mean >= options.gate else "missed"
    say(f"\nquality: {mean:.4f}, gate {options.gate:.2f} {verdict}")
    return 0 if mean >= options.gate else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ROUGE-L of the embedded summarizer against authors' abstracts.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with peps/ and peps-abstracts.jsonl")
    parser.add_argument("--gate", type=float, default=0.19, help="least mean ROUGE-L F1 for exit 0")
    parser.add_argument("--check", action="store_true", help="sensitivity and half-split check, some minutes")
    return parser.parse_args(argv)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def load(data: Path) -> list[Document]:
    """Return the documents in the order of the abstracts' file; none where that file is missing."""
    index = data / "peps-abstracts.jsonl"
    if not index.is_file():
        return []
    records = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Document(r["file"], (data / "peps" / r["file"]).read_text(encoding="utf-8"), r["abstract"]) for r in records
    ]


def scores(summarizer: Summarizer, documents: Sequence[Document]) -> list[float]:
    """Return ROUGE-L F1 for each document, with the Porter stemmer as in the published figures."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return [float(scorer.score(d.abstract, summarizer(d.text))["rougeL"].fmeasure) for d in documents]


# The baselines see the same sentences, markup stripped, and the same length; they differ in the order of choice alone.


def sentences_of(text: str) -> list[str]:
    lexicon = lexicon_for("en", "")
    blocks = [block for block in strip_markup(text).blocks if block.kind not in {"heading", "line"}]
    marked = [sentence for block in blocks for sentence in split_sentences(block.text, lexicon)]
    return [plain(s) for s in marked if is_quotable(s, count_words(plain(s)), lexicon, strict=True)]


def take(sentences: Sequence[str], order: Sequence[int]) -> str:
    """Return sentences in document order, chosen in the given order while they fit."""
    chosen: list[int] = []
    words = 0.0
    for i in order:
        length = count_words(sentences[i])
        if words + length <= WORDS * OVERRUN:
            chosen.append(i)
            words += length
        if words >= WORDS:
            break
    return " ".join(sentences[i] for i in sorted(chosen))


def lead(text: str) -> str:
    sentences = sentences_of(text)
    return take(sentences, range(len(sentences)))


def at_random(text: str, seed: int) -> str:
    sentences = sentences_of(text)
    return take(sentences, random.Random(seed).sample(range(len(sentences)), len(sentences)))  # noqa: S311 - a baseline


def plain_lexrank(text: str) -> str:
    sentences = sentences_of(text)
    lexicon = lexicon_for("en", "")
    ranks = lexrank(tfidf([terms(sentence, lexicon) for sentence in sentences]), [1.0] * len(sentences))
    return take(sentences, sorted(range(len(sentences)), key=lambda i: -ranks[i]))


def ours(text: str, setting: Setting = Setting()) -> str:
    return summarize_with(text, words=WORDS, language="en", weights=setting.weights, relevance=setting.relevance)


def _report_table(documents: Sequence[Document]) -> float:
    """Print the table; return the mean of ours."""
    draws = [scores(partial(at_random, seed=SEED + n), documents) for n in range(RANDOM_DRAWS)]
    rows = {
        "random sentences": [statistics.fmean(column) for column in zip(*draws, strict=True)],
        "leading sentences": scores(lead, documents),
        "plain LexRank": scores(plain_lexrank, documents),
        "lcbatch:extractive": scores(ours, documents),
    }
    say(f"ROUGE-L F1 (rouge-score, stemmed) of {WORDS} words against {len(documents)} authors' abstracts\n")
    say(f"{'':20}  mean    95 % interval")
    for name, values in rows.items():
        low, high = interval(values)
        say(f"{name:20}  {statistics.fmean(values):.4f}  {low:.4f} to {high:.4f}")
    gain = [ours - led for ours, led in zip(rows["lcbatch:extractive"], rows["leading sentences"], strict=True)]
    low, high = interval(gain)
    say(f"{'ours minus leading':20}  {statistics.fmean(gain):+.4f} {low:+.4f} to {high:+.4f}")
    return statistics.fmean(rows["lcbatch:extractive"])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over documents (Efron 1979), seeded."""
    rng = random.Random(SEED)  # noqa: S311 - resampling
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975)]


def _report_check(documents: Sequence[Document]) -> None:
    base = Setting()
    around = list(_neighbours(base))
    grid = [
        Setting(replace(base.weights, title=title, position=position, cue=cue), relevance)
        for title, position, cue, relevance in product(
            (1.0, 2.0, 3.0), (0.5, 1.0, 2.0), (0.15, 0.25, 0.4), (0.6, 0.7, 0.8)
        )
    ]
    with ProcessPoolExecutor() as pool:
        settings = [base, *(setting for _, setting in around), *grid]
        results = list(pool.map(partial(_trial, documents=list(documents)), settings, chunksize=4))
    say("\nOne constant moved, the others as they are")
    for (name, _), values in zip(around, results[1:], strict=False):
        say(f"  {name:16} {statistics.fmean(values):.4f}")
    _report_halves(results[0], results[1 + len(around) :])


def _trial(setting: Setting, documents: list[Document]) -> list[float]:
    return scores(partial(ours, setting=setting), documents)


def _neighbours(base: Setting) -> Iterator[tuple[str, Setting]]:
    for value in (0.0, 1.0, 3.0, 4.0):
        yield f"title {value}", replace(base, weights=replace(base.weights, title=value))
    for value in (0.0, 0.5, 1.5, 2.0):
        yield f"position {value}", replace(base, weights=replace(base.weights, position=value))
    for value in (0.0, 0.15, 0.35, 0.5):
        yield f"cue {value}", replace(base, weights=replace(base.weights, cue=value))
    for value in (0.0, 0.25, 0.75):
        yield f"flaw {value}", replace(base, weights=replace(base.weights, flaw=value))
    for value in (0.5, 0.6, 0.8, 0.9, 1.0):
        yield f"MMR lambda {value}", replace(base, relevance=value)


def _report_halves(base: Sequence[float], grid: Sequence[Sequence[float]]) -> None:
    """Tune on a random half, score on the other, many times: what the choice of constants is worth on unseen documents."""
    rng = random.Random(SEED)  # noqa: S311 - splits
    tuned: list[float] = []
    unseen: list[float] = []
    fixed: list[float] = []
    for _ in range(HALVES):
        numbers = rng.sample(range(len(base)), len(base))
        seen, other = numbers[: len(base) // 2], numbers[len(base) // 2 :]
        best = max(grid, key=lambda values: statistics.fmean(values[i] for i in seen))
        tuned.append(statistics.fmean(best[i] for i in seen))
        unseen.append(statistics.fmean(best[i] for i in other))
        fixed.append(statistics.fmean(base[i] for i in other))
    means = [statistics.fmean(values) for values in grid]
    say(f"\nTuned on a random half among {len(grid)} settings, {HALVES} splits, mean ROUGE-L")
    say(f"  tuned half           {statistics.fmean(tuned):.4f}")
    say(f"  other half           {statistics.fmean(unseen):.4f}")
    say(f"  ours on other half   {statistics.fmean(fixed):.4f}")
    say(f"  all settings         {min(means):.4f} to {max(means):.4f}, mean {statistics.fmean(means):.4f}")


if __name__ == "__main__":
    sys.exit(main())
