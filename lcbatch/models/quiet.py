"""Models that a user's chain built itself, made fit for a run: no retries of their own, and connections that somebody closes.

Setting `max_retries` on a built ChatOpenAI leaves its client at 2, and LangChain's HTTP client is shared by all models of the
process and never closed; so the SDK client is made anew over an HTTP client of the run's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_KEEPALIVE_S = 60.0


class QuietClients:
    """Makes models quiet, and closes what it opened for them."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._client: Any = None

    def quiet(self, model: BaseChatModel) -> None:
        """Rebuild the model's async SDK client without retries. A model of another make is left as it is."""
        sdk = getattr(model, "root_async_client", None)
        if sdk is None or not hasattr(sdk, "with_options"):
            return
        given = {} if getattr(model, "http_async_client", None) is not None else {"http_client": self._http_client()}
        quiet = sdk.with_options(max_retries=0, **given)
        model.__dict__["root_async_client"] = quiet
        model.__dict__["async_client"] = quiet.chat.completions

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def _http_client(self) -> Any:
        if self._client is None:
            import httpx2  # noqa: PLC0415 - loads with the first OpenAI model
            import openai  # noqa: PLC0415

            limits = httpx2.Limits(max_connections=self._connections, keepalive_expiry=_KEEPALIVE_S)
            self._client = openai.DefaultAsyncHttpxClient(limits=limits, follow_redirects=False)
        return self._client
