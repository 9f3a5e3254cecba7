"""Whether what draws on a device draws the right things: the checks of `sds3d doctor --selftest` and of the tests.

Each check draws a small scene twice: as runs do, in float32 on the device (compiled kernels on a CPU; gsplat, nerfacc
and PyTorch3D on CUDA), and with the plain torch twin in float64 on the CPU, which tests hold to closed forms and to
finite differences. Shapes: B pictures of H x W pixels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from configs.presets import preset
from renderers.cameras import look_at_origin
from renderers.meshes import rasterization, welded_mesh
from renderers.meshes.triangles import Topology
from renderers.splats.gaussians import Gaussians, RasterizationOptions
from renderers.splats.rasterization import rasterize
from renderers.volumes import rendering
from renderers.volumes.hash_field import HashGridField
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MarchOptions, Rays
from renderers.volumes.voxel_field import VoxelField, lattice_points
from sds3d.cli.plan import Cost, measured
from sds3d.console import Console
from sds3d.models.loading import load_prior

VALUES = {"cpu": 1e-5, "cuda": 1e-4}
"""Mean difference of pictures of 0..1 above which a check fails; a pixel on an edge may differ by more."""
GRADIENTS = {"cpu": 1e-3, "cuda": 1e-2}
"""Distance of the gradients, in their own length, above which a check fails."""
SIZE = 40
PROMPT = "a teddy bear"
_PLAIN = RasterizationOptions()

Pictured = tuple[Tensor, list[Tensor]]
"""Pictures [B H W C], and the gradients of a fixed random function of them."""
Way = Callable[[torch.device, torch.dtype], Pictured]


@dataclass(frozen=True)
class Parity:
    """How far two drawings of a scene are apart."""

    values: float
    """Mean absolute difference of the pictures."""
    gradients: float
    """Greatest distance of a gradient, in units of its length."""

    def good(self, device: torch.device) -> bool:
        """Whether it is within the bounds for a device; what is not a number is not."""
        return self.values <= VALUES[device.type] and self.gradients <= GRADIENTS[device.type]

    def __str__(self) -> str:
        return f"pictures differ by {self.values:.1e}, gradients by {self.gradients:.1e} of their length"


def parity(way: Way, device: torch.device) -> Parity:
    """What a device draws, held against the twin.

    Raises what the drawing does, such as ModuleNotFoundError where a library is missing on CUDA.
    """
    picture, gradients = way(device, torch.float32)
    truth, wanted = way(torch.device("cpu"), torch.float64)
    apart = [
        float((found.cpu().double() - right).norm() / right.norm())
        for found, right in zip(gradients, wanted, strict=True)
    ]
    return Parity(float((picture.detach().cpu().double() - truth.detach()).abs().mean()), max(apart))


def splats(
    device: torch.device, kind: torch.dtype, count: int = 400, size: int = SIZE, wish: RasterizationOptions = _PLAIN
) -> Pictured:
    """A cloud of splats: colour, alpha, and depth times alpha."""
    rng = torch.Generator().manual_seed(0)
    spacing = 0.5 * (4 / count) ** (1 / 3)
    tensors = [
        0.7 * functional.normalize(torch.randn(count, 3, generator=rng), dim=-1) * torch.rand(count, 1, generator=rng),
        functional.normalize(torch.randn(count, 4, generator=rng), dim=-1),
        spacing * torch.exp(0.4 * torch.randn(count, 3, generator=rng)),
        0.05 + 0.9 * torch.rand(count, generator=rng),
        torch.rand(count, 3, generator=rng),
    ]
    given = [tensor.to(device, kind).requires_grad_() for tensor in tensors]
    looks = look_at_origin(torch.tensor([0.3, 2.5]), torch.tensor([0.2, -0.5]), size).to(device)
    frame = rasterize(Gaussians(*given), looks, torch.rand(2, 3, generator=rng).to(device, kind), wish)
    return _with_gradients(torch.cat([frame.rgb, frame.alpha, frame.depth * frame.alpha], -1), given)


def surfels(device: torch.device, kind: torch.dtype) -> Pictured:
    """The same cloud of flat discs."""
    return splats(device, kind, wish=RasterizationOptions(surfels=True))


def voxels(device: torch.device, kind: torch.dtype, resolution: int = 24, size: int = SIZE) -> Pictured:
    """A cloud of voxels: all layers of a volume."""
    rng = torch.Generator().manual_seed(0)
    points = lattice_points(resolution, torch.zeros(1))
    values = torch.randn(resolution, resolution, resolution, 4, generator=rng)
    values[..., 0] += (2 - 12 * points.square().sum(-1)).view(values.shape[:3])
    return _marched(VoxelField(values, 20.0).to(device, kind), size)


def hashed(device: torch.device, kind: torch.dtype) -> Pictured:
    """A ball in hash tables: all layers of a volume."""
    field = HashGridField(torch.Generator().manual_seed(0), levels=4, log2_size=10, finest=24, width=16)
    return _marched(field.to(device, kind), SIZE)


def _marched(field: VoxelField | HashGridField, size: int) -> Pictured:
    like = next(field.parameters())
    looks = look_at_origin(torch.tensor([0.3, 2.5]), torch.tensor([0.2, -0.5]), size).to(like.device)
    everywhere = OccupancyGrid.full(16, like.device)
    layers = rendering.render_rays(
        field, everywhere, Rays.from_cameras(looks, like), MarchOptions(step=1 / 32, spread=True)
    )
    picture = torch.cat(
        [layers.rgb, layers.alpha, layers.distance, layers.normal, layers.orientation_loss, layers.distortion], -1
    )
    return _with_gradients(picture, list(field.parameters()))


def mesh(device: torch.device, kind: torch.dtype, faces: int = 1500, size: int = SIZE) -> Pictured:
    """A coloured ball of triangles with smooth outlines: colour and alpha."""
    rng = torch.Generator().manual_seed(0)
    surface = welded_mesh.cube_sphere(0.7, faces, 16)
    bumps = 1 + 0.1 * torch.rand(len(surface.vertices), 1, generator=rng)
    points = (torch.from_numpy(surface.vertices) * bumps).to(device, kind).requires_grad_()
    colours = torch.rand(len(points), 3, generator=rng).to(device, kind).requires_grad_()
    triangles = Topology(torch.from_numpy(surface.faces).to(device), len(points))
    looks = look_at_origin(torch.tensor([0.3, 2.5]), torch.tensor([0.2, -0.5]), size).to(device)
    at = rasterization.project_points(points, looks)
    fragments = rasterization.rasterize(at.detach(), triangles, size, size)
    values = torch.cat([colours, torch.ones_like(colours[:, :1])], -1)
    picture = rasterization.interpolate(values, triangles.corners, at, triangles, fragments)
    outline = rasterization.find_silhouettes(at.detach(), triangles, fragments)
    return _with_gradients(rasterization.antialias(picture, at, triangles, outline), [points, colours])


def _with_gradients(picture: Float[Tensor, "B H W C"], parameters: list[Tensor]) -> Pictured:
    weights = torch.randn(picture.shape, generator=torch.Generator().manual_seed(5))
    return picture, list(torch.autograd.grad((picture * weights.to(picture)).sum(), parameters))


SCENES: dict[str, Way] = {"splats": splats, "surfels": surfels, "voxels": voxels, "hash tables": hashed, "mesh": mesh}
"""What is drawn, by name."""
LARGE: dict[str, tuple[str, Callable[[torch.device], Pictured]]] = {
    "splats": ("20,000 at 128 x 128", lambda device: splats(device, torch.float32, 20_000, 128)),
    "voxels": ("64^3 at 128 x 128", lambda device: voxels(device, torch.float32, 64, 128)),
    "mesh": ("20,000 faces at 128 x 128", lambda device: mesh(device, torch.float32, 20_000, 128)),
}
"""What is timed."""


def milliseconds(drawn: Callable[[torch.device], Pictured], device: torch.device, times: int = 5) -> float:
    """Median time of two pictures and their gradients, making the scene included, after one that warms up."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        drawn(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken[1:])


def steps(device: torch.device) -> Cost:
    """The cost of a few steps of a draft on a device.

    Raises ValueError, OSError, ImportError as opening the prior does, and Unhealthy where the scene went wrong.
    """
    config = preset("draft").run(PROMPT)
    return measured(config, load_prior(config.prior, device), device, Console("quiet"))


def lines(device: torch.device) -> Iterator[tuple[str, bool, str]]:
    """The whole test: name, whether it went well, and what was found, each as soon as it is known.

    Takes some ten seconds on a CPU. Nothing is raised: what fails is told.
    """
    for name, way in SCENES.items():
        try:
            found = parity(way, device)
            detail = str(found)
            good = found.good(device)
            if good and name in LARGE:
                what, drawn = LARGE[name]
                detail += f"; {what}: {milliseconds(drawn, device):.1f} ms for two pictures and their gradients"
            yield f"{name} on {device.type}", good, detail
        except Exception as error:  # whatever a library of others may raise
            yield f"{name} on {device.type}", False, f"{type(error).__name__}: {error}"
    try:
        cost = steps(device)
        whole = cost.step * preset("draft").steps / 60
        detail = f"{cost.step:.2f} s, {cost.prior:.2f} s of them in the prior; a draft takes about {whole:.1f} minutes"
        yield f"a step on {device.type}", True, detail
    except Exception as error:
        yield f"a step on {device.type}", False, f"{type(error).__name__}: {error}"
