"""USD: text with its textures beside it, or one USDZ package with everything inside. Needs usd-core."""

from __future__ import annotations

import importlib.util
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from renderers.meshes.mesh import Mesh
from sds3d.atomic_files import atomic_write, write_bytes
from sds3d.formats.layout import (
    DEFAULT_LAYOUT,
    GENERATOR,
    METRES,
    Facts,
    Layout,
    checked,
    facts_json,
    polygons,
    uniform_metallic_roughness,
)
from sds3d.formats.png import png

ROOT, SHAPE, MATERIAL = "/asset", "/asset/mesh", "/asset/material"
"""Where things stand in the file; the first is its default prim."""


def needs_usd() -> None:
    """Raises ImportError where usd-core is missing."""
    if importlib.util.find_spec("pxr") is None:
        raise ImportError("USD files need usd-core; get it with: pip install 'sds3d[usd]'")


def write_usda(path: Path, mesh: Mesh, facts: Facts, layout: Layout = DEFAULT_LAYOUT) -> None:
    """A text file, with `<name>_<map>.png` for each texture beside it; `facts` go to `customLayerData`.

    Raises ValueError for a mesh or facts that cannot be written, ImportError without usd-core, OSError when the disk
    refuses.
    """
    needs_usd()
    pictures = {f"{path.stem}_{name}.png": content for name, content in _pictures(mesh).items()}
    text = _stage(mesh, facts, layout, path.stem).ExportToString()
    with ExitStack() as drafts:
        for name, content in pictures.items():
            drafts.enter_context(atomic_write(path.with_name(name))).write_bytes(content)
        drafts.enter_context(atomic_write(path)).write_text(text, encoding="utf-8")


def write_usdz(path: Path, mesh: Mesh, facts: Facts, layout: Layout = DEFAULT_LAYOUT) -> None:
    """One package that phones and browsers of Apple open at once. Errors as in `write_usda`."""
    needs_usd()
    from pxr import Sdf, UsdUtils

    stage = _stage(mesh, facts, layout, "asset")
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "asset.usdc"
        for name, content in _pictures(mesh).items():
            (Path(folder) / f"asset_{name}.png").write_bytes(content)
        if not (
            stage.GetRootLayer().Export(str(inside))
            and UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(inside)), str(Path(folder) / "asset.usdz"))
        ):
            raise OSError(f"{path} could not be written; is there room in {tempfile.gettempdir()}?")
        write_bytes(path, (Path(folder) / "asset.usdz").read_bytes())


def _pictures(mesh: Mesh) -> dict[str, bytes]:
    """The textures as PNG files, by what they hold."""
    found = {"color": mesh.texture}
    if mesh.maps is not None and uniform_metallic_roughness(mesh) is None:
        found |= {"roughness": mesh.maps.roughness, "metallic": mesh.maps.metallic}
    if mesh.maps is not None and mesh.maps.normals is not None:
        found["normal"] = mesh.maps.normals
    return {name: png(picture) for name, picture in found.items()}


def _stage(mesh: Mesh, facts: Facts, layout: Layout, stem: str) -> Any:
    """The asset, with textures named `<stem>_<map>.png`."""
    from pxr import Gf, Kind, Sdf, Usd, UsdGeom, UsdShade, Vt

    checked(mesh)
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z if layout.up == "z" else UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, METRES[layout.unit])
    root = UsdGeom.Xform.Define(stage, ROOT)
    Usd.ModelAPI(root).SetKind(Kind.Tokens.component)
    stage.SetDefaultPrim(root.GetPrim())
    stage.GetRootLayer().customLayerData = {GENERATOR: facts_json(facts)}
    # The corners of a seam share their point; texture coordinates and normals belong to the corners.
    points, point_of = np.unique(mesh.vertices, axis=0, return_inverse=True)
    parts = polygons(mesh)
    corners = np.concatenate([part.reshape(-1) for part in parts]).astype(np.int32)
    counts = np.repeat(np.array([4, 3], np.int32), [len(part) for part in parts])
    shape = UsdGeom.Mesh.Define(stage, SHAPE)
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(points, np.float32)))
    shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(counts))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(point_of.reshape(-1)[corners].astype(np.int32)))
    shape.CreateExtentAttr([Gf.Vec3f(*points.min(0).tolist()), Gf.Vec3f(*points.max(0).tolist())])
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.normals[corners], np.float32)))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.faceVarying)
    # USD counts v from the lower edge.
    upward = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1).astype(np.float32)
    st = UsdGeom.PrimvarsAPI(shape).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
    st.Set(Vt.Vec2fArray.FromNumpy(upward))
    st.SetIndices(Vt.IntArray.FromNumpy(corners))
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(_material(stage, mesh, stem))
    return stage


def _material(stage: Any, mesh: Mesh, stem: str) -> Any:
    """UsdPreviewSurface with its textures."""
    from pxr import Gf, Sdf, UsdShade

    kinds = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, MATERIAL)
    surface = UsdShade.Shader.Define(stage, f"{MATERIAL}/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    reader = UsdShade.Shader.Define(stage, f"{MATERIAL}/st")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", kinds.String).Set("st")
    place = reader.CreateOutput("result", kinds.Float2)

    def texture(name: str, space: str, channel: str) -> Any:
        shader = UsdShade.Shader.Define(stage, f"{MATERIAL}/{name}")
        shader.CreateIdAttr("UsdUVTexture")
        shader.CreateInput("file", kinds.Asset).Set(Sdf.AssetPath(f"./{stem}_{name}.png"))
        shader.CreateInput("sourceColorSpace", kinds.Token).Set(space)
        shader.CreateInput("st", kinds.Float2).ConnectToSource(place)
        for wrap in ("wrapS", "wrapT"):
            shader.CreateInput(wrap, kinds.Token).Set("repeat")
        if name == "normal":
            shader.CreateInput("scale", kinds.Float4).Set(Gf.Vec4f(2, 2, 2, 1))
            shader.CreateInput("bias", kinds.Float4).Set(Gf.Vec4f(-1, -1, -1, 0))
        return shader.CreateOutput(channel, kinds.Float3 if channel == "rgb" else kinds.Float)

    surface.CreateInput("diffuseColor", kinds.Color3f).ConnectToSource(texture("color", "sRGB", "rgb"))
    roughness, metallic = (surface.CreateInput(name, kinds.Float) for name in ("roughness", "metallic"))
    if grain := uniform_metallic_roughness(mesh):
        roughness.Set(grain[0])
        metallic.Set(grain[1])
    else:
        roughness.ConnectToSource(texture("roughness", "raw", "r"))
        metallic.ConnectToSource(texture("metallic", "raw", "r"))
    if mesh.maps is not None and mesh.maps.normals is not None:
        surface.CreateInput("normal", kinds.Normal3f).ConnectToSource(texture("normal", "raw", "rgb"))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", kinds.Token))
    return material
