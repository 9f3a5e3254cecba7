"""Names that decide which flags there are: objective, times, prior; and the flags of limits and of prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.published import PUBLISHED
from configs.tuned import TUNED
from guidance.gradient_clipping import GradientClipping
from guidance.timesteps import AnnealedUniform, DreamTime, LinearAnneal, SqrtAnneal, TimestepSampler, TwoStageUniform
from sds3d.__main__ import main
from sds3d.cli import arguments
from sds3d.models.loading import is_mini

Captured = pytest.CaptureFixture[str]


def asked(words: str) -> arguments.GenerateArgs:
    return arguments.generate(["a teddy bear", *words.split()])


# --- recipes ---


@pytest.mark.parametrize("name", ["sds", "ism", "sdi"])
def test_the_embedded_prior_gets_what_was_tuned_for_it(name: str) -> None:
    run = asked(f"--objective {name}").config
    assert run.objective == TUNED[name].objective and run.timesteps == TUNED[name].timesteps


@pytest.mark.parametrize("name", ["sds", "ism", "sdi"])
@pytest.mark.parametrize("flag", ["--prior some/folder", "--prior=some/folder"])
def test_any_other_prior_gets_what_was_published(name: str, flag: str) -> None:
    run = asked(f"{flag} --objective {name}").config
    assert run.objective == PUBLISHED[name].objective and run.timesteps == PUBLISHED[name].timesteps
    assert run.prior == "some/folder"
    assert asked(flag).config.objective == PUBLISHED["sds"].objective


def test_folders_of_its_kind_count_as_the_embedded_prior(prior_folder: Path, tmp_path: Path) -> None:
    assert is_mini("mini") and is_mini(str(prior_folder))
    assert not is_mini(str(tmp_path)) and not is_mini("no such folder")
    (tmp_path / "state.safetensors").touch()
    assert is_mini(str(tmp_path)), "a training that goes on"
    assert asked(f"--prior {prior_folder}").config.objective == TUNED["sds"].objective


def test_flags_go_over_the_recipe() -> None:
    run = asked("--objective nfsd --objective.guidance-scale 4 --timesteps.anneal-until 0.5").config
    assert vars(run.objective) == {**vars(TUNED["nfsd"].objective), "guidance_scale": 4.0}
    assert run.timesteps == replace(TUNED["nfsd"].timesteps, anneal_until=0.5)


# --- times ---


@pytest.mark.parametrize(
    ("words", "times"),
    [
        ("", AnnealedUniform()),
        ("--timesteps annealed --timesteps.start-range 0.1 0.2", AnnealedUniform((0.1, 0.2))),
        ("--timesteps two-stage --timesteps.switch-at 0.5", TwoStageUniform(switch_at=0.5)),
        ("--timesteps linear --timesteps.t-max 0.9", LinearAnneal(0.9)),
        ("--timesteps sqrt --timesteps.t-min 0.1", SqrtAnneal(t_min=0.1)),
        ("--timesteps dreamtime --timesteps.plateau 0.4 0.6", DreamTime(plateau=(0.4, 0.6))),
        ("--objective sdi --timesteps linear", TUNED["sdi"].timesteps),
    ],
)
def test_a_rule_for_times_brings_its_flags(words: str, times: TimestepSampler) -> None:
    assert asked(words).config.timesteps == times


# --- limits and prompts ---


def test_limits_are_flags() -> None:
    assert asked("").config.clipping == GradientClipping()
    run = asked("--clipping.value 2 8 --clipping.normalize --clipping.pixel-norm 0.1").config
    assert run.clipping == GradientClipping((2.0, 8.0), True, 0.1)


def test_how_the_view_is_told_are_flags() -> None:
    run = asked("--view-conditioning text --perp-neg 0.5 --negative-prompt red").config
    prompt = run.build_prompt()
    assert (prompt.view_conditioning, prompt.perp_neg, prompt.negative, prompt.view_texts) == ("text", 0.5, "red", {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--timesteps anneled", "unknown timesteps 'anneled'; did you mean annealed?"),
        ("--timesteps", "argument --timesteps: expected one argument"),
        ("--timesteps linear --timesteps.start-range 0.1 0.2", "Unrecognized options: --timesteps.start-range"),
        ("--timesteps dreamtime --timesteps.std-below -1", "std_below is -1.0; expected a positive number"),
        ("--timesteps.anneal-until nan", "anneal_until is nan; expected a progress"),
        ("--clipping.value 2", "input length 1 did not match expected argument count 2 of `FLOAT FLOAT`"),
        ("--clipping.value 0 8", "value is 0.0; expected a positive number"),
        ("--clipping.pixel-norm nan", "pixel_norm is nan; expected a positive number"),
        ("--perp-neg nan", "perp_neg is nan; expected a number"),
        ("--perp-neg -1", "perp_neg is -1.0; expected 0 for none"),
        ("--perp-neg 1 --view-conditioning none", "direction none tells none"),
        ("--view-conditioning word", "invalid choice 'word'"),
        ("--scene.opacities-lr nan", "scene.opacities_lr is nan; expected a number"),
        ("--mesh-extraction.iso-level nan", "iso_level is nan"),
        ("--objective nfsd --objective.t-switch nan", "t_switch is nan"),
        ("--prior", "argument --prior: expected one argument"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(words: str, told: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["generate", "a bear", *words.split(), "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err, err
    assert not (tmp_path / "run").exists()


def test_the_help_names_rules_for_times_and_their_flags(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--timesteps", "dreamtime", "--help"])
    told = capsys.readouterr().out
    assert all(
        name in told
        for name in ("dreamtime:", "sqrt:", "--timesteps.plateau", "--clipping.pixel-norm", "--view-conditioning")
    )
