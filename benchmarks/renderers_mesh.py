"""What drawing a mesh costs, forward and backward, outlines antialiased, beside yardsticks of the machine's speed.

    python benchmarks/renderers_mesh.py [--repeats 30] [--threads 1] [--splats]

Everything is timed in turn, round by round, in milliseconds of processor time of this process; printed are the least
and the median. The yardsticks: a matrix product (the bar of 3 ms for 19.6 thousand faces at 128 x 128 was set on a core
that does 91 GFLOP/s) and, with --splats, the torch twin of the splats at 128 x 128 with 20 thousand of them. The torch
twin of the mesh kernels is timed once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor

from renderers import mesh_kernels, mesh_reference, splat_reference
from renderers.body import Body, ball
from renderers.cameras import looking_at_origin
from renderers.gaussians import Gaussians, Lenses
from renderers.mesh_raster import places
from renderers.solid import Solid

CASES = ((3_888, 128), (19_200, 128), (99_372, 128), (3_888, 256), (19_200, 256), (99_372, 256), (19_200, 512))
"""Faces and pixels along a side."""
BAR = (19_200, 128)


def mesh(faces: int, size: int, kernels: bool = True) -> Callable[[], None]:
    """One picture of a ball with a colour at every point, and the gradients of colours and points."""
    body = Body.of(ball(0.7, faces, 16))
    triangles, camera = body.triangles, looking_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size)
    way = mesh_kernels if kernels else mesh_reference
    pull = torch.randn(1, size, size, 4, generator=torch.Generator().manual_seed(0))
    points, colours = body.points.clone().requires_grad_(), torch.rand_like(body.points).requires_grad_()
    _ = triangles.edges

    def step() -> None:
        points.grad = colours.grad = None
        at = places(points, camera)
        fragments = way.rasterise(at, triangles, size, size)
        painted = way.blend(colours, triangles.corners, at, triangles, fragments)
        layers = torch.cat([painted, fragments.seen[..., None].float()], -1)
        smooth = way.antialias(layers, at, triangles, way.outline(at, triangles, fragments))
        smooth.backward(pull)

    return step


def scene(size: int, **knobs: object) -> Callable[[], None]:
    """One view of the whole scene, 20 thousand faces, penalty included."""
    made = Solid(**knobs).build("cpu", torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    camera = looking_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size)

    def step() -> None:
        made.zero_grad(set_to_none=True)
        frame = made.render(camera, torch.zeros(1, 3))
        (frame.rgb.sum() + made.penalty(frame)).backward()

    return step


def splats(count: int = 20_000, size: int = 128) -> Callable[[], None]:
    """The torch twin of the splats on a ball of them, half as wide as they lie apart."""
    rng = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=rng), dim=-1)
    means = means * torch.rand(count, 1, generator=rng) ** (1 / 3)
    apart = 0.5 * (4 / 3 * torch.pi / count) ** (1 / 3)
    values = [
        means,
        torch.randn(count, 4, generator=rng),
        apart * torch.exp(0.4 * torch.randn(count, 3, generator=rng)),
        0.05 + 0.9 * torch.rand(count, generator=rng),
        torch.rand(count, 3, generator=rng),
    ]
    inputs: list[Tensor] = [value.requires_grad_() for value in values]
    lenses = Lenses.of(looking_at_origin(torch.zeros(1), torch.zeros(1), size), means)

    def step() -> None:
        colour, alpha, _ = splat_reference.draw(Gaussians(*inputs), lenses)
        (colour.sum() + alpha.sum()).backward()

    return step


def product() -> Callable[[], None]:
    """2 * 512^3 floating-point operations, 24 times."""
    a, b = torch.rand(512, 512), torch.rand(512, 512)

    def step() -> None:
        for _ in range(24):
            a @ b

    return step


def timed(step: Callable[[], None]) -> float:
    """Milliseconds of processor time."""
    began = time.process_time()
    step()
    return 1e3 * (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--splats", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    steps = {f"mesh {faces:>6} faces, {size} px": mesh(faces, size) for faces, size in CASES}
    steps["scene 20k, 96 px, texture 512"] = scene(96)
    steps["  the same, shape fixed"] = scene(96, move=False)
    steps["  the same, lit, all maps"] = scene(96, light="studio", material=True, bumps=True)
    steps["matrix product"] = product()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(given.repeats + 2):
        for name, step in steps.items():
            found[name].append(timed(step))
    for name, values in found.items():
        kept = values[2:]
        sys.stdout.write(f"{name:34} {min(kept):9.2f} ms least {statistics.median(kept):9.2f} ms median\n")
    speed = 24 * 2 * 512**3 / 1e6
    fast, usual = (speed / figure(found["matrix product"][2:]) for figure in (min, statistics.median))
    sys.stdout.write(f"matrix product: {fast:.0f} GFLOP/s at best, {usual:.0f} in the median\n")
    key = f"mesh {BAR[0]:>6} faces, {BAR[1]} px"
    pairs = zip(found[key][2:], found["matrix product"][2:], strict=True)
    scaled = statistics.median(ours * (speed / theirs) / 91 for ours, theirs in pairs)
    sys.stdout.write(f"{key} at the speed of 91 GFLOP/s: {scaled:.2f} ms (bar: 3)\n")
    twin = timed(mesh(*BAR, kernels=False))
    sys.stdout.write(
        f"the torch twin of it: {twin:.0f} ms, {twin / statistics.median(found[key][2:]):.0f} times ours\n"
    )
    if given.splats:
        sys.stdout.write(f"the torch twin of 20 thousand splats, 128 px: {timed(splats()):.0f} ms\n")


if __name__ == "__main__":
    main()
