"""The run store: every answer received, in one SQLite file beside the output. The truth; all else is derived from it."""
