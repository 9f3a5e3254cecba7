"""From a finished run to a file that another program opens: made, arranged, written, opened again and compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renderers.meshes.mesh import Mesh, StaticMeshScene
from renderers.meshing.quads import needs_instant_meshes
from renderers.splats.scene import SplatScene
from sds3d.evaluation.mesh_fidelity import MeshFidelity, mesh_fidelity
from sds3d.export.card import write_card
from sds3d.export.export_mesh import ExportMesh, build_export_mesh, mesh_for, simplify_textured
from sds3d.export.targets import FORMATS, ExportOptions
from sds3d.export.turntable import write_contact, write_turntable
from sds3d.formats import ply_stl_3mf, splat_writers, usd
from sds3d.formats.gltf import writer as gltf_writer
from sds3d.formats.layout import Facts, Layout
from sds3d.formats.mesh_reader import read
from sds3d.formats.obj import writer as obj_writer
from sds3d.formats.printable import printable
from sds3d.formats.splat_ply import write_splats
from sds3d.runs.provenance import prior_license, provenance
from sds3d.runs.result import Result

__all__ = ["Exported", "export", "mesh_for", "mesh_metadata", "verify", "write_mesh"]
MIN_LOD_FACES = 50
"""Triangles of the last level of detail, at least."""
_CLOSE = 1e-4
"""Most that a position may be off after a way through a file, as a share of the longest side."""


@dataclass(frozen=True)
class Exported:
    """One file that was written and opened again."""

    path: Path
    faces: int
    """0 where it holds no mesh."""
    match: MeshFidelity | None
    """How alike the mesh and the scene look."""
    remarks: tuple[str, ...] = ()

    def told(self) -> dict[str, object]:
        """For JSON."""
        told: dict[str, object] = {"file": str(self.path), "bytes": self.path.stat().st_size}
        if self.match is not None:
            told |= {"faces": self.faces, "verified": True, "mesh_against_scene": self.match.as_dict()}
        return {**told, "remarks": list(self.remarks)}


def check_writable(options: ExportOptions, path: Path) -> None:
    """Raises in a moment what would else be found out after the mesh was made.

    Raises:
        ValueError: a name, size or number that does not fit the format.
        OSError: the folder is not there or cannot be written.
        ImportError: a library that the format needs is missing.
    """
    kind = FORMATS[options.kind]
    if path.suffix.lower() != f".{kind.ending}":
        raise ValueError(
            f"{path.name} is no name for {options.kind}; give --format, or a name ending in .{kind.ending}"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{above} is a file; expected a folder, give another --to")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {above} cannot be written; give another --to")
    if options.quad:
        needs_instant_meshes()
    if options.kind in ("usda", "usdz"):
        usd.needs_usd()


def export(result: Result, options: ExportOptions, path: Path) -> list[Exported]:
    """Writes what is wanted of a run to `path`, and lesser levels of detail beside it.

    Raises:
        ValueError: the scene cannot become such a file, or the file does not hold what was written.
        OSError: the disk refuses.
    """
    check_writable(options, path)
    kind = FORMATS[options.kind]
    with torch.no_grad():
        if kind.content == "splats":
            return [_splats(result, options, path)]
        first = build_export_mesh(result, options)
        if kind.content == "pictures":
            return [_images(result, first.mesh, options.kind, path)]
        written = [_mesh(result, first, options, path)]
        faces = len(first.mesh.faces)
        for level in range(1, options.lods):
            faces = max(faces // 2, MIN_LOD_FACES)
            lesser = ExportMesh(simplify_textured(first.mesh, faces), first.remarks)
            written.append(_mesh(result, lesser, options, path.with_stem(f"{path.stem}_lod{level}")))
        return written


def _mesh(result: Result, one: ExportMesh, options: ExportOptions, path: Path) -> Exported:
    """One mesh as a file."""
    mesh, remarks, layout = one.mesh, list(one.remarks), options.layout
    if options.solid:
        mesh, more = printable(mesh, options.flat_base)
        remarks += more
    match = mesh_fidelity(result.scene, mesh)
    laid = layout.apply(result.undo_placement(mesh))
    write_mesh(path, options.kind, laid, mesh_metadata(result, match, layout), layout)
    verify(path, laid, layout)
    return Exported(path, len(mesh.faces) - mesh.quads, match, tuple(remarks))


def mesh_metadata(result: Result, match: MeshFidelity, layout: Layout) -> Facts:
    """What the file of a mesh says of its origin, and of how it lies."""
    return {**provenance(result, match), "layout": {"up": layout.up, "unit": layout.unit, "stand": layout.origin}}


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
    if "color" in found.images and found.images["color"] != (side, side):
        raise ValueError(f"{path.name} came back with a texture of {found.images['color']} texels")
    told: tuple[Any, Any] = (found.up or layout.up, found.unit or layout.unit)
    if told != (layout.up, layout.unit):
        raise ValueError(f"{path.name} says {told}, where {layout.up} up and {layout.unit} were meant")


def _splats(result: Result, options: ExportOptions, path: Path) -> Exported:
    scene = result.scene
    if not isinstance(scene, SplatScene):
        raise ValueError(f"{options.kind} holds splats, and this run's scene has none; export its mesh instead")
    match options.kind:
        case "splat-ply":
            write_splats(path, scene, options.degree, provenance(result))
        case "splat":
            splat_writers.write_splat(path, scene, provenance(result))
        case "spz":
            splat_writers.write_spz(path, scene, provenance(result))
        case _:
            splat_writers.write_splat_glb(path, scene, provenance(result))
    return Exported(path, 0, None, (f"{len(scene.means)} splats",))


def _images(made: Result, mesh: Mesh, kind: str, path: Path) -> Exported:
    shown, match = StaticMeshScene(mesh), mesh_fidelity(made.scene, mesh)
    match kind:
        case "contact":
            write_contact(path, shown, facts=provenance(made, match))
        case "card":
            write_card(path, shown, made.config.prompt, _summary(made, mesh, match), provenance(made, match))
        case _:
            write_turntable(path, shown, facts=provenance(made, match))
    return Exported(path, 0, None)


def _summary(made: Result, mesh: Mesh, match: MeshFidelity) -> list[str]:
    """Lines for a card."""
    facts = provenance(made)
    side = mesh.texture.shape[0]
    span = np.ptp(mesh.vertices, axis=0)
    return [
        f"{len(mesh.faces):,} faces, {side} x {side} texture, " + " x ".join(f"{s:.2f}" for s in span) + " m",
        f"mesh against scene: {match}",
        f"{facts['objective']}, {made.step} steps, seed {made.config.seed}, prior {Path(made.config.prior).name}",
        f"licence of the prior: {prior_license(made.config.prior)}",
    ]
