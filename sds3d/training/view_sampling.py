"""The pictures of a step: where a prior looks from, alone or in groups that stand around the asset together, and what
became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from configs.run import RunConfig
from guidance.priors.base import Condition, Prior, cat_conditions, views_per_group
from renderers.camera_sampler import sample_backgrounds
from renderers.cameras import Cameras
from renderers.scene import RenderOutput


@dataclass(frozen=True)
class SampledNoise:
    """Chance of the views of a step, as `ViewBatch` has it."""

    noise: Float[Tensor, "B C h w"]
    t: Float[Tensor, " B"]
    extra_noise: Float[Tensor, "B C h w"]
    u: Float[Tensor, " B"]

    def select(self, rows: slice) -> SampledNoise:
        return SampledNoise(self.noise[rows], self.t[rows], self.extra_noise[rows], self.u[rows])


@dataclass(frozen=True)
class ChunkResult:
    """What became of some views of a step."""

    outputs: list[RenderOutput]
    latents: Float[Tensor, "B C h w"]
    """Clean latents."""
    grad: Float[Tensor, "B C h w"]
    """Of the loss with respect to them."""
    critic_condition: Condition
    """What a critic is told that they show."""
    logs: dict[str, float]
    nonfinite: Bool[Tensor, ""]
    """Whether the objective gave no finite number for any of them."""

    @staticmethod
    def cat(parts: Sequence[ChunkResult]) -> ChunkResult:
        """Views that were looked at one after another, as one; figures are means over views."""
        if len(parts) == 1:
            return parts[0]
        count = sum(len(part.latents) for part in parts)
        logs = {name: sum(part.logs[name] * len(part.latents) for part in parts) / count for name in parts[0].logs}
        return ChunkResult(
            [frame for part in parts for frame in part.outputs],
            torch.cat([part.latents for part in parts]),
            torch.cat([part.grad for part in parts]),
            cat_conditions([part.critic_condition for part in parts]),
            logs,
            torch.stack([part.nonfinite for part in parts]).all(),
        )


def chunk_slices(views: int, parts: int, many: int) -> list[slice]:
    """So many views in so many parts, of whole groups of `many`; the last part may be smaller."""
    size = -(-(views // many) // parts) * many
    return [slice(start, min(start + size, views)) for start in range(0, views, size)]


def step_cameras(
    config: RunConfig, prior: Prior, count: int, rng: torch.Generator, progress: float | None = None
) -> Cameras:
    """`count` cameras, in groups where the prior sees several views at once. Their pictures are as large as those that
    the prior is shown, or as the run's renders are at `progress`."""
    many, size = views_per_group(prior), prior.image_size
    if progress is not None:
        size = config.render_size(progress, size)
    if many == 1:
        return config.cameras.sample(count, size, rng)
    return config.cameras.sample_multiview(count // many, many, size, rng)


def enlarged(rgb: Float[Tensor, "B h w 3"], size: int) -> Float[Tensor, "B 3 H W"]:
    """Renders as large as the prior is shown pictures, differentiable."""
    channels = rgb.permute(0, 3, 1, 2)
    if channels.shape[-1] == size:
        return channels
    return functional.interpolate(channels, (size, size), mode="bilinear", align_corners=False)


def step_backgrounds(prior: Prior, count: int, rng: torch.Generator) -> Float[Tensor, "B 3"]:
    """What is behind each of `count` views: the same for those of a group."""
    many = views_per_group(prior)
    return sample_backgrounds(count // many, rng).repeat_interleave(many, 0)


def step_timesteps(config: RunConfig, prior: Prior, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
    """The noise times of a step: one for all views of a group."""
    many = views_per_group(prior)
    return config.timesteps.sample(config.batch_size // many, progress, rng).repeat_interleave(many)


def check_multiview(config: RunConfig, prior: Prior) -> None:
    """Raises ValueError, in one line, where a run does not suit a prior that sees several views at once."""
    many = views_per_group(prior)
    if many == 1:
        return
    for name, count in (
        ("batch-size", config.batch_size),
        ("critic.num-prior-samples", config.critic.num_prior_samples),
    ):
        if count % many:
            likely = many * max(round(count / many), 1)
            raise ValueError(
                f"{config.prior} sees {many} views at once; {name.replace('-', '_')} is {count}, give --{name} {likely}"
            )
    if config.cameras.azimuth_span != 360:
        raise ValueError(f"{config.prior} sees {many} sides at once, all around; leave --cameras.azimuth-span out")
    if config.perp_neg:
        raise ValueError(f"{config.prior} sees all sides at once and has no use for perp_neg; leave it out")
