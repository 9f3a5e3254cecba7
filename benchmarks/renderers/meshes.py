"""Meshes, forward and back, outlines antialiased, beside yardsticks of the machine's speed.

The yardsticks: a matrix product (the bar of 3 ms for 19.2 thousand faces at 128 x 128 was set on a core that does
91 GFLOP/s), and the torch twin of the splats at 128 x 128 with 20 thousand of them, which took 1.1 s there. The torch
twin of the mesh kernels is timed once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from splats import ball as ball_of_splats
from timing import on_two_threads, ratio, rounds, say, timed, told_of_threads

from renderers.cameras import look_at_origin
from renderers.meshes import cpu_kernels
from renderers.meshes import reference as meshes_reference
from renderers.meshes.config import MeshConfig
from renderers.meshes.triangles import project_points
from renderers.meshes.welded_mesh import WeldedMesh, cube_sphere
from renderers.splats import reference as splats_reference
from renderers.splats.gaussians import CameraMatrices

CASES = ((3_888, 128), (19_200, 128), (99_372, 128), (3_888, 256), (19_200, 256), (99_372, 256), (19_200, 512))
"""Faces and pixels along a side."""
WITH_BAR, BAR = (19_200, 128), 3.0
"""Milliseconds at the speed of the core that the bar was set on."""
ON_TWO = ((19_200, 256), (99_372, 512))
"""Faces and pixels of what is drawn by two threads."""
GFLOPS = 91
PRODUCT = "matrix product"
PRODUCTS = 24


def mesh(faces: int, size: int, kernels: bool = True) -> Callable[[], None]:
    """One picture of a ball with a colour at every point, and the gradients of colours and points."""
    body = WeldedMesh.from_mesh(cube_sphere(0.7, faces, 16))
    triangles, camera = body.triangles, look_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size)
    way = cpu_kernels if kernels else meshes_reference
    pull = torch.randn(1, size, size, 4, generator=torch.Generator().manual_seed(0))
    points, colours = body.points.clone().requires_grad_(), torch.rand_like(body.points).requires_grad_()
    _ = triangles.edges

    def step() -> None:
        points.grad = colours.grad = None
        at = project_points(points, camera)
        fragments = way.rasterize(at, triangles, size, size)
        painted = way.interpolate(colours, triangles.corners, at, triangles, fragments)
        layers = torch.cat([painted, fragments.seen[..., None].float()], -1)
        smooth = way.antialias(layers, at, triangles, way.find_silhouettes(at, triangles, fragments))
        smooth.backward(pull)

    return step


def scene(size: int, **knobs: object) -> Callable[[], None]:
    """One view of the whole scene, 20 thousand faces, penalty included."""
    made = MeshConfig(**knobs).build("cpu", torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    camera = look_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size)

    def step() -> None:
        made.zero_grad(set_to_none=True)
        frame = made.render(camera, torch.zeros(1, 3))
        (frame.rgb.sum() + made.regularization_loss(frame)).backward()

    return step


def splats(count: int = 20_000, size: int = 128) -> Callable[[], None]:
    """The torch twin of the splats."""
    gaussians = ball_of_splats(count)
    lenses = CameraMatrices.from_cameras(look_at_origin(torch.zeros(1), torch.zeros(1), size), gaussians.means.detach())

    def step() -> None:
        colour, alpha, _ = splats_reference.draw(gaussians, lenses)
        (colour.sum() + alpha.sum()).backward()

    return step


def product() -> Callable[[], None]:
    """2 * 512^3 floating-point operations, PRODUCTS times."""
    a, b = torch.rand(512, 512), torch.rand(512, 512)

    def step() -> None:
        for _ in range(PRODUCTS):
            a @ b

    return step


def measured(quick: bool, repeats: int) -> dict[str, Any]:
    """All figures; `quick`: without the torch twin of the splats."""
    works = {f"{faces} faces, {size} px": mesh(faces, size) for faces, size in CASES}
    works["scene of 20k faces, 96 px, texture 512"] = scene(96)
    works["the same, shape fixed"] = scene(96, move=False)
    works["the same, lit, all maps"] = scene(96, light="studio", material=True, bumps=True)
    works[PRODUCT] = product()
    say("meshes, both ways")
    found = rounds({name: lambda work=work: timed(work) for name, work in works.items()}, 3 * repeats, 2)
    rows = [{"what": name, "least_ms": min(v), "median_ms": statistics.median(v)} for name, v in found.items()]
    for row in rows:
        say(f"    {row['what']:40} {row['least_ms']:9.2f} ms least {row['median_ms']:9.2f} ms median")
    work = PRODUCTS * 2 * 512**3 / 1e6
    faces, size = WITH_BAR
    ours = found[f"{faces} faces, {size} px"]
    data: dict[str, Any] = {"rows": rows, "gflops": work / statistics.median(found[PRODUCT])}
    data["scaled_ms"] = statistics.median(a * (work / b) / GFLOPS for a, b in zip(ours, found[PRODUCT], strict=True))
    twin = timed(mesh(faces, size, kernels=False))
    data |= {"twin_ms": twin, "twin_ratio": ratio([twin], [statistics.median(ours)])}
    if not quick:
        data["splats_twin_ms"] = timed(splats())
    say("    " + ", ".join(f"{name} {value:.4g}" for name, value in data.items() if name != "rows"))
    data["threads"] = [on_two_threads(f"{each[0]} faces, {each[1]} px", mesh(*each), 3 * repeats) for each in ON_TWO]
    return data


def told(data: dict[str, Any]) -> list[str]:
    """The section of the page."""
    faces, size = WITH_BAR
    key = f"{faces} faces, {size} px"
    ours = next(row["median_ms"] for row in data["rows"] if row["what"] == key)
    speed = f"a core that does {data['gflops']:.0f} GFLOP/s in a matrix product"
    lines = [
        f"Forward and backward with antialiased outlines: {faces:,} faces at {size} x {size} take {ours:.1f} ms "
        f"(median) on {speed}, or {data['scaled_ms']:.1f} ms at the speed of the core that the bar of {BAR:.0f} ms was "
        f"set on ({GFLOPS} GFLOP/s).",
        "",
        "| forward and backward | least | median |",
        "|---|---|---|",
    ]
    for row in data["rows"]:
        if row["what"] != PRODUCT:
            least = f"{row['least_ms']:.1f} ms" if row.get("least_ms") else ""
            lines.append(f"| {row['what']} | {least} | {row['median_ms']:.1f} ms |")
    if "twin_ms" in data:
        lines += ["", f"The torch twin takes {data['twin_ratio']:.0f} times as long."]
    if "splats_twin_ms" in data:
        lines[-1] += f" That of 20,000 splats at 128 x 128 takes {data['splats_twin_ms'] / 1e3:.1f} s on this core."
    return lines + told_of_threads(data["threads"]) if "threads" in data else lines
