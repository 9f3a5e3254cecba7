"""Files that other programs open: GLB, OBJ and PLY meshes.

All of them keep the frame of `renderers.cameras`: +Y up, front +Z, one unit is one metre. glTF readers expect just
that; programs with Z up convert GLB and OBJ on import but not PLY, which then lies on its back. A file appears whole
or not at all. Texture coordinates start at the upper-left corner in GLB and at the lower-left one in OBJ.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from renderers.mesh import Mesh
from sds3d.atomic import replacing, write_bytes

GENERATOR = "sds3d"
ROUGHNESS = 0.9
"""Roughness written with every mesh: the texture already holds the light, so the material should add no highlights."""
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
"""glTF's numbers for what a buffer view holds."""


def write_glb(path: Path, mesh: Mesh, provenance: Mapping[str, object], size_m: float | None = None) -> None:
    """One binary glTF 2.0 file with the texture inside.

    `provenance` (JSON values) goes to `asset.extras`; `size_m`, if given, is the longest side in metres.
    Raises ValueError for a mesh or a provenance that cannot be written, OSError when the disk refuses.
    """
    import trimesh
    from PIL import Image

    mesh = _checked(mesh, size_m)
    extras = json.loads(_json(provenance))
    material = trimesh.visual.material.PBRMaterial(
        name="material",
        baseColorTexture=Image.fromarray(mesh.texture),
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        doubleSided=False,
    )
    upward = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1)  # trimesh keeps OpenGL's v and turns it round again
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False)
    solid.visual = trimesh.visual.TextureVisuals(uv=upward, material=material)

    def annotate(tree: dict[str, object]) -> None:
        tree["asset"] = {"version": "2.0", "generator": GENERATOR, "extras": extras}
        _name_buffers(tree)

    content = trimesh.Scene({"mesh": solid}).export(file_type="glb", include_normals=True, tree_postprocessor=annotate)
    write_bytes(path, content)


def _name_buffers(tree: Mapping[str, object]) -> None:
    """Says of every buffer view what it is for, which glTF recommends and validators ask for."""
    views, accessors, meshes = (tree[name] for name in ("bufferViews", "accessors", "meshes"))
    for primitive in (part for mesh in meshes for part in mesh["primitives"]):  # type: ignore[attr-defined]
        targets = {primitive["indices"]: INDEX_BUFFER}
        targets.update(dict.fromkeys(primitive["attributes"].values(), VERTEX_BUFFER))
        for index, target in targets.items():
            views[accessors[index]["bufferView"]]["target"] = target  # type: ignore[index]


def write_obj(path: Path, mesh: Mesh, provenance: Mapping[str, object], size_m: float | None = None) -> None:
    """Wavefront OBJ, with its material and its texture in files of the same name ending in .mtl and .png.

    The corners of a seam share their position, so the shape stays closed. Arguments and errors as in `write_glb`.
    """
    mesh = _checked(mesh, size_m)
    points, point_of = np.unique(mesh.vertices, axis=0, return_inverse=True)
    texture, material = path.with_suffix(".png"), path.with_suffix(".mtl")
    corners = np.stack([point_of.reshape(-1), np.arange(len(mesh.uv)), np.arange(len(mesh.uv))], -1) + 1
    text = "\n".join(
        [
            f"# {GENERATOR} {_json(provenance)}",
            f"mtllib {material.name}",
            "o mesh",
            _lines("v {:.7g} {:.7g} {:.7g}", points),
            _lines("vt {:.7g} {:.7g}", np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1)),
            _lines("vn {:.5f} {:.5f} {:.5f}", mesh.normals),
            "usemtl material",
            _lines("f {}/{}/{} {}/{}/{} {}/{}/{}", corners[mesh.faces].reshape(-1, 9)),
            "",
        ]
    )
    with replacing(texture) as picture, replacing(material) as words, replacing(path) as shape:
        picture.write_bytes(png(mesh.texture))
        # No light of its own, no highlight: the texture alone is the colour.
        lines = ["newmtl material", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {texture.name}", ""]
        words.write_text("\n".join(lines), encoding="utf-8")
        shape.write_text(text, encoding="utf-8")


def _lines(pattern: str, rows: ndarray) -> str:
    return "\n".join(pattern.format(*row) for row in rows.tolist())


def write_mesh_ply(path: Path, mesh: Mesh, size_m: float | None = None) -> None:
    """Binary PLY with a colour and a normal for every vertex, seams closed. Errors as in `write_glb`."""
    mesh = _checked(mesh, size_m)
    _, first, point_of = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    names = ["x", "y", "z", "nx", "ny", "nz"]
    vertex = np.empty(len(first), [(name, "<f4") for name in names] + [(c, "u1") for c in ("red", "green", "blue")])
    for name, values in zip(names, np.concatenate([mesh.vertices, mesh.normals], -1)[first].T, strict=True):
        vertex[name] = values
    vertex["red"], vertex["green"], vertex["blue"] = mesh.vertex_colors()[first].T
    face = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    face["count"], face["corners"] = 3, point_of.reshape(-1)[mesh.faces]
    kinds = {"f": "float", "u": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"comment {GENERATOR}", f"element vertex {len(vertex)}"]
    header += [f"property {kinds[vertex.dtype[name].kind]} {name}" for name in vertex.dtype.names or ()]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header", ""]
    write_bytes(path, "\n".join(header).encode() + vertex.tobytes() + face.tobytes())


def png(picture: UInt8[ndarray, "H W C"]) -> bytes:
    """A picture as the bytes of a PNG file: three channels, or four with the opacity."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _json(provenance: Mapping[str, object]) -> str:
    try:
        return json.dumps(dict(provenance), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must hold JSON values only (text, numbers, lists, maps): {error}") from None


def _checked(mesh: Mesh, size_m: float | None) -> Mesh:
    """The mesh in metres, after a look at whether it can be written at all."""
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no triangles; there is nothing to write")
    if not (np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uv).all()):
        raise ValueError("the mesh has positions or texture coordinates that are not finite numbers")
    if size_m is None:
        return mesh
    if not 0 < size_m < float("inf"):
        raise ValueError(f"size_m is {size_m}; it is the longest side in metres, a positive number")
    scale = size_m / float(np.ptp(mesh.vertices, axis=0).max())
    return replace(mesh, vertices=(mesh.vertices * scale).astype(np.float32))
