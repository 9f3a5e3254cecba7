"""From a finished run to a file that another program opens: made, arranged, written, opened again and compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renderers.meshes.mesh import Mesh, MeshScene
from renderers.meshing.quads import needs_instant_meshes
from renderers.splats.scene import SplatScene
from sds3d.evaluation.mesh_fidelity import Likeness, likeness
from sds3d.export.card import write_card
from sds3d.export.export_mesh import Made, fewer, made_for, mesh_for
from sds3d.export.targets import KINDS, Wanted
from sds3d.export.turntable import write_contact, write_turntable
from sds3d.formats import ply_stl_3mf, splat_writers, usd
from sds3d.formats.gltf import writer as gltf_writer
from sds3d.formats.layout import Facts, Layout
from sds3d.formats.mesh_reader import read
from sds3d.formats.obj import writer as obj_writer
from sds3d.formats.printable import printable
from sds3d.formats.splat_ply import write_splats
from sds3d.runs.provenance import prior_licence, provenance
from sds3d.runs.result import Result

__all__ = ["Exported", "about", "export", "mesh_for", "verify", "write_mesh"]
FEWEST = 50
"""Triangles of the last level of detail, at least."""
_CLOSE = 1e-4
"""Most that a position may be off after a way through a file, as a share of the longest side."""


@dataclass(frozen=True)
class Exported:
    """One file that was written and opened again."""

    path: Path
    faces: int
    """0 where it holds no mesh."""
    match: Likeness | None
    """How alike the mesh and the scene look."""
    remarks: tuple[str, ...] = ()

    def told(self) -> dict[str, object]:
        """For JSON."""
        told: dict[str, object] = {"file": str(self.path), "bytes": self.path.stat().st_size}
        if self.match is not None:
            told |= {"faces": self.faces, "verified": True, "mesh_against_scene": self.match.told()}
        return {**told, "remarks": list(self.remarks)}


def refuse_unwritable(wanted: Wanted, path: Path) -> None:
    """Raises in a moment what would else be found out after the mesh was made.

    Raises:
        ValueError: a name, size or number that does not fit the format.
        OSError: the folder is not there or cannot be written.
        ImportError: a library that the format needs is missing.
    """
    kind = KINDS[wanted.kind]
    if path.suffix.lower() != f".{kind.ending}":
        raise ValueError(f"{path.name} is no name for {wanted.kind}; give --format, or a name ending in .{kind.ending}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{above} is a file; expected a folder, give another --to")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {above} cannot be written; give another --to")
    if wanted.quad:
        needs_instant_meshes()
    if wanted.kind in ("usda", "usdz"):
        usd.needs_usd()


def export(made: Result, wanted: Wanted, path: Path) -> list[Exported]:
    """Writes what is wanted of a run to `path`, and lesser levels of detail beside it.

    Raises:
        ValueError: the scene cannot become such a file, or the file does not hold what was written.
        OSError: the disk refuses.
    """
    refuse_unwritable(wanted, path)
    kind = KINDS[wanted.kind]
    with torch.no_grad():
        if kind.holds == "splats":
            return [_splats(made, wanted, path)]
        first = made_for(made, wanted)
        if kind.holds == "pictures":
            return [_pictures(made, first.mesh, wanted.kind, path)]
        written = [_mesh(made, first, wanted, path)]
        faces = len(first.mesh.faces)
        for level in range(1, wanted.lods):
            faces = max(faces // 2, FEWEST)
            lesser = Made(fewer(first.mesh, faces), first.remarks)
            written.append(_mesh(made, lesser, wanted, path.with_stem(f"{path.stem}_lod{level}")))
        return written


def _mesh(made: Result, one: Made, wanted: Wanted, path: Path) -> Exported:
    """One mesh as a file."""
    mesh, remarks, layout = one.mesh, list(one.remarks), wanted.layout
    if wanted.solid:
        mesh, more = printable(mesh, wanted.flat_base)
        remarks += more
    match = likeness(made.scene, mesh)
    laid = layout.arranged(made.placed(mesh))
    write_mesh(path, wanted.kind, laid, about(made, match, layout), layout)
    verify(path, laid, layout)
    return Exported(path, len(mesh.faces) - mesh.quads, match, tuple(remarks))


def about(made: Result, match: Likeness, layout: Layout) -> Facts:
    """What the file of a mesh says of its origin, and of how it lies."""
    return {**provenance(made, match), "layout": {"up": layout.up, "unit": layout.unit, "stand": layout.stand}}


def write_mesh(path: Path, kind: str, laid: Mesh, facts: Facts, layout: Layout) -> None:
    """Writes a mesh whose numbers already are those of the file. Raises as the format's writer."""
    plain: dict[str, Callable[[Path, Mesh, Facts], None]] = {
        "glb": gltf_writer.write_glb,
        "gltf": gltf_writer.write_gltf,
        "obj": obj_writer.write_obj,
    }
    told: dict[str, Callable[[Path, Mesh, Facts, Layout], None]] = {
        "ply": ply_stl_3mf.write_mesh_ply,
        "stl": ply_stl_3mf.write_stl,
        "3mf": ply_stl_3mf.write_3mf,
        "usda": usd.write_usda,
        "usdz": usd.write_usdz,
    }
    if kind in plain:
        plain[kind](path, laid, facts)
    else:
        told[kind](path, laid, facts, layout)


def verify(path: Path, laid: Mesh, layout: Layout) -> None:
    """Opens the file again. Raises ValueError where it does not hold what was written."""
    found = read(path)
    if len(found.faces) != len(laid.faces):
        raise ValueError(f"{path.name} holds {len(found.faces)} triangles where {len(laid.faces)} were written")
    if found.quads != laid.quads:
        raise ValueError(f"{path.name} holds {found.quads} quads where {laid.quads} were written")
    size = float(np.ptp(laid.vertices, axis=0).max())
    there, here = found.vertices[found.faces], laid.vertices[laid.faces]
    apart = float(np.abs(there - here).max())
    if not apart <= _CLOSE * max(size, 1e-12):
        raise ValueError(f"{path.name} came back with positions that are {apart:.3g} off")
    if found.uv is not None and not np.allclose(found.uv[found.faces], laid.uv[laid.faces], atol=1e-4):
        raise ValueError(f"{path.name} came back with other texture coordinates")
    side = laid.texture.shape[0]
    if "color" in found.pictures and found.pictures["color"] != (side, side):
        raise ValueError(f"{path.name} came back with a texture of {found.pictures['color']} texels")
    told: tuple[Any, Any] = (found.up or layout.up, found.unit or layout.unit)
    if told != (layout.up, layout.unit):
        raise ValueError(f"{path.name} says {told}, where {layout.up} up and {layout.unit} were meant")


def _splats(made: Result, wanted: Wanted, path: Path) -> Exported:
    scene = made.scene
    if not isinstance(scene, SplatScene):
        raise ValueError(f"{wanted.kind} holds splats, and this run's scene has none; export its mesh instead")
    match wanted.kind:
        case "splat-ply":
            write_splats(path, scene, wanted.degree, provenance(made))
        case "splat":
            splat_writers.write_splat(path, scene, provenance(made))
        case "spz":
            splat_writers.write_spz(path, scene, provenance(made))
        case _:
            splat_writers.write_splat_glb(path, scene, provenance(made))
    return Exported(path, 0, None, (f"{len(scene.means)} splats",))


def _pictures(made: Result, mesh: Mesh, kind: str, path: Path) -> Exported:
    shown, match = MeshScene(mesh), likeness(made.scene, mesh)
    match kind:
        case "contact":
            write_contact(path, shown, facts=provenance(made, match))
        case "card":
            write_card(path, shown, made.config.prompt, _summary(made, mesh, match), provenance(made, match))
        case _:
            write_turntable(path, shown, facts=provenance(made, match))
    return Exported(path, 0, None)


def _summary(made: Result, mesh: Mesh, match: Likeness) -> list[str]:
    """Lines for a card."""
    facts = provenance(made)
    side = mesh.texture.shape[0]
    span = np.ptp(mesh.vertices, axis=0)
    return [
        f"{len(mesh.faces):,} faces, {side} x {side} texture, " + " x ".join(f"{s:.2f}" for s in span) + " m",
        f"mesh against scene: {match}",
        f"{facts['objective']}, {made.done} steps, seed {made.config.seed}, prior {Path(made.config.prior).name}",
        f"licence of the prior: {prior_licence(made.config.prior)}",
    ]
