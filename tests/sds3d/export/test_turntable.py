"""Films and sheets show the scene from where they say."""

from __future__ import annotations

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from renderers.cameras import Cameras
from renderers.scene import RenderOutput, Scene
from sds3d.export.turntable import write_contact, write_turntable


class Compass(Scene):
    """Shows where the camera stands: redder the farther around it is, over half of the picture."""

    def render(self, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        if cameras.height > 500:
            raise RuntimeError("too large")
        turn = torch.remainder(cameras.azimuth, 2 * torch.pi) / (2 * torch.pi)
        rgb = background[:, None, None].expand(-1, cameras.height, cameras.width, 3).clone()
        rgb[:, :, : cameras.width // 2] = torch.stack([turn, 1 - turn, 0 * turn], -1)[:, None, None]
        shape = (*rgb.shape[:3], 1)
        return RenderOutput(rgb, torch.ones(shape), torch.ones(shape))


def test_a_film_turns_once_at_the_right_pace(tmp_path: Path) -> None:
    write_turntable(tmp_path / "t.mp4", Compass(), frames=20, size=64, background=(0.0, 0.0, 1.0))
    with imageio.get_reader(tmp_path / "t.mp4") as film:
        facts, pictures = film.get_meta_data(), np.stack(list(film.iter_data()))
    assert facts["codec"] == "h264"
    assert facts["pix_fmt"].startswith("yuv420p")
    assert facts["fps"] == 30
    assert pictures.shape == (20, 64, 64, 3)
    shown = pictures[:, 32, 16].astype(float) / 255
    assert shown[:, 0] == pytest.approx(np.arange(20) / 20, abs=0.08)
    assert shown[:, 1] == pytest.approx(1 - np.arange(20) / 20, abs=0.08)
    assert pictures[:, 32, 56, 2].min() > 220


def test_a_sheet_shows_its_views_row_by_row(tmp_path: Path) -> None:
    write_contact(tmp_path / "c.png", Compass(), views=7, columns=4, size=16)
    sheet = np.asarray(Image.open(tmp_path / "c.png"))
    assert sheet.shape == (32, 64, 3)
    for view in range(7):
        shown = sheet[view // 4 * 16 + 8, view % 4 * 16 + 2]
        assert shown.tolist() == pytest.approx([255 * view / 7, 255 - 255 * view / 7, 0], abs=1)
    assert (sheet[16:, 48:] == 255).all()  # the place of the eighth
    assert (sheet[:16, 8:16] == 255).all()


def test_wrong_sizes_are_refused_and_failures_leave_nothing(tmp_path: Path) -> None:
    for name, frames, size, words in (("t.mp4", 4, 65, "even"), ("t.mp4", 0, 64, "frames is 0"), ("t", 4, 64, ".mp4")):
        with pytest.raises(ValueError, match=words):
            write_turntable(tmp_path / name, Compass(), frames, size)
    with pytest.raises(ValueError, match="must be 1 or more"):
        write_contact(tmp_path / "c.png", Compass(), views=0)
    with pytest.raises(RuntimeError, match="too large"):
        write_turntable(tmp_path / "t.mp4", Compass(), frames=4, size=512)
    assert not list(tmp_path.iterdir())
