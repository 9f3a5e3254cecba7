"""What a run asks and lets through: limits, Perp-Neg, texts without contrary words, and remarks about words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.run import RunConfig
from guidance.conditioning.debias import LanguageModel
from guidance.gradient_clipping import GradientClipping
from guidance.priors.base import Condition, make_rng
from guidance.priors.mini.prior import MiniPrior
from guidance.timesteps import DreamTime
from sds3d.__main__ import main
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.trainer import StepResult, Trainer, clip_pixel_gradients

Captured = pytest.CaptureFixture[str]
CPU = torch.device("cpu")


def steps_of(config: RunConfig, prior: MiniPrior, count: int) -> tuple[Trainer, list[StepResult]]:
    run = Trainer(config, prior, CPU)
    return run, [step for _, step in zip(range(count), run.steps(), strict=False)]


# --- limits ---


@pytest.mark.parametrize("count", [1, 4])
def test_pictures_bound_their_gradients_whatever_their_number(count: int) -> None:
    rgb = torch.rand(count, 3, 4, 3, generator=make_rng(0)).requires_grad_()
    pull = 3 * torch.randn(count, 3, 4, 3, generator=make_rng(1))
    limits = GradientClipping(pixel_norm=0.5)
    seen = clip_pixel_gradients(rgb, limits, count)
    assert torch.equal(seen, rgb)
    # A mean over views of what pulls at each.
    (found,) = torch.autograd.grad((seen * pull).sum() / count, rgb)
    torch.testing.assert_close(found, limits.clip_pixels(pull) / count)
    assert clip_pixel_gradients(rgb, GradientClipping(), count) is rgb


def test_other_ways_back_from_the_pictures_are_not_bounded() -> None:
    rgb = torch.rand(1, 2, 2, 3, generator=make_rng(0)).requires_grad_()
    clip_pixel_gradients(rgb, GradientClipping(pixel_norm=0.1), 1)
    (found,) = torch.autograd.grad((100 * rgb).sum(), rgb)
    assert bool((found == 100).all())


def test_a_run_keeps_its_limits(config: RunConfig, prior: MiniPrior) -> None:
    _, free = steps_of(config, prior, 3)
    _, clamped = steps_of(replace(config, clipping=GradientClipping(value=(1e-3, 1e-3))), prior, 3)
    assert all(step.grad_rms > 2e-3 for step in free)
    assert all(0 < step.grad_rms < 1.001e-3 for step in clamped)
    _, unit = steps_of(replace(config, clipping=GradientClipping(normalize=True)), prior, 3)
    elements = 2 * 12 * 4 * 4
    assert all(step.grad_rms == pytest.approx(elements**-0.5, rel=1e-4) for step in unit)


# --- Perp-Neg, and everything together ---


def test_perp_neg_reaches_the_prior_in_one_pass(
    config: RunConfig, prior: MiniPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, passes = prior.predict_noise, []

    def predict(x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        passes.append(len(conditions))
        return plain(x_t, t, conditions)

    monkeypatch.setattr(prior, "predict_noise", predict)
    steps_of(config, prior, 1)
    steps_of(replace(config, perp_neg=1.0), prior, 1)
    assert passes == [2, 4]


def test_a_run_with_all_of_it_goes_on_as_if_never_stopped(config: RunConfig, prior: MiniPrior) -> None:
    config = replace(
        config,
        timesteps=DreamTime(),
        clipping=GradientClipping((0.1, 0.2), pixel_norm=0.05),
        perp_neg=0.5,
        view_conditioning="text",
    )
    whole, _ = steps_of(config, prior, 8)
    stopped, _ = steps_of(config, prior, 3)
    again = Trainer(config, prior, CPU)
    again.load_training_state({name: value.clone() for name, value in stopped.training_state().items()})
    list(again.steps())
    expected = whole.training_state()
    assert all(torch.equal(value, expected[name]) for name, value in again.training_state().items())


# --- texts ---


@pytest.fixture
def no_smiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A language model that finds red things seldom seen from behind."""

    class Opinion:
        def view_probabilities(self, text: str) -> dict[str, float]:
            back = 0.1 if "red" in text else 0.4
            return {"front": 0.3, "side": 0.3, "back": back, "overhead": 0.4 - back}

    monkeypatch.setattr(LanguageModel, "load", lambda name: Opinion())


@pytest.mark.usefixtures("no_smiles")
def test_a_run_asks_for_texts_without_contrary_words(config: RunConfig, prior: MiniPrior) -> None:
    run = Trainer(replace(config, debias_model="some-model"), prior, CPU)
    assert run.prompt.view_texts["back"] == "a teddy bear" and run.prompt.view_texts["front"] == "a red teddy bear"
    wanted = run.prompt.conditions_for(prior, torch.tensor([0.0, 3.1]), torch.zeros(2))
    assert torch.equal(wanted.text.text_embeds, prior.encode_prompt(["a red teddy bear", "a teddy bear"]).text_embeds)
    assert torch.equal(wanted.text_with_camera.text_embeds, prior.encode_prompt(["a red teddy bear"] * 2).text_embeds)


# --- the command line ---

FLAGS = (
    *("--steps", "1", "--batch-size", "1", "--device", "cpu", "--scene.refine-count", "1"),
    *("--scene.init-count", "200", "--scene.cap-max", "300", "--scene.init-opacity", "0.9"),
)


@pytest.fixture
def generated(
    prior_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], tuple[int, Path]]:
    """Runs `sds3d generate` with more flags, and no asset at its end."""
    monkeypatch.setattr(
        "sds3d.cli.commands.finalize", lambda run, record, console, seconds: record.folder / "asset.glb"
    )

    def run(words: list[str]) -> tuple[int, Path]:
        folder = tmp_path / "run"
        base = ["generate", "a red teddy bear", "--prior", str(prior_folder), "--out", str(folder), *FLAGS]
        return main([*base, *words]), folder

    return run


Generated = Callable[[list[str]], tuple[int, Path]]


def test_unknown_words_of_the_negative_prompt_are_told_each_time(generated: Generated, capsys: Captured) -> None:
    code, folder = generated(["--negative-prompt", "blurry, red, saturated"])
    remark = "does not know, and passes over in the negative prompt: blurry, saturated"
    assert code == 0 and remark in capsys.readouterr().out
    assert main(["resume", str(folder), "--steps", "2"]) == 0
    assert remark in capsys.readouterr().out


@pytest.mark.parametrize(("objective", "told"), [("sds", False), ("csd", True), ("nfsd", False)])
def test_a_negative_prompt_that_changes_nothing_is_told(
    generated: Generated, capsys: Captured, objective: str, told: bool
) -> None:
    code, _ = generated(["--negative-prompt", "red", "--objective", objective])
    remark = f"{objective}, with these values, does not ask about the negative prompt"
    assert code == 0 and (remark in capsys.readouterr().out) == told


def test_unknown_words_of_the_prompt_are_told_when_a_run_goes_on(generated: Generated, capsys: Captured) -> None:
    _, folder = generated([])
    assert "passed over" not in capsys.readouterr().out
    record = RunDirectory.open(folder)
    record.write_config(replace(record.config(), prompt="a teddy bear with a sword"))
    assert main(["resume", str(folder), "--steps", "2"]) == 0
    assert "passed over: sword" in capsys.readouterr().out


@pytest.mark.usefixtures("no_smiles")
def test_texts_of_the_views_are_told(generated: Generated, capsys: Captured) -> None:
    code, _ = generated(["--debias-model", "some-model"])
    told = capsys.readouterr().out
    assert code == 0 and "back views are asked for: a teddy bear\n" in told


def test_a_language_model_that_is_not_there_ends_in_one_line(generated: Generated, capsys: Captured) -> None:
    pytest.importorskip("transformers")
    code, folder = generated(["--debias-model", "./no-such-folder", "--quiet"])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and "no-such-folder" in err
    assert not folder.exists()


@pytest.mark.parametrize("content", [bytes(range(256)), b"\x00" * 40], ids=["bytes", "zeros"])
def test_a_binary_run_file_ends_in_one_line(content: bytes, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    assert main(["resume", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "run.yaml is no" in err and "codec" not in err
