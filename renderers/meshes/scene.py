"""A mesh under training: its paint, what it is made of, and where its points lie.

Shapes: P points, U vertices of the mesh, T texels along a side, B cameras, H and W pixels, N pixels that see the mesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from renderers.cameras import Cameras
from renderers.meshes import material, rasterization, shading
from renderers.meshes.baking import mesh_of
from renderers.meshes.config import Solid
from renderers.meshes.mesh import Mesh
from renderers.meshes.triangles import Fragments
from renderers.meshes.welded_mesh import Body
from renderers.scene import Frame, TrainableScene

_SLOPE = 0.9
"""Most that a normal map tilts a normal: the length of its x and y."""


@dataclass(frozen=True)
class _Sighting:
    """What a render leaves for the rest of its step."""

    pixels: int
    """How many see the mesh."""
    moved: Float[Tensor, "P 3"] | None
    """How far the points have moved, where they may."""

    def joined(self, others: Sequence[_Sighting]) -> _Sighting:
        """This one's pictures and the others', as one."""
        return _Sighting(self.pixels + sum(other.pixels for other in others), self.moved)


class SolidScene(TrainableScene):
    """A mesh under training. Make it with `Solid.build` or `Solid.of`."""

    colours: nn.Parameter
    """[T,T,3] or [P,3], sRGB; without light what is seen, with light the albedo."""
    grain: nn.Parameter
    """[T,T,2] or [P,2]: roughness and metal, 0..1; only with `material`."""
    slopes: nn.Parameter
    """[T,T,2]: x and y of the normal map; only with `bumps`."""
    bends: nn.Parameter
    """[G,G,G,3], z before y before x: how far the nodes of a lattice over -1..1 have moved; only with `move`."""
    offsets: nn.Parameter
    """[P,3]: how far each point has moved in the lattice; only with `move`."""

    def __init__(self, knobs: Solid, mesh: Mesh, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.knobs = knobs
        self.generator = generator
        self.drawn: int | None = None
        """Pixels that showed the mesh in the last settled frame."""
        self.light = _studio(device) if knobs.light == "studio" else None
        self._take(Body.of(mesh, device), torch.from_numpy(mesh.normals).to(device))
        start = material.started(mesh, self.body, self._names, self._size, knobs.repaint)
        if knobs.move:
            start["bends"] = torch.zeros(knobs.lattice, knobs.lattice, knobs.lattice, 3)
            start["offsets"] = torch.zeros(len(self.body.points), 3)
        for name in self._names:
            self.register_parameter(name, nn.Parameter(start[name].to(device)))

    @property
    def points(self) -> Float[Tensor, "P 3"]:
        """Where the points are now."""
        moved = self.moved()
        return self.body.points if moved is None else self.body.points + moved

    def moved(self) -> Float[Tensor, "P 3"] | None:
        """How far the points have moved, lattice and all; None where they may not."""
        if not self.knobs.move:
            return None
        if not self.knobs.lattice:
            return self.offsets
        grid = self.body.points[None, None, None]
        bent = functional.grid_sample(
            self.bends.permute(3, 0, 1, 2)[None], grid, padding_mode="border", align_corners=True
        )
        return bent[0, :, 0, 0].T + self.offsets

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> Frame:
        """Differentiable picture over a solid background per camera, its outlines antialiased."""
        moved, triangles = self.moved(), self.body.triangles
        points = self.body.points if moved is None else self.body.points + moved
        at = rasterization.places(points, cameras.to(points.device))
        fragments = rasterization.rasterise(at, triangles, cameras.height, cameras.width)
        colours = self._coated(at, fragments)
        if self.light is not None:
            colours = self._lit(colours, points, at, fragments, cameras.positions)
        depth = fragments.depth[..., None]
        if self.knobs.move:
            depth = rasterization.blend(at[..., 2:], triangles.corners, at, triangles, fragments)
        layers = torch.cat([colours, fragments.seen[..., None].to(colours), depth], -1)
        smooth = rasterization.antialias(layers, at, triangles, rasterization.outline(at, triangles, fragments))
        rgb, alpha, depth = smooth.split([3, 1, 1], -1)
        over = rgb + (1 - alpha) * background.to(rgb)[:, None, None]
        sighting = _Sighting(int(fragments.seen.sum()), moved)
        return Frame(over, alpha, depth / alpha.clamp_min(1e-9), sighting)

    def groups(self, progress: float) -> list[dict[str, Any]]:
        """One parameter group for each kind of parameter that is trained."""
        knobs = self.knobs
        slow = knobs.slowing**progress
        rates = {"colours": knobs.colour_rate, "grain": knobs.material_rate, "slopes": knobs.bump_rate}
        rates |= {"bends": knobs.bend_rate * slow, "offsets": knobs.offset_rate * slow}
        return [
            {"params": [getattr(self, name)], "lr": rates[name], "name": name, "eps": 1e-15} for name in self._names
        ]

    def penalty(self, frame: Frame) -> Float[Tensor, ""]:
        """The weighted penalties on how the points had moved in the frame; those of weight 0 cost nothing."""
        knobs, total = self.knobs, self.colours.new_zeros(())
        moved = frame.statistics.moved
        if moved is not None and knobs.laplacian:
            total = total + knobs.laplacian * self.body.unevenness(moved, self._length)
        if moved is not None and knobs.creases:
            total = total + knobs.creases * self.body.creasing(self.body.points + moved, self._creases)
        return total

    @torch.no_grad()
    def settle(self, progress: float, frame: Frame, optimiser: Optimizer) -> None:
        """Keeps the parameters in range; their number never changes."""
        self.drawn = frame.statistics.pixels
        self.colours.clamp_(0, 1)
        if self.knobs.material:
            self.grain.clamp_(0, 1)
        if self.knobs.bumps:
            length = self.slopes.norm(dim=-1, keepdim=True)
            self.slopes.mul_(_SLOPE / length.clamp_min(_SLOPE))
        for name in ("bends", "offsets"):
            if name in self._names:
                getattr(self, name).clamp_(-self.knobs.reach, self.knobs.reach)

    def healthy(self) -> str | None:
        """None, or what has gone wrong: NaN, a shape at its limits, or nothing in the last pictures."""
        for name in self._names:
            bad = int((~getattr(self, name).isfinite()).sum())
            if bad:
                return f"{bad} values of {name} are not finite"
        if self.knobs.move and bool((self.offsets.abs() >= self.knobs.reach).any(-1).float().mean() > 0.5):
            return f"the shape has come apart: over half of its points have moved by {self.knobs.reach}, all they may"
        if self.drawn == 0:
            return "the mesh was in none of the last pictures"
        return None

    def told(self) -> str:
        size = self.knobs.texture
        painted = f"a texture of {size} x {size}" if self.knobs.paint == "texture" else "colours at the points"
        return f"{len(self.body.triangles)} faces with {painted}"

    def state(self) -> dict[str, Tensor]:
        """Copies of the parameters, the mesh they hang on, and the generator."""
        tensors = {name: getattr(self, name).detach().clone() for name in self._names}
        tensors |= {f"body.{name}": value.clone() for name, value in self.body.state().items()}
        return tensors | {"normals": self._normals.clone(), "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave, with its mesh. Raises ValueError if something is missing or does not fit."""
        wanted = (*self._names, "normals", "generator")
        missing = [name for name in wanted if name not in state]
        if missing:
            raise ValueError(f"the saved mesh lacks {', '.join(missing)}; all of {', '.join(wanted)} are needed")
        device = self.colours.device
        body = Body.from_state({k[5:]: v.to(device).clone() for k, v in state.items() if k.startswith("body.")})
        size = self._size or len(body.points)
        if len(state["colours"]) != size or ("offsets" in self._names and len(state["offsets"]) != len(body.points)):
            raise ValueError(f"the saved mesh has {len(state['colours'])} rows of colours; these knobs ask for {size}")
        self._take(body, state["normals"].to(device).clone())
        for name in self._names:
            setattr(self, name, nn.Parameter(state[name].to(device).clone()))
        self.drawn = None
        self.generator.set_state(state["generator"].cpu())

    @torch.no_grad()
    def mesh(self) -> Mesh:
        """The mesh as it is now, for export; with maps where it is lit."""
        points = self.points
        normals = self.body.normals(points) if self.knobs.move else self._normals
        plain = self.colours.new_tensor(material.GRAIN).expand_as(self.colours[..., :2])
        parts: list[Tensor] = [self.colours]
        if self.light is not None:
            parts.append(self.grain if self.knobs.material else plain)
        if self.knobs.bumps:
            parts.append(self.slopes)
        size = self.knobs.texture if self._size is None else None
        return mesh_of(self.body, points, normals, torch.cat(parts, -1), size)

    @property
    def _names(self) -> tuple[str, ...]:
        knobs = self.knobs
        there = {"colours": True, "grain": knobs.material, "slopes": knobs.bumps}
        there |= {"bends": knobs.move and knobs.lattice > 0, "offsets": knobs.move}
        return tuple(name for name, here in there.items() if here)

    @property
    def _layers(self) -> tuple[str, ...]:
        return tuple(name for name in self._names if name in material.LAYERS)

    @property
    def _size(self) -> int | None:
        """Texels along a side of the texture, None where colours are those of points."""
        return self.knobs.texture if self.knobs.paint == "texture" else None

    def _take(self, body: Body, normals: Float[Tensor, "U 3"]) -> None:
        """Makes the mesh, and what depends on nothing else, its own."""
        self.body = body
        self._normals = normals
        """The given normals, used while the shape does not move."""
        self._flat = body.flat()
        self._length = max(body.length, 1e-9)
        self._creases = body.creases(body.points).contiguous()

    def _coated(self, at: Float[Tensor, "B P 3"], fragments: Fragments) -> Float[Tensor, "B H W C"]:
        """The layers of the coat, side by side, at every pixel."""
        triangles = self.body.triangles
        parts: list[Tensor] = [getattr(self, name) for name in self._layers]
        if self.knobs.paint == "points":
            return rasterization.blend(torch.cat(parts, -1), triangles.corners, at, triangles, fragments)
        uv = rasterization.blend(self.body.uv, self.body.vertices, at, triangles, fragments)
        detail = rasterization.detail_of(fragments, self._flat, self.knobs.texture)
        # One after the other: the textures are large, what is seen of them is small.
        return torch.cat([rasterization.look_up(part, uv, detail, fragments.seen) for part in parts], -1)

    def _lit(
        self,
        layers: Float[Tensor, "B H W C"],
        points: Float[Tensor, "P 3"],
        at: Float[Tensor, "B P 3"],
        fragments: Fragments,
        eyes: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B H W 3"]:
        """The coat under light; 0 where there is no surface."""
        assert self.light is not None
        body, seen = self.body, fragments.seen
        frames = [points[body.point_of], body.normals(points) if self.knobs.move else self._normals]
        if self.knobs.bumps:
            frames.append(body.tangents(points.detach()))
        spread = rasterization.blend(torch.cat(frames, -1), body.vertices, at, body.triangles, fragments)[seen]
        rows = layers[seen].split([material.LAYERS[name] for name in self._layers], -1)
        eye = eyes.to(points)[seen.nonzero()[:, 0]]
        named = dict(zip(self._layers, rows, strict=True))
        shown = material.shown(named, spread, fragments.area[seen] < 0, eye, self.light, self._turn())
        return layers.new_zeros(*seen.shape, 3).masked_scatter(seen[..., None], shown)

    def _turn(self) -> float:
        """How far the light is turned for the next pictures, radians; not at all where no gradients are recorded."""
        if not (self.knobs.turning and torch.is_grad_enabled()):
            return 0.0
        share = float(torch.rand((), generator=self.generator, device=self.generator.device)) * 2 - 1
        return math.radians(self.knobs.turning) * share


def _studio(device: torch.device) -> shading.Light:
    light = shading.lit(shading.studio())
    return shading.Light(light.diffuse.to(device), light.specular.to(device))
