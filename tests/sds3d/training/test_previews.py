"""Looking at a run while it goes on leaves it as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.run import RunConfig
from guidance.priors.mini.prior import EmbeddedPrior
from renderers.camera_sampler import Orbit
from renderers.images.scene import Picture
from renderers.meshes.config import Solid
from renderers.scene import SceneKnobs
from renderers.splats.config import Splats
from renderers.volumes.config import Nerf
from sds3d.runs.run_directory import Record
from sds3d.training.previews import EARLY, GAUGE_EVERY, SHARP, SIDES, Watch
from sds3d.training.trainer import Run

SCENES: tuple[SceneKnobs, ...] = (
    Splats(count=60, max_count=80),
    Nerf(resolution=8, resolution_end=8, cells=8, samples=16),
    Solid(faces=100, texture=16, light="studio", turning=40.0),
    Picture(size=16),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: type(scene).__name__)
def test_looking_draws_no_chance(scene: SceneKnobs, config: RunConfig, prior: EmbeddedPrior) -> None:
    config = replace(config, scene=scene, steps=3)
    watched, alone = (Run(config, prior, torch.device("cpu")) for _ in range(2))
    watch = Watch.over(watched)
    for step in watched.steps():
        watch.pictures(step)
        watch.fronts(GAUGE_EVERY)
    for _ in alone.steps():
        pass
    one, other = watched.state(), alone.state()
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_flat_picture_is_shown_as_it_was_trained_on(config: RunConfig, prior: EmbeddedPrior) -> None:
    run = Run(replace(config, scene=Picture(size=16), steps=1), prior, torch.device("cpu"))
    step = next(run.steps())
    assert Watch.over(run).pictures(step) is step.frame.rgb


def test_what_is_seen_from_one_side_alone_is_not_shown_from_behind(config: RunConfig, prior: EmbeddedPrior) -> None:
    run = Run(replace(config, orbit=Orbit(around=90.0), steps=1), prior, torch.device("cpu"))
    step = next(run.steps())
    assert Watch.over(run).pictures(step) is step.frame.rgb


def test_the_first_preview_comes_early_and_the_last_step_has_one(config: RunConfig, prior: EmbeddedPrior) -> None:
    run = Run(replace(config, steps=77), prior, torch.device("cpu"))
    watch = Watch.over(run)
    assert [step for step in range(1, 78) if watch.due(step)] == [*EARLY, 50, 77]
    step = next(run.steps())
    assert watch.pictures(step).shape == (SIDES, SHARP, SHARP, 3)


def test_fronts_are_counted_where_the_judge_has_a_name(config: RunConfig, prior: EmbeddedPrior) -> None:
    named = Watch.over(Run(replace(config, prompt="a cat", steps=2), prior, torch.device("cpu")))
    assert named.subject == "cat" and named.fronts(1) is None and named.fronts(2) is not None
    round_thing = replace(config, prompt="a hamburger", steps=2)
    assert Watch.over(Run(round_thing, prior, torch.device("cpu"))).subject is None


def test_large_pictures_of_a_preview_are_not_enlarged(tmp_path: Path) -> None:
    from PIL import Image

    record = Record(tmp_path)
    with Image.open(record.preview(1, torch.rand(2, 200, 200, 3))) as picture:
        assert picture.size == (400, 200)
