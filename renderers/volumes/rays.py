"""What volumes are looked at with, and what is seen: rays, lights, layers.

Shapes: B views, H and W pixels, P samples. The content is a ball of radius 1 around the origin.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import cast

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras

MIN_TRANSMITTANCE = 1e-4
"""A ray that lets less than this through takes no more samples."""
MIN_SLOPE = 1e-6
"""Added to the squared length of a gradient that is made a normal."""
MAX_DISTANCE = 1e5
"""A ball that begins farther away than this is not seen."""


class ShadingMode(IntEnum):
    """How a picture is lit (Poole et al. 2022, section 3.1)."""

    ALBEDO = 0
    """The colours themselves."""
    TEXTURELESS = 1
    """White under the light: all form."""
    LAMBERTIAN = 2
    """The colours under the light."""


@dataclass(frozen=True)
class Rays:
    """One ray for every pixel, and a point light for every view."""

    origins: Float[Tensor, "B 3"]
    directions: Float[Tensor, "B H W 3"]
    """Unit vectors."""
    jitter: Float[Tensor, "B H W"]
    """0..1: the samples of a ray lie at (i + jitter) * step for whole i."""
    shades: Int32[Tensor, " B"]
    """Values of `ShadingMode`."""
    lights: Float[Tensor, "B 3"]
    """Where the lights are."""

    @classmethod
    def from_cameras(cls, cameras: Cameras, like: Tensor) -> Rays:
        """Rays through the middles of the pixels, without light, in the type and on the device of `like`.

        Raises ValueError where a camera in main memory has a pose that is not finite, or for a picture without pixels.
        """
        on_gpu = cameras.c2w.device.type == "cuda"  # To ask there would wait; they were asked before they went there.
        if not (on_gpu or bool(cameras.c2w.isfinite().all() & cameras.fov_y.isfinite().all())):
            raise ValueError("a camera has a pose or a field of view that is not finite")
        if cameras.height < 1 or cameras.width < 1:
            found = f"a picture of {cameras.height} x {cameras.width} pixels has none"
            raise ValueError(f"{found}; both have to be at least 1")
        c2w, half = cameras.c2w.to(like), torch.tan(0.5 * cameras.fov_y.to(like))[:, None, None]
        across = (torch.arange(cameras.width, device=like.device).to(like) + 0.5 - 0.5 * cameras.width) / (
            0.5 * cameras.height
        )
        down = (torch.arange(cameras.height, device=like.device).to(like) + 0.5 - 0.5 * cameras.height) / (
            0.5 * cameras.height
        )
        x = (half * across).expand(-1, cameras.height, -1)
        y = (-half * down[:, None]).expand(-1, -1, cameras.width)
        way = torch.einsum("bij,bhwj->bhwi", c2w[:, :3, :3], torch.stack([x, y, -torch.ones_like(x)], -1))
        origins = c2w[:, :3, 3].contiguous()
        return cls(
            origins,
            functional.normalize(way, dim=-1).contiguous(),
            torch.full_like(x, 0.5).contiguous(),
            torch.zeros(len(origins), dtype=torch.int32, device=like.device),
            origins,
        )

    @property
    def height(self) -> int:
        return self.directions.shape[1]

    @property
    def width(self) -> int:
        return self.directions.shape[2]

    def depth_per_distance(self, cameras: Cameras) -> Float[Tensor, "B H W 1"]:
        """Depth along the axis of its camera per length of the ray."""
        return -torch.einsum("bhwi,bi->bhw", self.directions, cameras.c2w[:, :3, 2].to(self.directions))[..., None]


@dataclass(frozen=True)
class MarchOptions:
    """How rays are sampled, and which of the dearer layers are wanted."""

    step: float = 1 / 64
    """Between two samples, 1e-4..1."""
    normals: bool = True
    """Without them there is no light, and the layers `normal` and `away` are 0."""
    spread: bool = False
    """Without it the layer `spread` is 0."""
    ambient: float = 0.1
    """Share of the light that comes from everywhere, 0..1."""

    def __post_init__(self) -> None:
        if not 1e-4 <= self.step <= 1:
            raise ValueError(f"step is {self.step}; it lies between 0.0001 and 1")
        if not 0 <= self.ambient <= 1:
            raise ValueError(f"ambient is {self.ambient}; it lies between 0 and 1")


@dataclass(frozen=True)
class FieldOutput:
    """What a field is at P points."""

    density: Float[Tensor, " P"]
    """Per unit of length, 0 upwards."""
    albedo: Float[Tensor, "P 3"]
    """0..1"""
    normal: Float[Tensor, "P 3"] | None
    """Minus the gradient of the density, of unit length, or shorter where it vanishes."""


@dataclass(frozen=True)
class VolumeOutput:
    """What is seen of a volume, over nothing. With w the weights of the samples of a ray:"""

    rgb: Float[Tensor, "B H W 3"]
    """sum of w times lit colour"""
    alpha: Float[Tensor, "B H W 1"]
    """sum of w"""
    distance: Float[Tensor, "B H W 1"]
    """sum of w times distance along the ray"""
    normal: Float[Tensor, "B H W 3"]
    """sum of w times normal"""
    orientation_loss: Float[Tensor, "B H W 1"]
    """sum of w max(0, normal . direction)^2: Ref-NeRF's orientation loss (Verbin et al. 2022, equation 11)"""
    distortion: Float[Tensor, "B H W 1"]
    """Distortion of mip-NeRF 360 (Barron et al. 2022, equation 15), with world lengths: sum over i, j of
    w_i w_j |t_i - t_j|, and sum of w_i^2 step / 3"""
    num_samples: Int32[Tensor, "B H W"]
    """Samples of each ray that were looked at"""

    @classmethod
    def of(cls, packed: Float[Tensor, "B H W 10"], taken: Int32[Tensor, "B H W"]) -> VolumeOutput:
        """From the layers one after the other, as the kernels give them."""
        colour, alpha, reach, normal, away, spread = packed.split([3, 1, 1, 3, 1, 1], dim=-1)
        return cls(colour, alpha, reach, normal, away, spread, taken)


def validate_inputs(rays: Rays, like: Tensor) -> None:
    """Raises ValueError where rays and field differ in type or device, or shapes do not fit together."""
    views, height, width = rays.directions.shape[:3]
    shapes = {"origins": (views, 3), "jitter": (views, height, width), "shades": (views,), "lights": (views, 3)}
    for field in fields(rays):
        tensor = cast(Tensor, getattr(rays, field.name))
        wanted = torch.int32 if field.name == "shades" else like.dtype
        if tensor.dtype != wanted or tensor.device != like.device:
            found = f"{field.name} is {tensor.dtype} on {tensor.device}"
            raise ValueError(f"{found}; a field of {like.dtype} on {like.device} needs {wanted} there")
        if field.name in shapes and tuple(tensor.shape) != shapes[field.name]:
            found = f"{field.name} has shape {tuple(tensor.shape)}"
            raise ValueError(f"{found}; directions of shape {tuple(rays.directions.shape)} need {shapes[field.name]}")
