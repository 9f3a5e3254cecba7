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
from renderers.optimizer_rows import forget, replace_rows
from renderers.scene import Frame, TrainableScene
from renderers.splats import densification, spherical_harmonics
from renderers.splats.config import Splats
from renderers.splats.gaussians import Gaussians, Sighting, Wish
from renderers.splats.normal_consistency import unevenness
from renderers.splats.rasterization import rasterise

_NAMES = ("means", "log_scales", "quats", "logit_opacities", "sh")
_FEWEST = 16
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

    def __init__(self, knobs: Splats, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.knobs = knobs
        self.wish = Wish(antialiased=knobs.antialiased, absolute=knobs.absolute, surfels=knobs.shape == "surfels")
        self.generator = generator
        self.rounds = 0
        """Rounds of growing and pruning that are over."""
        self.drawn: int | None = None
        """Splats that the last settled frame showed."""
        for name, values in self._ball().items():
            self.register_parameter(name, nn.Parameter(values.to(device)))
        self.pull = torch.zeros(knobs.count, device=device)
        """[N] sum over the pictures of a splat of the gradient in its place there, per half width of the picture."""
        self.pictures = torch.zeros(knobs.count, device=device)
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
            spherical_harmonics.colours(self.sh, self.means, cameras.positions.to(self.means)),
        )

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> Frame:
        """Differentiable picture over a solid background per camera.

        Where gradients are recorded, the statistics hold what the penalties of the knobs need.
        """
        wish = self.wish
        if wish.surfels and torch.is_grad_enabled():
            wish = replace(wish, normals=self.knobs.unevenness > 0, distortion=self.knobs.distortion > 0)
        frame = rasterise(self.gaussians(cameras), cameras, background.to(self.means), wish)
        if wish.normals:
            frame = replace(frame, statistics=replace(frame.statistics, unevenness=unevenness(frame, cameras)))
        return frame

    def groups(self, progress: float) -> list[dict[str, Any]]:
        """One parameter group for each kind of parameter."""
        knobs = self.knobs
        rates = (self._mean_rate(progress), knobs.scale_rate, knobs.quat_rate, knobs.opacity_rate, knobs.colour_rate)
        return [
            {"params": [getattr(self, name)], "lr": rate, "name": name, "eps": 1e-15}
            for name, rate in zip(_NAMES, rates, strict=True)
        ]

    def penalty(self, frame: Frame) -> Float[Tensor, ""]:
        """The weighted penalties of the knobs; those of weight 0 cost nothing."""
        knobs, total = self.knobs, self.means.new_zeros(())
        if knobs.sparsity:
            total = total + knobs.sparsity * frame.alpha.mean()
        if knobs.entropy:
            opacity = self.logit_opacities.sigmoid()
            nats = -opacity * functional.logsigmoid(self.logit_opacities)
            nats = nats - (1 - opacity) * functional.logsigmoid(-self.logit_opacities)
            total = total + knobs.entropy * nats.mean()
        if knobs.anisotropy and len(self):
            scales = self.log_scales[:, : 2 if self.wish.surfels else 3]
            excess = scales.amax(-1) - scales.amin(-1) - math.log(8)
            total = total + knobs.anisotropy * excess.clamp_min(0).square().mean()
        if knobs.opacity_cost:
            total = total + knobs.opacity_cost * self.logit_opacities.sigmoid().mean()
        if knobs.scale_cost:
            total = total + knobs.scale_cost * self.log_scales.exp().mean()
        if self.wish.surfels and knobs.unevenness:
            total = total + knobs.unevenness * frame.statistics.unevenness.mean()
        if self.wish.surfels and knobs.distortion:
            total = total + knobs.distortion * frame.statistics.distortion.mean()
        return total

    @torch.no_grad()
    def settle(self, progress: float, frame: Frame, optimiser: Optimizer) -> None:
        """Notes who was pulled, keeps the parameters in range, and now and then grows and prunes."""
        self._note(frame.statistics, frame.rgb.shape[2])
        knobs = self.knobs
        self.log_scales.clamp_(math.log(knobs.smallest), math.log(knobs.largest))
        self.quats.copy_(functional.normalize(self.quats, dim=-1))
        brightest = 0.5 / spherical_harmonics.CONSTANT
        self.sh[:, 0].clamp_(-brightest, brightest)
        pace = (knobs.grow_until - knobs.grow_from) / knobs.grow_times
        due = int((min(progress, knobs.grow_until + 0.2) - knobs.grow_from) / pace + 1e-6)
        if due > self.rounds:
            self.rounds = due
            self._round(optimiser, due <= knobs.grow_times)
            self.pull = torch.zeros_like(self.means[:, 0])
            self.pictures = torch.zeros_like(self.pull)
        if knobs.growth == "mcmc":
            strength = self._mean_rate(progress) * knobs.noise
            self.means.copy_(densification.shaken(self._values, strength, knobs.prune_below, self.generator))

    def healthy(self) -> str | None:
        """None, or what has gone wrong: NaN, all transparent, exploded, or nothing in the last pictures."""
        for name in _NAMES:
            bad = int((~getattr(self, name).isfinite()).sum())
            if bad:
                return f"{bad} values of {name} are not finite"
        if not bool((self.logit_opacities.sigmoid() >= self.knobs.prune_below).any()):
            return f"every splat is transparent: no opacity is above {self.knobs.prune_below}"
        outside = float((self.means.norm(dim=-1) > self.knobs.reach).float().mean())
        if outside > 0.5:
            return f"the splats have exploded: {100 * outside:.0f} % lie outside the ball of radius {self.knobs.reach}"
        if self.drawn == 0:
            return "no splat was in any of the last pictures"
        return None

    def told(self) -> str:
        return f"{len(self)} splats"

    def state(self) -> dict[str, Tensor]:
        """Copies of the parameters, the accumulators and the generator."""
        tensors = {name: getattr(self, name).detach().clone() for name in _NAMES}
        return tensors | {
            "pull": self.pull.clone(),
            "pictures": self.pictures.clone(),
            "rounds": torch.tensor(self.rounds),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
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

    def _note(self, sighting: Sighting, width: int) -> None:
        """Adds what one frame showed to the accumulators."""
        visible = sighting.radii > 0
        self.drawn = int(visible.any(0).sum())
        # The loss is a mean over the pictures; the threshold is for the pull of each.
        pictures = len(visible) if self.knobs.growth == "threshold" else 1
        gradient = sighting.means2d_gradient if sighting.means2d_absolute is None else sighting.means2d_absolute
        self.pull += (gradient.norm(dim=-1) * visible).sum(0) * (0.5 * width * pictures)
        self.pictures += visible.sum(0)

    def _round(self, optimiser: Optimizer, growing: bool) -> None:
        """One round of the way that was chosen; afterwards `growing` is over and only pruning goes on."""
        if self.knobs.growth == "mcmc":
            self._relocate(optimiser, growing)
        elif self.knobs.growth == "threshold":
            if growing:
                parents = self._pulled_hardest(len(self), self.knobs.grow_pull)
                self._take(
                    optimiser, densification.densified(self._values, parents, self.knobs.split_above, self.generator)
                )
            self._prune(optimiser)
            if self.knobs.reset_every and growing and self.rounds % self.knobs.reset_every == 0:
                self.logit_opacities.clamp_(max=densification.logit(2 * self.knobs.prune_below))
                forget(optimiser, self.logit_opacities)
        else:
            self._prune(optimiser)
            if growing:
                parents = self._pulled_hardest(int(self.knobs.grow_share * len(self)), 0.0)
                self._take(
                    optimiser, densification.divided(self._values, parents, self.knobs.split_above, self.generator)
                )

    def _relocate(self, optimiser: Optimizer, growing: bool) -> None:
        """Moves the faint and the far to where others are, and adds some while growing."""
        knobs = self.knobs
        self._take(optimiser, densification.relocated(self._values, ~self._fit, knobs.prune_below, self.generator))
        wanted = min(knobs.max_count, int((1 + knobs.grow_share) * len(self))) if growing else 0
        if wanted > len(self):
            more = wanted - len(self)
            self._take(optimiser, densification.multiplied(self._values, more, knobs.prune_below, self.generator))

    def _prune(self, optimiser: Optimizer) -> None:
        keep = self._fit
        if int(keep.sum()) >= min(_FEWEST, len(self)):
            self._take(optimiser, densification.kept(self._values, keep))

    @property
    def _fit(self) -> Bool[Tensor, " N"]:
        """Neither too faint nor too far away."""
        strong = self.logit_opacities.sigmoid() >= self.knobs.prune_below
        fit: Tensor = strong & (self.means.norm(dim=-1) <= self.knobs.reach)
        return fit

    @property
    def _values(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).detach() for name in _NAMES}

    def _mean_rate(self, progress: float) -> float:
        rate: float = self.knobs.mean_rate * (self.knobs.mean_rate_end / self.knobs.mean_rate) ** progress
        return rate

    def _pulled_hardest(self, number: int, above: float) -> Int64[Tensor, " P"]:
        """Rows to divide: at most so many, as many as the cap allows, only such as were pulled harder than this."""
        number = min(number, self.knobs.max_count - len(self))
        strength = self.pull / self.pictures.clamp_min(1)
        strongest = strength.argsort(descending=True, stable=True)[: max(number, 0)]
        return strongest[strength[strongest] > above]

    def _take(self, optimiser: Optimizer, rows: densification.Rows) -> None:
        """Goes on with these rows; what was noted of a row goes with it."""
        self._flatten(rows.values["log_scales"])
        for name in _NAMES:
            setattr(self, name, replace_rows(optimiser, getattr(self, name), rows.values[name], rows.origin))
        from_before = rows.origin.clamp_min(0)
        self.pull, self.pictures = self.pull[from_before], self.pictures[from_before]

    def _flatten(self, log_scales: Float[Tensor, "N 3"]) -> None:
        """Keeps the axis of surfels that no picture shows as thin as axes may be."""
        if self.wish.surfels:
            log_scales[:, 2] = math.log(self.knobs.smallest)

    def _ball(self) -> dict[str, Tensor]:
        """The parameters at the start."""
        knobs = self.knobs
        spacing = knobs.radius * (4 / 3 * math.pi / knobs.count) ** (1 / 3)
        scale = min(max(0.5 * spacing, knobs.smallest), knobs.largest)
        coefficients = spherical_harmonics.coefficients(knobs.sh_degree)
        values = densification.ball(knobs.count, knobs.radius, scale, knobs.opacity, coefficients, self.generator)
        self._flatten(values["log_scales"])
        return values
