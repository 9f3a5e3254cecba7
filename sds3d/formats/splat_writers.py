"""Splats in the small files of viewers, and as glTF. The PLY of 3D Gaussian splatting: `splat_ply`.

All keep the frame of `renderers.cameras`. Opacities are shares and scales are lengths here, where the PLY has logits
and logarithms. Shapes: N splats.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from renderers.splats.density_grid import AnySplats
from renderers.splats.spherical_harmonics import CONSTANT
from sds3d.atomic_files import write_bytes
from sds3d.formats.gltf.writer import VERTICES, Tree
from sds3d.formats.layout import NONE, Facts
from sds3d.formats.metadata import gzipped, write_with_origin

EXTENSION = "KHR_gaussian_splatting"
SPZ_BITS = 12
"""Bits after the point in the positions of an SPZ file: steps of a quarter of a thousandth."""
_SPZ_MAGIC, _SPZ_VERSION = 0x5053474E, 2
_SPZ_COLOUR = 0.15
"""What a colour harmonic of 1 is of the range of a byte there."""


@dataclass(frozen=True)
class _Columns:
    """What the formats take, in plain numbers."""

    means: Float[ndarray, "N 3"]
    scales: Float[ndarray, "N 3"]
    """Standard deviations along the splat's own axes."""
    quats: Float[ndarray, "N 4"]
    """Unit rotations w, x, y, z, w >= 0."""
    opacities: Float[ndarray, " N"]
    sh: Float[ndarray, "N K 3"]

    @property
    def colours(self) -> Float[ndarray, "N 3"]:
        """The part that does not depend on the view, sRGB, 0..1."""
        colours: ndarray = (0.5 + CONSTANT * self.sh[:, 0]).clip(0, 1)
        return colours


def _columns(splats: AnySplats) -> _Columns:
    """The splats that can be written. Raises ValueError where there is none."""
    parts = (splats.means, splats.log_scales, splats.quats, splats.logit_opacities, splats.sh)
    means, log_scales, quats, logits, sh = (_array(part) for part in parts)
    if len(means) == 0:
        raise ValueError("the scene has no splats; there is nothing to write")
    rows = [part.reshape(len(means), -1) for part in (means, log_scales, quats, logits, sh)]
    if wrong := int((~np.isfinite(np.concatenate(rows, -1)).all(-1)).sum()):
        raise ValueError(f"{wrong} of the {len(means)} splats have values that are not finite numbers")
    length = np.linalg.norm(quats, axis=-1, keepdims=True)
    quats = np.where(length > 1e-12, quats / np.maximum(length, 1e-12), [1.0, 0.0, 0.0, 0.0])
    quats *= np.where(quats[:, :1] < 0, -1.0, 1.0)
    return _Columns(means, np.exp(log_scales), quats, 1 / (1 + np.exp(-logits.clip(-60, 60))), sh)


def _array(values: Tensor) -> ndarray:
    array: ndarray = values.detach().double().cpu().numpy()
    return array


def _bytes(values: ndarray) -> ndarray:
    """0..255 as bytes, rounded."""
    return values.round().clip(0, 255).astype(np.uint8)


def write_splat(path: Path, splats: AnySplats, facts: Facts = NONE) -> None:
    """The 32 bytes a splat of web viewers (.splat), the most visible first; harmonics above degree 0 have no place.

    `facts` stand in a file beside it.
    Raises ValueError for splats that cannot be written, OSError when the disk refuses.
    """
    rows = _columns(splats)
    order = np.argsort(-rows.opacities * rows.scales.prod(-1), kind="stable")
    table = np.empty(len(order), [("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
    table["mean"], table["scale"] = rows.means, rows.scales
    table["rgba"] = _bytes(255 * np.concatenate([rows.colours, rows.opacities[:, None]], -1))
    table["quat"] = _bytes(128 * rows.quats + 128)
    write_with_origin(path, table[order].tobytes(), facts)


def write_spz(path: Path, splats: AnySplats, facts: Facts = NONE) -> None:
    """SPZ, version 2, which every reader of the format takes: a tenth of the size of a PLY.

    `facts` go to the comment that a gzip file may have. Errors as `write_splat`.
    """
    rows = _columns(splats)
    fixed = (rows.means * 2**SPZ_BITS).round().astype(np.int64)
    if np.abs(fixed).max() >= 2**23:
        raise ValueError(f"a splat is {np.abs(rows.means).max():.4g} from the origin; SPZ files reach to 2047")
    positions = fixed.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3]
    harmonics = rows.sh.shape[1]
    degree = round(harmonics**0.5) - 1
    header = struct.pack("<IIIBBBB", _SPZ_MAGIC, _SPZ_VERSION, len(fixed), degree, SPZ_BITS, 0, 0)
    parts = [
        positions,
        _bytes(255 * rows.opacities),
        _bytes(255 * (_SPZ_COLOUR * rows.sh[:, 0] + 0.5)),
        _bytes(16 * (np.log(rows.scales) + 10)),
        _bytes(127.5 * rows.quats[:, 1:] + 127.5),
        _bytes(128 * rows.sh[:, 1:] + 128),
    ]
    body = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    write_bytes(path, gzipped(header + body, facts))


def write_splat_glb(path: Path, splats: AnySplats, facts: Facts) -> None:
    """glTF with KHR_gaussian_splatting (release candidate): programs that do not know it show coloured points.

    Errors as `write_splat`.
    """
    rows = _columns(splats)
    tree = Tree(facts)
    linear = np.where(rows.colours <= 0.04045, rows.colours / 12.92, ((rows.colours + 0.055) / 1.055) ** 2.4)
    fallback = _bytes(255 * np.concatenate([linear, rows.opacities[:, None]], -1))
    attributes = {
        "POSITION": tree.accessor(rows.means, VERTICES),
        "COLOR_0": tree.accessor(fallback, VERTICES, normalized=True),
        f"{EXTENSION}:ROTATION": tree.accessor(rows.quats[:, [1, 2, 3, 0]], VERTICES),
        f"{EXTENSION}:SCALE": tree.accessor(rows.scales, VERTICES),
        f"{EXTENSION}:OPACITY": tree.accessor(rows.opacities, VERTICES),
    }
    for index in range(rows.sh.shape[1]):
        degree = int(index**0.5)
        name = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{index - degree**2}"
        attributes[name] = tree.accessor(rows.sh[:, index], VERTICES)
    # Trained on pictures as screens show them.
    about = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    tree.json["meshes"] = [
        {"name": "asset", "primitives": [{"attributes": attributes, "mode": 0, "extensions": {EXTENSION: about}}]}
    ]
    tree.json["extensionsUsed"] = [EXTENSION]
    write_bytes(path, tree.binary())
