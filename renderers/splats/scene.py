"""A scene of splats, Gaussians or surfels, that grows where the pictures ask for it.

Kerbl et al. 2023, section 5, made free of the loss's scale: score distillation has gradients of any size, so the
splats that are divided are a share of all, those pulled hardest across the picture, and not those above a
threshold. Shapes: N splats, K coefficients of spherical harmonics, B cameras.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from renderers.cameras import Cameras
from renderers.optimizer_rows import replace_rows, reset_moments
from renderers.scene import RenderOutput, TrainableScene
from renderers.splats import densification, spherical_harmonics
from renderers.splats.config import SplatConfig
from renderers.splats.gaussians import Gaussians, RasterizationInfo, RasterizationOptions
from renderers.splats.normal_consistency import normal_consistency
from renderers.splats.rasterization import rasterize

_NAMES = ("means", "log_scales", "quats", "logit_opacities", "sh")
_MIN_SPLATS = 16
"""Pruning never leaves fewer splats than this."""


class SplatScene(TrainableScene):
    """Splats under training. Make it with `Splats.build`."""

    means: nn.Parameter
    """[N,3]"""
    log_scales: nn.Parameter
    """[N,3]"""
    quats: nn.Parameter
    """[N,4], wxyz"""
    logit_opacities: nn.Parameter
    """[N]"""
    sh: nn.Parameter
    """[N,K,3]"""

    def __init__(self, knobs: SplatConfig, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.knobs = knobs
        self.wish = RasterizationOptions(
            antialiased=knobs.antialiased, absgrad=knobs.absgrad, surfels=knobs.primitive == "surfels"
        )
        self.generator = generator
        self.rounds = 0
        """Rounds of growing and pruning that are over."""
        self.drawn: Tensor | None = None
        """Splats that the last settled frame showed: a number on the device, so that noting it waits for nothing."""
        for name, values in self._ball().items():
            self.register_parameter(name, nn.Parameter(values.to(device)))
        self.pull = torch.zeros(knobs.init_count, device=device)
        """[N] sum over the pictures of a splat of the gradient in its place there, per half width of the picture."""
        self.pictures = torch.zeros(knobs.init_count, device=device)
        """[N] pictures that a splat was in since the last round."""

    def __len__(self) -> int:
        return self.means.shape[0]

    def gaussians(self, cameras: Cameras) -> Gaussians:
        """The splats, activated, in the colours that the cameras see."""
        return Gaussians(
            self.means,
            self.quats,
            self.log_scales.exp(),
            self.logit_opacities.sigmoid(),
            spherical_harmonics.sh_to_rgb(self.sh, self.means, cameras.positions.to(self.means)),
        )

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        """Differentiable picture over a solid background per camera.

        Where gradients are recorded, the statistics hold what the penalties of the knobs need.
        """
        wish = self.wish
        if wish.surfels and torch.is_grad_enabled():
            wish = replace(
                wish, return_normals=self.knobs.lambda_normal > 0, distortion=self.knobs.lambda_distortion > 0
            )
        frame = rasterize(self.gaussians(cameras), cameras, background.to(self.means), wish)
        if wish.return_normals:
            frame = replace(frame, info=replace(frame.info, normal_loss=normal_consistency(frame, cameras)))
        return frame

    def param_groups(self, progress: float) -> list[dict[str, Any]]:
        """One parameter group for each kind of parameter."""
        knobs = self.knobs
        rates = (self._means_lr(progress), knobs.scales_lr, knobs.quats_lr, knobs.opacities_lr, knobs.sh_lr)
        return [
            {"params": [getattr(self, name)], "lr": rate, "name": name, "eps": 1e-15}
            for name, rate in zip(_NAMES, rates, strict=True)
        ]

    def regularization_loss(self, frame: RenderOutput) -> Float[Tensor, ""]:
        """The weighted penalties of the knobs; those of weight 0 cost nothing."""
        knobs, total = self.knobs, self.means.new_zeros(())
        if knobs.lambda_sparsity:
            total = total + knobs.lambda_sparsity * frame.alpha.mean()
        if knobs.lambda_entropy:
            opacity = self.logit_opacities.sigmoid()
            nats = -opacity * functional.logsigmoid(self.logit_opacities)
            nats = nats - (1 - opacity) * functional.logsigmoid(-self.logit_opacities)
            total = total + knobs.lambda_entropy * nats.mean()
        if knobs.lambda_anisotropy and len(self):
            scales = self.log_scales[:, : 2 if self.wish.surfels else 3]
            excess = scales.amax(-1) - scales.amin(-1) - math.log(8)
            total = total + knobs.lambda_anisotropy * excess.clamp_min(0).square().mean()
        if knobs.opacity_reg:
            total = total + knobs.opacity_reg * self.logit_opacities.sigmoid().mean()
        if knobs.scale_reg:
            total = total + knobs.scale_reg * self.log_scales.exp().mean()
        if self.wish.surfels and knobs.lambda_normal:
            total = total + knobs.lambda_normal * frame.info.normal_loss.mean()
        if self.wish.surfels and knobs.lambda_distortion:
            total = total + knobs.lambda_distortion * frame.info.distortion.mean()
        return total

    @torch.no_grad()
    def post_step(self, progress: float, frame: RenderOutput, optimiser: Optimizer) -> None:
        """Notes who was pulled, keeps the parameters in range, and now and then grows and prunes."""
        self._accumulate_grads(frame.info, frame.rgb.shape[2])
        knobs = self.knobs
        self.log_scales.clamp_(math.log(knobs.min_scale), math.log(knobs.max_scale))
        self.quats.copy_(functional.normalize(self.quats, dim=-1))
        brightest = 0.5 / spherical_harmonics.CONSTANT
        self.sh[:, 0].clamp_(-brightest, brightest)
        pace = (knobs.refine_stop - knobs.refine_start) / knobs.refine_count
        due = int((min(progress, knobs.refine_stop + 0.2) - knobs.refine_start) / pace + 1e-6)
        if due > self.rounds:
            self.rounds = due
            self._refine(optimiser, due <= knobs.refine_count)
            self.pull = torch.zeros_like(self.means[:, 0])
            self.pictures = torch.zeros_like(self.pull)
        if knobs.strategy == "mcmc":
            strength = self._means_lr(progress) * knobs.noise_lr
            self.means.copy_(
                densification.inject_noise_to_position(self._values, strength, knobs.prune_opa, self.generator)
            )

    def failure_reason(self) -> str | None:
        """None, or what has gone wrong: NaN, all transparent, exploded, or nothing in the last pictures."""
        counts = [(~getattr(self, name).isfinite()).sum() for name in _NAMES]
        counts.append((self.logit_opacities.sigmoid() >= self.knobs.prune_opa).sum())
        counts.append((self.means.norm(dim=-1) > self.knobs.prune_radius).sum())
        counts.append(counts[0].new_ones(()) if self.drawn is None else self.drawn)
        # Read together: each read waits for the device.
        *bad, opaque, outside, drawn = torch.stack(counts).tolist()
        for name, count in zip(_NAMES, bad, strict=True):
            if count:
                return f"{count} values of {name} are not finite"
        if not opaque:
            return f"every splat is transparent: no opacity is above {self.knobs.prune_opa}"
        share = outside / len(self)
        if share > 0.5:
            radius = self.knobs.prune_radius
            return f"the splats have exploded: {100 * share:.0f} % lie outside the ball of radius {radius}"
        if drawn == 0:
            return "no splat was in any of the last pictures"
        return None

    def describe(self) -> str:
        return f"{len(self)} splats"

    def training_state(self) -> dict[str, Tensor]:
        """Copies of the parameters, the accumulators and the generator."""
        tensors = {name: getattr(self, name).detach().clone() for name in _NAMES}
        return tensors | {
            "pull": self.pull.clone(),
            "pictures": self.pictures.clone(),
            "rounds": torch.tensor(self.rounds),
            "generator": self.generator.get_state(),
        }

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave, with its number of splats. Raises ValueError if something is missing."""
        wanted = (*_NAMES, "pull", "pictures", "rounds", "generator")
        missing = [name for name in wanted if name not in state]
        if missing:
            raise ValueError(f"the saved splats lack {', '.join(missing)}; all of {', '.join(wanted)} are needed")
        if state["sh"].shape[1:] != self.sh.shape[1:]:
            raise ValueError(
                f"the saved splats have {state['sh'].shape[1]} colour coefficients, but sh_degree "
                f"{self.knobs.sh_degree} has {self.sh.shape[1]}"
            )
        device = self.means.device
        for name in _NAMES:
            setattr(self, name, nn.Parameter(state[name].to(device).clone()))
        self._flatten(self.log_scales.data)
        self.pull, self.pictures = state["pull"].to(device).clone(), state["pictures"].to(device).clone()
        self.rounds, self.drawn = int(state["rounds"]), None
        self.generator.set_state(state["generator"].cpu())

    def _accumulate_grads(self, sighting: RasterizationInfo, width: int) -> None:
        """Adds what one frame showed to the accumulators."""
        visible = sighting.radii > 0
        self.drawn = visible.any(0).sum()
        # The loss is a mean over the pictures; the threshold is for the pull of each.
        pictures = len(visible) if self.knobs.strategy == "threshold" else 1
        gradient = sighting.means2d_grad if sighting.means2d_absgrad is None else sighting.means2d_absgrad
        self.pull += (gradient.norm(dim=-1) * visible).sum(0) * (0.5 * width * pictures)
        self.pictures += visible.sum(0)

    def _refine(self, optimiser: Optimizer, growing: bool) -> None:
        """One round of the way that was chosen; afterwards `growing` is over and only pruning goes on."""
        if self.knobs.strategy == "mcmc":
            self._relocate(optimiser, growing)
        elif self.knobs.strategy == "threshold":
            if growing:
                parents = self._select_by_grad(len(self), self.knobs.grow_grad2d)
                self._replace_rows(
                    optimiser,
                    densification.duplicate_and_split(self._values, parents, self.knobs.grow_scale3d, self.generator),
                )
            self._prune(optimiser)
            if self.knobs.reset_every and growing and self.rounds % self.knobs.reset_every == 0:
                self.logit_opacities.clamp_(max=densification.logit(2 * self.knobs.prune_opa))
                reset_moments(optimiser, self.logit_opacities)
        else:
            self._prune(optimiser)
            if growing:
                parents = self._select_by_grad(int(self.knobs.grow_fraction * len(self)), 0.0)
                self._replace_rows(
                    optimiser,
                    densification.split_or_clone(self._values, parents, self.knobs.grow_scale3d, self.generator),
                )

    def _relocate(self, optimiser: Optimizer, growing: bool) -> None:
        """Moves the faint and the far to where others are, and adds some while growing."""
        knobs = self.knobs
        self._replace_rows(
            optimiser, densification.relocate(self._values, ~self._alive, knobs.prune_opa, self.generator)
        )
        wanted = min(knobs.cap_max, int((1 + knobs.grow_fraction) * len(self))) if growing else 0
        if wanted > len(self):
            more = wanted - len(self)
            self._replace_rows(optimiser, densification.sample_add(self._values, more, knobs.prune_opa, self.generator))

    def _prune(self, optimiser: Optimizer) -> None:
        keep = self._alive
        if int(keep.sum()) >= min(_MIN_SPLATS, len(self)):
            self._replace_rows(optimiser, densification.remove(self._values, keep))

    @property
    def _alive(self) -> Bool[Tensor, " N"]:
        """Neither too faint nor too far away."""
        strong = self.logit_opacities.sigmoid() >= self.knobs.prune_opa
        fit: Tensor = strong & (self.means.norm(dim=-1) <= self.knobs.prune_radius)
        return fit

    @property
    def _values(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).detach() for name in _NAMES}

    def _means_lr(self, progress: float) -> float:
        rate: float = self.knobs.means_lr * (self.knobs.means_lr_final / self.knobs.means_lr) ** progress
        return rate

    def _select_by_grad(self, number: int, above: float) -> Int64[Tensor, " P"]:
        """Rows to divide: at most so many, as many as the cap allows, only such as were pulled harder than this."""
        number = min(number, self.knobs.cap_max - len(self))
        strength = self.pull / self.pictures.clamp_min(1)
        strongest = strength.argsort(descending=True, stable=True)[: max(number, 0)]
        return strongest[strength[strongest] > above]

    def _replace_rows(self, optimiser: Optimizer, rows: densification.DensifiedRows) -> None:
        """Goes on with these rows; what was noted of a row goes with it."""
        self._flatten(rows.values["log_scales"])
        for name in _NAMES:
            setattr(self, name, replace_rows(optimiser, getattr(self, name), rows.values[name], rows.origin))
        from_before = rows.origin.clamp_min(0)
        self.pull, self.pictures = self.pull[from_before], self.pictures[from_before]

    def _flatten(self, log_scales: Float[Tensor, "N 3"]) -> None:
        """Keeps the axis of surfels that no picture shows as thin as axes may be."""
        if self.wish.surfels:
            log_scales[:, 2] = math.log(self.knobs.min_scale)

    def _ball(self) -> dict[str, Tensor]:
        """The parameters at the start."""
        knobs = self.knobs
        spacing = knobs.init_radius * (4 / 3 * math.pi / knobs.init_count) ** (1 / 3)
        scale = min(max(0.5 * spacing, knobs.min_scale), knobs.max_scale)
        coefficients = spherical_harmonics.num_sh_bases(knobs.sh_degree)
        values = densification.ball(
            knobs.init_count, knobs.init_radius, scale, knobs.init_opacity, coefficients, self.generator
        )
        self._flatten(values["log_scales"])
        return values
