"""Numbers that tell assets apart without knowing what they show, read off pictures from around them.

All are taken inside the silhouette, the pixels more than half covered, so that the background and how much of the
picture the asset fills do not count. Shapes: V views, H x W pixels, S seeds; pictures are rgb and opacity in 0..1,
the colour premultiplied by nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from renderers.cameras import orbit_cameras
from renderers.scene import Scene
from sds3d.evaluation.scene_evaluation import ELEVATION, VIEWS

SIZE = 192
"""Height and width of the pictures that are measured, pixels."""
FINE = 24.0
"""Periods in the height of a picture: a finer detail than one 48th of it counts as sharp."""
_LUMINANCE = (0.299, 0.587, 0.114)
_EDGE = 13
"""Pixels (of 192) over which the spectrum's window rises from the outline inwards, twice."""


@torch.no_grad()
def render_views(scene: Scene, views: int = VIEWS, size: int = SIZE) -> Float[Tensor, "V H W 4"]:
    """What is measured: the scene from evenly spread azimuths, the first in front, 15 degrees up."""
    frame = scene.render(orbit_cameras(views, ELEVATION, size), torch.ones(views, 3))
    opacity = frame.alpha.clamp(0, 1)
    colour = (frame.rgb - (1 - opacity)) / opacity.clamp_min(1e-3)
    return torch.cat([colour.clamp(0, 1) * (opacity > 0), opacity], -1).float().cpu()


def saturation(views: Float[Tensor, "V H W 4"]) -> float:
    """Mean of HSV's saturation, (max - min) / max over red, green and blue, weighted by the brightness max.

    0 for greys, 1 for pure colours; dark pixels, whose hue is noise, count little. 0 where nothing is seen.
    """
    colour = views[..., :3][silhouette(views)]
    brightest = colour.amax(-1).sum()
    return float((colour.amax(-1) - colour.amin(-1)).sum() / brightest) if brightest > 0 else 0.0


def contrast(views: Float[Tensor, "V H W 4"]) -> float:
    """Standard deviation of the luminance inside the silhouette of each view, mean of the views: 0 flat to 0.5."""
    seen = [light[inside].std(correction=0) for light, inside in _views(views) if inside.any()]
    return float(torch.stack(seen).mean()) if seen else 0.0


def sharpness(views: Float[Tensor, "V H W 4"], above: float = FINE) -> float:
    """Share, 0..1, of the luminance's power spectrum above `above` periods in a picture's height; mean of the views.

    The luminance inside, without its mean, fades to 0 towards the outline, so that the outline itself adds nothing.
    A share does not change with brightness or contrast. 0 where nothing is seen or all is flat.
    """
    height, width = views.shape[1:3]
    down, across = torch.fft.fftfreq(height) * height, torch.fft.fftfreq(width) * height
    fine = torch.hypot(down[:, None], across[None]) > above
    shares = []
    for light, inside in _views(views):
        window = _window(inside)
        if window.sum() < 1:
            continue
        mean = (light * window).sum() / window.sum()
        power = torch.fft.fft2((light - mean) * window).abs().square()
        # Rounding leaves a little power in a flat picture.
        shares.append(power[fine].sum() / power.sum().clamp_min(1e-6 * window.square().sum()))
    return float(torch.stack(shares).mean()) if shares else 0.0


def variance(seeds: Float[Tensor, "S V H W 4"]) -> float | None:
    """Variance of a pixel's colour from seed to seed, the unbiased one, over white, seen by the same cameras.

    Mean of the channels, of the pixels inside at least one seed's silhouette, and of the views; 0 where all seeds
    look alike, None for a single seed.
    """
    if len(seeds) < 2:
        return None
    opacity = seeds[..., 3:]
    shown = seeds[..., :3] * opacity + 1 - opacity
    inside = silhouette(seeds).any(0)
    return float(shown.var(0)[inside].mean()) if inside.any() else 0.0


def silhouette(views: Float[Tensor, "*V H W 4"]) -> Bool[Tensor, "*V H W"]:
    """Pixels more than half covered."""
    return views[..., 3] > 0.5


def _views(views: Float[Tensor, "V H W 4"]) -> list[tuple[Float[Tensor, "H W"], Bool[Tensor, "H W"]]]:
    """Luminance and silhouette of each view."""
    light = views[..., :3] @ torch.tensor(_LUMINANCE, dtype=views.dtype)
    return list(zip(light, silhouette(views), strict=True))


def _window(inside: Bool[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """1 deep inside, falling smoothly to 0 at the outline and outside."""
    reach = 2 * (len(inside) * _EDGE // (2 * SIZE)) + 1
    blurred = inside[None, None].float()
    for _ in range(2):
        blurred = functional.avg_pool2d(blurred, reach, 1, reach // 2, count_include_pad=True)
    return (2 * blurred[0, 0] - 1).clamp(0, 1) * inside
