"""How noise times are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Times:
    """Uniform between two bounds that move with the progress of a run, from the `first` pair to the `last`.

    Falling bounds let early steps settle the shape and late ones the detail. Equal pairs give DreamFusion's
    constant range (0.02 to 0.98).
    """

    first: tuple[float, float] = (0.5, 0.98)
    """Lowest and highest fraction of the schedule at the start."""
    last: tuple[float, float] = (0.02, 0.4)
    """Lowest and highest fraction at the end."""

    def __post_init__(self) -> None:
        for low, high in (self.first, self.last):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"noise times {low} to {high}: expected 0 <= low <= high <= 1")

    def lowest(self, progress: float) -> float:
        """The lowest time that `draw` can give at `progress`."""
        return self.first[0] + (self.last[0] - self.first[0]) * progress

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        """`count` times at `progress` 0..1, stratified over the range."""
        low, high = (a + (b - a) * progress for a, b in zip(self.first, self.last, strict=True))
        place = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
        return low + (high - low) * place
