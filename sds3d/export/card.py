"""A card: the asset from the front and from around it, what was asked for, and what it is. One PNG to show around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from renderers.cameras import orbit_cameras
from renderers.scene import Scene
from sds3d.atomic_files import write_bytes
from sds3d.export.turntable import ELEVATION
from sds3d.formats.layout import GENERATOR, Facts, facts_json
from sds3d.formats.png import png

SIDE = 512
"""Height and width of the large picture, pixels; the three small ones a third of it."""
PAPER, INK, FAINT = (250, 249, 246), (30, 30, 34), (110, 110, 118)
MARGIN, LINE = 24, 22
_WIDEST = 60
"""Characters of the prompt in one line."""


def write_card(path: Path, scene: Scene, prompt: str, lines: list[str], facts: Facts) -> None:
    """Writes the card; `facts` go into a text chunk. Raises OSError when the disk refuses."""
    import textwrap

    from PIL import Image, ImageDraw, ImageFont

    small = SIDE // 3
    titles = textwrap.wrap(prompt, _WIDEST, max_lines=2, placeholder=" ...")
    width = 2 * MARGIN + SIDE + small
    height = 3 * MARGIN + SIDE + 32 * len(titles) + LINE * len(lines)
    sheet = Image.new("RGB", (width, height), PAPER)
    paper = torch.tensor(PAPER) / 255
    for size, places, cameras in (
        (SIDE, [(MARGIN, MARGIN)], orbit_cameras(8, ELEVATION, SIDE)[:1]),
        (small, [(MARGIN + SIDE, MARGIN + k * small) for k in range(3)], orbit_cameras(4, ELEVATION, small)[1:]),
    ):
        with torch.no_grad():
            rgb = scene.render(cameras, paper.expand(len(places), 3)).rgb
        for place, picture in zip(places, (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(), strict=True):
            sheet.paste(Image.fromarray(picture).resize((size, size)), place)
    draw, top = ImageDraw.Draw(sheet), 2 * MARGIN + SIDE
    for title in titles:
        draw.text((MARGIN, top), title, fill=INK, font=ImageFont.load_default(24))
        top += 32
    for line in lines:
        draw.text((MARGIN, top), line, fill=FAINT, font=ImageFont.load_default(14))
        top += LINE
    write_bytes(path, png(np.asarray(sheet), {"Title": prompt, "Software": GENERATOR, GENERATOR: facts_json(facts)}))
