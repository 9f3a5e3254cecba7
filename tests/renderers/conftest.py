"""Fixtures of the renderers' tests: by which code something is drawn."""

from __future__ import annotations

import pytest
import torch

from renderers import kernels as renderers_kernels


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With each of the compiled libraries."""
    monkeypatch.setenv("SDS3D_KERNELS", request.param)
    if renderers_kernels.library() is None:
        pytest.skip(renderers_kernels.why_missing())
    needed = {"avx512": "AVX512", "avx2": "AVX", "baseline": ""}[request.param]
    if not torch.backends.cpu.get_cpu_capability().startswith(needed):
        pytest.skip(f"this processor has no {request.param}")
    return str(request.param)


@pytest.fixture(params=["kernels", "twin"])
def kind(request: pytest.FixtureRequest) -> torch.dtype:
    """float32 is drawn by the kernels, float64 by the twin."""
    if request.param == "kernels" and renderers_kernels.library() is None:
        pytest.skip(renderers_kernels.why_missing())
    return torch.float32 if request.param == "kernels" else torch.float64


@pytest.fixture(params=["kernel", "twin"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """float32 with the compiled kernels, and without."""
    if request.param == "twin":
        monkeypatch.setenv("SDS3D_KERNELS", "torch")
    elif renderers_kernels.library() is None:
        pytest.skip(renderers_kernels.why_missing())
    return str(request.param)
