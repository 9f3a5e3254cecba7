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
from configs.run import Part, RunConfig
from guidance.objectives.base import Objective, Update, View
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.edits.dds import DDS
from guidance.priors.base import Denoiser
from guidance.priors.mini.prior import EmbeddedPrior
from guidance.priors.toy_images import DEVIATION, toy_pictures
from renderers.images.scene import Picture
from sds3d.__main__ import main
from sds3d.runs.run_directory import Record
from sds3d.training.finalize_image import nearness
from sds3d.training.trainer import Run
from tests.support.sds3d.command_line import Captured, short_films

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Watching(Objective):
    """Keeps what it was shown; pulls nowhere."""

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        SHOWN.append(view)
        return Update(torch.zeros_like(view.x))


SHOWN: list[View] = []


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
        main(["edit", str(finished), "a horse", "--steps", "2", "--views", "1", "--out", str(target), "--quiet"]) == 0
    )
    asked, before = Record.open(target).config(), Record.open(finished).config()
    assert isinstance(asked.objective, DDS) and asked.prompt == "a horse"
    assert (asked.scene, asked.orbit, asked.prior) == (before.scene, before.orbit, before.prior)
    assert Path(asked.source) == finished.resolve()
    assert (target / "asset.glb").is_file()
    # It can be taken up again: the source is found once more.
    assert main(["resume", str(target), "--steps", "3", "--quiet"]) == 0
    old, new = (Record.open(folder).latest()[0]["scene.means"] for folder in (finished, target))
    assert old.shape == new.shape and not torch.equal(old, new)
    assert float((old - new).abs().max()) < 0.1, "three steps move splats a little"


def test_the_source_is_seen_beside_the_scene_and_stays(config: RunConfig, prior: EmbeddedPrior) -> None:
    whole = Run(config, prior, CPU)
    for _ in whole.steps():
        pass
    before = whole.result.scene.state()
    editing = replace(config, prompt="a mug", objective=Watching(), source="somewhere", particles=2)
    run = Run(editing, prior, CPU, whole.result)
    for particle in run.particles:
        torch.testing.assert_close(particle.scene.state()["means"], before["means"])
    for _ in run.steps():
        pass
    first = SHOWN[0]
    assert first.source is not None
    assert torch.equal(first.source.x, first.x), "before the first step the scene is its source"
    torch.testing.assert_close(first.source.text.tokens, prior.read([config.prompt] * config.views).tokens)
    assert torch.equal(first.wanted.text.tokens, prior.read(["a mug"] * config.views).tokens)
    assert torch.equal(whole.result.scene.state()["means"], before["means"])


def test_an_edit_that_cannot_be_says_why(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    for words, told in (
        (["generate", "a red teddy bear", "--objective", "dds"], "use: sds3d edit RUN PROMPT"),
        (["edit", str(tmp_path), "a horse"], "is not the folder of a run"),
        (["edit"], "the RUN to start from is missing"),
        (["generate", "a mug", "--scene", "picture", "--source", str(finished)], "give --scene splats"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err, words


# --- parts ---


def test_parts_are_told_apart_in_the_views(config: RunConfig, prior: EmbeddedPrior) -> None:
    parts = (Part("a horse", (-0.3, 0.0, 0.0), 0.4), Part("a mug", (0.3, 0.0, 0.0), 0.4))

    @dataclass(frozen=True)
    class Composed(Watching):
        needs_regions = True

    run = Run(replace(config, objective=Composed(), parts=parts), prior, CPU)
    next(run.steps())
    regions = SHOWN[0].regions
    assert regions is not None and regions.masks.shape == (2, config.views, 4, 4)
    assert bool((regions.masks.sum((2, 3)) > 0).all()), "a ball of splats shows both halves to both views"
    torch.testing.assert_close(regions.texts[1].tokens, prior.read(["a mug"] * config.views).tokens)
    # A part to the left is seen from another side than the middle is.
    middle, left = SHOWN[0].wanted.text.camera, regions.texts[0].camera
    assert middle is not None and left is not None and not torch.allclose(middle, left)


def test_parts_on_the_command_line(capsys: Captured) -> None:
    sent = ["generate", "a mug", "--objective", "regions"]
    for more, told in (
        ([], "needs texts for parts of the scene"),
        (["--part", "a mug"], "is no TEXT@X,Y,Z,RADIUS"),
        (["--part", "a mug@0,0,0,9"], "the radius of 'a mug' is 9.0; expected a number above 0, up to 1"),
        (["--part", "a mug@0,0,2,0.1"], "expected numbers from -1 to 1"),
    ):
        assert main([*sent, *more]) == 2
        assert told in capsys.readouterr().err
    assert main(["generate", "a mug", "--part", "a mug@0,0,0,0.5"]) == 2
    assert "has no use for parts" in capsys.readouterr().err


def test_runs_with_parts_and_other_scenes_come_back_from_their_file(config: RunConfig) -> None:
    parts = (Part("a horse@home", (-0.3, 0.0, 0.0), 0.4), Part("ein Krug"))
    run = replace(config, objective=RegionSDS(), parts=parts, scene=Picture(size=32), source="runs/x")
    assert serialization.load(serialization.dump(run)) == run
    with pytest.raises(ValueError, match="parts is 3; expected a list"):
        serialization.load(
            serialization.dump(run).split("parts:")[0]
            + "parts: 3\n"
            + serialization.dump(run).split("radius: 0.5\n")[1]
        )
    with pytest.raises(ValueError, match="unknown scene 'pictur'; did you mean picture"):
        serialization.load(serialization.dump(run).replace("kind: picture", "kind: pictur"))


# --- flat pictures ---


def test_a_picture_comes_near_the_data_of_the_exact_prior(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "disc"
    flags = "--prior toy --scene picture --steps 150 --views 2 --device cpu --particles 2 --scene.rate 0.05"
    assert main(["generate", "a blue disc", *flags.split(), "--out", str(folder)]) == 0
    assert (folder / "picture.png").is_file() and not (folder / "asset.glb").exists()
    report = json.loads((folder / "report.json").read_text())
    assert [near["nearest"] for near in report["data"]] == ["blue disc"] * 2
    assert all(near["distance"] < DEVIATION for near in report["data"])
    assert report["scene"] == "96 x 96 pixels" and report["spread_of_particles"] >= 0
    assert "nearest: blue disc" in capsys.readouterr().out


def test_the_exact_prior_has_no_critic_and_no_other_words(tmp_path: Path, capsys: Captured) -> None:
    toy = ["--prior", "toy", "--scene", "picture", "--out", str(tmp_path / "x")]
    assert main(["generate", "a disc", *toy, "--objective", "vsd"]) == 2
    assert "vsd needs a critic; the prior toy has no network to put one on" in capsys.readouterr().err
    assert main(["generate", "a dog", *toy]) == 2
    assert "the toy prior does not know 'a dog'" in capsys.readouterr().err
    assert main(["generate", "a disc", *toy, "--objective", "rfds"]) == 2
    assert "rfds needs a flow-matching prior" in capsys.readouterr().err


def test_nearness_is_the_distance_to_the_nearest_picture_of_the_text() -> None:
    prior = toy_pictures()
    place = int(prior.read(["red ring"]).tokens[0, 0].argmax())
    assert nearness(prior, prior.means[place], "a ring").nearest == "red ring"
    assert nearness(prior, prior.means[place], "a ring").distance == 0
    noise = torch.randn(prior.means[place].shape, generator=torch.Generator().manual_seed(0))
    sample = nearness(prior, prior.means[place] + DEVIATION * noise, "red")
    assert sample.nearest == "red ring" and sample.distance == pytest.approx(DEVIATION, rel=0.05)
    assert nearness(prior, prior.means[place], "blue").nearest == "blue ring"


# --- a picture of what is wanted ---


class SeeingPrior(EmbeddedPrior):
    """Its tokens of a picture are the mean colours of the left and the right half."""

    def look(self, rgb: torch.Tensor) -> torch.Tensor:
        halves = rgb.split((rgb.shape[3] + 1) // 2, dim=3)
        return torch.stack([half.mean((2, 3)) for half in halves], 1)


def test_a_picture_reaches_the_condition_of_the_text_alone(
    config: RunConfig, prior: EmbeddedPrior, tmp_path: Path
) -> None:
    file = tmp_path / "wanted.png"
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48, 0] = 255
    Image.fromarray(pixels).save(file)
    seeing = SeeingPrior(prior.network, prior.codec, prior.vocabulary)
    run = Run(replace(config, objective=Watching(), image=str(file)), seeing, CPU)
    next(run.steps())
    wanted, left_red = SHOWN[0].wanted, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert wanted.text.image is not None and wanted.empty.image is None
    torch.testing.assert_close(wanted.text.image, left_red.expand(config.views, 2, 3))


def test_a_picture_that_cannot_be_seen_is_refused(config: RunConfig, prior: EmbeddedPrior, tmp_path: Path) -> None:
    file = tmp_path / "wanted.png"
    file.write_text("no picture")
    with pytest.raises(ValueError, match="sees no pictures, only text; leave --image out"):
        Run(replace(config, image=str(file)), prior, CPU)
    seeing = SeeingPrior(prior.network, prior.codec, prior.vocabulary)
    with pytest.raises(ValueError, match=r"wanted\.png is no picture"):
        Run(replace(config, image=str(file)), seeing, CPU)
    with pytest.raises(OSError, match=r"gone\.png"):
        Run(replace(config, image=str(tmp_path / "gone.png")), seeing, CPU)
