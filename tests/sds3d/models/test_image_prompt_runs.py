"""Runs on priors that see several views at once, or a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from guidance.critics.lora import CriticConfig
from guidance.priors.base import make_rng
from guidance.priors.diffusers.options import PriorOptions
from renderers.camera_sampler import CameraSampler
from renderers.splats.config import SplatConfig
from sds3d.models.loading import load_prior
from sds3d.models.registry import MODELS
from sds3d.runs.provenance import licenses
from sds3d.training import view_sampling
from sds3d.training.trainer import Trainer
from tests.guidance.priors.diffusers.test_multiview import make_folder
from tests.support.guidance.multiview_reference import MultiViewReference

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = make_folder(MultiViewReference(), tmp_path_factory.mktemp("models") / "mv")
    return RunConfig(
        "a teddy bear",
        prior=str(folder),
        prior_options=PriorOptions(image_size=16),
        scene=SplatConfig(init_count=60, cap_max=80),
        critic=CriticConfig(rank=1, num_prior_samples=4, num_stages=1, stage_steps=1),
        steps=1,
        batch_size=8,
        device="cpu",
    )


@pytest.fixture(scope="module")
def seeing(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """One of a prior that sees pictures too."""
    return replace(
        config,
        prior=str(make_folder(MultiViewReference(image_prompt=True), tmp_path_factory.mktemp("models") / "seeing")),
    )


@pytest.mark.parametrize("name", ["sds", "vsd", "f-vsd", "disback", "ism", "csd"])
def test_objectives_on_four_views_at_once(name: str, config: RunConfig) -> None:
    config = replace(config, objective=OBJECTIVES[name]())
    run = Trainer(config, load_prior(config.prior, CPU, config.prior_options), CPU)
    (step,) = run.steps()
    assert step.grad_rms > 0 and all(value.isfinite().all() for value in run.scene.training_state().values())


def test_views_come_in_groups_around_the_asset_at_one_time(config: RunConfig) -> None:
    prior = load_prior(config.prior, CPU, config.prior_options)
    cameras = view_sampling.step_cameras(config, prior, 8, make_rng(0))
    azimuth, elevation = cameras.azimuth.view(2, 4), cameras.elevation.view(2, 4)
    apart = (azimuth.diff(dim=1) % torch.tensor(2 * torch.pi)) / (torch.pi / 2)
    torch.testing.assert_close(apart, torch.ones(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(elevation, elevation[:, :1].expand(-1, 4), atol=1e-5, rtol=0)
    assert (elevation[0, 0] - elevation[1, 0]).abs() > 1e-3 and (azimuth[0, 0] - azimuth[1, 0]).abs() > 1e-3
    times = view_sampling.step_timesteps(config, prior, 0.3, make_rng(1)).view(2, 4)
    assert torch.equal(times, times[:, :1].expand(-1, 4)) and times[0, 0] != times[1, 0]
    behind = view_sampling.step_backgrounds(prior, 8, make_rng(2)).view(2, 4, 3)
    assert torch.equal(behind, behind[:, :1].expand(-1, 4, -1))


def test_parts_of_a_step_are_whole_groups(config: RunConfig) -> None:
    steps = []
    for parts in (1, 2, 5):
        run = Trainer(replace(config, num_chunks=parts), load_prior(config.prior, CPU, config.prior_options), CPU)
        steps.append(next(run.steps()).grad_rms)
    assert steps[1] == pytest.approx(steps[0], rel=1e-3) and steps[2] == pytest.approx(steps[0], rel=1e-3)


def test_what_does_not_suit_four_views_is_refused(config: RunConfig) -> None:
    prior = load_prior(config.prior, CPU, config.prior_options)
    for change, told in (
        ({"batch_size": 6}, "sees 4 views at once; batch_size is 6, give --batch-size 8"),
        ({"batch_size": 1}, "batch_size is 1, give --batch-size 4"),
        ({"cameras": CameraSampler(azimuth_span=90.0)}, "sees 4 sides at once, all around; leave --cameras"),
        ({"perp_neg": 1.0}, "has no use for perp_neg"),
        ({"critic": CriticConfig(num_prior_samples=6)}, "samples is 6, give --critic"),
    ):
        with pytest.raises(ValueError, match=told):
            Trainer(replace(config, **change), prior, CPU)  # type: ignore[arg-type]


def test_a_picture_goes_all_the_way(seeing: RunConfig, tmp_path: Path) -> None:
    prior = load_prior(seeing.prior, CPU, seeing.prior_options)
    with pytest.raises(ValueError, match="is shown what is wanted; give --image-prompt FILE"):
        Trainer(seeing, prior, CPU)
    for name, size in (("good", (80, 64)), ("tiny", (8, 80))):
        Image.new("RGB", size, (200, 90, 20)).save(tmp_path / f"{name}.png")
    run = Trainer(replace(seeing, image_prompt=str(tmp_path / "good.png")), prior, CPU)
    assert run.prompt.image_embeds is not None and next(run.steps()).grad_rms > 0
    with pytest.raises(ValueError, match=r"tiny\.png is 8 x 80; expected 64 to 8192 pixels on each side"):
        Trainer(replace(seeing, image_prompt=str(tmp_path / "tiny.png")), prior, CPU)
    (tmp_path / "none.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"none\.png is no picture"):
        Trainer(replace(seeing, image_prompt=str(tmp_path / "none.png")), prior, CPU)


def test_licences_are_those_of_the_book() -> None:
    terms = licenses(RunConfig("a cat", prior="if-m", prior_options=PriorOptions(lora="of/style.safetensors")))
    assert terms["prior if-m"] == "DeepFloyd IF; commercial use: no"
    assert terms["lora style.safetensors"] == "not known here; its own model card says"
    for name, model in MODELS.items():
        for source in (name, *model.sources):
            assert model.licence in licenses(RunConfig("a cat", prior=source))[f"prior {source}"]
    assert licenses(RunConfig("a cat"))["prior mini"].startswith("Apache-2.0")
