"""The words that a setting may take."""

from typing import Literal

RetryAfterForm = Literal["seconds", "ms", "both", "date", "garbage", "negative", "absent"]
RateHeaders = Literal["openai", "anthropic", "none"]
LedgerDepth = Literal["none", "counts", "full"]
