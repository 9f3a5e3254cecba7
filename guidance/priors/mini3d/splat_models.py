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

from guidance.priors.mini3d.splat_rendering import SplatModel, covariances_from_scales_quats
from guidance.priors.weights import read_tensors

MAX_COORDINATE = 1.25
"""Places lie within this, in every direction."""
_MIN_LOG_SCALE = -9.0
"""Logarithm of the smallest standard deviation that is told apart."""
TENSORS_FILE, MODELS_FILE = "splats.safetensors", "models.json"
TENSOR_NAMES = ("positions", "scales_quats", "rgba")
"""Tensors of the file, one row a splat."""


@dataclass(frozen=True)
class SplatModelInfo:
    """What is known of a model beside its splats."""

    name: str
    """The object it is one of."""
    colors: tuple[str, ...] = ()
    """Its own colours, the largest first."""
    materials: tuple[str, ...] = ()
    tintable: bool = False
    """Whether it still is what it is in another colour."""
    brightness: float = 1.0
    """The luminance that nine tenths of its pixels stay below."""
    num_splats: int = 0
    title: str = ""
    creator: str = ""
    license: str = ""


@dataclass(frozen=True)
class PackedSplats:
    """Models as they lie in the file, one after another."""

    infos: tuple[SplatModelInfo, ...]
    positions: Int16[Tensor, "N 3"]
    """REACH is 32767."""
    scales_quats: UInt8[Tensor, "N 6"]
    """logarithms of three standard deviations, then x, y and z of a unit quaternion whose w is positive."""
    rgba: UInt8[Tensor, "N 4"]
    """red, green, blue, opacity."""

    def unpack(self, number: int) -> SplatModel:
        """One model, ready to be drawn."""
        first = sum(row.num_splats for row in self.infos[:number])
        rows = slice(first, first + self.infos[number].num_splats)
        shapes, colors = self.scales_quats[rows].float(), self.rgba[rows].float() / 255
        scales = torch.exp(_MIN_LOG_SCALE * (1 - shapes[:, :3] / 255))
        vector_part = (shapes[:, 3:] - 127.5) / 127.5
        quaternions = torch.cat([(1 - vector_part.square().sum(-1, keepdim=True)).clamp_min(0).sqrt(), vector_part], -1)
        means = self.positions[rows].float() * (MAX_COORDINATE / 32767)
        return SplatModel(
            means, covariances_from_scales_quats(scales, quaternions), colors[:, 3].clone(), colors[:, :3].clone()
        )

    def save(self, folder: Path) -> None:
        save_file({name: getattr(self, name) for name in TENSOR_NAMES}, folder / TENSORS_FILE)
        rows = [json.dumps(asdict(row), ensure_ascii=False) for row in self.infos]
        (folder / MODELS_FILE).write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> PackedSplats:
        """What `save` wrote. Raises FileNotFoundError, or ValueError if it is damaged."""
        file = folder / MODELS_FILE
        tensors = read_tensors(folder / TENSORS_FILE)
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))
            infos = tuple(
                SplatModelInfo(**row | {key: tuple(row[key]) for key in ("colors", "materials")}) for row in rows
            )
            packed = PackedSplats(infos, *(tensors[name] for name in TENSOR_NAMES))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged: expected a list of models ({error})") from None
        if sum(row.num_splats for row in infos) != len(packed.positions):
            raise ValueError(f"{folder} is damaged: {len(packed.positions)} splats for those that {MODELS_FILE} counts")
        return packed


def pack_splats(
    info: SplatModelInfo,
    means: Float[Tensor, "N 3"],
    scales: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    opacities: Float[Tensor, " N"],
    colors: Float[Tensor, "N 3"],
) -> PackedSplats:
    """One model, rounded to sixteen bytes a splat. Scales are standard deviations, quaternions have w first."""
    vector_part = torch.nn.functional.normalize(quaternions, dim=-1)
    vector_part = torch.where(vector_part[:, :1] < 0, -vector_part, vector_part)[:, 1:]
    log_scales = 255 * (1 - scales.clamp_min(1e-12).log() / _MIN_LOG_SCALE)
    return PackedSplats(
        (replace(info, num_splats=len(means)),),
        (means.clamp(-MAX_COORDINATE, MAX_COORDINATE) * (32767 / MAX_COORDINATE)).round().to(torch.int16),
        torch.cat([log_scales, 127.5 + 127.5 * vector_part], -1).round().clamp(0, 255).to(torch.uint8),
        (torch.cat([colors, opacities[:, None]], -1) * 255).round().clamp(0, 255).to(torch.uint8),
    )


def cat_packed(models: list[PackedSplats]) -> PackedSplats:
    """Models in one."""
    infos = tuple(row for model in models for row in model.infos)
    return PackedSplats(infos, *(torch.cat([getattr(m, name) for m in models]) for name in TENSOR_NAMES))
