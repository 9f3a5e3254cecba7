"""What a file holds, read by libraries that did not write it: for checks, and to see that an export arrived.

The numbers are the file's own; `up` and `unit` say how they are meant.
"""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sds3d.formats import metadata
from sds3d.formats.file_access import shortened
from sds3d.formats.gltf.document import extras_of
from sds3d.formats.layout import GENERATOR, Unit
from sds3d.formats.library_errors import refused
from sds3d.formats.mesh_file import MeshFile
from sds3d.formats.usd import needs_usd
from sds3d.formats.usd_probe import beside, probe

MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".3mf", ".usda", ".usdc", ".usd", ".usdz")
LARGEST = 2 * 2**30
"""Bytes of a file that are read at all."""
MAX_XML = 400 * 2**20
"""Bytes of XML in a 3MF file."""
_UNITS: dict[str, Unit] = {"meter": "m", "centimeter": "cm", "millimeter": "mm"}
_LENGTHS: dict[float, Unit] = {1.0: "m", 0.01: "cm", 0.001: "mm"}


def read(path: Path) -> MeshFile:
    """The mesh in a file. Raises OSError where it cannot be read, ValueError where it holds no mesh."""
    kind = path.suffix.lower()
    if kind not in MESHES:
        raise ValueError(f"{path.name}: expected a mesh, a file that ends in {', '.join(MESHES)}")
    size = path.stat().st_size
    if not 0 < size <= LARGEST:
        raise ValueError(f"{path.name} has {size:,} bytes; expected up to {LARGEST:,}, and not 0")
    try:
        if kind.startswith(".usd"):
            needs_usd()
            probe(path)
            found = _usd(path)
        elif kind in (".glb", ".gltf"):
            from sds3d.mesh_import.gltf_mesh_file import gltf_found

            found = gltf_found(path)
        else:
            with np.errstate(all="ignore"):
                found = _3mf(path) if kind == ".3mf" else _by_trimesh(path, kind)
    except (OSError, ImportError):
        raise
    except Exception as error:  # a broken file makes its readers fail in every way there is
        raise refused(path, error) from None
    if len(found.faces) == 0:
        raise ValueError(f"{path.name} has no triangles")
    low, high = int(found.faces.min()), int(found.faces.max())
    if low < 0 or high >= len(found.vertices):
        raise ValueError(f"{path.name} has a triangle that names vertex {high if low >= 0 else low} of "
                         f"{len(found.vertices)}")  # fmt: skip
    return found


def facts_of(path: Path) -> dict[str, Any] | None:
    """What a file says of its origin; None where it says nothing. Raises as `read`."""
    kind = path.suffix.lower()
    if kind in (".glb", ".gltf"):
        return extras_of(path)
    if kind == ".obj":
        with path.open(encoding="utf-8", errors="replace") as lines:
            return metadata.parsed(next(lines, "").removeprefix(f"# {GENERATOR} "))
    if kind == ".ply":
        return metadata.parsed("".join(re.findall(r"(?m)^comment \|(.*)\|$", _ply_head(path))))
    if kind == ".png":
        from PIL import Image

        with Image.open(path) as picture:
            return metadata.parsed(str(picture.info.get(GENERATOR, "")))
    if kind in metadata.SIDECAR_SUFFIXES:
        return metadata.read_sidecar(path)
    if kind == ".spz":
        return metadata.parsed(metadata.gzip_comment(path.read_bytes()))
    if kind == ".mp4":
        return metadata.parsed(metadata.video_comment(path.read_bytes()))
    if kind in (".gif", ".webp"):
        return metadata.parsed(metadata.image_comment(path))
    return read(path).facts if kind in MESHES else None


def _ply_head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(2**16).partition(b"end_header")[0].decode("ascii", "replace")


def _by_trimesh(path: Path, kind: str) -> MeshFile:
    import trimesh

    # Joined here and not by `force`: that would lose normals.
    scene = trimesh.load(path, force="scene", process=False)
    placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
    solid = [(matrix, scene.geometry[name]) for matrix, name in placed if hasattr(scene.geometry[name], "faces")]
    if not solid:
        return MeshFile(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    one = solid[0][1] if len(solid) == 1 else trimesh.util.concatenate([part for _, part in solid])
    if len(solid) == 1:
        one.apply_transform(solid[0][0]) if not np.allclose(solid[0][0], np.eye(4)) else None
    found = MeshFile(np.asarray(one.vertices), np.asarray(one.faces))
    if "vertex_normals" in one._cache:
        found.normals = np.asarray(one.vertex_normals)
    if one.visual.kind == "texture" and one.visual.uv is not None:
        found.uv = np.stack([one.visual.uv[:, 0], 1 - one.visual.uv[:, 1]], -1)
    elif one.visual.kind == "vertex":
        found.colors = np.asarray(one.visual.vertex_colors)[:, :3]
    if one.visual.kind == "texture":
        _material(one.visual.material, found)
    if kind == ".ply" and (said := re.search(r"(?m)^comment up ([yz]) unit (m|cm|mm)$", _ply_head(path))):
        found.up, found.unit = said[1], said[2]  # type: ignore[assignment]
    elif kind == ".stl":
        head = path.read_bytes()[:80].decode("ascii", "replace")
        if said := re.match(rf"{GENERATOR} unit (m|cm|mm) up ([yz]) ", head):
            found.unit, found.up = said[1], said[2]  # type: ignore[assignment]
    if kind == ".obj" and (quads := _leading_quads(path)):
        # Their second triangle comes as (c, d, a).
        found.quads, found.faces = quads, found.faces.copy()
        found.faces[1 : 2 * quads : 2] = np.roll(found.faces[1 : 2 * quads : 2], 1, axis=1)
    found.facts = facts_of(path)
    return found


def _leading_quads(path: Path) -> int:
    """How many of the faces of an OBJ file, from the first, have four corners."""
    count = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("f "):
                if len(line.split()) != 5:
                    break
                count += 1
    return count


def _material(material: Any, found: MeshFile) -> None:
    """Textures of trimesh's materials."""
    pictures = {
        "color": getattr(material, "image", None),
    }
    found.images = {name: picture.size for name, picture in pictures.items() if picture is not None}


def _3mf(path: Path) -> MeshFile:
    """The first object of a 3MF file that has triangles."""
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.lower().endswith(".model")), None)
        if name is None:
            raise ValueError("there is no model in the archive")
        if archive.getinfo(name).file_size > MAX_XML:
            raise ValueError(f"its model has {archive.getinfo(name).file_size:,} bytes; at most {MAX_XML:,} are read")
        tree = ElementTree.fromstring(archive.read(name))
    space = tree.tag.partition("}")[0] + "}"

    def rows(tag: str, names: tuple[str, ...]) -> list[list[str]]:
        return [[element.attrib[name] for name in names] for element in tree.iter(space + tag)]

    vertices = np.array(rows("vertex", ("x", "y", "z")), np.float64).reshape(-1, 3)
    faces = np.array(rows("triangle", ("v1", "v2", "v3")), np.int64).reshape(-1, 3)
    found = MeshFile(vertices, faces, up="z", unit=_UNITS.get(tree.attrib.get("unit", "millimeter")))
    for entry in tree.iter(space + "metadata"):
        if entry.attrib.get("name") == "Description":
            found.facts = metadata.parsed(entry.text or "")
    return found


def _usd(path: Path) -> MeshFile:
    """The first mesh of a stage."""
    from pxr import Usd, UsdGeom, UsdShade

    stage = Usd.Stage.Open(str(path))
    shape = next((UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)), None)
    if shape is None:
        raise ValueError(f"{path.name} has no mesh")
    points = np.asarray(shape.GetPointsAttr().Get(), np.float64)
    corners = np.asarray(shape.GetFaceVertexIndicesAttr().Get(), np.int64)
    if len(corners) and not 0 <= int(corners.min()) <= int(corners.max()) < len(points):
        raise ValueError(f"{path.name} has a face that names point {int(corners.max())} of {len(points)}")
    counts = np.asarray(shape.GetFaceVertexCountsAttr().Get())
    quads = int((counts == 4).sum())
    if len(corners) == 0 or (counts[:quads] != 4).any() or (counts[quads:] != 3).any():
        raise ValueError(f"{path.name} has faces that are no triangles and no quads before these, or none")
    order = np.arange(len(corners))
    cut = order[: 4 * quads].reshape(-1, 4)[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    found = MeshFile(points[corners], np.concatenate([cut, order[4 * quads :].reshape(-1, 3)]), quads=quads)
    st = UsdGeom.PrimvarsAPI(shape).GetPrimvar("st")
    if st and st.GetInterpolation() == UsdGeom.Tokens.faceVarying:
        places = np.asarray(st.ComputeFlattened(), np.float64)
        found.uv = np.stack([places[:, 0], 1 - places[:, 1]], -1)
    if shape.GetNormalsInterpolation() == UsdGeom.Tokens.faceVarying and shape.GetNormalsAttr().Get():
        found.normals = np.asarray(shape.GetNormalsAttr().Get(), np.float64)
    found.up = "z" if UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z else "y"
    found.unit = _LENGTHS.get(round(UsdGeom.GetStageMetersPerUnit(stage), 6))
    for prim in stage.Traverse():
        shader = UsdShade.Shader(prim)
        if shader and shader.GetIdAttr().Get() == "UsdUVTexture":
            source = shader.GetInput("file").Get() if shader.GetInput("file") else None
            found.images[prim.GetName()] = _texture_size(source, path, found)
        elif shader and shader.GetIdAttr().Get() == "UsdPreviewSurface":
            for name in ("metallic", "roughness"):
                value = shader.GetInput(name).Get() if shader.GetInput(name) else None
                if value is not None:
                    found.material[name] = round(float(value), 6)
    found.facts = metadata.parsed(stage.GetRootLayer().customLayerData.get(GENERATOR, ""))
    return found


def _texture_size(source: Any, path: Path, found: MeshFile) -> tuple[int, int]:
    """Width and height of a texture; zeros, said, where it cannot be had."""
    named = "" if source is None else str(source.path)
    place = "" if source is None else str(source.resolvedPath)
    if place and not beside(place, path.resolve().parent):
        found.missing.append(f"{shortened(named)}, which it names, is outside its own folder and is not read")
        return 0, 0
    size = _picture_size(place)
    if 0 in size:
        found.missing.append(f"{shortened(named) or 'a texture'}, which it names, is missing or no PNG")
    return size


def _picture_size(place: str) -> tuple[int, int]:
    """Width and height of a PNG that USD finds at a place; zeros where it finds none."""
    from pxr import Ar

    asset = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(place)) if place else None
    head = bytes(asset.GetBuffer())[:24] if asset else b""
    return struct.unpack(">II", head[16:24]) if len(head) == 24 else (0, 0)
