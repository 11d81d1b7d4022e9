"""A provider for a module, and a fresh folder for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@pytest.fixture
def shop(provider: SimulatorProcess, tmp_path: Path) -> Shop:
    return Shop(provider, tmp_path)
