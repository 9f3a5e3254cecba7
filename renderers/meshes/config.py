"""A mesh as a scene: its knobs. For refining what a scene has become, and for texturing a mesh that someone brings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from renderers.scene import SceneConfig

if TYPE_CHECKING:
    from renderers.meshes.mesh import Mesh
    from renderers.meshes.scene import MeshScene

MAX_TEXTURE_SIZE = 4096


@dataclass(frozen=True)
class MeshConfig(SceneConfig):
    """Knobs of a mesh. Lengths are in units of the unit ball; rates are Adam's."""

    lr_fields: ClassVar[tuple[str, ...]] = ("color_lr", "material_lr", "normal_map_lr", "lattice_lr", "vertex_lr")

    faces: int = 20_000
    """Triangles of the ball that is the start where no mesh is given."""
    init_radius: float = 0.6
    """Its radius."""
    texture_type: Literal["texture", "points"] = "texture"
    """Whether colours are those of texels or of the mesh's points."""
    texture_size: int = 512
    """Texels along a side of the texture."""
    repaint: bool = False
    """Start in grey, whatever the colours of the given mesh."""
    light: Literal["none", "studio"] = "none"
    """none: the paint is what is seen; studio: it is lit, and has to be what remains when the light is taken away."""
    light_rotation_deg: float = 0.0
    """The light is turned anew for every picture by up to this many degrees either way."""
    train_material: bool = False
    """Train roughness and metal too; needs light."""
    train_normal_map: bool = False
    """Train a normal map too; needs light and a texture."""
    train_geometry: bool = True
    """Move the points; False leaves the shape as it is."""
    max_offset: float = 0.25
    """Neither the lattice nor a point in it moves farther than this along an axis."""
    lattice_size: int = 8
    """Nodes along a side of the lattice that bends the whole shape, besides each point's own move; 0 for none."""
    color_lr: float = 1e-2
    """Rate of the colours, 0..1."""
    material_lr: float = 1e-2
    """Rate of roughness and metal, 0..1."""
    normal_map_lr: float = 5e-3
    """Rate of the normal map, -1..1."""
    lattice_lr: float = 4e-3
    """Rate of the lattice at the start."""
    vertex_lr: float = 1e-3
    """Rate of the points at the start."""
    lr_final_factor: float = 0.1
    """What is left of these two rates at the end; in between they fall exponentially."""
    lambda_laplacian: float = 1.0
    """Weight of the mean square of how much farther a point moves than its neighbours do, in lengths of an edge."""
    lambda_normal_consistency: float = 0.1
    """Weight of the mean of 1 - cosine between neighbouring triangles, where it has grown."""

    def __post_init__(self) -> None:
        if not 12 <= self.faces <= 1_000_000:
            raise ValueError(f"faces is {self.faces}; it lies between 12 and 1000000")
        if not 16 <= self.texture_size <= MAX_TEXTURE_SIZE:
            raise ValueError(f"texture_size is {self.texture_size}; it lies between 16 and {MAX_TEXTURE_SIZE}")
        for name, most in (("init_radius", 1.0), ("max_offset", 1.0), ("light_rotation_deg", 180.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it lies between 0 and {most:g}")
        if self.lattice_size != 0 and not 2 <= self.lattice_size <= 32:
            raise ValueError(f"lattice_size is {self.lattice_size}; it is 0 or lies between 2 and 32")
        for name in (
            "init_radius",
            "lr_final_factor",
            "color_lr",
            "material_lr",
            "normal_map_lr",
            "lattice_lr",
            "vertex_lr",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        for name in ("lambda_laplacian", "lambda_normal_consistency"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a number from 0 upwards")
        for name, choices in (("texture_type", ("texture", "points")), ("light", ("none", "studio"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it is {' or '.join(choices)}")
        if self.light == "none" and (self.train_material or self.train_normal_map):
            raise ValueError("material and bumps show only under light; set light to studio")
        if self.train_normal_map and self.texture_type != "texture":
            raise ValueError("bumps need a texture; set paint to texture")

    def build(self, device: torch.device | str, generator: torch.Generator) -> MeshScene:
        """A grey ball; `generator` also draws all chance that the scene needs later."""
        from renderers.meshes.welded_mesh import cube_sphere

        return self.from_mesh(cube_sphere(self.init_radius, self.faces, 16), device, generator)

    def from_mesh(self, mesh: Mesh, device: torch.device | str, generator: torch.Generator) -> MeshScene:
        """Starts from a mesh in the unit ball, with its colours. Raises ValueError for one that cannot be drawn."""
        from renderers.meshes.scene import MeshScene

        return MeshScene(self, mesh, torch.device(device), generator)
