"""A user's own chain, as anybody would write it; given to lcbatch by --chain, and run by LangChain's own ways beside it."""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from bench.clients.common import MODEL, PROMPT

chain = ChatPromptTemplate.from_messages([("human", PROMPT)]) | ChatOpenAI(model=MODEL) | StrOutputParser()
