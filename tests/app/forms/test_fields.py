"""Advanced fields are the dataclasses of a run: what is changed arrives, what is not is not said."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from itertools import product
from typing import Any

import pytest

from app.forms.fields import Choice, Field, base_config, choice_args, field_docstrings, field_groups, objective_choices
from configs.registry import OBJECTIVES, SCENES
from configs.run import RunConfig
from sds3d.cli import arguments

CHOICES = [
    *(Choice(objective=name) for _, name in objective_choices()),
    *(Choice(scene=name) for name in SCENES),
    Choice("standard", "sd-1.5", "vsd", "dreamtime", "nerf"),
    Choice(prior="toy", scene="image"),
]


def all_fields(choice: Choice) -> list[Field]:
    return [field for group in field_groups(choice) for field in group.fields]


def config_value(run: Any, name: str) -> Any:
    for part in name.split("."):
        run = getattr(run, part)
    return run


def other_value(field: Field, value: Any) -> str | None:
    """A value beside the default that a run takes, if one is easily found."""
    if field.kind == "yes":
        return str(not value)
    if field.kind == "choice":
        return next((choice for choice in field.choices if choice != value), None)
    if field.kind == "numbers":
        return None if value is None else " ".join(str(number * 0.97) for number in value)
    if value is None:
        return None
    return str(value + 1) if field.kind == "whole" else str(value * 0.97 or 0.03)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: " ".join(choice.args()))
def test_overrides_reach_the_config(choice: Choice) -> None:
    """Six fields from all over the form, each alone, for not every value goes with every other."""
    run, tried = base_config(choice), 0
    changes = [
        (f.name, new) for f in all_fields(choice) if (new := other_value(f, config_value(run, f.name))) is not None
    ]
    for name, new in changes[:: len(changes) // 6]:
        try:
            got = arguments.generate(["a cat", *choice_args(choice, {name: new})]).config
        except ValueError as refused:
            assert "Unrecognized" not in str(refused) and "unknown" not in str(refused)
            continue
        tried += 1
        assert config_value(got, name) != config_value(run, name), name
    assert tried >= 3


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: " ".join(choice.args()))
def test_defaults_add_no_flags(choice: Choice) -> None:
    assert choice_args(choice, {field.name: field.text for field in all_fields(choice)}) == choice.args()


def test_only_fields_of_the_choice_are_shown() -> None:
    for objective, scene in product(("sds", "esd"), ("splats", "nerf")):
        choice = Choice(objective=objective, scene=scene)
        run, names = base_config(choice), {field.name for field in all_fields(choice)}
        for part in ("objective", "scene", "timesteps", "clipping", "mesh_extraction", "cameras"):
            shown = {name.split(".")[1] for name in names if name.startswith(f"{part}.")}
            assert shown <= {f.name for f in fields(config_value(run, part))}
        assert any(name.startswith("critic.") for name in names) is run.objective.needs_critic


def test_every_numeric_config_field_has_a_form_field() -> None:
    for name in OBJECTIVES:
        choice = Choice(objective=name)
        shown = {field.name for field in all_fields(choice)}
        for f in fields(base_config(choice).objective):
            value = config_value(base_config(choice).objective, f.name)
            if isinstance(value, int | float) and not is_dataclass(value):
                assert f"objective.{f.name}" in shown


def test_help_is_the_field_docstring() -> None:
    assert field_docstrings(RunConfig)["batch_size"] == "Pictures in a step."
    result = {field.name: field.help for field in all_fields(Choice(objective="esd"))}
    assert (
        result["objective.guidance_scale"]
        and result["critic.rank"]
        and result["scene.init_count"] == "Splats at the start."
    )


def test_no_form_field_is_a_path() -> None:
    names = {field.name for choice in CHOICES for field in all_fields(choice)}
    files = {
        "image",
        "source",
        "model",
        "debias",
        "prior_options.lora",
        "prior_options.textual_inversion",
        "prior_options.vae",
        "parts",
    }
    assert not names & files


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"objective": "os:system"}, "unknown objective"),
        ({"prior": "/etc"}, "unknown prior"),
        ({"prior": "owner/model"}, "unknown prior"),
        ({"scene": "splat"}, "did you mean splats"),
        ({"preset": "--help"}, "unknown preset"),
    ],
)
def test_choice_rejects_unknown_names(given: dict[str, str], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Choice(**given)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("objective.guidance_scale", "much", "expected a number"),
        ("objective.guidance_scale", "1 2", "expected a number"),
        ("steps", "2.5", "expected a whole number"),
        ("timesteps.start_range", "0.5", "expected 2 numbers"),
        ("objective.weighting", "heavy", "expected one of sds, "),
        ("clipping.normalize", "--out", "expected True or False"),
        ("scene.init_count", "9" * 300, "300 letters"),
        ("scene.init_cuont", "3", "did you mean scene.init_count"),
        ("source", "/etc", "unknown field"),
        ("out", "/tmp", "unknown field"),
    ],
)
def test_invalid_values_give_one_line_errors(name: str, value: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        choice_args(Choice(), {name: value})


def test_optional_fields_accept_none() -> None:
    assert choice_args(Choice(), {"clipping.pixel_norm": "0.5"})[-2:] == ["--clipping.pixel-norm", "0.5"]
    assert (
        choice_args(Choice(), {"clipping.pixel_norm": "none"})
        == choice_args(Choice(), {"clipping.pixel_norm": " "})
        == Choice().args()
    )
