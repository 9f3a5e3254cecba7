"""Light on surfaces: glTF's metallic-roughness material under light from all around, differentiable throughout.

The specular part is the split sum (Karis 2013): the light blurred as the roughness asks, times the part of it that the
surface sends on, which two numbers per angle and roughness describe. Light that bounces more than once between the
surface's grains is added (Fdez-Aguera 2019), so nothing is lost: a white surface under even light looks like the light.
The diffuse part is nine spherical harmonics (Ramamoorthi and Hanrahan 2001). All colours here are linear.

Shapes: N points, h x w texels of an environment, L degrees of blur. An environment is a map of the sphere: the top row
is up (+Y), columns run over the azimuth of `renderers.cameras` from -pi to pi, so the middle one is the front (+Z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renderers.splats.spherical_harmonics import eval_sh_bases

DIELECTRIC = 0.04
"""What a surface that is no metal reflects head-on (glTF)."""
MIN_ROUGHNESS = 0.05
"""Roughness below this is taken for this."""
BLURS = 6
"""Degrees of blur of an environment, roughness 0 to 1."""
_ANGLES, _ROUGHNESSES, _SAMPLES = 32, 32, 512


@dataclass(frozen=True)
class EnvironmentLight:
    """An environment, blurred for every kind of surface."""

    diffuse: Float[Tensor, "9 3"]
    """Spherical harmonics of what a white diffuse surface sends on, over its normal."""
    specular: Float[Tensor, "L h w 3"]
    """The environment as rough mirrors show it, over the mirrored direction; roughness 0 to 1."""


@dataclass(frozen=True)
class Material:
    """What a surface is made of, point by point."""

    albedo: Float[Tensor, "N 3"]
    """Base colour, linear, 0..1."""
    roughness: Float[Tensor, "N 1"]
    """0 (a mirror) to 1; the width of the highlights goes with its square."""
    metallic: Float[Tensor, "N 1"]
    """0 to 1."""


def shade(
    material: Material, normals: Float[Tensor, "N 3"], toward: Float[Tensor, "N 3"], light: EnvironmentLight
) -> Float[Tensor, "N 3"]:
    """What points send to the eye; `normals` and `toward` (from the point to the eye) are unit vectors."""
    facing = (normals * toward).sum(-1, keepdim=True).clamp(1e-4, 1)
    roughness = material.roughness.clamp(MIN_ROUGHNESS, 1)
    scale, offset = _brdf_lookup(facing, roughness).unbind(-1)
    mirrored = functional.normalize(2 * facing * normals - toward, dim=-1)
    coat, coat_again = _multi_scatter(torch.full_like(facing, DIELECTRIC), scale[:, None], offset[:, None])
    metal, metal_again = _multi_scatter(material.albedo, scale[:, None], offset[:, None])
    # A mixture of a metal and of a diffuse surface under a clear coat, which gets what the coat does not send on.
    once = torch.lerp(coat.expand_as(metal), metal, material.metallic)
    again = torch.lerp(coat_again + material.albedo * (1 - coat - coat_again), metal_again, material.metallic)
    around = (eval_sh_bases(normals[None], 9)[0] @ light.diffuse).clamp_min(0)
    return once * _mirrored(light, mirrored, roughness) + again * around


def _multi_scatter(
    head_on: Float[Tensor, "N C"], scale: Float[Tensor, "N 1"], offset: Float[Tensor, "N 1"]
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    """Shares of even light sent on after one bounce, and after several, by a surface that reflects `head_on` so."""
    once = head_on * scale + offset
    left = 1 - scale - offset
    average = head_on + (1 - head_on) / 21
    return once, left * once * average / (1 - average * left)


def prefilter_environment(environment: Float[Tensor, "h w 3"]) -> EnvironmentLight:
    """An environment made ready for shading; linear in it, and differentiable.

    Raises ValueError for one of fewer than 4 x 8 or more than 64 x 128 texels: every texel lights every other one.
    """
    height, width, _ = environment.shape
    if not (4 <= height <= 64 and 8 <= width <= 128):
        raise ValueError(f"an environment of {height} x {width} texels; expected 4 x 8 to 64 x 128")
    directions, solid = sphere(height, width, environment)
    texels = environment.reshape(-1, 3)
    cosine = directions @ directions.T
    blurred = [environment]
    narrowest = math.pi / height / 2
    for number in range(1, BLURS):
        alpha = max((number / (BLURS - 1)) ** 2, narrowest)
        # With normal, eye and mirrored direction all the same, the half vector is half way to the light.
        half = ((1 + cosine) / 2).clamp(0, 1)
        lobe = alpha**2 / (half * (alpha**2 - 1) + 1) ** 2
        weights = lobe * cosine.clamp_min(0) * solid
        blurred.append((weights / weights.sum(1, keepdim=True) @ texels).view(height, width, 3))
    weights = cosine.clamp_min(0) * solid
    sent = weights / weights.sum(1, keepdim=True) @ texels
    functions = eval_sh_bases(directions[None], 9)[0]
    weighted = functions * solid[:, None]
    return EnvironmentLight(torch.linalg.solve(weighted.T @ functions, weighted.T @ sent), torch.stack(blurred))


def sphere(height: int, width: int, like: Tensor) -> tuple[Float[Tensor, "N 3"], Float[Tensor, " N"]]:
    """Directions of an environment's texels, row by row, and their solid angles, in the type and place of `like`."""
    edge = torch.linspace(math.pi / 2, -math.pi / 2, height + 1, dtype=torch.float64)
    elevation = ((edge[1:] + edge[:-1]) / 2)[:, None].expand(height, width)
    azimuth = ((torch.arange(width, dtype=torch.float64) + 0.5) / width * 2 * math.pi - math.pi).expand(height, width)
    level = elevation.cos()
    directions = torch.stack([level * azimuth.sin(), elevation.sin(), level * azimuth.cos()], -1)
    solid = (edge[:-1].sin() - edge[1:].sin())[:, None].expand(height, width) * 2 * math.pi / width
    return directions.reshape(-1, 3).to(like), solid.reshape(-1).to(like)


def studio_environment(height: int = 16) -> Float[Tensor, "h w 3"]:
    """A soft room: a large lamp above at the front left, a dimmer one at the right, a rim light behind, a dark floor.

    Scaled so that a white diffuse surface sends on 0.8 on average.
    """
    directions, _ = sphere(height, 2 * height, torch.zeros(1))
    radiance = 0.35 + 0.25 * directions[:, 1:2].expand(-1, 3)
    for toward, sharpness, strength, colour in (
        ((0.6, 0.7, 0.7), 12.0, 2.5, (1.0, 0.97, 0.92)),
        ((-0.8, 0.3, 0.5), 8.0, 0.9, (0.9, 0.95, 1.0)),
        ((-0.1, 0.5, -1.0), 16.0, 1.6, (1.0, 1.0, 1.0)),
    ):
        cosine = directions @ functional.normalize(torch.tensor(toward), dim=0)
        radiance = radiance + strength * torch.exp(sharpness * (cosine[:, None] - 1)) * torch.tensor(colour)
    environment = radiance.view(height, 2 * height, 3)
    return environment * (
        0.8
        / float(prefilter_environment(environment).diffuse[0].mean() * eval_sh_bases(directions[None, :1], 1)[0, 0, 0])
    )


def rotate_y(directions: Float[Tensor, "N 3"], angle: float) -> Float[Tensor, "N 3"]:
    """Directions turned around +Y, so that what was in front is at azimuth `angle` (radians)."""
    x, y, z = directions.unbind(-1)
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], -1)


def apply_normal_map(
    normals: Float[Tensor, "N 3"], tangents: Float[Tensor, "N 4"], bumps: Float[Tensor, "N 2"]
) -> Float[Tensor, "N 3"]:
    """Unit normals after a glTF normal map.

    `tangents`: where the texture's x runs on the surface, and the sign of cross(normal, tangent) along its upward
    direction. `bumps`: x and y of the map, -1..1; what is left of the unit length is z.
    """
    along = tangents[:, :3] - normals * (normals * tangents[:, :3]).sum(-1, keepdim=True)
    along = functional.normalize(along, dim=-1)
    up = torch.linalg.cross(normals, along) * tangents[:, 3:]
    rest = (1 - bumps.square().sum(-1, keepdim=True)).clamp_min(0.01).sqrt()
    return functional.normalize(bumps[:, :1] * along + bumps[:, 1:] * up + rest * normals, dim=-1)


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """Linear values of sRGB ones, 0..1 each."""
    bright = ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, srgb / 12.92, bright)


def linear_to_srgb(values: Tensor) -> Tensor:
    """sRGB values, 0..1, of linear ones; what is brighter than white is white."""
    values = values.clamp(0, 1)
    bright = 1.055 * values.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(values <= 0.0031308, 12.92 * values, bright)


def _brdf_lookup(facing: Float[Tensor, "N 1"], roughness: Float[Tensor, "N 1"]) -> Float[Tensor, "N 2"]:
    """(scale, offset): a surface that reflects F head-on sends on F * scale + offset of even light at once."""
    table = _table().to(facing)
    grid = torch.cat([facing, roughness], -1)[None, None] * 2 - 1
    return functional.grid_sample(table, grid, padding_mode="border", align_corners=True)[0, :, 0].T


def _mirrored(
    light: EnvironmentLight, directions: Float[Tensor, "N 3"], roughness: Float[Tensor, "N 1"]
) -> Float[Tensor, "N 3"]:
    """The environment in these directions, as blurred as the roughness asks."""
    levels, _, width, _ = light.specular.shape
    x, y, z = directions.unbind(-1)
    z = torch.where(x.square() + z.square() < 1e-10, 1e-5, z)
    across = (torch.atan2(x, z) / math.pi) * (width / (width + 2))  # one column is repeated on either side
    down = -2 / math.pi * torch.asin(y.clamp(-1 + 1e-6, 1 - 1e-6))
    blur = 2 * (roughness[:, 0] * (levels - 1) + 0.5) / levels - 1
    table = torch.cat([light.specular[:, :, -1:], light.specular, light.specular[:, :, :1]], 2)
    grid = torch.stack([across, down, blur], -1)[None, None, None]
    shown = functional.grid_sample(table.permute(3, 0, 1, 2)[None], grid, padding_mode="border", align_corners=False)
    return shown[0, :, 0, 0].T


@cache
def _table() -> Float[Tensor, "1 2 R A"]:
    """(scale, offset) over angle (columns, cosine 0..1) and roughness (rows, 0..1), summed over half vectors.

    GGX, with Smith's shadowing of both ways, height-correlated, as glTF has it; the half vectors are spread as the
    distribution is, in a Hammersley pattern.
    """
    steps = torch.arange(_SAMPLES, dtype=torch.float64)
    bits = sum((((steps.long() >> k) & 1).double() * 0.5 ** (k + 1) for k in range(16)), torch.zeros(_SAMPLES).double())
    turn, share = 2 * math.pi * bits, (steps + 0.5) / _SAMPLES
    cosine = torch.linspace(0, 1, _ANGLES, dtype=torch.float64).clamp_min(1e-3)[None, :, None]
    alpha2 = torch.linspace(0, 1, _ROUGHNESSES, dtype=torch.float64).clamp_min(MIN_ROUGHNESS / 2)[:, None, None] ** 4
    up = ((1 - share) / (1 + (alpha2 - 1) * share)).sqrt()
    level = (1 - up**2).clamp_min(0).sqrt() * turn.cos()
    meeting = ((1 - cosine**2).clamp_min(0).sqrt() * level + cosine * up).clamp_min(0)
    leaving = 2 * meeting * up - cosine
    shadow = leaving * (cosine**2 * (1 - alpha2) + alpha2).sqrt() + cosine * (leaving**2 * (1 - alpha2) + alpha2).sqrt()
    visible = torch.where(leaving > 0, 2 * leaving * meeting / (shadow.clamp_min(1e-12) * up), 0.0)
    grazing = (1 - meeting).clamp(0, 1) ** 5
    table = torch.stack([((1 - grazing) * visible).mean(-1), (grazing * visible).mean(-1)])
    return (table / table.sum(0).clamp_min(1))[None]  # near grazing the sum may come out a little above what there is
