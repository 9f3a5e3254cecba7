"""Pictures of a comparison: the views of each run, kept with their opacity, and one sheet of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from renderers.cameras import orbit_cameras
from renderers.scene import Scene
from sds3d.atomic_files import write_bytes
from sds3d.evaluation.scene_evaluation import VIEWS
from sds3d.export.turntable import ELEVATION, Color
from sds3d.formats.png import png

STRIP, FRONT, SHEET = "views.png", "front.png", "sheet.png"
"""Names of the files."""
POSTER_SIZE = 256
"""Height and width of the front view, pixels, those of the films."""
_TILE, _LEFT, _TOP = 160, 110, 48
_INK, _SOFT = (20, 20, 20), (90, 90, 90)


def write_views(folder: Path, views: Float[Tensor, "V H W 4"]) -> None:
    """All views side by side, colour and opacity."""
    strip = torch.cat(list(views), 1)
    write_bytes(folder / STRIP, png((strip * 255).round().to(torch.uint8).numpy()))


def read_views(folder: Path) -> Float[Tensor, "V H W 4"]:
    """What `write_views` wrote. Raises OSError where it is missing or damaged."""
    from PIL import Image

    with Image.open(folder / STRIP) as picture:
        strip = np.asarray(picture.convert("RGBA"), np.float32) / 255
    return torch.stack(torch.from_numpy(strip.copy()).split(strip.shape[0], 1))


def write_front(folder: Path, scene: Scene, behind: Color) -> None:
    """The scene from the front, as its film starts."""
    with torch.no_grad():
        rgb = scene.render(orbit_cameras(1, ELEVATION, POSTER_SIZE), torch.tensor(behind)[None]).rgb[0]
    write_bytes(folder / FRONT, png((rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()))


def write_sheet(out: Path, prompt: str, rows: Sequence[dict[str, Any]]) -> None:
    """One picture of all runs: a row for each objective, a column for each seed, or for each view of a single seed."""
    from PIL import Image, ImageDraw, ImageFont

    names = list(dict.fromkeys(row["objective"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    if len(seeds) > 1:
        heads = [f"seed {seed}" for seed in seeds]
    else:
        heads, prompt = [f"{360 * view // VIEWS}°" for view in range(VIEWS)], f"{prompt}, seed {seeds[0]}"
    sheet = Image.new("RGB", (_LEFT + len(heads) * _TILE, _TOP + len(names) * _TILE), "white")
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(14)
    pen.text((8, 6), prompt, fill=_INK)
    for column, head in enumerate(heads):
        pen.text((_LEFT + column * _TILE + _TILE // 2, 28), head, fill=_SOFT, anchor="ma")
    for place, name in enumerate(names):
        pen.text((8, _TOP + place * _TILE + _TILE // 2), name[:14], fill=_INK, anchor="lm")
    for row in rows:
        if row["trouble"] is not None:
            continue
        views = read_views(out / row["folder"])
        first, shown = (seeds.index(row["seed"]), views[:1]) if len(seeds) > 1 else (0, views)
        top = _TOP + names.index(row["objective"]) * _TILE
        for number, view in enumerate(shown):
            sheet.paste(Image.fromarray(_tile(view)), (_LEFT + (first + number) * _TILE, top))
    write_bytes(out / SHEET, png(np.asarray(sheet)))


def _tile(view: Float[Tensor, "H W 4"]) -> UInt8[ndarray, "S S 3"]:
    """A view over white, at the size of a tile."""
    white = view[..., :3] * view[..., 3:] + 1 - view[..., 3:]
    small = torch.nn.functional.interpolate(white.permute(2, 0, 1)[None], (_TILE, _TILE), mode="area")
    tile: ndarray = (small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return tile
