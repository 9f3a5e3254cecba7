"""Splats as the PLY files that viewers of 3D Gaussian splatting read (Kerbl et al. 2023).

Binary little-endian float32 with raw parameters: opacity is a logit, scales are natural logarithms, rotations are
w, x, y, z, colours are spherical harmonics with 0.5 + 0.28209479 f_dc; `f_rest` holds all of red, then green, then
blue.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from renderers.splats.density_grid import AnySplats, SplatParameters
from sds3d.atomic_files import write_bytes
from sds3d.formats.layout import NONE, Facts
from sds3d.formats.ply_stl_3mf import comments

DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}
"""Harmonics per channel that a degree has."""


def write_splats(path: Path, splats: AnySplats, degree: int | None = None, facts: Facts = NONE) -> None:
    """One PLY file, in the frame of `renderers.cameras`.

    `degree` pads the harmonics with zeros, for programs that insist on 3; None keeps those of the scene. `facts` go
    into comments.
    Raises ValueError when there are no splats or `degree` is below that of the scene, OSError when the disk refuses.
    """
    sh = _array(splats.sh)
    if len(sh) == 0:
        raise ValueError("the scene has no splats; there is nothing to write")
    wanted = sh.shape[1] if degree is None else (degree + 1) ** 2
    if wanted not in DEGREES or wanted < sh.shape[1]:
        raise ValueError(f"degree is {degree}; the scene's is {DEGREES.get(sh.shape[1])}, and files hold up to 3")
    sh = np.pad(sh, ((0, 0), (0, wanted - sh.shape[1]), (0, 0)))
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), -1)
    means, opacity = _array(splats.means), _array(splats.logit_opacities)[:, None]
    columns = [means, np.zeros_like(means), sh[:, 0], rest, opacity, _array(splats.log_scales), _array(splats.quats)]
    table = np.concatenate(columns, -1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", *comments(facts), f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in _names(wanted)] + ["end_header", ""]
    write_bytes(path, "\n".join(header).encode() + table.tobytes())


def _array(values: Tensor) -> ndarray:
    array: ndarray = values.detach().float().cpu().numpy()
    return array


def _names(harmonics: int) -> list[str]:
    """The columns of a file, in their order."""
    rest = [f"f_rest_{i}" for i in range(3 * (harmonics - 1))]
    dc, scale, rotation = ([f"{name}_{i}" for i in range(n)] for name, n in (("f_dc", 3), ("scale", 3), ("rot", 4)))
    return ["x", "y", "z", "nx", "ny", "nz", *dc, *rest, "opacity", *scale, *rotation]


def read_splats(path: Path) -> SplatParameters:
    """What `write_splats` wrote, or another program that keeps to the format; columns are found by name.

    Raises OSError when the file cannot be read and ValueError when it does not hold splats.
    """
    columns = _columns(path, path.read_bytes())
    rest = sum(name.startswith("f_rest_") for name in columns)
    harmonics = rest // 3 + 1
    if rest % 3 or harmonics not in DEGREES:
        raise ValueError(f"{path} has {rest} f_rest columns; degrees 0 to 3 have 0, 9, 24 or 45")
    missing = [name for name in _names(harmonics) if name not in columns and name not in ("nx", "ny", "nz")]
    if missing:
        raise ValueError(f"{path} does not hold splats: it has no column {missing[0]}")

    def block(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([columns[name] for name in names], -1).astype(np.float32))

    dc = block("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    others = [block(*(f"f_rest_{c * (harmonics - 1) + k}" for c in range(3)))[:, None] for k in range(harmonics - 1)]
    return SplatParameters(
        means=block("x", "y", "z"),
        log_scales=block("scale_0", "scale_1", "scale_2"),
        quats=block("rot_0", "rot_1", "rot_2", "rot_3"),
        logit_opacities=block("opacity")[:, 0],
        sh=torch.cat([dc, *others], 1),
    )


def _columns(path: Path, content: bytes) -> dict[str, ndarray]:
    """The vertex table of a PLY file of float32 columns, by name."""
    head, found, body = content.partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not found or lines[:1] != [["ply"]] or ["format", "binary_little_endian", "1.0"] not in lines:
        raise ValueError(f"{path} is not a binary little-endian PLY file")
    elements = [line for line in lines if line[:1] == ["element"]]
    properties = [line for line in lines if line[:1] == ["property"]]
    if not elements or any(len(line) != 3 or not line[2].isdecimal() or len(line[2]) > 12 for line in elements):
        raise ValueError(f"{path} does not hold splats: its header names no element with a count")
    if elements[0][1] != "vertex" or any(len(p) != 3 or p[1] not in _FLOATS for p in properties):
        raise ValueError(f"{path} does not hold splats: a vertex table of float columns alone was expected")
    count, names = int(elements[0][2]), [line[2] for line in properties]
    size = 4 * count * len(names)
    if len(body) < size:
        raise ValueError(f"{path} is cut short: {len(body)} bytes of data where {size} were expected")
    table = np.frombuffer(body, "<f4", count * len(names)).reshape(count, len(names))
    return {name: table[:, i] for i, name in enumerate(names)}


_FLOATS = ("float", "float32")
