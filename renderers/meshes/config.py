"""A mesh as a scene: its knobs. For refining what a scene has become, and for texturing a mesh that someone brings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from renderers.scene import SceneKnobs

if TYPE_CHECKING:
    from renderers.meshes.mesh import Mesh
    from renderers.meshes.scene import SolidScene

LARGEST_TEXTURE = 4096


@dataclass(frozen=True)
class Solid(SceneKnobs):
    """Knobs of a mesh. Lengths are in units of the unit ball; rates are Adam's."""

    faces: int = 20_000
    """Triangles of the ball that is the start where no mesh is given."""
    radius: float = 0.6
    """Its radius."""
    paint: Literal["texture", "points"] = "texture"
    """Whether colours are those of texels or of the mesh's points."""
    texture: int = 512
    """Texels along a side of the texture."""
    repaint: bool = False
    """Start in grey, whatever the colours of the given mesh."""
    light: Literal["none", "studio"] = "none"
    """none: the paint is what is seen; studio: it is lit, and has to be what remains when the light is taken away."""
    turning: float = 0.0
    """The light is turned anew for every picture by up to this many degrees either way."""
    material: bool = False
    """Train roughness and metal too; needs light."""
    bumps: bool = False
    """Train a normal map too; needs light and a texture."""
    move: bool = True
    """Move the points; False leaves the shape as it is."""
    reach: float = 0.25
    """Neither the lattice nor a point in it moves farther than this along an axis."""
    lattice: int = 8
    """Nodes along a side of the lattice that bends the whole shape, besides each point's own move; 0 for none."""
    colour_rate: float = 1e-2
    """Rate of the colours, 0..1."""
    material_rate: float = 1e-2
    """Rate of roughness and metal, 0..1."""
    bump_rate: float = 5e-3
    """Rate of the normal map, -1..1."""
    bend_rate: float = 4e-3
    """Rate of the lattice at the start."""
    offset_rate: float = 1e-3
    """Rate of the points at the start."""
    slowing: float = 0.1
    """What is left of these two rates at the end; in between they fall exponentially."""
    laplacian: float = 1.0
    """Weight of the mean square of how much farther a point moves than its neighbours do, in lengths of an edge."""
    creases: float = 0.1
    """Weight of the mean of 1 - cosine between neighbouring triangles, where it has grown."""

    def __post_init__(self) -> None:
        if not 12 <= self.faces <= 1_000_000:
            raise ValueError(f"faces is {self.faces}; it lies between 12 and 1000000")
        if not 16 <= self.texture <= LARGEST_TEXTURE:
            raise ValueError(f"texture is {self.texture}; it lies between 16 and {LARGEST_TEXTURE}")
        for name, most in (("radius", 1.0), ("reach", 1.0), ("turning", 180.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it lies between 0 and {most:g}")
        if self.lattice != 0 and not 2 <= self.lattice <= 32:
            raise ValueError(f"lattice is {self.lattice}; it is 0 or lies between 2 and 32")
        for name in ("radius", "slowing", "colour_rate", "material_rate", "bump_rate", "bend_rate", "offset_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a positive number")
        for name in ("laplacian", "creases"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a number from 0 upwards")
        for name, choices in (("paint", ("texture", "points")), ("light", ("none", "studio"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it is {' or '.join(choices)}")
        if self.light == "none" and (self.material or self.bumps):
            raise ValueError("material and bumps show only under light; set light to studio")
        if self.bumps and self.paint != "texture":
            raise ValueError("bumps need a texture; set paint to texture")

    def build(self, device: torch.device | str, generator: torch.Generator) -> SolidScene:
        """A grey ball; `generator` also draws all chance that the scene needs later."""
        from renderers.meshes.welded_mesh import ball

        return self.of(ball(self.radius, self.faces, 16), device, generator)

    def of(self, mesh: Mesh, device: torch.device | str, generator: torch.Generator) -> SolidScene:
        """Starts from a mesh in the unit ball, with its colours. Raises ValueError for one that cannot be drawn."""
        from renderers.meshes.scene import SolidScene

        return SolidScene(self, mesh, torch.device(device), generator)
