"""Shapes without texture coordinates: PLY with colours at the points, STL, and 3MF with colours at the corners."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from renderers.meshes.mesh import Mesh
from sds3d.atomic_files import atomic_write, write_bytes
from sds3d.formats.layout import DEFAULT_LAYOUT, GENERATOR, Facts, Layout, checked, facts_json
from sds3d.formats.metadata import write_with_origin

COMMENT = 200
"""Characters of the facts in one comment of a PLY file; some readers take no long lines."""
_UNITS = {"m": "meter", "cm": "centimeter", "mm": "millimeter"}
_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MATERIALS = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
</Types>
"""
_RELATIONS = """<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Target="/3D/3dmodel.model" Id="rel0"
 Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>
</Relationships>
"""
_THEN = (1980, 1, 1, 0, 0, 0)
"""Date of the files inside a 3MF: the same mesh gives the same bytes."""


def comments(facts: Facts) -> list[str]:
    """The facts as comment lines of a PLY header, none of them long."""
    text = facts_json(facts, plain=True) if facts else ""
    parts = [text[start : start + COMMENT] for start in range(0, len(text), COMMENT)]
    # The bars keep blanks at either end.
    return [f"comment {GENERATOR}", *(f"comment |{part}|" for part in parts)]


def write_mesh_ply(path: Path, mesh: Mesh, facts: Facts, layout: Layout = DEFAULT_LAYOUT) -> None:
    """Binary PLY with an sRGB colour and a normal for every point, seams closed. Errors as in `write_glb`.

    Nothing in the format says which way is up; a comment does.
    """
    checked(mesh)
    _, first, point_of = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    names = ["x", "y", "z", "nx", "ny", "nz"]
    vertex = np.empty(len(first), [(name, "<f4") for name in names] + [(c, "u1") for c in ("red", "green", "blue")])
    for name, values in zip(names, np.concatenate([mesh.vertices, mesh.normals], -1)[first].T, strict=True):
        vertex[name] = values
    vertex["red"], vertex["green"], vertex["blue"] = mesh.vertex_colors()[first].T
    face = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    face["count"], face["corners"] = 3, point_of.reshape(-1)[mesh.faces]
    kinds = {"f": "float", "u": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", *comments(facts)]
    header += [f"comment up {layout.up} unit {layout.unit}", f"element vertex {len(vertex)}"]
    header += [f"property {kinds[vertex.dtype[name].kind]} {name}" for name in vertex.dtype.names or ()]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header", ""]
    write_bytes(path, "\n".join(header).encode() + vertex.tobytes() + face.tobytes())


def write_stl(path: Path, mesh: Mesh, facts: Facts, layout: Layout = DEFAULT_LAYOUT) -> None:
    """Binary STL: triangles alone. Its 80 bytes of text hold the unit, the seed and the start of the scene's checksum
    and of the prompt; all of the facts stand in a file beside it. Errors as in `write_glb`.
    """
    checked(mesh)
    triangle = np.zeros(len(mesh.faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangle["normal"] = across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-30)
    triangle["corners"] = corners
    short = [str(facts.get(name, "unknown")) for name in ("seed", "scene_sha256", "prompt")]
    said = f"{GENERATOR} unit {layout.unit} up {layout.up} seed {short[0]} scene {short[1][:12]} {short[2]}"
    head = said.encode("ascii", "replace")[:80].ljust(80)
    write_with_origin(path, head + np.uint32(len(triangle)).tobytes() + triangle.tobytes(), facts)


def write_3mf(path: Path, mesh: Mesh, facts: Facts, layout: Layout = DEFAULT_LAYOUT) -> None:
    """3MF with its unit and a colour at every corner, seams closed. Errors as in `write_glb`."""
    checked(mesh)
    points, point_of = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners = point_of.reshape(-1)[mesh.faces]
    colours, colour_of = np.unique(mesh.vertex_colors(), axis=0, return_inverse=True)
    title = escape(str(facts.get("prompt", GENERATOR)))
    model = "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<model unit={quoteattr(_UNITS[layout.unit])} xml:lang="en-US" xmlns={quoteattr(_CORE)} '
            f"xmlns:m={quoteattr(_MATERIALS)}>",
            f'<metadata name="Title">{title}</metadata>',
            f'<metadata name="Application">{GENERATOR}</metadata>',
            f'<metadata name="Description">{escape(facts_json(facts))}</metadata>',
            '<resources><m:colorgroup id="1">',
            *(f'<m:color color="#{r:02X}{g:02X}{b:02X}"/>' for r, g, b in colours.tolist()),
            '</m:colorgroup><object id="2" type="model" name="asset" pid="1" pindex="0"><mesh><vertices>',
            *(f'<vertex x="{x:.7g}" y="{y:.7g}" z="{z:.7g}"/>' for x, y, z in points.tolist()),
            "</vertices><triangles>",
            *_triangles(corners, colour_of.reshape(-1)[mesh.faces]),
            '</triangles></mesh></object></resources><build><item objectid="2"/></build></model>',
        ]
    )
    with atomic_write(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        parts = {"[Content_Types].xml": _TYPES, "_rels/.rels": _RELATIONS, "3D/3dmodel.model": model}
        for name, text in parts.items():
            info = zipfile.ZipInfo(name, _THEN)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text.encode())


def _triangles(corners: Int[ndarray, "F 3"], colours: Int[ndarray, "F 3"]) -> list[str]:
    """One element a triangle: its corners and their colours."""
    row = '<triangle v1="{}" v2="{}" v3="{}" pid="1" p1="{}" p2="{}" p3="{}"/>'
    return [row.format(*values) for values in np.concatenate([corners, colours], -1).tolist()]
