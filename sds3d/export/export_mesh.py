"""The mesh of a run as an export wants it: how fine, with which texture, of triangles or quads, with which maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from renderers.meshes.mesh import Mesh, Surface
from renderers.meshes.scene import MeshScene
from renderers.meshing.attribute_transfer import bake_normal_map, normal_deviation_deg, transfer_textures
from renderers.meshing.extraction import extract_surface, mesh_from
from renderers.meshing.isosurface import simplify
from renderers.meshing.quads import MIN_QUADS, group_quads, remesh_quads
from renderers.meshing.texture_refinement import refine_texture
from renderers.scene import Scene
from renderers.splats.scene import SplatScene
from renderers.volumes.scene import NerfScene
from sds3d.export.targets import ExportOptions
from sds3d.formats.printable import welded
from sds3d.runs.result import Result

TILTED = 3.0
"""Mean angle between the normals of a mesh and those of the surface it was made from that a normal map is worth."""


@dataclass(frozen=True)
class ExportMesh:
    """A mesh and what became of it."""

    mesh: Mesh
    remarks: tuple[str, ...] = ()


def mesh_for(made: Result, faces: int | None = None, texture: int | None = None) -> Mesh:
    """The mesh of a run. Raises ValueError where its scene has none."""
    return _started(made, faces, texture)[0]


def build_export_mesh(result: Result, options: ExportOptions) -> ExportMesh:
    """The mesh that an export wants of a run.

    Raises ValueError where the scene has none or it cannot be as it is wanted, ImportError where a library lacks.
    """
    mesh, fine = _started(result, options.faces, options.texture)
    remarks: list[str] = []
    if options.refine:
        mesh = refine_texture(mesh, result.scene, options.refine)
        remarks.append(f"texture refined by {options.refine} pictures")
    if options.quad:
        mesh = _in_quads(mesh, fine, len(mesh.faces), remarks)
    return ExportMesh(_with_bumps(mesh, fine, options.normal_map, remarks), tuple(remarks))


def simplify_textured(mesh: Mesh, faces: int, texture: int | None = None) -> Mesh:
    """The mesh with fewer triangles, unfolded anew, everything on it taken over."""
    surface, _ = welded(mesh)
    return transfer_textures(mesh, simplify(surface, faces), texture or mesh.texture.shape[0])


def _started(made: Result, faces: int | None, texture: int | None) -> tuple[Mesh, Surface]:
    """(the mesh, the surface that it was made from)."""
    scene: Scene = made.scene
    changed = {name: value for name, value in (("faces", faces), ("texture_size", texture)) if value is not None}
    knobs = replace(made.config.mesh_extraction, **changed)
    if isinstance(scene, MeshScene):
        mesh = scene.mesh()
        fine, _ = welded(mesh)
        most, side = faces or len(mesh.faces), texture or mesh.texture.shape[0]
        kept = len(mesh.faces) <= most and mesh.texture.shape[0] == side
        return mesh if kept else simplify_textured(mesh, most, side), fine
    if not isinstance(scene, SplatScene | NerfScene):
        raise ValueError(f"{type(scene).__name__} has no mesh")
    surface = extract_surface(scene, knobs)
    return mesh_from(surface, scene, knobs), surface


def _in_quads(mesh: Mesh, fine: Surface, faces: int, remarks: list[str]) -> Mesh:
    """The mesh made of half as many quads as it had triangles, everything on it taken over."""
    cut = remesh_quads(fine, max(faces // 2, MIN_QUADS))
    one = group_quads(transfer_textures(mesh, cut, mesh.texture.shape[0]))
    remarks.append(f"{one.quads} quads, and {len(one.faces) - 2 * one.quads} triangles along the texture's seams")
    if fine.closed and not cut.closed:
        remarks.append("not closed: Instant Meshes left gaps between some quads")
    return one


def _with_bumps(mesh: Mesh, fine: Surface, asked: bool | None, remarks: list[str]) -> Mesh:
    """The mesh with a normal map where that is asked for, or where nobody objects and it helps."""
    has_one = mesh.maps is not None and mesh.maps.normals is not None
    if asked is False or has_one:
        return mesh
    off = normal_deviation_deg(mesh, fine)
    if asked or off > TILTED:
        remarks.append(f"normal map: without it the normals were {off:.1f} degrees off, on average")
        return bake_normal_map(mesh, fine)
    return mesh
