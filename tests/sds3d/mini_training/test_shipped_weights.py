"""The weights that come with sds3d: small enough, credited, openable with nothing else, and good at their job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from guidance.priors.mini.prior import FOLDER, MiniPrior
from sds3d.__main__ import main
from sds3d.evaluation.judge.network import FOLDER as JUDGE_FOLDER
from sds3d.evaluation.judge.network import Judge
from sds3d.mini_training.catalogue import objects
from sds3d.mini_training.evaluate import evaluate
from sds3d.mini_training.sample_grid import views
from sds3d.models.loading import mini_vocabulary

MEGABYTE = 1e6
EASY = ("teddy bear", "armchair", "hamburger", "grand piano")
"""Names of the first wave that the prior has to draw well."""


@pytest.fixture(scope="module")
def prior() -> MiniPrior:
    return MiniPrior.load()


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".py") / MEGABYTE


def test_prior_and_judge_are_small() -> None:
    assert 1 < size(FOLDER) <= 32
    assert 0.5 < size(JUDGE_FOLDER) <= 8


def test_the_prior_knows_sixty_names_and_the_judge_all_of_them(prior: MiniPrior, judge: Judge) -> None:
    names = prior.vocabulary.objects
    assert len(names) >= 60 and prior.image_size == 96
    assert set(names) <= set(judge.names)
    assert set(names) <= {thing.name for thing in objects()}
    assert mini_vocabulary() == prior.vocabulary


def test_every_name_synonym_and_colour_can_be_asked_for(prior: MiniPrior) -> None:
    known = prior.vocabulary
    for name, others in known.objects.items():
        for phrase in (name, *others):
            assert known.subject(f"a {phrase}") == name
            assert prior.validate_prompt(f"a {phrase}") is None
        for colour in known.colors:
            assert prior.validate_prompt(f"a {colour} {name}") is None
    assert len(known.colors) >= 11


def test_words_fit_the_network(prior: MiniPrior) -> None:
    assert prior.network.config.vocabulary >= len(prior.vocabulary.words)
    assert prior.encode_prompt([" ".join(prior.vocabulary.objects)]).text_embeds.shape[1] == prior.network.config.words


def test_weights_are_numbers(prior: MiniPrior) -> None:
    assert all(bool(value.isfinite().all()) for value in prior.network.state_dict().values())
    assert all(bool(value.isfinite().all()) for value in prior.codec.state_dict().values())


def test_every_creator_is_credited(prior: MiniPrior) -> None:
    notice, readme = ((FOLDER / name).read_text(encoding="utf-8") for name in ("NOTICE", "README.md"))
    rows = {line.split(":")[0]: line for line in notice.splitlines() if '" by ' in line}
    for name in prior.vocabulary.objects:
        creator = rows[name].split('" by ')[1]
        assert len(creator) > 5 and creator.endswith(("CC0 1.0", "CC BY 3.0")), name
        assert name in readme
    assert "license:" in readme and "sweethome3d-furniture" in readme
    assert set(prior.vocabulary.objects) <= set(json.loads((FOLDER / "marks.json").read_text())["names"])


def test_no_other_library_is_needed() -> None:
    """Neither diffusers nor any other library of models is imported, and no connection is opened."""
    code = (
        "import sys, socket, torch; socket.socket.connect = None;"
        "sys.modules.update(dict.fromkeys(('diffusers', 'transformers', 'huggingface_hub')));"
        "from guidance.priors.mini.prior import MiniPrior; print(len(MiniPrior.load().vocabulary.objects))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 60


def test_the_same_noise_gives_the_same_answer(prior: MiniPrior) -> None:
    first, second = (views(model, ["teddy bear"], azimuths=2, steps=3) for model in (prior, MiniPrior.load()))
    assert torch.equal(first, second)


def test_text_and_camera_are_heard(prior: MiniPrior) -> None:
    rows = views(prior, ["teddy bear"], azimuths=2, steps=3)
    assert float((rows - views(prior, ["sports car"], azimuths=2, steps=3)).abs().mean()) > 0.01
    assert float((rows - views(prior, ["teddy bear"], azimuths=2, elevation=1.0, steps=3)).abs().mean()) > 0.01


def test_the_judge_recognises_what_the_prior_draws(prior: MiniPrior, judge: Judge) -> None:
    found = evaluate(prior, judge, list(EASY), lambda text: None, azimuths=4, steps=12)
    assert found.overall.recall_at_1 >= 0.5 and found.overall.recall_at_5 >= 0.75
    assert found.overall.median_azimuth_error_degrees <= 45


def test_the_marks_that_are_told_meet_the_bar() -> None:
    overall = json.loads((FOLDER / "marks.json").read_text())["overall"]
    assert overall["recall_at_1"] >= 0.7 and overall["median_azimuth_error_degrees"] <= 20


def test_words_and_card_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    known = mini_vocabulary()
    assert main(["prior", "words"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in (*known.objects, *known.colors))
    assert main(["prior", "words", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["objects"]) == list(known.objects)
    assert main(["prior", "card"]) == 0
    assert "# mini" in capsys.readouterr().out
