"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# An example that takes long on a busy machine says nothing about the code; Hypothesis would fail it after 200 ms.
settings.register_profile("lcbatch", deadline=None)
settings.load_profile("lcbatch")
