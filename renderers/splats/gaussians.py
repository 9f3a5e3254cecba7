"""Splats as every rasteriser takes them, and what it noticed while drawing them.

Shapes: B cameras, N splats. Space is the glTF frame of renderers/cameras.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras

MAX_IMAGE_SIDE = 2**15
"""Pixels along a side, at most."""


@dataclass(frozen=True)
class Gaussians:
    """Anisotropic Gaussians, activated: what the picture is made from, not what is trained."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    """Rotations as w, x, y, z; of any length but zero."""
    scales: Float[Tensor, "N 3"]
    """Standard deviations along the axes of the rotation, above 0."""
    opacities: Float[Tensor, " N"]
    """Opacity at the centre, 0..1."""
    colors: Float[Tensor, "N 3"] | Float[Tensor, "B N 3"]
    """The same from everywhere, or one colour per camera."""

    def __len__(self) -> int:
        return self.means.shape[0]


@dataclass(frozen=True)
class RasterizationInfo:
    """How each splat appeared in each picture."""

    radii: Int32[Tensor, "B N"]
    """Larger half side of its box in pixels; 0 where it was not drawn."""
    means2d_grad: Float[Tensor, "B N 2"]
    """Gradient of the loss in the place where it landed, per pixel; zero before `backward`, which adds to it."""
    means2d_absgrad: Float[Tensor, "B N 2"] | None = None
    """The same with the sizes of the pixels' shares added up, so that they never cancel; None unless wished for."""
    distortion: Float[Tensor, "B H W 1"] | None = None
    """How far apart in depth lies what a pixel shows: the sum over all pairs, either way round, of weight * weight *
    distance (Barron et al. 2022, equation 15); differentiable. None unless wished for.
    """
    normal_loss: Float[Tensor, "B H W 1"] | None = None
    """That of renderers/splats/normal_consistency.py, differentiable, where the scene has asked for it."""

    def cat(self, others: Sequence[RasterizationInfo]) -> RasterizationInfo:
        """This one's pictures and the others', as one, without what is differentiable."""
        every = (self, *others)
        sizes = [s.means2d_absgrad for s in every if s.means2d_absgrad is not None]
        absolute = torch.cat(sizes) if len(sizes) == len(every) else None
        return RasterizationInfo(
            torch.cat([s.radii for s in every]), torch.cat([s.means2d_grad for s in every]), absolute
        )


@dataclass(frozen=True)
class RasterizationOptions:
    """What is drawn beyond the default; each costs time."""

    antialiased: bool = False
    """Gaussians fade by what the blur of the picture adds to their area (Yu et al. 2023; gsplat's rasterize_mode)."""
    return_normals: bool = False
    """Draw the splats' shortest axes, of surfels the third, turned to the camera, as three more channels."""
    absgrad: bool = False
    """Note `Sighting.means2d_absgrad` (Ye et al. 2024; gsplat's absgrad)."""
    surfels: bool = False
    """Splats are flat discs across their third axis, whose scale is ignored (Huang et al. 2024; gsplat's 2DGS)."""
    distortion: bool = False
    """Note `Sighting.distortion`; of surfels only."""

    def __post_init__(self) -> None:
        if self.surfels and (self.antialiased or self.absgrad):
            raise ValueError("surfels are drawn neither antialiased nor with sizes of gradients; Gaussians are")
        if self.distortion and not self.surfels:
            raise ValueError("the distortion is noted of surfels only; Gaussians have none")


@dataclass(frozen=True)
class CameraMatrices:
    """Cameras as the rasterisers want them: OpenCV axes, pixels."""

    viewmats: Float[Tensor, "B 4 4"]
    Ks: Float[Tensor, "B 3 3"]
    height: int
    width: int

    @classmethod
    def from_cameras(cls, cameras: Cameras, like: Tensor) -> CameraMatrices:
        """The lenses of `cameras`, in the type and on the device of `like`."""
        return cls(
            cameras.viewmats().to(like).contiguous(),
            cameras.intrinsics().to(like).contiguous(),
            cameras.height,
            cameras.width,
        )


def rotations(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotation matrices of quaternions w, x, y, z of any length."""
    w, x, y, z = functional.normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).view(-1, 3, 3)


def normals(gaussians: Gaussians, cameras: CameraMatrices, surfels: bool = False) -> Float[Tensor, "B N 3"]:
    """Unit vectors along the shortest axes, of surfels the third, turned to each camera; differentiable in the
    quaternions.

    A quaternion that is no rotation counts as none, so that it spoils nothing where its splat is not drawn.
    """
    shortest = torch.full_like(gaussians.scales[:, 0], 2).long() if surfels else gaussians.scales.argmin(-1)
    length = gaussians.quats.norm(dim=-1, keepdim=True)
    sound = torch.where((length > 0) & length.isfinite(), gaussians.quats, gaussians.quats.new_tensor([1.0, 0, 0, 0]))
    axes = rotations(sound)[torch.arange(len(gaussians), device=shortest.device), :, shortest]
    eyes = -(cameras.viewmats[:, :3, :3].mT @ cameras.viewmats[:, :3, 3:])[..., 0]
    away = ((gaussians.means - eyes[:, None]) * axes).sum(-1, keepdim=True) > 0
    return torch.where(away, -axes, axes)


def accumulate_grad(tensor: Tensor) -> Tensor:
    """Zeros of the shape of `tensor`, to which each `backward` will add the gradient that reaches it."""
    total = torch.zeros_like(tensor, requires_grad=False)

    def add(gradient: Tensor | None) -> None:
        if gradient is not None:
            total.add_(gradient)

    if tensor.requires_grad:
        tensor.register_hook(add)
    return total


def validate_inputs(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> None:
    """Raises ValueError, naming the tensor, where shapes, types or devices do not fit together."""
    count, views = len(gaussians), len(cameras)
    shapes: dict[str, tuple[Tensor, list[tuple[int, ...]]]] = {
        "means": (gaussians.means, [(count, 3)]),
        "quats": (gaussians.quats, [(count, 4)]),
        "scales": (gaussians.scales, [(count, 3)]),
        "opacities": (gaussians.opacities, [(count,)]),
        "colors": (gaussians.colors, [(count, 3), (views, count, 3)]),
        "background": (background, [(views, 3)]),
    }
    kind, device = gaussians.means.dtype, gaussians.means.device
    if kind not in (torch.float32, torch.float64):
        raise ValueError(f"means are {kind}; splats are drawn in float32, or float64 by the torch twin")
    for name, (tensor, allowed) in shapes.items():
        if tuple(tensor.shape) not in allowed:
            wanted = " or ".join(str(shape) for shape in allowed)
            found = f"{name} has shape {tuple(tensor.shape)}"
            raise ValueError(f"{found}; {count} splats and {views} cameras need {wanted}")
        if tensor.dtype != kind or tensor.device != device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, but means are {kind} on {device}; they have to agree"
            )
    if not (1 <= cameras.height <= MAX_IMAGE_SIDE and 1 <= cameras.width <= MAX_IMAGE_SIDE):
        size = f"{cameras.height} x {cameras.width}"
        raise ValueError(f"a picture of {size} pixels cannot be drawn; either side has 1 to {MAX_IMAGE_SIDE}")
    if count * views >= 2**31:
        raise ValueError(f"{count} splats before {views} cameras are too many to number; draw fewer cameras at once")
