"""Runs on priors that see several views at once, or a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from guidance.critics.lora import LoRA
from guidance.priors.base import generator
from guidance.priors.diffusers.options import Extras
from renderers.camera_sampler import Orbit
from renderers.splats.config import Splats
from sds3d.models.loading import open_prior
from sds3d.models.registry import BOOK
from sds3d.runs.provenance import licences
from sds3d.training import view_sampling
from sds3d.training.trainer import Run
from tests.guidance.priors.diffusers.test_multiview import folder_of
from tests.support.guidance.multiview_reference import Twin

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = folder_of(Twin(), tmp_path_factory.mktemp("models") / "mv")
    return RunConfig(
        "a teddy bear",
        prior=str(folder),
        extras=Extras(size=16),
        scene=Splats(count=60, max_count=80),
        critic=LoRA(rank=1, samples=4, stages=1, stage_steps=1),
        steps=1,
        views=8,
        device="cpu",
    )


@pytest.fixture(scope="module")
def seeing(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """One of a prior that sees pictures too."""
    return replace(config, prior=str(folder_of(Twin(picture=True), tmp_path_factory.mktemp("models") / "seeing")))


@pytest.mark.parametrize("name", ["sds", "vsd", "f-vsd", "disback", "ism", "csd"])
def test_objectives_on_four_views_at_once(name: str, config: RunConfig) -> None:
    config = replace(config, objective=OBJECTIVES[name]())
    run = Run(config, open_prior(config.prior, CPU, config.extras), CPU)
    (step,) = run.steps()
    assert step.gradient > 0 and all(value.isfinite().all() for value in run.scene.state().values())


def test_views_come_in_groups_around_the_asset_at_one_time(config: RunConfig) -> None:
    prior = open_prior(config.prior, CPU, config.extras)
    cameras = view_sampling.cameras(config, prior, 8, generator(0))
    azimuth, elevation = cameras.azimuth.view(2, 4), cameras.elevation.view(2, 4)
    apart = (azimuth.diff(dim=1) % torch.tensor(2 * torch.pi)) / (torch.pi / 2)
    torch.testing.assert_close(apart, torch.ones(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(elevation, elevation[:, :1].expand(-1, 4), atol=1e-5, rtol=0)
    assert (elevation[0, 0] - elevation[1, 0]).abs() > 1e-3 and (azimuth[0, 0] - azimuth[1, 0]).abs() > 1e-3
    times = view_sampling.times(config, prior, 0.3, generator(1)).view(2, 4)
    assert torch.equal(times, times[:, :1].expand(-1, 4)) and times[0, 0] != times[1, 0]
    behind = view_sampling.behind(prior, 8, generator(2)).view(2, 4, 3)
    assert torch.equal(behind, behind[:, :1].expand(-1, 4, -1))


def test_parts_of_a_step_are_whole_groups(config: RunConfig) -> None:
    steps = []
    for parts in (1, 2, 5):
        run = Run(replace(config, accumulate=parts), open_prior(config.prior, CPU, config.extras), CPU)
        steps.append(next(run.steps()).gradient)
    assert steps[1] == pytest.approx(steps[0], rel=1e-3) and steps[2] == pytest.approx(steps[0], rel=1e-3)


def test_what_does_not_suit_four_views_is_refused(config: RunConfig) -> None:
    prior = open_prior(config.prior, CPU, config.extras)
    for change, told in (
        ({"views": 6}, "sees 4 views at once; views is 6, give --views 8"),
        ({"views": 1}, "views is 1, give --views 4"),
        ({"orbit": Orbit(around=90.0)}, "sees 4 sides at once, all around; leave --orbit"),
        ({"perp_neg": 1.0}, "has no use for perp_neg"),
        ({"critic": LoRA(samples=6)}, "samples is 6, give --critic"),
    ):
        with pytest.raises(ValueError, match=told):
            Run(replace(config, **change), prior, CPU)  # type: ignore[arg-type]


def test_a_picture_goes_all_the_way(seeing: RunConfig, tmp_path: Path) -> None:
    prior = open_prior(seeing.prior, CPU, seeing.extras)
    with pytest.raises(ValueError, match="is shown what is wanted; give --image FILE"):
        Run(seeing, prior, CPU)
    for name, size in (("good", (80, 64)), ("tiny", (8, 80))):
        Image.new("RGB", size, (200, 90, 20)).save(tmp_path / f"{name}.png")
    run = Run(replace(seeing, image=str(tmp_path / "good.png")), prior, CPU)
    assert run.prompt.image is not None and next(run.steps()).gradient > 0
    with pytest.raises(ValueError, match=r"tiny\.png is 8 x 80; expected 64 to 8192 pixels on each side"):
        Run(replace(seeing, image=str(tmp_path / "tiny.png")), prior, CPU)
    (tmp_path / "none.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"none\.png is no picture"):
        Run(replace(seeing, image=str(tmp_path / "none.png")), prior, CPU)


def test_licences_are_those_of_the_book() -> None:
    terms = licences(RunConfig("a cat", prior="if-m", extras=Extras(lora="of/style.safetensors")))
    assert terms["prior if-m"] == "DeepFloyd IF; commercial use: no"
    assert terms["lora style.safetensors"] == "not known here; its own model card says"
    for name, model in BOOK.items():
        for source in (name, *model.sources):
            assert model.licence in licences(RunConfig("a cat", prior=source))[f"prior {source}"]
    assert licences(RunConfig("a cat"))["prior mini"].startswith("Apache-2.0")
