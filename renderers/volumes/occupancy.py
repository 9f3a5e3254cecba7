"""Where in the cube around the content there is anything: cells that rays need not stop in are skipped.

Shapes: G cells along a side of the cube of half side 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

_MAX_RADIUS = 8
"""Distances beyond this many cells are not told apart."""


@dataclass(frozen=True)
class OccupancyGrid:
    """How far from something the cells are."""

    empty: UInt8[Tensor, "G G G"]
    """0 where something is, else how many cells away, along the axis on which it is farthest, the nearest such is."""
    radius: float
    """Of a ball around the origin that holds all cells where something is, at most 1."""

    @classmethod
    def full(cls, cells: int, device: torch.device | str) -> OccupancyGrid:
        """Nothing is skipped."""
        return cls(torch.zeros(cells, cells, cells, dtype=torch.uint8, device=device), 1.0)

    @classmethod
    def from_mask(cls, something: Bool[Tensor, "G G G"]) -> OccupancyGrid:
        """What is not marked is skipped."""
        empty = torch.zeros_like(something, dtype=torch.uint8)
        reached = something
        for _ in range(_MAX_RADIUS):
            empty += ~reached
            reached = dilate(reached)
        return cls(empty.contiguous(), min(1.0, _reach(something)))

    @classmethod
    def from_density(cls, densest: Float[Tensor, "G G G"], thinnest: float) -> OccupancyGrid:
        """Cells whose greatest density reaches `thinnest`, and their neighbours: content can grow into these.

        A density that is not a number counts as something.
        """
        return cls.from_mask(dilate(~(densest < thinnest)))

    @property
    def cells(self) -> int:
        return self.empty.shape[0]

    @property
    def occupied_fraction(self) -> float:
        """Share of the cells that are not skipped, 0..1."""
        return float((self.empty == 0).float().mean())

    def contains(self, points: Float[Tensor, "P 3"]) -> Bool[Tensor, " P"]:
        """Whether points lie in cells that are not skipped; outside of the cube the nearest cell counts."""
        cell = (points * (0.5 * self.cells) + 0.5 * self.cells).long().clamp(0, self.cells - 1)
        x, y, z = cell.unbind(-1)
        return self.empty[x, y, z] == 0


def _reach(something: Bool[Tensor, "G G G"]) -> float:
    """Distance from the origin of the farthest corner of a marked cell; a little is added for rounding."""
    cells = something.shape[0]
    low = torch.arange(cells, device=something.device) * (2 / cells) - 1
    square = torch.maximum(low.abs(), (low + 2 / cells).abs()).square()
    farthest = square[:, None, None] + square[:, None] + square
    return 1.0001 * math.sqrt(float(torch.where(something, farthest, 0.0).max()))


def dilate(mask: Bool[Tensor, "G G G"]) -> Bool[Tensor, "G G G"]:
    """The mask and all 26 neighbours of its cells."""
    for axis in range(3):
        wider = mask.clone()
        length = mask.shape[axis] - 1
        wider.narrow(axis, 1, length).logical_or_(mask.narrow(axis, 0, length))
        wider.narrow(axis, 0, length).logical_or_(mask.narrow(axis, 1, length))
        mask = wider
    return mask
