"""Answers out of a handbook, for `lcbatch run QUESTIONS --chain samples/retriever.py:handbook`.

A retriever over a vector store in memory finds the three passages nearest to a question, and the model answers from them.
The vectors are counts of words, so that this sample needs no network for them; put OpenAIEmbeddings or another in their place
(`lcbatch` governs chat models alone: embedding models inside a chain keep their own retries, and are not counted).

    lcbatch run samples/questions.jsonl --chain samples/retriever.py:handbook -o answers.jsonl
"""

from __future__ import annotations

import math
import re
import zlib
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

HANDBOOK = Path(__file__).with_name("docs") / "handbook-river-wardens.txt"
PASSAGES = 3
PROMPT = """\
Answer the question from these passages of the river wardens' handbook alone; say so if the answer is not in them.

{passages}

Question: {question}"""


class CountedWords(Embeddings):
    """Texts as unit vectors of how often each word stands in them; words share `size` places by their checksum."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size

    def embed_query(self, text: str) -> list[float]:
        """One text."""
        vector = [0.0] * self._size
        for word in re.findall(r"[a-z]{4,}", text.lower()):
            vector[zlib.crc32(word.removesuffix("s").encode()) % self._size] += 1.0
        length = math.hypot(*vector) or 1.0
        return [count / length for count in vector]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Several texts."""
        return [self.embed_query(text) for text in texts]


def _passages() -> list[Document]:
    return [Document(part) for part in HANDBOOK.read_text(encoding="utf-8").split("\n\n") if len(part) > 80]  # noqa: PLR2004 - headings are shorter


def _joined(found: list[Document]) -> str:
    return "\n\n".join(document.page_content for document in found)


def handbook(model: str = "gpt-5-mini", base_url: str | None = None) -> Runnable[dict[str, Any], str]:
    """Answer the field `question`. The store is filled once, when lcbatch loads the chain."""
    store = InMemoryVectorStore.from_documents(_passages(), CountedWords())
    retriever = store.as_retriever(search_kwargs={"k": PASSAGES})
    found = RunnableParallel(
        passages=itemgetter("question") | retriever | _joined,
        question=itemgetter("question"),
    )
    prompt = ChatPromptTemplate.from_template(PROMPT)
    return found | prompt | ChatOpenAI(model=model, base_url=base_url) | StrOutputParser()
