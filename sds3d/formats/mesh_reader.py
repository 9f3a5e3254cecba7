"""What a file holds, by readers that share nothing with the writers: for checks, and to see that an export arrived.

The numbers are the file's own; `up` and `unit` say how they are meant.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from sds3d.formats import metadata
from sds3d.formats.file_access import shortened
from sds3d.formats.gltf.document import extras_of
from sds3d.formats.layout import GENERATOR, Unit
from sds3d.formats.library_errors import refuse_unlike_a_file, refused
from sds3d.formats.mesh_file import MeshFile
from sds3d.formats.meshes.mesh_file import plain_found
from sds3d.formats.ply.table import header_of
from sds3d.formats.usd import needs_usd
from sds3d.formats.usd_probe import probe, unopened

MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".3mf", ".usda", ".usdc", ".usd", ".usdz")
_LENGTHS: dict[float, Unit] = {1.0: "m", 0.01: "cm", 0.001: "mm"}


def read(path: Path) -> MeshFile:
    """The mesh in a file. Raises OSError where it cannot be read, ValueError where it holds no mesh."""
    kind = path.suffix.lower()
    if kind not in MESHES:
        raise ValueError(f"{path.name}: expected a mesh, a file that ends in {', '.join(MESHES)}")
    refuse_unlike_a_file(path)
    try:
        if kind.startswith(".usd"):
            needs_usd()
            probe(path)
            found = _usd(path)
        elif kind in (".glb", ".gltf"):
            from sds3d.mesh_import.gltf_mesh_file import gltf_found

            found = gltf_found(path)
        else:
            found = plain_found(path)
            if kind != ".3mf":
                found.facts = facts_of(path)
    except (OSError, ImportError):
        raise
    except Exception as error:  # a broken file makes its readers fail in every way there is
        raise refused(path, error) from None
    if len(found.faces) == 0:
        raise ValueError(f"{path.name} has no triangles")
    return found


def facts_of(path: Path) -> dict[str, Any] | None:
    """What a file says of its origin; None where it says nothing. Raises as `read`."""
    refuse_unlike_a_file(path)
    kind = path.suffix.lower()
    if kind in (".glb", ".gltf"):
        return extras_of(path)
    if kind == ".obj":
        with path.open(encoding="utf-8", errors="replace") as lines:
            return metadata.parsed(next(lines, "").removeprefix(f"# {GENERATOR} "))
    if kind == ".ply":
        return metadata.parsed("".join(re.findall(r"(?m)^comment \|(.*)\|$", header_of(path))))
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
    return read(path).facts if kind.startswith((".3mf", ".usd")) else None


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
    if place and (reason := unopened(place, path.resolve().parent)):
        found.missing.append(f"{shortened(named)}, which it names, {reason}")
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
