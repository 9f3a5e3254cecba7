"""The colours that captions name, how a picture's main colours are found, and how an object is given another one."""

from __future__ import annotations

import colorsys
from types import MappingProxyType

import numpy as np

COLORS = MappingProxyType(
    {
        "red": (0.80, 0.10, 0.10),
        "orange": (0.95, 0.50, 0.10),
        "yellow": (0.95, 0.82, 0.15),
        "green": (0.15, 0.60, 0.20),
        "blue": (0.12, 0.30, 0.80),
        "purple": (0.50, 0.20, 0.65),
        "pink": (0.95, 0.50, 0.68),
        "brown": (0.45, 0.27, 0.14),
        "white": (0.95, 0.95, 0.95),
        "grey": (0.50, 0.50, 0.50),
        "black": (0.10, 0.10, 0.10),
    }
)
"""Name and sRGB value of every colour the prior knows."""

_HUES = (
    (15, "red"),
    (42, "orange"),
    (68, "yellow"),
    (165, "green"),
    (255, "blue"),
    (290, "purple"),
    (340, "pink"),
    (361, "red"),
)


def named(rgb: tuple[float, float, float]) -> str:
    """The name of one sRGB colour in 0..1."""
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    if value < 0.2:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.8 else "grey"
    name = next(name for limit, name in _HUES if hue * 360 < limit)
    if name in ("orange", "red", "yellow") and value < 0.72 and saturation < 0.85:
        return "brown"
    if name == "red" and saturation < 0.55 and value > 0.75:
        return "pink"
    return name


def dominant(albedo: np.ndarray) -> list[str]:
    """Names of the colours that cover more than a quarter of an object, the largest first, at most two.

    Args:
        albedo: [B, H, W, 4] uint8, premultiplied by opacity.
    """
    solid = albedo.reshape(-1, 4)
    solid = solid[solid[:, 3] > 200][:, :3] >> 4
    codes, counts = np.unique(solid.astype(np.int64) @ (256, 16, 1), return_counts=True)
    share: dict[str, float] = {}
    for code, count in zip(codes, counts, strict=True):
        rgb = ((code >> 8) + 0.5) / 16, (((code >> 4) & 15) + 0.5) / 16, ((code & 15) + 0.5) / 16
        share[named(rgb)] = share.get(named(rgb), 0.0) + count / counts.sum()
    return sorted((name for name in share if share[name] > 0.25), key=lambda name: -share[name])[:2]


def brightness(albedo: np.ndarray) -> float:
    """The luminance, 0..1, that nine tenths of an object's opaque pixels stay below; `repaint` divides by it."""
    solid = albedo.reshape(-1, 4)
    solid = solid[solid[:, 3] > 200][:, :3]
    return float(np.quantile(solid @ (0.299, 0.587, 0.114) / 255, 0.9)) if len(solid) else 1.0
