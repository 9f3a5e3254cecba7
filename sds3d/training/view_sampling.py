"""The pictures of a step: where a prior looks from, alone or in groups that stand around the asset together, and what
became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from configs.run import RunConfig
from guidance.priors.base import Condition, Prior, chained, together
from renderers.camera_sampler import backdrops
from renderers.cameras import Cameras
from renderers.scene import Frame


@dataclass(frozen=True)
class Drawn:
    """Chance of the views of a step, as `View` has it."""

    noise: Float[Tensor, "B C h w"]
    t: Float[Tensor, " B"]
    second: Float[Tensor, "B C h w"]
    uniform: Float[Tensor, " B"]

    def rows(self, rows: slice) -> Drawn:
        return Drawn(self.noise[rows], self.t[rows], self.second[rows], self.uniform[rows])


@dataclass(frozen=True)
class Looked:
    """What became of some views of a step."""

    frames: list[Frame]
    x: Float[Tensor, "B C h w"]
    """Clean latents."""
    gradient: Float[Tensor, "B C h w"]
    """Of the loss with respect to them."""
    posed: Condition
    """What a critic is told that they show."""
    logs: dict[str, float]
    seconds: float
    """In the prior."""
    lost: Bool[Tensor, ""]
    """Whether the objective gave no finite number for any of them."""

    @staticmethod
    def joined(parts: Sequence[Looked]) -> Looked:
        """Views that were looked at one after another, as one; figures are means over views."""
        if len(parts) == 1:
            return parts[0]
        count = sum(len(part.x) for part in parts)
        logs = {name: sum(part.logs[name] * len(part.x) for part in parts) / count for name in parts[0].logs}
        return Looked(
            [frame for part in parts for frame in part.frames],
            torch.cat([part.x for part in parts]),
            torch.cat([part.gradient for part in parts]),
            chained([part.posed for part in parts]),
            logs,
            sum(part.seconds for part in parts),
            torch.stack([part.lost for part in parts]).all(),
        )


def chunked(views: int, parts: int, many: int) -> list[slice]:
    """So many views in so many parts, of whole groups of `many`; the last part may be smaller."""
    size = -(-(views // many) // parts) * many
    return [slice(start, min(start + size, views)) for start in range(0, views, size)]


def cameras(config: RunConfig, prior: Prior, count: int, rng: torch.Generator) -> Cameras:
    """`count` cameras, in groups where the prior sees several views at once."""
    many, size = together(prior), prior.picture_size
    if many == 1:
        return config.orbit.draw(count, size, rng)
    return config.orbit.draw_around(count // many, many, size, rng)


def behind(prior: Prior, count: int, rng: torch.Generator) -> Float[Tensor, "B 3"]:
    """What is behind each of `count` views: the same for those of a group."""
    many = together(prior)
    return backdrops(count // many, rng).repeat_interleave(many, 0)


def times(config: RunConfig, prior: Prior, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
    """The noise times of a step: one for all views of a group."""
    many = together(prior)
    return config.times.draw(config.views // many, progress, rng).repeat_interleave(many)


def refuse_groups(config: RunConfig, prior: Prior) -> None:
    """Raises ValueError, in one line, where a run does not suit a prior that sees several views at once."""
    many = together(prior)
    if many == 1:
        return
    for name, count in (("views", config.views), ("critic.samples", config.critic.samples)):
        if count % many:
            likely = many * max(round(count / many), 1)
            raise ValueError(f"{config.prior} sees {many} views at once; {name} is {count}, give --{name} {likely}")
    if config.orbit.around != 360:
        raise ValueError(f"{config.prior} sees {many} sides at once, all around; leave --orbit.around out")
    if config.perp_neg:
        raise ValueError(f"{config.prior} sees all sides at once and has no use for perp_neg; leave it out")
