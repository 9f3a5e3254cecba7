"""Looking at a run while it goes on leaves it as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.run import RunConfig
from guidance.priors.mini.prior import MiniPrior
from renderers.camera_sampler import CameraSampler
from renderers.images.scene import ImageConfig
from renderers.meshes.config import MeshConfig
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.previews import EARLY_PREVIEWS, JANUS_EVERY, NUM_VIEWS, PREVIEW_SIZE, Previewer
from sds3d.training.trainer import Trainer

SCENES: tuple[SceneConfig, ...] = (
    SplatConfig(init_count=60, cap_max=80),
    NerfConfig(resolution=8, resolution_end=8, occupancy_resolution=8, samples_per_diameter=16),
    MeshConfig(faces=100, texture_size=16, light="studio", light_rotation_deg=40.0),
    ImageConfig(size=16),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: type(scene).__name__)
def test_looking_draws_no_chance(scene: SceneConfig, config: RunConfig, prior: MiniPrior) -> None:
    config = replace(config, scene=scene, steps=3)
    watched, alone = (Trainer(config, prior, torch.device("cpu")) for _ in range(2))
    watch = Previewer.for_run(watched)
    for step in watched.steps():
        watch.render(step)
        watch.fronts(JANUS_EVERY)
    for _ in alone.steps():
        pass
    one, other = watched.training_state(), alone.training_state()
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_flat_picture_is_shown_as_it_was_trained_on(config: RunConfig, prior: MiniPrior) -> None:
    run = Trainer(replace(config, scene=ImageConfig(size=16), steps=1), prior, torch.device("cpu"))
    step = next(run.steps())
    assert Previewer.for_run(run).render(step) is step.output.rgb


def test_what_is_seen_from_one_side_alone_is_not_shown_from_behind(config: RunConfig, prior: MiniPrior) -> None:
    run = Trainer(replace(config, cameras=CameraSampler(azimuth_span=90.0), steps=1), prior, torch.device("cpu"))
    step = next(run.steps())
    assert Previewer.for_run(run).render(step) is step.output.rgb


def test_the_first_preview_comes_early_and_the_last_step_has_one(config: RunConfig, prior: MiniPrior) -> None:
    run = Trainer(replace(config, steps=77), prior, torch.device("cpu"))
    watch = Previewer.for_run(run)
    assert [step for step in range(1, 78) if watch.is_due(step)] == [*EARLY_PREVIEWS, 50, 77]
    step = next(run.steps())
    assert watch.render(step).shape == (NUM_VIEWS, PREVIEW_SIZE, PREVIEW_SIZE, 3)


def test_fronts_are_counted_where_the_judge_has_a_name(config: RunConfig, prior: MiniPrior) -> None:
    named = Previewer.for_run(Trainer(replace(config, prompt="a cat", steps=2), prior, torch.device("cpu")))
    assert named.subject == "cat" and named.fronts(1) is None and named.fronts(2) is not None
    round_thing = replace(config, prompt="a hamburger", steps=2)
    assert Previewer.for_run(Trainer(round_thing, prior, torch.device("cpu"))).subject is None


def test_large_pictures_of_a_preview_are_not_enlarged(tmp_path: Path) -> None:
    from PIL import Image

    record = RunDirectory(tmp_path)
    with Image.open(record.preview(1, torch.rand(2, 200, 200, 3))) as picture:
        assert picture.size == (400, 200)
