"""Wavefront OBJ with its material and its textures beside it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy import ndarray

from renderers.meshes.mesh import Mesh
from sds3d.atomic_files import atomic_write
from sds3d.formats.layout import GENERATOR, Facts, checked, facts_json, polygons, uniform_metallic_roughness
from sds3d.formats.png import png


def write_obj(path: Path, mesh: Mesh, facts: Facts) -> None:
    """The shape, with `<name>.mtl` and `<name>.png` beside it; roughness, metal and normals follow as further pictures.

    The corners of a seam share their position, so the shape stays closed. Texture coordinates start at the lower-left
    corner. Raises ValueError for a mesh or facts that cannot be written, OSError when the disk refuses.
    """
    checked(mesh)
    points, point_of = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners = np.stack([point_of.reshape(-1), np.arange(len(mesh.uv)), np.arange(len(mesh.uv))], -1) + 1
    material = path.with_suffix(".mtl")
    faces = [part for part in polygons(mesh) if len(part)]
    text = "\n".join(
        [
            f"# {GENERATOR} {facts_json(facts)}",
            f"mtllib {material.name}",
            "o asset",
            _lines("v {:.7g} {:.7g} {:.7g}", points),
            _lines("vt {:.7g} {:.7g}", np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1)),
            _lines("vn {:.5f} {:.5f} {:.5f}", mesh.normals),
            "usemtl material",
            "s 1",
            *(_lines("f" + " {}/{}/{}" * part.shape[1], corners[part].reshape(len(part), -1)) for part in faces),
            "",
        ]
    )
    pictures = {path.with_suffix(".png").name: mesh.texture}
    # No light of its own and no highlight: the texture alone is the colour. Pr and Pm are read by newer programs.
    lines = ["newmtl material", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1"]
    lines.append(f"map_Kd {path.with_suffix('.png').name}")
    if grain := uniform_metallic_roughness(mesh):
        lines += [f"Pr {grain[0]:g}", f"Pm {grain[1]:g}"]
    elif mesh.maps is not None:
        named = {"Pr": ("roughness", mesh.maps.roughness), "Pm": ("metallic", mesh.maps.metallic)}
        for word, (name, values) in named.items():
            pictures[f"{path.stem}_{name}.png"] = values
            lines += [f"{word} 1", f"map_{word} {path.stem}_{name}.png"]
    if mesh.maps is not None and mesh.maps.normals is not None:
        pictures[f"{path.stem}_normal.png"] = mesh.maps.normals
        lines.append(f"norm {path.stem}_normal.png")
    with ExitStack() as drafts:
        for name, picture in pictures.items():
            drafts.enter_context(atomic_write(path.with_name(name))).write_bytes(png(picture))
        drafts.enter_context(atomic_write(material)).write_text("\n".join([*lines, ""]), encoding="utf-8")
        drafts.enter_context(atomic_write(path)).write_text(text, encoding="utf-8")


def _lines(pattern: str, rows: ndarray) -> str:
    return "\n".join(pattern.format(*row) for row in rows.tolist())
