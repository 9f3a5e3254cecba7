"""Kinds of files that are written, and what suits the programs that open them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from renderers.meshing.texture_refinement import MAX_STEPS
from sds3d.formats.layout import DEFAULT_LAYOUT, Layout, Stand, Unit, Up

Holds = Literal["mesh", "splats", "pictures"]
QUADS = ("obj", "usda", "usdz")
"""Kinds that keep faces of four corners as they are."""
MAPPED = ("glb", "gltf", "obj", "usda", "usdz")
"""Kinds with a place for maps."""
PRINT_SIZE_M = 0.1
"""Longest side of a print where none is asked for."""


@dataclass(frozen=True)
class FileFormat:
    """One kind of file."""

    ending: str
    content: Holds
    description: str
    layout: Layout = DEFAULT_LAYOUT
    """How an asset lies in it unless something else is asked for."""


_FLAT = Layout("z", "mm")
"""What slicers and CAD programs expect; importers do not turn these files."""
FORMATS = {
    "glb": FileFormat("glb", "mesh", "binary glTF, textures inside"),
    "gltf": FileFormat("gltf", "mesh", "glTF with files beside it"),
    "obj": FileFormat("obj", "mesh", "Wavefront OBJ, MTL and PNG"),
    "ply": FileFormat("ply", "mesh", "PLY with colours at the points, Z up", Layout("z")),
    "stl": FileFormat("stl", "mesh", "STL, shape alone, Z up, millimetres", _FLAT),
    "3mf": FileFormat("3mf", "mesh", "3MF with colours, Z up, millimetres", _FLAT),
    "usda": FileFormat("usda", "mesh", "USD as text with PNG beside it (needs usd-core)"),
    "usdz": FileFormat("usdz", "mesh", "USD package (needs usd-core)"),
    "splat-ply": FileFormat("ply", "splats", "PLY of 3D Gaussian splatting"),
    "splat": FileFormat("splat", "splats", "32 bytes a splat, for web viewers"),
    "spz": FileFormat("spz", "splats", "packed splats"),
    "splat-glb": FileFormat("glb", "splats", "glTF with KHR_gaussian_splatting"),
    "mp4": FileFormat("mp4", "pictures", "film of one turn"),
    "gif": FileFormat("gif", "pictures", "moving picture of one turn"),
    "webp": FileFormat("webp", "pictures", "smaller moving picture of one turn"),
    "contact": FileFormat("png", "pictures", "sheet of views"),
    "card": FileFormat("png", "pictures", "one picture with the prompt and what the asset is"),
}


@dataclass(frozen=True)
class Target:
    """What suits a program."""

    kinds: tuple[str, ...]
    """Files that it opens; the first unless another is asked for."""
    about: str
    layouts: tuple[tuple[str, Up, Unit], ...] = ()
    """(kind, up, unit) where they are not those of the kind."""
    faces: int | None = None
    """Most triangles; None: as the run has it."""
    texture: int | None = None
    """Texels along a side of the texture."""
    solid: bool = False
    """One closed outer shell, and nothing else."""
    normal_map: bool = False
    """Whether one is made where it helps."""


_METRES = "metres; PLY and STL with Z up"
_TURNED = "glTF in metres, which Interchange turns and scales; USD and OBJ with Z up in centimetres"
_CENTIMETRES = "Y up in centimetres, Maya's own"
_PACKAGE = "metres; glTF by way of glTFast or UnityGLTF, OBJ without a package"
_SMALL = "10,000 faces, 1024 texels; usdz for Apple's Quick Look"
_PRINT = "millimetres, Z up, closed, one outer shell"
TARGETS = {
    "blender": Target(("glb", "gltf", "obj", "usda", "usdz", "ply", "stl"), _METRES, (("stl", "z", "m"),)),
    "unity": Target(("glb", "gltf", "obj"), _PACKAGE, (), 10_000, 1024, normal_map=True),
    "unreal": Target(
        ("glb", "gltf", "usda", "usdz", "obj"), _TURNED, tuple((kind, "z", "cm") for kind in ("usda", "usdz", "obj"))
    ),
    "maya": Target(("obj", "usda", "usdz"), _CENTIMETRES, tuple((kind, "y", "cm") for kind in ("obj", "usda", "usdz"))),
    "web": Target(("glb", "usdz", "gltf"), _SMALL, (), 10_000, 1024, normal_map=True),
    "print": Target(("3mf", "stl", "ply"), _PRINT, (("ply", "z", "mm"),), solid=True),
}


@dataclass(frozen=True)
class ExportOptions:
    """What an export is asked for."""

    kind: str = "glb"
    layout: Layout = DEFAULT_LAYOUT
    faces: int | None = None
    """Most triangles; None: as the run has it."""
    texture: int | None = None
    """Texels along a side of the texture; None: as the run has it."""
    solid: bool = False
    flat_base: bool = False
    lods: int = 1
    """Files with ever fewer triangles, the first included."""
    degree: int | None = None
    """Degree of harmonics that splats are padded to."""
    quad: bool = False
    """Quads instead of triangles."""
    normal_map: bool | None = False
    """A normal map of the surface before it was simplified; None: where it helps."""
    refine: int = 0
    """Pictures of the scene that the texture is refined by."""

    def __post_init__(self) -> None:
        if self.kind not in FORMATS:
            from configs.registry import unknown_name_message

            raise ValueError(unknown_name_message("format", self.kind, list(FORMATS)))
        holds = FORMATS[self.kind].content
        if not 1 <= self.lods <= 8:
            raise ValueError(f"lods is {self.lods}; it counts files with ever fewer triangles, 1 to 8")
        if holds != "mesh" and (self.lods > 1 or self.flat_base or self.faces is not None):
            raise ValueError(f"{self.kind} holds no mesh; --faces, --lods and --flat-base go with formats that do")
        if self.flat_base and not self.solid:
            raise ValueError("--flat-base goes with --target print")
        self._check_mesh(holds)
        if self.degree is not None and self.kind != "splat-ply":
            raise ValueError(f"--sh-degree goes with --format splat-ply; {self.kind} was asked for")

    def _check_mesh(self, holds: Holds) -> None:
        """Raises ValueError for what a mesh in this kind of file cannot have."""
        if self.quad and self.kind not in QUADS:
            raise ValueError(f"--quad goes with {', '.join(QUADS)}; {self.kind} is written in triangles")
        if self.quad and self.lods > 1:
            raise ValueError("--quad goes with one level of detail; leave out --lods")
        if self.normal_map and (self.kind not in MAPPED or self.solid):
            raise ValueError(f"--normal-map goes with {', '.join(MAPPED)}; {self.kind} has no place for one")
        if self.refine and (holds != "mesh" or self.kind == "stl"):
            raise ValueError(f"--refine-texture goes with meshes that have colours; {self.kind} was asked for")
        if not 0 <= self.refine <= MAX_STEPS:
            raise ValueError(f"--refine-texture is {self.refine}; it counts pictures, 0 to {MAX_STEPS}")


def resolve_options(target: str | None, kind: str | None) -> ExportOptions:
    """What a target and a format ask for; either may be left out. Raises ValueError for what does not go together."""
    if target is None:
        return ExportOptions(kind or "glb", FORMATS[kind or "glb"].layout)
    suited = TARGETS[target]
    chosen = kind or suited.kinds[0]
    if chosen not in suited.kinds:
        raise ValueError(f"--target {target} takes {', '.join(suited.kinds)}; {chosen} was asked for")
    layout = FORMATS[chosen].layout
    for name, up, unit in suited.layouts:
        if name == chosen:
            layout = Layout(up, unit)
    stand: Stand = "ground"
    layout = replace(layout, origin=stand, size_m=PRINT_SIZE_M if suited.solid else None)
    mapped = None if suited.normal_map else False
    return ExportOptions(chosen, layout, suited.faces, suited.texture, suited.solid, normal_map=mapped)
