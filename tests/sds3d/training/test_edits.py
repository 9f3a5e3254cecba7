"""Runs that start from others, that have parts, and whose scene is a flat picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import serialization
from configs.run import Region, RunConfig
from guidance.objectives.base import Objective, ObjectiveOutput, ViewBatch
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.edits.dds import DDS
from guidance.priors.base import Denoiser
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.toy_images import STD, toy_image_prior
from renderers.images.scene import ImageConfig
from sds3d.__main__ import main
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.finalize_image import distance_to_mode
from sds3d.training.trainer import Trainer
from tests.support.sds3d.command_line import Captured, short_films

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Watching(Objective):
    """Keeps what it was shown; pulls nowhere."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        SHOWN.append(batch)
        return ObjectiveOutput(torch.zeros_like(batch.latents))


SHOWN: list[ViewBatch] = []


@pytest.fixture(scope="module", autouse=True)
def _short_films() -> Iterator[None]:
    with short_films():
        yield


@pytest.fixture(autouse=True)
def _nothing_shown() -> None:
    SHOWN.clear()


# --- editing ---


def test_an_edit_begins_where_its_source_ended(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "edited"
    assert (
        main(["edit", str(finished), "a horse", "--steps", "2", "--batch-size", "1", "--out", str(target), "--quiet"])
        == 0
    )
    asked, before = RunDirectory.open(target).config(), RunDirectory.open(finished).config()
    assert isinstance(asked.objective, DDS) and asked.prompt == "a horse"
    assert (asked.scene, asked.cameras, asked.prior) == (before.scene, before.cameras, before.prior)
    assert Path(asked.source_run) == finished.resolve()
    assert (target / "asset.glb").is_file()
    # It can be taken up again: the source is found once more.
    assert main(["resume", str(target), "--steps", "3", "--quiet"]) == 0
    old, new = (RunDirectory.open(folder).latest()[0]["scene.means"] for folder in (finished, target))
    assert old.shape == new.shape and not torch.equal(old, new)
    assert float((old - new).abs().max()) < 0.1, "three steps move splats a little"


def test_the_source_is_seen_beside_the_scene_and_stays(config: RunConfig, prior: MiniPrior) -> None:
    whole = Trainer(config, prior, CPU)
    for _ in whole.steps():
        pass
    before = whole.result.scene.training_state()
    editing = replace(config, prompt="a mug", objective=Watching(), source_run="somewhere", particles=2)
    run = Trainer(editing, prior, CPU, whole.result)
    for particle in run.particles:
        torch.testing.assert_close(particle.scene.training_state()["means"], before["means"])
    for _ in run.steps():
        pass
    first = SHOWN[0]
    assert first.source is not None
    assert torch.equal(first.source.latents, first.latents), "before the first step the scene is its source"
    torch.testing.assert_close(
        first.source.text.text_embeds, prior.encode_prompt([config.prompt] * config.batch_size).text_embeds
    )
    assert torch.equal(
        first.conditions.text.text_embeds, prior.encode_prompt(["a mug"] * config.batch_size).text_embeds
    )
    assert torch.equal(whole.result.scene.training_state()["means"], before["means"])


def test_an_edit_that_cannot_be_says_why(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    for words, told in (
        (["generate", "a red teddy bear", "--objective", "dds"], "use: sds3d edit RUN PROMPT"),
        (["edit", str(tmp_path), "a horse"], "is not the folder of a run"),
        (["edit"], "the RUN to start from is missing"),
        (["generate", "a mug", "--scene", "image", "--source-run", str(finished)], "give --scene splats"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err, words


# --- parts ---


def test_parts_are_told_apart_in_the_views(config: RunConfig, prior: MiniPrior) -> None:
    parts = (Region("a horse", (-0.3, 0.0, 0.0), 0.4), Region("a mug", (0.3, 0.0, 0.0), 0.4))

    @dataclass(frozen=True)
    class Composed(Watching):
        needs_regions = True

    run = Trainer(replace(config, objective=Composed(), regions=parts), prior, CPU)
    next(run.steps())
    regions = SHOWN[0].regions
    assert regions is not None and regions.masks.shape == (2, config.batch_size, 4, 4)
    assert bool((regions.masks.sum((2, 3)) > 0).all()), "a ball of splats shows both halves to both views"
    torch.testing.assert_close(
        regions.conditions[1].text_embeds, prior.encode_prompt(["a mug"] * config.batch_size).text_embeds
    )
    # A part to the left is seen from another side than the middle is.
    middle, left = SHOWN[0].conditions.text.camera, regions.conditions[0].camera
    assert middle is not None and left is not None and not torch.allclose(middle, left)


def test_parts_on_the_command_line(capsys: Captured) -> None:
    sent = ["generate", "a mug", "--objective", "regions"]
    for more, told in (
        ([], "needs texts for parts of the scene"),
        (["--region", "a mug"], "is no TEXT@X,Y,Z,RADIUS"),
        (["--region", "a mug@0,0,0,9"], "the radius of 'a mug' is 9.0; expected a number above 0, up to 1"),
        (["--region", "a mug@0,0,2,0.1"], "expected numbers from -1 to 1"),
    ):
        assert main([*sent, *more]) == 2
        assert told in capsys.readouterr().err
    assert main(["generate", "a mug", "--region", "a mug@0,0,0,0.5"]) == 2
    assert "has no use for parts" in capsys.readouterr().err


def test_runs_with_parts_and_other_scenes_come_back_from_their_file(config: RunConfig) -> None:
    parts = (Region("a horse@home", (-0.3, 0.0, 0.0), 0.4), Region("ein Krug"))
    run = replace(config, objective=RegionSDS(), regions=parts, scene=ImageConfig(size=32), source_run="runs/x")
    assert serialization.from_yaml(serialization.to_yaml(run)) == run
    with pytest.raises(ValueError, match="regions is 3; expected a list"):
        serialization.from_yaml(
            serialization.to_yaml(run).split("regions:")[0]
            + "regions: 3\n"
            + serialization.to_yaml(run).split("radius: 0.5\n")[1]
        )
    with pytest.raises(ValueError, match="unknown scene 'imag'; did you mean image"):
        serialization.from_yaml(serialization.to_yaml(run).replace("kind: image", "kind: imag"))


# --- flat pictures ---


def test_a_picture_comes_near_the_data_of_the_exact_prior(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "disc"
    flags = "--prior toy --scene image --steps 150 --batch-size 2 --device cpu --particles 2 --scene.lr 0.05"
    assert main(["generate", "a blue disc", *flags.split(), "--out", str(folder)]) == 0
    assert (folder / "picture.png").is_file() and not (folder / "asset.glb").exists()
    report = json.loads((folder / "report.json").read_text())
    assert [near["nearest"] for near in report["data"]] == ["blue disc"] * 2
    assert all(near["distance"] < STD for near in report["data"])
    assert report["scene"] == "96 x 96 pixels" and report["spread_of_particles"] >= 0
    assert "nearest: blue disc" in capsys.readouterr().out


def test_the_exact_prior_has_no_critic_and_no_other_words(tmp_path: Path, capsys: Captured) -> None:
    toy = ["--prior", "toy", "--scene", "image", "--out", str(tmp_path / "x")]
    assert main(["generate", "a disc", *toy, "--objective", "vsd"]) == 2
    assert "vsd needs a critic; the prior toy has no network to put one on" in capsys.readouterr().err
    assert main(["generate", "a dog", *toy]) == 2
    assert "the toy prior does not know 'a dog'" in capsys.readouterr().err
    assert main(["generate", "a disc", *toy, "--objective", "rfds"]) == 2
    assert "rfds needs a flow-matching prior" in capsys.readouterr().err


def test_nearness_is_the_distance_to_the_nearest_picture_of_the_text() -> None:
    prior = toy_image_prior()
    place = int(prior.encode_prompt(["red ring"]).text_embeds[0, 0].argmax())
    assert distance_to_mode(prior, prior.means[place], "a ring").nearest == "red ring"
    assert distance_to_mode(prior, prior.means[place], "a ring").distance == 0
    noise = torch.randn(prior.means[place].shape, generator=torch.Generator().manual_seed(0))
    sample = distance_to_mode(prior, prior.means[place] + STD * noise, "red")
    assert sample.nearest == "red ring" and sample.distance == pytest.approx(STD, rel=0.05)
    assert distance_to_mode(prior, prior.means[place], "blue").nearest == "blue ring"


# --- a picture of what is wanted ---


class SeeingPrior(MiniPrior):
    """Its tokens of a picture are the mean colours of the left and the right half."""

    def encode_image_prompt(self, rgb: torch.Tensor) -> torch.Tensor:
        halves = rgb.split((rgb.shape[3] + 1) // 2, dim=3)
        return torch.stack([half.mean((2, 3)) for half in halves], 1)


def test_a_picture_reaches_the_condition_of_the_text_alone(config: RunConfig, prior: MiniPrior, tmp_path: Path) -> None:
    file = tmp_path / "wanted.png"
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48, 0] = 255
    Image.fromarray(pixels).save(file)
    seeing = SeeingPrior(prior.network, prior.codec, prior.vocabulary)
    run = Trainer(replace(config, objective=Watching(), image_prompt=str(file)), seeing, CPU)
    next(run.steps())
    wanted, left_red = SHOWN[0].conditions, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert wanted.text.image_embeds is not None and wanted.uncond.image_embeds is None
    torch.testing.assert_close(wanted.text.image_embeds, left_red.expand(config.batch_size, 2, 3))


def test_a_picture_that_cannot_be_seen_is_refused(config: RunConfig, prior: MiniPrior, tmp_path: Path) -> None:
    file = tmp_path / "wanted.png"
    file.write_text("no picture")
    with pytest.raises(ValueError, match="sees no pictures, only text; leave --image-prompt out"):
        Trainer(replace(config, image_prompt=str(file)), prior, CPU)
    seeing = SeeingPrior(prior.network, prior.codec, prior.vocabulary)
    with pytest.raises(ValueError, match=r"wanted\.png is no picture"):
        Trainer(replace(config, image_prompt=str(file)), seeing, CPU)
    with pytest.raises(OSError, match=r"gone\.png"):
        Trainer(replace(config, image_prompt=str(tmp_path / "gone.png")), seeing, CPU)
