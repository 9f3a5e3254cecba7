"""Pictures of a finished scene: a film that turns once around it, and a sheet of views."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from renderers.cameras import Cameras, orbit_cameras
from renderers.scene import Scene
from sds3d.atomic_files import atomic_write, write_bytes
from sds3d.formats.layout import GENERATOR, NONE, Facts, facts_json
from sds3d.formats.metadata import DESCRIPTION
from sds3d.formats.png import png

ELEVATION = math.radians(15.0)
"""Height of the cameras above the horizon, radians."""
FRAMES_PER_SECOND = 30
SKIPPED = 3
"""Frames of a film for one of a .gif or .webp."""
BATCH = 6
"""Pictures rendered at once."""
WHITE = (1.0, 1.0, 1.0)

Color = tuple[float, float, float]
"""Red, green and blue, 0..1."""


def write_turntable(
    path: Path, scene: Scene, frames: int = 90, size: int = 256, background: Color = WHITE, facts: Facts = NONE
) -> None:
    """One turn, `size` pixels square: as H.264 (.mp4, yuv420p, plays everywhere), or as a .gif or .webp that repeats.

    Films show 30 frames a second; the other two show every third of them, so they turn at the same pace.
    `facts` go to the comment of a film or a .gif, and to the Exif description of a .webp.
    Raises ValueError for a size that is odd or a film without frames, OSError when the disk refuses.
    """
    if size % 2 or size < 16:
        raise ValueError(f"size is {size}; films need an even number of pixels, at least 16")
    if frames < 1:
        raise ValueError(f"frames is {frames}; a film has 1 or more")
    if path.suffix not in (".mp4", ".gif", ".webp"):
        raise ValueError(f"{path.name} is no name for a film; it should end in .mp4, .gif or .webp")
    if path.suffix == ".mp4":
        _write_video(path, _render(scene, orbit_cameras(frames, ELEVATION, size), background), facts)
    else:
        _write_animation(
            path, list(_render(scene, orbit_cameras(-(-frames // SKIPPED), ELEVATION, size), background)), facts
        )


def _write_video(path: Path, pictures: Iterator[UInt8[ndarray, "H W 3"]], facts: Facts) -> None:
    import imageio.v2 as imageio

    said = ["-metadata", f"comment={facts_json(facts)}"] if facts else []
    with (
        atomic_write(path) as draft,
        imageio.get_writer(
            draft, format="FFMPEG", fps=FRAMES_PER_SECOND, codec="libx264", pixelformat="yuv420p",
            quality=8, macro_block_size=2, ffmpeg_params=["-movflags", "+faststart", *said],
        ) as film,
    ):  # fmt: skip
        for picture in pictures:
            film.append_data(picture)


def _write_animation(path: Path, pictures: list[UInt8[ndarray, "H W 3"]], facts: Facts) -> None:
    from PIL import Image

    first, *rest = [Image.fromarray(picture) for picture in pictures]
    said: dict[str, Any] = {}
    if facts and path.suffix == ".gif":
        said["comment"] = facts_json(facts).encode()
    elif facts:
        exif = Image.Exif()
        exif[DESCRIPTION] = facts_json(facts, plain=True)
        said["exif"] = exif
    milliseconds = 1000 * SKIPPED // FRAMES_PER_SECOND
    with atomic_write(path) as draft:
        first.save(draft, save_all=True, append_images=rest, duration=milliseconds, loop=0, **said)


def write_contact(
    path: Path, scene: Scene, views: int = 8, columns: int = 4, size: int = 256, background: Color = WHITE,
    facts: Facts = NONE,
) -> None:  # fmt: skip
    """A PNG with `views` pictures from around the scene, `columns` in a row, the first from the front.

    `facts` go to a text chunk.
    Raises ValueError where there is nothing to show, OSError when the disk refuses.
    """
    if views < 1 or columns < 1:
        raise ValueError(f"{views} views in {columns} columns; both must be 1 or more")
    rows = -(-views // columns)
    sheet = np.empty((rows * size, min(columns, views) * size, 3), np.uint8)
    sheet[:] = np.round(np.multiply(background, 255)).astype(np.uint8)
    for index, picture in enumerate(_render(scene, orbit_cameras(views, ELEVATION, size), background)):
        top, left = index // columns * size, index % columns * size
        sheet[top : top + size, left : left + size] = picture
    write_bytes(path, png(sheet, {GENERATOR: facts_json(facts)} if facts else None))


def _render(scene: Scene, cameras: Cameras, background: Color) -> Iterator[UInt8[ndarray, "H W 3"]]:
    """The scene over a solid background, camera after camera."""
    for start in range(0, len(cameras), BATCH):
        batch = cameras[start : start + BATCH]
        with torch.no_grad():
            rgb = scene.render(batch, torch.tensor(background).expand(len(batch), 3)).rgb
        yield from (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
