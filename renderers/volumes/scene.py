"""A volume under training: a field of density and colour, looked at along rays (Mildenhall et al. 2020, NeRF).

Coarse to fine: the grid of voxels is resampled to more corners while a run goes on, or finer hash tables come in. Cells
in which nothing is are skipped; which these are is found out again every few steps.
Shapes: B cameras, H and W pixels, R voxel corners and G cells along a side.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from renderers.cameras import Cameras
from renderers.scene import RenderOutput, TrainableScene
from renderers.splats import spherical_harmonics
from renderers.splats.density_grid import ScalarGrid
from renderers.uploading import moved_like
from renderers.volumes.config import LEVELS, NerfConfig
from renderers.volumes.hash_field import HashGridField
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MarchOptions, Rays, ShadingMode
from renderers.volumes.rendering import render_rays
from renderers.volumes.voxel_field import Blob, VoxelField, lattice_points, total_variation, upsample_parameter

_POINTS_AT_ONCE = 1 << 18
_MAX_GRAD = 15.0
"""What voxels store stays within plus and minus this."""


class NerfScene(TrainableScene):
    """A volume under training. Make it with `Nerf.build`."""

    def __init__(self, knobs: NerfConfig, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.knobs = knobs
        self.generator = generator
        self.field = _hashed(knobs, generator) if knobs.field == "hashed" else _voxels(knobs, generator)
        self.field.to(device)
        self.occupancy = OccupancyGrid.full(knobs.occupancy_resolution, device)
        self.progress = 0.0
        """That of the last `post_step`."""
        self.steps = 0
        """Times that it was settled."""
        self.seen: Tensor | None = None
        """Greatest alpha of the last settled frame: a number on the device, so that noting it waits for nothing."""
        if knobs.background_sh_degree is not None:
            behind = torch.zeros(spherical_harmonics.num_sh_bases(knobs.background_sh_degree), 3, device=device)
            self.register_parameter("behind", nn.Parameter(behind))

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        """Differentiable picture over a solid background per camera, with `VolumeOutput` as statistics.

        Where gradients are recorded, samples are jittered, some pictures are lit, and learned surroundings take the
        place of the background: chance is drawn only then. Raises ValueError for cameras that are not finite.
        """
        learning = torch.is_grad_enabled()
        rays = Rays.from_cameras(cameras, self._like)
        if learning:
            rays = self._jittered(rays)
        normals = isinstance(self.field, VoxelField) or self.knobs.lambda_orient > 0 or bool(rays.shades.any())
        march = MarchOptions(
            self.knobs.step, normals, learning and self.knobs.lambda_distortion > 0, self.knobs.ambient
        )
        layers = render_rays(self.field, self.occupancy, rays, march)
        behind = background.to(self._like)[:, None, None]
        if learning and self.knobs.background_sh_degree is not None:
            behind = self._background(rays)
        rgb = layers.rgb + (1 - layers.alpha) * behind
        depth = layers.distance / layers.alpha.clamp_min(1e-10) * rays.depth_per_distance(cameras)
        return RenderOutput(rgb, layers.alpha, depth, layers, layers.normal if normals else None)

    def param_groups(self, progress: float) -> list[dict[str, Any]]:
        """One parameter group for each parameter."""
        rate = self.knobs.lr * (self.knobs.lr_final / self.knobs.lr) ** progress
        slower = {"field.tables": 0.1, "field.hidden": 0.1, "field.out": 0.1, "behind": 0.5}
        return [
            {"params": [parameter], "lr": rate * slower.get(name, 1.0), "name": name, "eps": 1e-15}
            for name, parameter in self.named_parameters()
        ]

    def regularization_loss(self, frame: RenderOutput) -> Float[Tensor, ""]:
        """The weighted penalties of the knobs; those of weight 0 cost nothing."""
        knobs, layers, total = self.knobs, frame.info, self._like.new_zeros(())
        if knobs.lambda_sparsity:
            total = total + knobs.lambda_sparsity * frame.alpha.mean()
        if knobs.lambda_opaque:
            total = total + knobs.lambda_opaque * (frame.alpha.square() + 0.01).sqrt().mean()
        if knobs.lambda_orient:
            total = total + knobs.lambda_orient * layers.orientation_loss.mean()
        if knobs.lambda_distortion:
            total = total + knobs.lambda_distortion * layers.distortion.mean()
        if knobs.lambda_entropy:
            alpha = frame.alpha.clamp(1e-5, 1 - 1e-5)
            total = total + knobs.lambda_entropy * functional.binary_cross_entropy(alpha, alpha)
        if knobs.lambda_tv and isinstance(self.field, VoxelField):
            total = total + knobs.lambda_tv * total_variation(self.field.values)
        return total

    @torch.no_grad()
    def post_step(self, progress: float, frame: RenderOutput, optimiser: Optimizer) -> None:
        """Now and then keeps the voxels in range, makes their grid finer, and finds out where something is."""
        self.progress, self.seen = progress, frame.alpha.max()
        self.steps += 1
        due = self.steps % self.knobs.occupancy_every == 0
        if isinstance(self.field, VoxelField):
            resolution = self.knobs.resolution_at(progress)
            if resolution > self.field.resolution:
                self.field.values = upsample_parameter(optimiser, self.field.values, resolution)
                due = True
            if due:
                self.field.values.clamp_(-_MAX_GRAD, _MAX_GRAD)
        elif isinstance(self.field, HashGridField):
            self.field.set_active_levels(self.knobs.levels_at(progress))
        if due and progress >= self.knobs.occupancy_warmup:
            self.occupancy = OccupancyGrid.from_density(
                self.field.max_density(self.knobs.occupancy_resolution), self._occupancy_threshold
            )

    def failure_reason(self) -> str | None:
        """None, or what has gone wrong: NaN, or nothing to be seen."""
        named = dict(self.named_parameters())
        figures = [parameter.detach().sum() for parameter in named.values()]
        # Read together: each read waits for the device.
        *sums, seen = torch.stack([*figures, torch.ones_like(figures[0]) if self.seen is None else self.seen]).tolist()
        for (name, parameter), total in zip(named.items(), sums, strict=True):
            if not math.isfinite(total):
                bad = int((~parameter.isfinite()).sum())
                return f"{bad} values of {name} are not finite"
        if not seen > 0:
            return "nothing was in any of the last pictures: the volume is transparent"
        return None

    def describe(self) -> str:
        if isinstance(self.field, VoxelField):
            return f"{self.field.resolution}^3 voxels"
        count = int(self.field.level_weights.count_nonzero())
        return f"{count} of {len(self.field.tables)} hash tables of {self.field.tables.shape[1]}"

    def training_state(self) -> dict[str, Tensor]:
        """Copies of the parameters, the occupancy and the generator."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()} | {
            "empty": self.occupancy.empty.clone(),
            "radius": torch.tensor(self.occupancy.radius, dtype=torch.float64),
            "progress": torch.tensor(self.progress, dtype=torch.float64),
            "steps": torch.tensor(self.steps),
            "generator": self.generator.get_state(),
        }

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave, with its number of voxels. Raises ValueError if it does not fit."""
        own = dict(self.named_parameters())
        wanted = [*own, "empty", "radius", "progress", "steps", "generator"]
        missing = [name for name in wanted if name not in state]
        if missing:
            raise ValueError(f"the saved volume lacks {', '.join(missing)}; all of {', '.join(wanted)} are needed")
        for name, parameter in own.items():
            free = 3 if name == "field.values" else 0
            if state[name].ndim != parameter.ndim or state[name].shape[free:] != parameter.shape[free:]:
                found = f"{name} of the saved volume has shape {tuple(state[name].shape)}"
                raise ValueError(f"{found}; these knobs need {tuple(parameter.shape)}")
        device = self._like.device
        for name in own:
            owner: nn.Module = self.field if name.startswith("field.") else self
            setattr(owner, name.removeprefix("field."), nn.Parameter(state[name].to(device).clone()))
        self.occupancy = OccupancyGrid(state["empty"].to(device).clone(), float(state["radius"]))
        self.progress, self.steps, self.seen = float(state["progress"]), int(state["steps"]), None
        if isinstance(self.field, HashGridField):
            self.field.set_active_levels(self.knobs.levels_at(self.progress))
        self.generator.set_state(state["generator"].cpu())

    @torch.no_grad()
    def grid(self, resolution: int) -> ScalarGrid:
        """Opacity of one spacing at the points of a lattice around what is there, `resolution` along its longest side.

        Raises ValueError where nothing is.
        """
        filled = OccupancyGrid.from_density(
            self.field.max_density(self.knobs.occupancy_resolution), self._occupancy_threshold
        )
        cells = (filled.empty == 0).nonzero().double().cpu().numpy()
        if len(cells) == 0:
            raise ValueError("the scene is empty: no part of the volume is dense enough to be seen")
        low, high = (
            cells.min(0) * (2 / self.knobs.occupancy_resolution) - 1,
            (cells.max(0) + 1) * (2 / self.knobs.occupancy_resolution) - 1,
        )
        spacing = float((high - low).max()) / (resolution - 1)
        shape = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
        axes = [torch.as_tensor(low[d] + spacing * np.arange(shape[d])).to(self._like) for d in range(3)]
        points = torch.cartesian_prod(*axes)
        found = []
        for some in points.split(_POINTS_AT_ONCE):
            inside = filled.contains(some) & (some.norm(dim=-1) <= 1)
            found.append(-torch.expm1(-self.field.query(some, False).density * spacing) * inside)
        values = torch.cat(found).view(*shape.tolist()).float().cpu().numpy()
        return ScalarGrid(values, low, spacing)

    @property
    def _like(self) -> Tensor:
        return next(self.field.parameters())

    @property
    def _occupancy_threshold(self) -> float:
        """Density below which a sample is thinner than the knob says."""
        return -math.log1p(-self.knobs.occupancy_threshold) / self.knobs.step

    def _random(self, *shape: int) -> Tensor:
        drawn = torch.rand(*shape, generator=self.generator, device=self.generator.device)
        return moved_like(drawn, self._like)

    def _jittered(self, rays: Rays) -> Rays:
        """The rays with samples moved by chance, and lights near the cameras (Poole et al. 2022, section 3.1)."""
        views = len(rays.origins)
        rays = replace(rays, jitter=self._random(*rays.jitter.shape))
        aside = torch.randn(views, 3, generator=self.generator, device=self.generator.device)
        aside = moved_like(aside, rays.origins)
        share, white = self._random(2, views)
        distance = rays.origins.norm(dim=-1, keepdim=True)
        light = functional.normalize(rays.origins / distance.clamp_min(1e-6) + 0.5 * aside, dim=-1) * distance
        shade = torch.where(white < self.knobs.p_textureless, int(ShadingMode.TEXTURELESS), int(ShadingMode.LAMBERTIAN))
        lit = (share < self.knobs.p_shaded) & (self.progress >= self.knobs.shading_start)
        return replace(rays, lights=light, shades=torch.where(lit, shade, int(ShadingMode.ALBEDO)).to(torch.int32))

    def _background(self, rays: Rays) -> Float[Tensor, "B H W 3"]:
        """Learned colours of what lies behind, by direction."""
        coefficients = self.get_parameter("behind")
        basis = spherical_harmonics.eval_sh_bases(rays.directions.flatten(1, 2), len(coefficients))
        return (basis @ coefficients / spherical_harmonics.CONSTANT).sigmoid().view(rays.directions.shape)


def _blob(knobs: NerfConfig) -> Blob:
    return Blob(height=knobs.blob, width=knobs.blob_width)


def _voxels(knobs: NerfConfig, generator: torch.Generator) -> VoxelField:
    count = knobs.resolution
    points = lattice_points(count, torch.zeros(1, device=generator.device))
    colour = 0.1 * torch.randn(len(points), 3, generator=generator, device=generator.device)
    values = torch.cat([_blob(knobs)(points)[:, None], colour], -1)
    return VoxelField(values.view(count, count, count, 4), knobs.density_scale)


def _hashed(knobs: NerfConfig, generator: torch.Generator) -> HashGridField:
    field = HashGridField(generator, LEVELS, finest=knobs.resolution_end, scale=knobs.density_scale, blob=_blob(knobs))
    field.set_active_levels(knobs.init_levels)
    return field
