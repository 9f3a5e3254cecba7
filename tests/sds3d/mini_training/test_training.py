"""The judge, marks of a prior, and training in miniature."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from guidance.priors.base import make_rng
from guidance.priors.mini.network import NetworkConfig
from guidance.priors.mini.prior import MiniPrior
from sds3d.evaluation.judge.network import Judge, JudgeNetwork
from sds3d.mini_training import release, train
from sds3d.mini_training.captions import vocabulary
from sds3d.mini_training.dataset import CorpusDataset
from sds3d.mini_training.evaluate import evaluate
from sds3d.mini_training.judge import training as judge_training
from sds3d.mini_training.sample_grid import picture, views
from sds3d.mini_training.train_state import TrainConfig
from sds3d.models.mini_checkpoint import trained
from tests.support.sds3d.sphere_corpus import ENTRIES, draw


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("corpus"))


# --- the judge ---


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    network = JudgeNetwork(3)
    for parameter in network.parameters():
        parameter.requires_grad_(False).add_(torch.randn(parameter.shape), alpha=0.02)
    return Judge(network, ["teddy bear", "horse", "mug"])


def test_the_judge_comes_back_from_its_files(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path)
    again, rgb = Judge.load(tmp_path), torch.rand(4, 3, 64, 64, generator=make_rng(0))
    assert again.names == judge.names
    torch.testing.assert_close(again.predict(rgb).probability, judge.predict(rgb).probability, rtol=0, atol=2e-2)
    (tmp_path / "judge.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"judge\.safetensors is damaged"):
        Judge.load(tmp_path)
    (tmp_path / "judge.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no judge: judge\.json is missing"):
        Judge.load(tmp_path)


def test_opinions_are_probabilities_and_angles(judge: Judge) -> None:
    opinion = judge.predict(torch.rand(5, 3, 64, 64, generator=make_rng(1)))
    torch.testing.assert_close(opinion.probability.sum(-1), torch.ones(5))
    assert float(opinion.azimuth.abs().max()) <= math.pi + 1e-6
    ranks = torch.stack([opinion.rank(name) for name in range(3)], -1)
    assert ranks.sort(-1).values.tolist() == [[0, 1, 2]] * 5
    assert torch.equal(ranks.argmin(-1), opinion.probability.argmax(-1))


def test_the_judge_takes_pictures_of_any_size(judge: Judge) -> None:
    small = torch.rand(2, 3, 64, 64, generator=make_rng(2))
    large = small.repeat_interleave(3, -1).repeat_interleave(3, -2)
    torch.testing.assert_close(judge.predict(large).probability, judge.predict(small).probability, rtol=0, atol=1e-2)


def test_evaluation_marks_every_name(prior: MiniPrior, judge: Judge) -> None:
    told: list[str] = []
    found = evaluate(prior, judge, ["horse", "mug"], told.append, azimuths=4, steps=2)
    assert list(found.names) == ["horse", "mug"] and len(told) == 2 and found.candidates == 3
    every = [marks.recall_at_1 for marks in found.names.values()]
    assert found.overall.recall_at_1 == pytest.approx(np.mean(every))
    for marks in (found.overall, *found.names.values()):
        assert 0 <= marks.recall_at_1 <= marks.recall_at_5 == 1 and 0 <= marks.median_azimuth_error_degrees <= 180
    assert found == evaluate(prior, judge, ["horse", "mug"], told.append, azimuths=4, steps=2)
    with pytest.raises(ValueError, match="the judge does not know dragon"):
        evaluate(prior, judge, ["horse", "dragon"], told.append)


def test_sheets_have_a_row_for_each_text(prior: MiniPrior) -> None:
    rows = views(prior, ["horse", "mug"], azimuths=3, steps=2)
    assert rows.shape == (2, 3, 3, 24, 24)
    assert torch.equal(rows, views(prior, ["horse", "mug"], azimuths=3, steps=2))
    sheet = picture(rows)
    assert sheet.shape == (48, 72, 3)
    assert np.array_equal(sheet[24:, 24:48], (rows[1, 1].permute(1, 2, 0) * 255).round().byte().numpy())


# --- training in miniature ---


@pytest.fixture(scope="module")
def _small_networks() -> Iterator[None]:
    """A network of the right picture size but few weights; the number of threads as before."""
    threads = torch.get_num_threads()
    sizes = {"width": 32, "depth": 1, "heads": 2, "convolution_width": 16, "convolution_blocks": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "NetworkConfig", partial(NetworkConfig, sketch_width=64, sketch_channels=8, **sizes))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def knobs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return TrainConfig(
        corpus,
        tmp_path_factory.mktemp("training"),
        num_images=8,
        lr_decay_images=4,
        batch=2,
        sketch_images=40,
        stage=1,
        sketch_batch=4,
        codec_images=30,
        sync_interval_s=0.05,
        sheet_minutes=0,
    )


@pytest.fixture(scope="module")
def first_round(knobs: TrainConfig, _small_networks: None) -> dict[str, float]:
    """What stands in state.json after a few pictures."""
    train.train(knobs, lambda text: None)
    numbers: dict[str, float] = json.loads((knobs.out / "state.json").read_text())
    return numbers


def test_training_leaves_a_prior_that_opens(knobs: TrainConfig, first_round: dict[str, float]) -> None:
    prior = trained(knobs.out)
    assert first_round["samples"] > 0 and first_round["sketch_images_seen"] >= knobs.sketch_images
    assert prior.image_size == 96
    assert list(prior.vocabulary.objects) == [thing.name for thing in ENTRIES]
    assert bool(torch.isfinite(views(prior, ["teddy bear"], azimuths=2, steps=2)).all())
    rows = [json.loads(line) for line in (knobs.out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["samples"] == first_round["samples"]


def test_training_goes_on_where_it_stood(knobs: TrainConfig, first_round: dict[str, float]) -> None:
    before = trained(knobs.out).network.state_dict()
    train.train(replace(knobs, num_images=16), lambda text: None)
    numbers = json.loads((knobs.out / "state.json").read_text())
    for count in ("round", "step", "samples"):
        assert numbers[count] > first_round[count], count
    assert numbers["sketch_images_seen"] == first_round["sketch_images_seen"], "the sketch is not begun again"
    after = trained(knobs.out).network.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > len(before) / 2


def test_a_training_that_was_saved_begins_as_it_was(
    knobs: TrainConfig, first_round: dict[str, float], corpus: Path
) -> None:
    words = vocabulary(ENTRIES)
    config = train.NetworkConfig(vocabulary=len(words.words))
    pictures = CorpusDataset(corpus, ENTRIES[:2], words, config.words)
    first, second = (train.begin(knobs, config, pictures) for _ in range(2))
    losses = [
        train.step(s, pictures(2, np.random.default_rng(0)), train.ScaledLinearSchedule(), make_rng(0))
        for s in (first, second)
    ]
    assert losses[0] == losses[1]
    for (name, a), b in zip(first.network.named_parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_without_a_corpus_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no corpus"):
        train.train(TrainConfig(tmp_path / "nowhere", tmp_path / "out"), lambda text: None)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*; train one with: sds3d prior train CORPUS"):
        trained(tmp_path)


@pytest.mark.usefixtures("first_round")
def test_a_training_becomes_a_prior_to_ship(
    knobs: TrainConfig, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_training, "evaluate", partial(judge_training.evaluate, count=32))
    marks = judge_training.train(
        judge_training.JudgeTraining(corpus, tmp_path / "judge", minutes=1 / 60, batch=8), lambda text: None
    )
    assert 0 <= marks["recall_at_1"] <= marks["recall_at_5"] == 1
    judge = Judge.load(tmp_path / "judge")
    assert judge.names == [thing.name for thing in ENTRIES]
    monkeypatch.setattr(release.Judge, "load", lambda: judge)
    release.release(knobs.out, corpus, tmp_path / "shipped", lambda text: None)
    prior = MiniPrior.load(tmp_path / "shipped")
    # The mug is of the second wave, the training was of the first.
    assert list(prior.vocabulary.objects) == ["teddy bear", "horse"]
    with pytest.raises(ValueError, match="unknown: mug"):
        prior.validate_prompt("a mug")
    files = {path.name for path in (tmp_path / "shipped").iterdir() if path.is_file()}
    assert files == {"README.md", "NOTICE", "marks.json", "model_index.json"}
    numbers = json.loads((tmp_path / "shipped" / "marks.json").read_text())
    assert set(numbers["names"]) == {"teddy bear", "horse"}
