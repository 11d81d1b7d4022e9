"""`lcbatch:extractive`: the summarizer that needs no key and no network."""

from __future__ import annotations

from lcbatch.job import EXTRACTIVE
from lcbatch.models import LoadedModel, identity_of, nothing_to_close
from lcbatch.models.extractive.chat import ExtractiveChat
from lcbatch.models.prices import price_of


def embedded_model() -> LoadedModel:
    """The extractive model; its answers change only with lcbatch's own algorithm, whose number is in the identity."""
    chat = ExtractiveChat()
    return LoadedModel(
        chat=lambda: chat,
        label=EXTRACTIVE,
        identity=identity_of(EXTRACTIVE, {}),
        price=price_of("lcbatch", local=True),
        local=True,
        takes_document_alone=True,
        aclose=nothing_to_close,
    )
