"""Splats as the PLY files that viewers of 3D Gaussian splatting read (Kerbl et al. 2023).

Binary little-endian float32 is written, PLY of any kind is read, with raw parameters: opacity is a logit, scales are
natural logarithms, rotations are w, x, y, z, colours are spherical harmonics with 0.5 + 0.28209479 f_dc; `f_rest` holds
all of red, then green, then blue.
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
from sds3d.formats.library_errors import refused
from sds3d.formats.ply.table import read_ply
from sds3d.formats.ply_stl_3mf import comments

THIN = 1e-3
"""How thick flat discs are taken to be, of the smaller of their sizes."""
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
    columns = _columns(path)
    rest = sum(name.startswith("f_rest_") and name[7:].isdecimal() for name in columns)
    harmonics = rest // 3 + 1
    if rest % 3 or harmonics not in DEGREES:
        raise ValueError(f"{path} has {rest} f_rest columns; degrees 0 to 3 have 0, 9, 24 or 45")
    missing = [name for name in _names(harmonics) if name not in columns and name not in ("nx", "ny", "nz")]
    if missing:
        raise ValueError(f"{path} does not hold splats: it has no column {missing[0]}")

    def block(*names: str) -> Tensor:
        with np.errstate(all="ignore"):
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


def _columns(path: Path) -> dict[str, ndarray]:
    """The table of points of a PLY file, by name: of text or bytes in either order, of floats of any width."""
    try:
        ply = read_ply(path)
    except ValueError as error:
        raise refused(path, error) from None
    table = ply.elements.get("vertex")
    if table is None:
        raise ValueError(f"{path} does not hold splats: its header has no element vertex")
    if "packed_position" in table.columns:
        raise ValueError(f"{path} is a compressed PLY of splats, which is not read: save it as PLY without compression")
    columns = dict(table.columns)
    if "scale_2" not in columns and {"scale_0", "scale_1"} <= set(columns):
        # The flat discs of 2D Gaussian splatting.
        columns["scale_2"] = np.minimum(columns["scale_0"], columns["scale_1"]) + np.log(THIN)
    return columns
