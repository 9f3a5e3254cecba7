"""The models that the embedded prior expects to see, as splats of sixteen bytes.

A file holds all models one after another; what is known of each (its words) stands beside it in models.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int16, UInt8
from safetensors.torch import save_file
from torch import Tensor

from guidance.priors.mini3d.splat_rendering import Splats, covariances
from guidance.priors.weights import read_tensors

REACH = 1.25
"""Places lie within this, in every direction."""
_SMALLEST = -9.0
"""Logarithm of the smallest standard deviation that is told apart."""
TENSORS, ROWS = "splats.safetensors", "models.json"


@dataclass(frozen=True)
class Known:
    """What is known of a model beside its splats."""

    name: str
    """The object it is one of."""
    colours: tuple[str, ...] = ()
    """Its own colours, the largest first."""
    materials: tuple[str, ...] = ()
    tintable: bool = False
    """Whether it still is what it is in another colour."""
    brightness: float = 1.0
    """The luminance that nine tenths of its pixels stay below."""
    splats: int = 0
    title: str = ""
    creator: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Packed:
    """Models as they lie in the file, one after another."""

    known: tuple[Known, ...]
    places: Int16[Tensor, "N 3"]
    """REACH is 32767."""
    shapes: UInt8[Tensor, "N 6"]
    """logarithms of three standard deviations, then x, y and z of a unit quaternion whose w is positive."""
    colours: UInt8[Tensor, "N 4"]
    """red, green, blue, opacity."""

    def model(self, number: int) -> Splats:
        """One model, ready to be drawn."""
        first = sum(row.splats for row in self.known[:number])
        rows = slice(first, first + self.known[number].splats)
        shapes, colours = self.shapes[rows].float(), self.colours[rows].float() / 255
        scales = torch.exp(_SMALLEST * (1 - shapes[:, :3] / 255))
        turn = (shapes[:, 3:] - 127.5) / 127.5
        quaternions = torch.cat([(1 - turn.square().sum(-1, keepdim=True)).clamp_min(0).sqrt(), turn], -1)
        means = self.places[rows].float() * (REACH / 32767)
        return Splats(means, covariances(scales, quaternions), colours[:, 3].clone(), colours[:, :3].clone())

    def save(self, folder: Path) -> None:
        save_file({"places": self.places, "shapes": self.shapes, "colours": self.colours}, folder / TENSORS)
        rows = [json.dumps(asdict(row), ensure_ascii=False) for row in self.known]
        (folder / ROWS).write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Packed:
        """What `save` wrote. Raises FileNotFoundError, or ValueError if it is damaged."""
        file = folder / ROWS
        tensors = read_tensors(folder / TENSORS)
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))
            known = tuple(Known(**row | {key: tuple(row[key]) for key in ("colours", "materials")}) for row in rows)
            packed = Packed(known, tensors["places"], tensors["shapes"], tensors["colours"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged: expected a list of models ({error})") from None
        if sum(row.splats for row in known) != len(packed.places):
            raise ValueError(f"{folder} is damaged: {len(packed.places)} splats for those that {ROWS} counts")
        return packed


def packed(
    known: Known,
    means: Float[Tensor, "N 3"],
    scales: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    opacities: Float[Tensor, " N"],
    colours: Float[Tensor, "N 3"],
) -> Packed:
    """One model, rounded to sixteen bytes a splat. Scales are standard deviations, quaternions have w first."""
    turn = torch.nn.functional.normalize(quaternions, dim=-1)
    turn = torch.where(turn[:, :1] < 0, -turn, turn)[:, 1:]
    logs = 255 * (1 - scales.clamp_min(1e-12).log() / _SMALLEST)
    return Packed(
        (replace(known, splats=len(means)),),
        (means.clamp(-REACH, REACH) * (32767 / REACH)).round().to(torch.int16),
        torch.cat([logs, 127.5 + 127.5 * turn], -1).round().clamp(0, 255).to(torch.uint8),
        (torch.cat([colours, opacities[:, None]], -1) * 255).round().clamp(0, 255).to(torch.uint8),
    )


def joined(models: list[Packed]) -> Packed:
    """Models in one."""
    known = tuple(row for model in models for row in model.known)
    return Packed(known, *(torch.cat([getattr(m, key) for m in models]) for key in ("places", "shapes", "colours")))
