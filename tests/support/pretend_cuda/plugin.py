"""A pytest plugin: `-p tests.support.pretend_cuda.plugin` gives the whole process the pretended device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pretend_cuda.install import install

install()


@pytest.fixture(autouse=True)
def _counted_anew() -> Iterator[None]:
    """Every test starts with counters at zero, on the first device."""
    import torch

    from tests.support.pretend_cuda.counters import COUNTERS

    COUNTERS.reset()
    torch.cuda.set_device(0)
    yield
