"""Several prompts at once: one pass for all, the same assets as alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from guidance.priors.base import Condition, Prior
from guidance.priors.toy_images import toy_image_prior
from renderers.splats.config import SplatConfig
from sds3d.__main__ import main
from sds3d.cli.batch import Job, made_together, prompts_of
from sds3d.console import Console
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.batched_prior import BatchedPrior, PredictRequest, PriorBatcher
from sds3d.training.loop import StopSignal
from sds3d.training.trainer import Trainer

CPU = torch.device("cpu")
PROMPTS = ("a red disc", "a blue ring", "a red cross")
Captured = pytest.CaptureFixture[str]


class Counting:
    """A prior that notes how many views each pass had."""

    def __init__(self) -> None:
        self.prior, self.views = toy_image_prior(), list[int]()

    def __getattr__(self, name: str) -> object:
        return getattr(self.prior, name)

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.views.append(len(x_t))
        return self.prior.predict_noise(x_t, t, conditions)


def config(prompt: str, steps: int = 3) -> RunConfig:
    scene = SplatConfig(init_count=40, cap_max=60)
    return RunConfig(
        prompt, prior="toy", scene=scene, objective=OBJECTIVES["sds"](), steps=steps, batch_size=2, device="cpu"
    )


def asked_at_once(meeting: PriorBatcher, questions: list[PredictRequest]) -> list[Tensor | BaseException]:
    """What runs in threads of their own are answered."""
    found: list[Tensor | BaseException] = [torch.zeros(0)] * len(questions)

    def ask(place: int) -> None:
        try:
            found[place] = meeting.submit(place, questions[place])
        except ValueError as error:
            found[place] = error
        meeting.close()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(400)
        assert not thread.is_alive()
    return found


def question(prior: Prior, text: str, views: int) -> PredictRequest:
    size = prior.image_size
    x_t = torch.randn(views, 3, size, size, generator=torch.Generator().manual_seed(views))
    return PredictRequest(
        x_t, torch.full((views,), 0.5), [prior.encode_prompt([""] * views), prior.encode_prompt([text] * views)]
    )


def test_one_pass_answers_everybody() -> None:
    prior = Counting()
    questions = [question(prior.prior, text, views) for text, views in zip(PROMPTS, (1, 2, 3), strict=True)]
    answers = asked_at_once(PriorBatcher(prior, 3), questions)  # type: ignore[arg-type]
    assert prior.views == [6]
    for one, answer in zip(questions, answers, strict=True):
        assert isinstance(answer, Tensor)
        torch.testing.assert_close(answer, prior.prior.predict_noise(one.x_t, one.t, one.conditions))


def test_questions_of_another_kind_have_a_pass_of_their_own() -> None:
    prior = Counting()
    first, second = question(prior.prior, PROMPTS[0], 1), question(prior.prior, PROMPTS[1], 2)
    alone = replace(second, conditions=second.conditions[:1])
    answers = asked_at_once(PriorBatcher(prior, 2), [first, alone])  # type: ignore[arg-type]
    assert sorted(prior.views) == [1, 2] and [len(answer) for answer in answers] == [2, 1]  # type: ignore[arg-type]


def test_whoever_asked_hears_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = Counting()

    def broken(*_: object) -> Tensor:
        raise ValueError("no answer")

    questions = [question(prior.prior, text, 1) for text in PROMPTS]
    monkeypatch.setattr(prior, "predict_noise", broken)
    assert [str(error) for error in asked_at_once(PriorBatcher(prior, 3), questions)] == 3 * ["no answer"]  # type: ignore[arg-type]


def test_assets_are_those_of_runs_alone(tmp_path: Path) -> None:
    prior = Counting()
    configs = [config(prompt, steps) for prompt, steps in zip(PROMPTS, (3, 3, 2), strict=True)]
    jobs = [Job(one, RunDirectory.new(tmp_path / str(n), one)) for n, one in enumerate(configs)]
    passes = made_together(jobs, prior, Console("quiet"), StopSignal())  # type: ignore[arg-type]
    assert passes == 3 and prior.views == [6, 6, 4]  # The shorter run keeps nobody waiting.
    for job in jobs:
        alone = Trainer(job.config, toy_image_prior(), CPU)
        list(alone.steps())
        assert job.run is not None and job.run.step == job.config.steps
        for name, value in alone.scene.training_state().items():
            torch.testing.assert_close(job.run.scene.training_state()[name], value, atol=1e-4, rtol=1e-3)


def test_a_door_is_a_prior() -> None:
    prior = toy_image_prior()
    door = BatchedPrior(PriorBatcher(prior, 1), 0)
    assert isinstance(door, Prior) and door.image_size == prior.image_size and door.views_per_group == 1
    one = question(prior, PROMPTS[0], 2)
    torch.testing.assert_close(
        door.predict_noise(one.x_t, one.t, one.conditions), prior.predict_noise(one.x_t, one.t, one.conditions)
    )


@pytest.mark.slow
def test_a_file_of_prompts(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n  a red disc \n\na blue ring\n")
    assert prompts_of(file) == ["a red disc", "a blue ring"]
    scene = "--scene.init-count 300 --scene.cap-max 400 --scene.init-opacity 0.9 --faces 300"
    words = f"{file} --prior toy --steps 2 --batch-size 1 --device cpu {scene} --objective sds --out {tmp_path / 'all'}"
    assert main(["batch", *words.split()]) == 0
    assert "2 at once: a red disc, a blue ring" in capsys.readouterr().out
    assert all((tmp_path / "all" / name / "asset.glb").is_file() for name in ("001", "002"))


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        ("\n \n", "", "has no prompt; expected one on each line"),
        ("a cat", "--at-once 0", "at-once is 0; expected 1 or more runs"),
        ("a cat", "--objective vsd", "makes one asset at a time; use: sds3d generate"),
        ("a red disc\nan elephant", "--prior toy", "the toy prior does not know 'an elephant'"),
    ],
)
def test_batches_there_can_not_be(text: str, more: str, told: str, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(text)
    assert main(["batch", str(file), *more.split(), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
