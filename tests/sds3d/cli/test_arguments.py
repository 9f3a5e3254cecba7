"""Names that decide which flags there are: objective, times, prior; and the flags of limits and of prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.published import PUBLISHED
from configs.tuned import TUNED
from guidance.gradient_clipping import Limits
from guidance.timesteps import DreamTime, Dropping, Falling, Linear, SquareRoot, Times
from sds3d.__main__ import main
from sds3d.cli import arguments
from sds3d.models.loading import is_embedded

Captured = pytest.CaptureFixture[str]


def asked(words: str) -> arguments.Asked:
    return arguments.generate(["a teddy bear", *words.split()])


# --- recipes ---


@pytest.mark.parametrize("name", ["sds", "ism", "sdi"])
def test_the_embedded_prior_gets_what_was_tuned_for_it(name: str) -> None:
    run = asked(f"--objective {name}").run
    assert run.objective == TUNED[name].objective and run.times == TUNED[name].times


@pytest.mark.parametrize("name", ["sds", "ism", "sdi"])
@pytest.mark.parametrize("flag", ["--prior some/folder", "--prior=some/folder"])
def test_any_other_prior_gets_what_was_published(name: str, flag: str) -> None:
    run = asked(f"{flag} --objective {name}").run
    assert run.objective == PUBLISHED[name].objective and run.times == PUBLISHED[name].times
    assert run.prior == "some/folder"
    assert asked(flag).run.objective == PUBLISHED["sds"].objective


def test_folders_of_its_kind_count_as_the_embedded_prior(prior_folder: Path, tmp_path: Path) -> None:
    assert is_embedded("mini") and is_embedded(str(prior_folder))
    assert not is_embedded(str(tmp_path)) and not is_embedded("no such folder")
    (tmp_path / "state.safetensors").touch()
    assert is_embedded(str(tmp_path)), "a training that goes on"
    assert asked(f"--prior {prior_folder}").run.objective == TUNED["sds"].objective


def test_flags_go_over_the_recipe() -> None:
    run = asked("--objective nfsd --objective.scale 4 --times.until 0.5").run
    assert vars(run.objective) == {**vars(TUNED["nfsd"].objective), "scale": 4.0}
    assert run.times == replace(TUNED["nfsd"].times, until=0.5)


# --- times ---


@pytest.mark.parametrize(
    ("words", "times"),
    [
        ("", Falling()),
        ("--times falling --times.first 0.1 0.2", Falling((0.1, 0.2))),
        ("--times drop --times.at 0.5", Dropping(at=0.5)),
        ("--times linear --times.high 0.9", Linear(0.9)),
        ("--times sqrt --times.low 0.1", SquareRoot(low=0.1)),
        ("--times dreamtime --times.plateau 0.4 0.6", DreamTime(plateau=(0.4, 0.6))),
        ("--objective sdi --times linear", TUNED["sdi"].times),
    ],
)
def test_a_rule_for_times_brings_its_flags(words: str, times: Times) -> None:
    assert asked(words).run.times == times


# --- limits and prompts ---


def test_limits_are_flags() -> None:
    assert asked("").run.limits == Limits()
    run = asked("--limits.clamp 2 8 --limits.unit --limits.pixel 0.1").run
    assert run.limits == Limits((2.0, 8.0), True, 0.1)


def test_how_the_view_is_told_are_flags() -> None:
    run = asked("--direction words --perp-neg 0.5 --negative red").run
    prompt = run.asked()
    assert (prompt.direction, prompt.perp_neg, prompt.negative, prompt.texts) == ("words", 0.5, "red", {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--times fallin", "unknown times 'fallin'; did you mean falling?"),
        ("--times", "argument --times: expected one argument"),
        ("--times linear --times.first 0.1 0.2", "Unrecognized options: --times.first"),
        ("--times dreamtime --times.below -1", "below is -1.0; expected a positive number"),
        ("--times.until nan", "until is nan; expected a progress"),
        ("--limits.clamp 2", "input length 1 did not match expected argument count 2 of `FLOAT FLOAT`"),
        ("--limits.clamp 0 8", "clamp is 0.0; expected a positive number"),
        ("--limits.pixel nan", "pixel is nan; expected a positive number"),
        ("--perp-neg nan", "perp_neg is nan; expected a number"),
        ("--perp-neg -1", "perp_neg is -1.0; expected 0 for none"),
        ("--perp-neg 1 --direction none", "direction none tells none"),
        ("--direction word", "invalid choice 'word'"),
        ("--scene.opacity-rate nan", "scene.opacity_rate is nan; expected a number"),
        ("--mesh.level nan", "level is nan"),
        ("--objective nfsd --objective.switch nan", "switch is nan"),
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
        main(["generate", "--times", "dreamtime", "--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in ("dreamtime:", "sqrt:", "--times.plateau", "--limits.pixel", "--direction"))
