"""What costs seconds to start is started once for a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.torture.nursery import Nursery


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as running:
        yield running
