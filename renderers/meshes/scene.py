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
from renderers.meshes.baking import bake_mesh
from renderers.meshes.config import MeshConfig
from renderers.meshes.mesh import Mesh
from renderers.meshes.triangles import Fragments
from renderers.meshes.welded_mesh import WeldedMesh
from renderers.scene import RenderOutput, TrainableScene

_SLOPE = 0.9
"""Most that a normal map tilts a normal: the length of its x and y."""


@dataclass(frozen=True)
class _RenderInfo:
    """What a render leaves for the rest of its step."""

    pixels: int
    """How many see the mesh."""
    moved: Float[Tensor, "P 3"] | None
    """How far the points have moved, where they may."""

    def cat(self, others: Sequence[_RenderInfo]) -> _RenderInfo:
        """This one's pictures and the others', as one."""
        return _RenderInfo(self.pixels + sum(other.pixels for other in others), self.moved)


class MeshScene(TrainableScene):
    """A mesh under training. Make it with `Solid.build` or `Solid.of`."""

    base_color: nn.Parameter
    """[T,T,3] or [P,3], sRGB; without light what is seen, with light the albedo."""
    metallic_roughness: nn.Parameter
    """[T,T,2] or [P,2]: roughness and metal, 0..1; only with `material`."""
    normal_xy: nn.Parameter
    """[T,T,2]: x and y of the normal map; only with `bumps`."""
    lattice_offsets: nn.Parameter
    """[G,G,G,3], z before y before x: offsets of the nodes of a lattice over -1..1; only with `train_geometry`."""
    vertex_offsets: nn.Parameter
    """[P,3]: how far each point has moved in the lattice; only with `train_geometry`."""

    def __init__(self, knobs: MeshConfig, mesh: Mesh, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.knobs = knobs
        self.generator = generator
        self.drawn: int | None = None
        """Pixels that showed the mesh in the last settled frame."""
        self.light = _studio(device) if knobs.light == "studio" else None
        self._set_mesh(WeldedMesh.from_mesh(mesh, device), torch.from_numpy(mesh.normals).to(device))
        start = material.init_material(mesh, self.body, self._names, self._size, knobs.repaint)
        if knobs.train_geometry:
            start["lattice_offsets"] = torch.zeros(knobs.lattice_size, knobs.lattice_size, knobs.lattice_size, 3)
            start["vertex_offsets"] = torch.zeros(len(self.body.points), 3)
        for name in self._names:
            self.register_parameter(name, nn.Parameter(start[name].to(device)))

    @property
    def points(self) -> Float[Tensor, "P 3"]:
        """Where the points are now."""
        moved = self.moved()
        return self.body.points if moved is None else self.body.points + moved

    def moved(self) -> Float[Tensor, "P 3"] | None:
        """How far the points have moved, lattice and all; None where they may not."""
        if not self.knobs.train_geometry:
            return None
        if not self.knobs.lattice_size:
            return self.vertex_offsets
        grid = self.body.points[None, None, None]
        bent = functional.grid_sample(
            self.lattice_offsets.permute(3, 0, 1, 2)[None], grid, padding_mode="border", align_corners=True
        )
        return bent[0, :, 0, 0].T + self.vertex_offsets

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        """Differentiable picture over a solid background per camera, its outlines antialiased."""
        moved, triangles = self.moved(), self.body.triangles
        points = self.body.points if moved is None else self.body.points + moved
        at = rasterization.project_points(points, cameras.to(points.device))
        fragments = rasterization.rasterize(at, triangles, cameras.height, cameras.width)
        colours = self._interpolate_material(at, fragments)
        if self.light is not None:
            colours = self._lit(colours, points, at, fragments, cameras.positions)
        depth = fragments.depth[..., None]
        if self.knobs.train_geometry:
            depth = rasterization.interpolate(at[..., 2:], triangles.corners, at, triangles, fragments)
        layers = torch.cat([colours, fragments.seen[..., None].to(colours), depth], -1)
        smooth = rasterization.antialias(
            layers, at, triangles, rasterization.find_silhouettes(at, triangles, fragments)
        )
        rgb, alpha, depth = smooth.split([3, 1, 1], -1)
        over = rgb + (1 - alpha) * background.to(rgb)[:, None, None]
        sighting = _RenderInfo(int(fragments.seen.sum()), moved)
        return RenderOutput(over, alpha, depth / alpha.clamp_min(1e-9), sighting)

    def param_groups(self, progress: float) -> list[dict[str, Any]]:
        """One parameter group for each kind of parameter that is trained."""
        knobs = self.knobs
        slow = knobs.lr_final_factor**progress
        rates = {
            "base_color": knobs.color_lr,
            "metallic_roughness": knobs.material_lr,
            "normal_xy": knobs.normal_map_lr,
        }
        rates |= {"lattice_offsets": knobs.lattice_lr * slow, "vertex_offsets": knobs.vertex_lr * slow}
        return [
            {"params": [getattr(self, name)], "lr": rates[name], "name": name, "eps": 1e-15} for name in self._names
        ]

    def regularization_loss(self, frame: RenderOutput) -> Float[Tensor, ""]:
        """The weighted penalties on how the points had moved in the frame; those of weight 0 cost nothing."""
        knobs, total = self.knobs, self.base_color.new_zeros(())
        moved = frame.info.moved
        if moved is not None and knobs.lambda_laplacian:
            total = total + knobs.lambda_laplacian * self.body.laplacian_loss(moved, self._length)
        if moved is not None and knobs.lambda_normal_consistency:
            total = total + knobs.lambda_normal_consistency * self.body.normal_consistency_loss(
                self.body.points + moved, self._creases
            )
        return total

    @torch.no_grad()
    def post_step(self, progress: float, frame: RenderOutput, optimiser: Optimizer) -> None:
        """Keeps the parameters in range; their number never changes."""
        self.drawn = frame.info.pixels
        self.base_color.clamp_(0, 1)
        if self.knobs.train_material:
            self.metallic_roughness.clamp_(0, 1)
        if self.knobs.train_normal_map:
            length = self.normal_xy.norm(dim=-1, keepdim=True)
            self.normal_xy.mul_(_SLOPE / length.clamp_min(_SLOPE))
        for name in ("lattice_offsets", "vertex_offsets"):
            if name in self._names:
                getattr(self, name).clamp_(-self.knobs.max_offset, self.knobs.max_offset)

    def failure_reason(self) -> str | None:
        """None, or what has gone wrong: NaN, a shape at its limits, or nothing in the last pictures."""
        for name in self._names:
            bad = int((~getattr(self, name).isfinite()).sum())
            if bad:
                return f"{bad} values of {name} are not finite"
        if self.knobs.train_geometry and bool(
            (self.vertex_offsets.abs() >= self.knobs.max_offset).any(-1).float().mean() > 0.5
        ):
            return (
                f"the shape has come apart: over half of its points have moved by {self.knobs.max_offset}, all they may"
            )
        if self.drawn == 0:
            return "the mesh was in none of the last pictures"
        return None

    def describe(self) -> str:
        size = self.knobs.texture_size
        painted = f"a texture of {size} x {size}" if self.knobs.texture_type == "texture" else "colours at the points"
        return f"{len(self.body.triangles)} faces with {painted}"

    def training_state(self) -> dict[str, Tensor]:
        """Copies of the parameters, the mesh they hang on, and the generator."""
        tensors = {name: getattr(self, name).detach().clone() for name in self._names}
        tensors |= {f"body.{name}": value.clone() for name, value in self.body.state().items()}
        return tensors | {"normals": self._normals.clone(), "generator": self.generator.get_state()}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave, with its mesh. Raises ValueError if something is missing or does not fit."""
        wanted = (*self._names, "normals", "generator")
        missing = [name for name in wanted if name not in state]
        if missing:
            raise ValueError(f"the saved mesh lacks {', '.join(missing)}; all of {', '.join(wanted)} are needed")
        device = self.base_color.device
        body = WeldedMesh.from_state({k[5:]: v.to(device).clone() for k, v in state.items() if k.startswith("body.")})
        size = self._size or len(body.points)
        if len(state["base_color"]) != size or (
            "vertex_offsets" in self._names and len(state["vertex_offsets"]) != len(body.points)
        ):
            raise ValueError(
                f"the saved mesh has {len(state['base_color'])} rows of colours; these knobs ask for {size}"
            )
        self._set_mesh(body, state["normals"].to(device).clone())
        for name in self._names:
            setattr(self, name, nn.Parameter(state[name].to(device).clone()))
        self.drawn = None
        self.generator.set_state(state["generator"].cpu())

    @torch.no_grad()
    def mesh(self) -> Mesh:
        """The mesh as it is now, for export; with maps where it is lit."""
        points = self.points
        normals = self.body.normals(points) if self.knobs.train_geometry else self._normals
        plain = self.base_color.new_tensor(material.DEFAULT_METALLIC_ROUGHNESS).expand_as(self.base_color[..., :2])
        parts: list[Tensor] = [self.base_color]
        if self.light is not None:
            parts.append(self.metallic_roughness if self.knobs.train_material else plain)
        if self.knobs.train_normal_map:
            parts.append(self.normal_xy)
        size = self.knobs.texture_size if self._size is None else None
        return bake_mesh(self.body, points, normals, torch.cat(parts, -1), size)

    @property
    def _names(self) -> tuple[str, ...]:
        knobs = self.knobs
        there = {"base_color": True, "metallic_roughness": knobs.train_material, "normal_xy": knobs.train_normal_map}
        there |= {
            "lattice_offsets": knobs.train_geometry and knobs.lattice_size > 0,
            "vertex_offsets": knobs.train_geometry,
        }
        return tuple(name for name, here in there.items() if here)

    @property
    def _layers(self) -> tuple[str, ...]:
        return tuple(name for name in self._names if name in material.MATERIAL_CHANNELS)

    @property
    def _size(self) -> int | None:
        """Texels along a side of the texture, None where colours are those of points."""
        return self.knobs.texture_size if self.knobs.texture_type == "texture" else None

    def _set_mesh(self, body: WeldedMesh, normals: Float[Tensor, "U 3"]) -> None:
        """Makes the mesh, and what depends on nothing else, its own."""
        self.body = body
        self._normals = normals
        """The given normals, used while the shape does not move."""
        self._flat = body.uv_areas()
        self._length = max(body.length, 1e-9)
        self._creases = body.dihedral_angles(body.points).contiguous()

    def _interpolate_material(self, at: Float[Tensor, "B P 3"], fragments: Fragments) -> Float[Tensor, "B H W C"]:
        """The layers of the coat, side by side, at every pixel."""
        triangles = self.body.triangles
        parts: list[Tensor] = [getattr(self, name) for name in self._layers]
        if self.knobs.texture_type == "points":
            return rasterization.interpolate(torch.cat(parts, -1), triangles.corners, at, triangles, fragments)
        uv = rasterization.interpolate(self.body.uv, self.body.vertices, at, triangles, fragments)
        detail = rasterization.mip_level(fragments, self._flat, self.knobs.texture_size)
        # One after the other: the textures are large, what is seen of them is small.
        return torch.cat([rasterization.texture_lookup(part, uv, detail, fragments.seen) for part in parts], -1)

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
        frames = [points[body.weld_index], body.normals(points) if self.knobs.train_geometry else self._normals]
        if self.knobs.train_normal_map:
            frames.append(body.tangents(points.detach()))
        spread = rasterization.interpolate(torch.cat(frames, -1), body.vertices, at, body.triangles, fragments)[seen]
        rows = layers[seen].split([material.MATERIAL_CHANNELS[name] for name in self._layers], -1)
        eye = eyes.to(points)[seen.nonzero()[:, 0]]
        named = dict(zip(self._layers, rows, strict=True))
        shown = material.shade_pixels(named, spread, fragments.area[seen] < 0, eye, self.light, self._turn())
        return layers.new_zeros(*seen.shape, 3).masked_scatter(seen[..., None], shown)

    def _turn(self) -> float:
        """How far the light is turned for the next pictures, radians; not at all where no gradients are recorded."""
        if not (self.knobs.light_rotation_deg and torch.is_grad_enabled()):
            return 0.0
        share = float(torch.rand((), generator=self.generator, device=self.generator.device)) * 2 - 1
        return math.radians(self.knobs.light_rotation_deg) * share


def _studio(device: torch.device) -> shading.EnvironmentLight:
    light = shading.prefilter_environment(shading.studio_environment())
    return shading.EnvironmentLight(light.diffuse.to(device), light.specular.to(device))
