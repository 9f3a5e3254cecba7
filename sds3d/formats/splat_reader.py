"""Splats in a file of any kind that is written here, as they are trained: for checks, by the formats' descriptions.

Shapes: N splats, K harmonics per channel.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from renderers.splats.density_grid import SplatParameters
from renderers.splats.spherical_harmonics import CONSTANT
from sds3d.formats.gltf.document import Gltf, head_of
from sds3d.formats.library_errors import MAX_BYTES, refuse_unlike_a_file
from sds3d.formats.ply.table import header_of
from sds3d.formats.splat_writers import EXTENSION


def holds_splats(path: Path) -> bool:
    """Whether a file is one of splats, after its ending and, where that leaves it open, its head."""
    kind = path.suffix.lower()
    if kind in (".glb", ".gltf"):
        return EXTENSION in head_of(path).extensionsUsed
    if kind == ".ply":
        head = header_of(path)
        return re.search(r"property\s+\w+\s+f_dc_0\b", head) is not None or "packed_position" in head
    return kind in (".splat", ".spz")


def splats_in(path: Path) -> SplatParameters:
    """The splats of a file. Raises OSError where it cannot be read, ValueError where it does not hold any."""
    refuse_unlike_a_file(path)
    kind = path.suffix.lower()
    if kind == ".ply":
        from sds3d.formats.splat_ply import read_splats

        return read_splats(path)
    if kind == ".splat":
        return _small(path)
    return _packed(path) if kind == ".spz" else _gltf(path)


def _small(path: Path) -> SplatParameters:
    content = path.read_bytes()
    if len(content) % 32:
        raise ValueError(f"{path.name} has {len(content)} bytes; a .splat file has 32 for each splat")
    row = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
    table = np.frombuffer(content, row)
    quats = (table["quat"].astype(np.float64) - 128) / 128
    colours = (table["rgba"][:, :3] / 255 - 0.5) / CONSTANT
    return _cloud(table["mean"], _log(table["scale"]), quats, _logit(table["rgba"][:, 3]), colours[:, None])


def _packed(path: Path) -> SplatParameters:
    try:
        with gzip.open(path) as file:
            head = file.read(16)
            magic, version, count, degree, bits = struct.unpack_from("<4sIIBB", head)
            # No more is unpacked than the most that so many splats can take.
            content = head + file.read(min(64 * count, MAX_BYTES) + 1)
    except (OSError, EOFError, zlib.error, struct.error):
        raise ValueError(f"{path.name} cannot be read as SPZ: it is no gzip file of versions 1 to 3") from None
    if magic != b"NGSP" or version != 2 or degree > 3:
        raise ValueError(f"{path.name} is SPZ of version {version} and degree {degree}; version 2, up to 3, is read")
    harmonics = (degree + 1) ** 2
    widths = (9, 1, 3, 3, 3, 3 * (harmonics - 1))
    body = np.frombuffer(content, np.uint8, offset=16)
    if len(body) != count * sum(widths):
        raise ValueError(
            f"{path.name} is cut short: {len(body)} bytes of data where {count * sum(widths)} were expected"
        )
    starts = np.cumsum((0, *widths)) * count
    places, opacity, colour, scale, quat, rest = (
        body[start : start + count * width].reshape(count, width).astype(np.int64)
        for start, width in zip(starts, widths, strict=False)
    )
    fixed = places.reshape(count, 3, 3) @ np.array([1, 2**8, 2**16])
    means = np.ldexp(np.where(fixed >= 2**23, fixed - 2**24, fixed).astype(np.float64), -bits)
    flat = quat / 127.5 - 1
    w = np.sqrt((1 - (flat**2).sum(-1, keepdims=True)).clip(0))
    dc = (colour / 255 - 0.5) / 0.15
    sh = np.concatenate([dc[:, None], (rest.reshape(count, harmonics - 1, 3) - 128) / 128], 1)
    return _cloud(means, scale / 16 - 10, np.concatenate([w, flat], -1), _logit(opacity[:, 0]), sh)


def _gltf(path: Path) -> SplatParameters:
    gltf = Gltf(path)
    try:
        named = gltf.json.meshes[0].primitives[0].attributes
        columns = {name.removeprefix(f"{EXTENSION}:"): gltf.numbers(index, name) for name, index in named.items()
                   if not name.startswith("COLOR")}  # fmt: skip
        rows = [columns[name] for name in sorted(columns) if name.startswith("SH_DEGREE")]
        rotation, opacity = columns["ROTATION"], columns["OPACITY"][:, 0]
        means, scales = columns["POSITION"], columns["SCALE"]
    except (KeyError, IndexError) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else "it has no mesh"
        raise ValueError(f"{path.name} does not hold splats as {EXTENSION} has them: {lacking}") from None
    shapes = {(len(one), one.shape[1]) for one in (means, scales, *rows)} | {(len(opacity), 3)}
    if shapes != {(len(means), 3)} or rotation.shape != (len(means), 4) or len(rows) not in (1, 4, 9, 16):
        raise ValueError(f"{path.name} does not hold splats as {EXTENSION} has them: its numbers do not go together")
    with np.errstate(all="ignore"):
        odds = np.log(np.maximum(opacity, 1e-9)) - np.log(np.maximum(1 - opacity, 1e-9))
        return _cloud(means, _log(scales), rotation[:, [3, 0, 1, 2]], odds, np.stack(rows, 1))


def _logit(opacity: ndarray) -> ndarray:
    """Of bytes; all and nothing are half a step away from their ends."""
    share = (opacity.astype(np.float64) / 255).clip(0.5 / 255, 1 - 0.5 / 255)
    odds: ndarray = np.log(share / (1 - share))
    return odds


def _log(scales: ndarray) -> ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms: ndarray = np.log(scales.astype(np.float64))
    return logarithms


def _cloud(means: ndarray, log_scales: ndarray, quats: ndarray, logits: ndarray, sh: ndarray) -> SplatParameters:
    return SplatParameters(
        *(torch.from_numpy(np.array(part, np.float32)) for part in (means, log_scales, quats, logits, sh))
    )
