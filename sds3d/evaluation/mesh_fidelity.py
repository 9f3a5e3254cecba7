"""How well a mesh stands for the scene it was made from: outlines, colours, and what an eye makes of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.meshes.mesh import BATCH, Mesh, StaticMeshScene, fibonacci_cameras, iou
from renderers.meshes.shading import srgb_to_linear
from renderers.scene import Scene

VIEWS, SIZE = 24, 128
"""Pictures that are compared, and their height and width in pixels."""
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)


@dataclass(frozen=True)
class MeshFidelity:
    """How alike two scenes look from all around, over grey."""

    iou: float
    """Intersection over union of the silhouettes (alpha > 0.5), mean of the views, 0..1."""
    psnr: float
    """Peak signal-to-noise ratio of the colours inside the union of the silhouettes, all views, dB."""
    delta_e: float
    """Mean CIELAB difference (CIE76) inside both silhouettes; about 2.3 is just noticeable."""

    def as_dict(self) -> dict[str, float]:
        """Rounded, for reports."""
        return {"iou": round(self.iou, 4), "psnr": round(self.psnr, 2), "colour_difference": round(self.delta_e, 2)}

    def __str__(self) -> str:
        return f"IoU {self.iou:.3f}, PSNR {self.psnr:.1f} dB, colour difference {self.delta_e:.1f}"


@torch.no_grad()
def mesh_fidelity(scene: Scene, mesh: Mesh, views: int = VIEWS, size: int = SIZE) -> MeshFidelity:
    """Compares renders of `scene` with those of `mesh` from the same cameras."""
    cameras, shown = fibonacci_cameras(views, size), StaticMeshScene(mesh)
    ious, errors, inside, differences, both = 0.0, 0.0, 0, 0.0, 0
    for start in range(0, views, BATCH):
        batch = cameras[start : start + BATCH]
        grey = torch.full((len(batch), 3), 0.5)
        wanted, got = scene.render(batch, grey), shown.render(batch, grey)
        here, there = wanted.alpha[..., 0].cpu() > 0.5, got.alpha[..., 0].cpu() > 0.5
        ious += iou(here, there) * len(batch)
        union, common = here | there, here & there
        seen, drawn = wanted.rgb.cpu().clamp(0, 1), got.rgb.cpu().clamp(0, 1)
        errors += float((seen - drawn)[union].square().sum())
        inside += int(union.sum())
        differences += float((lab(seen[common]) - lab(drawn[common])).norm(dim=-1).sum())
        both += int(common.sum())
    psnr = -10 * math.log10(max(errors / max(3 * inside, 1), 1e-10))
    return MeshFidelity(ious / views, psnr, differences / max(both, 1))


def lab(srgb: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """CIELAB under D65 of sRGB colours 0..1 (IEC 61966-2-1, CIE 15)."""
    relative = srgb_to_linear(srgb) @ torch.tensor(_TO_XYZ, dtype=srgb.dtype).T / torch.tensor(_WHITE, dtype=srgb.dtype)
    root = torch.where(relative > (6 / 29) ** 3, relative.clamp_min(1e-9) ** (1 / 3), relative * (841 / 108) + 4 / 29)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
