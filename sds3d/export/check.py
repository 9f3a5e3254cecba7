"""What a file of a mesh or of splats holds and what is wrong with it, in numbers.

`wrong` lists what a user would trip over; what is merely unusual stands in the numbers. Shapes: V vertices, F
triangles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.meshes.mesh import Surface
from renderers.meshes.triangles import Topology
from renderers.meshes.zbuffer import rasterize
from sds3d.export.check_splats import check_splats
from sds3d.export.validators import verdict
from sds3d.formats.library_errors import refuse_unlike_a_file
from sds3d.formats.mesh_file import MeshFile
from sds3d.formats.mesh_reader import read
from sds3d.formats.meshes.readers import FARTHEST
from sds3d.formats.printable import shells
from sds3d.formats.splat_reader import holds_splats
from sds3d.mesh_import.strays import strays

ATLAS = 512
"""Texels along a side of the square in which texture coordinates are counted."""
OVERLAP = 0.02
"""Share of the used texels that may lie under two triangles: borders do."""
MAX_FACES = 5_000_000
"""Triangles of a file that are looked at closely."""
MOST_PARTS = 256
"""Materials whose use of their texture is counted: those of the most triangles."""


def check(path: Path) -> dict[str, Any]:
    """All that is known of a file. Raises OSError where it cannot be read, ValueError where it holds no mesh."""
    refuse_unlike_a_file(path)
    if holds_splats(path):
        return check_splats(path)
    found = read(path)
    if len(found.faces) > MAX_FACES:
        raise ValueError(f"{path.name} has {len(found.faces):,} faces; up to {MAX_FACES:,} are checked")
    wrong: list[str] = []
    report: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size, **_shape(found, wrong)}
    report["normals"] = _normals(found, wrong)
    report["texture_map"] = _map(found, wrong)
    report["textures"] = {name: list(size) for name, size in found.images.items()}
    report["material"] = found.material
    report["remarks"] = found.remarks
    wrong += found.missing
    if not found.missing and any(0 in size for size in found.images.values()):
        wrong.append("a texture that the file names is not there")
    if found.material.get("metallicFactor", 0) > 0 and "metallic_roughness" not in found.images:
        wrong.append("metallicFactor is 1 without a texture for it: the whole asset is metal")
    report["axis"] = {"up": found.up, "unit": found.unit}
    report["verdict"] = _run_validator(path, wrong)
    report["origin"] = {k: found.facts[k] for k in ("prompt", "seed", "objective", "prior", "steps", "sds3d")
                        if k in found.facts} if found.facts else None  # fmt: skip
    report["problems"] = wrong
    return report


def _run_validator(path: Path, wrong: list[str]) -> dict[str, Any]:
    said = verdict(path)
    if said.get("errors") or said.get("warnings"):
        wrong.append(f"{said['validator']} finds {said['errors']} errors and {said['warnings']} warnings")
    return said


def _shape(found: MeshFile, wrong: list[str]) -> dict[str, Any]:
    vertices = np.asarray(found.vertices, np.float64)
    sane = np.isfinite(vertices) & (np.abs(vertices) < FARTHEST)
    if not sane.all():
        bad = int((~sane.all(-1)).sum())
        wrong.append(f"{bad} positions are not finite numbers, or larger than {FARTHEST:g}")
        return {"vertices": len(vertices), "faces": len(found.faces)}
    points, index = _places(vertices)
    surface = Surface(points, index.reshape(-1)[found.faces].astype(np.int32))
    corners = points[surface.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    flat = int((area <= 1e-14 * max(float(np.ptp(points, axis=0).max()), 1e-12) ** 2).sum())
    closed = surface.closed
    crowded = Topology(torch.from_numpy(surface.faces), len(points)).edges.crowded
    if flat:
        wrong.append(f"{flat} triangles have no area")
    out, times = strays(corners)
    bounds: dict[str, Any] = {"from": _rounded(points.min(0)), "to": _rounded(points.max(0))}
    if out.any():
        wrong.append(f"{int(out.sum())} faces lie up to {times:.3g} times as far out as the rest, which they make tiny")
        rest = corners[~out].reshape(-1, 3)
        bounds["robust"] = {"from": _rounded(rest.min(0)), "to": _rounded(rest.max(0))}
    if closed and surface.volume < 0:
        wrong.append("the triangles face inward")
    return {
        "vertices": len(vertices),
        "points": len(points),
        "faces": len(found.faces) - found.quads,
        "quads": found.quads,
        "components": int(shells(surface).max()) + 1,
        "crowded_edges": crowded,
        "watertight": closed,
        "volume": round(surface.volume, 9) if closed else None,
        "flat_triangles": flat,
        "bounds": bounds,
        "size": _rounded(np.ptp(points, axis=0)),
    }


def _rounded(values: ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _places(vertices: Float[ndarray, "V 3"]) -> tuple[Float[ndarray, "P 3"], Int[ndarray, " V"]]:
    """Every place once, to the precision of the numbers that programs keep, and which of them each vertex has.

    What lies far from the origin, as maps do, is rounded where it is, not where the origin is.
    """
    low, high = vertices.min(0), vertices.max(0)
    middle = (low + high) / 2 if np.abs(vertices).max() > 1000 * (high - low).max() else np.zeros(3)
    points, index = np.unique((vertices - middle).astype(np.float32), axis=0, return_inverse=True)
    return points + middle if middle.any() else points, index


def _normals(found: MeshFile, wrong: list[str]) -> dict[str, Any]:
    """Whether there are normals, of unit length, on the side that their triangles face."""
    if found.normals is None:
        return {"present": False}
    length = np.linalg.norm(found.normals, axis=-1)
    unit = bool(np.isfinite(length).all() and np.abs(length - 1).max() < 1e-2)
    a, b, c = (found.vertices[found.faces[:, k]] for k in range(3))
    facing = (np.cross(b - a, c - a) * found.normals[found.faces].sum(1)).sum(-1)
    turned = float((facing < 0).mean())
    if not unit:
        wrong.append("normals are not of length 1")
    if turned > 0.05:
        wrong.append(f"the normals of {turned:.0%} of the triangles point to their back")
    return {"present": True, "unit_length": unit, "turned": round(turned, 5)}


def _map(found: MeshFile, wrong: list[str]) -> dict[str, Any]:
    """How much of the texture is used, once and more than once."""
    if found.uv is None:
        if found.images:
            wrong.append("there is a texture, but no texture coordinates")
        return {"present": False, "colours": "at the points" if found.colors is not None else "none"}
    if not np.isfinite(found.uv).all():
        wrong.append("texture coordinates are not finite numbers")
        return {"present": True}
    outside = float(((found.uv < -1e-5) | (found.uv > 1 + 1e-5)).any(-1).mean())
    corners = found.uv[found.faces].astype(np.float64)
    part = np.zeros(len(corners), np.int64) if found.parts is None else found.parts
    numbers, counts = np.unique(part, return_counts=True)
    both = [_covered(corners[part == number]) for number in numbers[np.argsort(-counts)[:MOST_PARTS]]]
    covered, laid = (float(values) for values in np.mean(both, 0))
    overlap = max(laid - covered, 0.0) / covered if covered else 0.0
    if overlap > OVERLAP and outside == 0:
        wrong.append(f"{overlap:.0%} of the used texture lies under more than one triangle")
    return {"present": True, "used": round(covered, 4), "overlap": round(overlap, 4), "outside": round(outside, 4)}


def _covered(corners: Float[ndarray, "F 3 2"]) -> tuple[float, float]:
    """(share of the square under triangles, the area of the triangles)."""
    across, down = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    laid = float(np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]).sum() / 2)
    # Farther out it makes no difference, but numbers overflow.
    placed = corners.reshape(-1, 2).clip(-1e6, 1e6) * ATLAS
    flat = np.concatenate([placed, np.ones((3 * len(corners), 1))], -1).astype(np.float32)
    seen = rasterize(flat[None], np.arange(len(flat), dtype=np.int32).reshape(-1, 3), ATLAS, ATLAS).seen
    return float(seen.mean()), laid
