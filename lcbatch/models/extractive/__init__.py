"""The embedded summarizer `lcbatch:extractive`: offline, deterministic, no key (docs/extractive.md says how and why)."""
