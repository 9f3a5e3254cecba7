"""Commands as a user would give them, small enough for seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sds3d.__main__ import main
from sds3d.export.turntable import write_turntable

Captured = pytest.CaptureFixture[str]


def flags(prior_folder: Path) -> list[str]:
    """Of a run of seconds."""
    text = (
        "--steps 3 --batch-size 1 --device cpu --scene.init-count 400 --scene.cap-max 700 --scene.init-opacity 0.9 "
        "--mesh-extraction.faces 500 --mesh-extraction.texture-size 64 --mesh-extraction.resolution 32 "
        "--mesh-extraction.views 3 --mesh-extraction.silhouette-size 32 --mesh-extraction.texture-render-size 48"
    )
    return ["--prior", str(prior_folder), *text.split()]


def refused(words: list[str], captured: Captured) -> str:
    """The one line in which a command ends that was given something wrong."""
    assert main(words) not in (0, None)
    out, err = captured.readouterr()
    assert out == "" and err.endswith("\n") and err.count("\n") == 1, (out, err)
    assert err.startswith("sds3d: ") and "Traceback" not in err
    return err.removeprefix("sds3d: ").strip()


@contextmanager
def short_films() -> Iterator[None]:
    """The turntables of runs have four small pictures; on however slow a machine, their one checkpoint is the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sds3d.training.loop.CHECKPOINT_SECONDS", math.inf)
        patch.setattr("sds3d.training.finalize.write_turntable", partial(write_turntable, frames=4, size=64))
        yield
