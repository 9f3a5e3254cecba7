"""The pretended device itself: what a GPU refuses is refused, what waits is counted, kernels answer right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from renderers.cameras import look_at_origin
from renderers.splats.gaussians import Gaussians, RasterizationOptions
from renderers.splats.rasterization import rasterize
from tests.support.pretend_cuda.counters import COUNTERS

NEAR, FAR = torch.ones(3), torch.ones(3).to("cuda")
REFUSED: dict[str, Callable[[], object]] = {
    "two devices in a sum": lambda: NEAR + FAR,
    "two devices in a cat": lambda: torch.cat([NEAR, FAR]),
    "two GPUs": lambda: FAR + torch.ones(3, device="cuda:1"),
    "a scalar of the CPU in a cat": lambda: torch.stack([torch.tensor(1.0), FAR[0]]),
    "a generator of the CPU": lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
    "numpy": lambda: FAR.numpy(),
    "a CPU tensor indexed by CUDA": lambda: NEAR[torch.zeros(1, dtype=torch.long, device="cuda")],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[name]()


ALLOWED: dict[str, tuple[Callable[[], object], int, int]] = {
    "a scalar of the CPU in a product": (lambda: FAR * torch.tensor(2.0), 0, 0),
    "a number read": (lambda: float(FAR.sum()), 1, 0),
    "a mask as an index": (lambda: FAR[FAR > 0], 1, 0),
    "a download": (lambda: FAR.cpu(), 1, 0),
    "an upload": (lambda: NEAR.to("cuda"), 0, 1),
    "a constant": (lambda: torch.tensor([1.0, 2.0], device="cuda"), 0, 1),
    "a factory": (lambda: torch.zeros(3, device="cuda"), 0, 0),
    "from one GPU to the other": (lambda: FAR.to("cuda:1"), 0, 0),
    "an upload from pinned memory": (lambda: NEAR.pin_memory().to("cuda", non_blocking=True), 0, 0),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_waits_is_counted(name: str) -> None:
    act, syncs, uploads = ALLOWED[name]
    COUNTERS.reset()
    act()
    assert (COUNTERS.syncs.total(), COUNTERS.uploads.total()) == (syncs, uploads), COUNTERS.table()


def test_memory_is_counted_while_tensors_live() -> None:
    before = torch.cuda.memory_allocated()
    held = torch.zeros(1 << 18, device="cuda")
    view = held[5:]
    assert torch.cuda.memory_allocated() - before == 4 << 18
    del held
    assert torch.cuda.memory_allocated() - before == 4 << 18
    del view
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before + (4 << 18)


@pytest.mark.parametrize(
    "wish",
    [
        RasterizationOptions(),
        RasterizationOptions(antialiased=True),
        RasterizationOptions(return_normals=True),
        RasterizationOptions(absgrad=True),
    ],
    ids=repr,
)
def test_gsplat_draws_what_the_cpu_draws(wish: RasterizationOptions) -> None:
    """Pictures, gradients of the parameters and what growing goes by."""
    results = []
    for device in ("cpu", "cuda"):
        rng = torch.Generator().manual_seed(0)
        given = [
            (0.4 * torch.randn(40, 3, generator=rng)),
            torch.randn(40, 4, generator=rng),
            torch.exp(0.5 * torch.randn(40, 3, generator=rng) - 2.5),
            0.1 + 0.8 * torch.rand(40, generator=rng),
            torch.rand(40, 3, generator=rng),
        ]
        leaves = [tensor.to(device).requires_grad_() for tensor in given]
        looks = look_at_origin(torch.tensor([0.3, 2.5]), torch.tensor([0.2, -0.5]), 24).to(device)
        frame = rasterize(Gaussians(*leaves), looks, torch.rand(2, 3, generator=rng).to(device), wish)
        layers = [frame.rgb, frame.alpha, frame.depth * frame.alpha]
        layers += [frame.normal] if frame.normal is not None else []
        drawn = torch.cat(layers, -1)
        (drawn * torch.rand(drawn.shape, generator=rng).to(device)).sum().backward()
        seen = frame.info
        found = [drawn, *(leaf.grad for leaf in leaves), seen.radii, seen.means2d_grad]
        found += [seen.means2d_absgrad] if wish.absgrad else []
        results.append([tensor.detach().cpu() for tensor in found])
    for near, far in zip(*results, strict=True):
        torch.testing.assert_close(far, near, rtol=1e-3, atol=2e-4)
