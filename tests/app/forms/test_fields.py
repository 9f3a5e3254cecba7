"""Advanced fields are the dataclasses of a run: what is changed arrives, what is not is not said."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from itertools import product
from typing import Any

import pytest

from app.forms.fields import Choice, Field, docstrings, groups, objectives, start, words
from configs.registry import OBJECTIVES, SCENES
from configs.run import RunConfig
from sds3d.cli import arguments

CHOICES = [
    *(Choice(objective=name) for _, name in objectives()),
    *(Choice(scene=name) for name in SCENES),
    Choice("standard", "sd-1.5", "vsd", "dreamtime", "nerf"),
    Choice(prior="toy", scene="picture"),
]


def every(choice: Choice) -> list[Field]:
    return [field for group in groups(choice) for field in group.fields]


def read(run: Any, name: str) -> Any:
    for part in name.split("."):
        run = getattr(run, part)
    return run


def another(field: Field, value: Any) -> str | None:
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


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: " ".join(choice.words()))
def test_what_is_changed_arrives_in_the_run(choice: Choice) -> None:
    """Six fields from all over the form, each alone, for not every value goes with every other."""
    run, tried = start(choice), 0
    changes = [(f.name, new) for f in every(choice) if (new := another(f, read(run, f.name))) is not None]
    for name, new in changes[:: len(changes) // 6]:
        try:
            got = arguments.generate(["a cat", *words(choice, {name: new})]).run
        except ValueError as refused:
            assert "Unrecognized" not in str(refused) and "unknown" not in str(refused)
            continue
        tried += 1
        assert read(got, name) != read(run, name), name
    assert tried >= 3


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: " ".join(choice.words()))
def test_defaults_say_nothing(choice: Choice) -> None:
    assert words(choice, {field.name: field.shown for field in every(choice)}) == choice.words()


def test_only_the_fields_of_what_is_chosen_are_shown() -> None:
    for objective, scene in product(("sds", "esd"), ("splats", "nerf")):
        choice = Choice(objective=objective, scene=scene)
        run, names = start(choice), {field.name for field in every(choice)}
        for part in ("objective", "scene", "times", "limits", "mesh", "orbit"):
            shown = {name.split(".")[1] for name in names if name.startswith(f"{part}.")}
            assert shown <= {f.name for f in fields(read(run, part))}
        assert any(name.startswith("critic.") for name in names) is run.objective.needs_critic


def test_every_number_of_a_class_has_a_field() -> None:
    for name in OBJECTIVES:
        choice = Choice(objective=name)
        shown = {field.name for field in every(choice)}
        for f in fields(start(choice).objective):
            value = read(start(choice).objective, f.name)
            if isinstance(value, int | float) and not is_dataclass(value):
                assert f"objective.{f.name}" in shown


def test_help_is_the_text_under_the_field() -> None:
    assert docstrings(RunConfig)["views"] == "Pictures in a step."
    told = {field.name: field.help for field in every(Choice(objective="esd"))}
    assert told["objective.scale"] and told["critic.rank"] and told["scene.count"] == "Splats at the start."


def test_the_page_names_no_files() -> None:
    names = {field.name for choice in CHOICES for field in every(choice)}
    files = {"image", "source", "model", "debias", "extras.lora", "extras.words", "extras.vae", "parts"}
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
def test_a_choice_is_one_of_the_names(given: dict[str, str], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Choice(**given)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("objective.scale", "much", "expected a number"),
        ("objective.scale", "1 2", "expected a number"),
        ("steps", "2.5", "expected a whole number"),
        ("times.first", "0.5", "expected 2 numbers"),
        ("objective.weighting", "heavy", "expected one of sds, "),
        ("limits.unit", "--out", "expected True or False"),
        ("scene.count", "9" * 300, "300 letters"),
        ("scene.cuont", "3", "did you mean scene.count"),
        ("source", "/etc", "unknown field"),
        ("out", "/tmp", "unknown field"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(name: str, value: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        words(Choice(), {name: value})


def test_none_is_a_value_where_it_may_be() -> None:
    assert words(Choice(), {"limits.pixel": "0.5"})[-2:] == ["--limits.pixel", "0.5"]
    assert words(Choice(), {"limits.pixel": "none"}) == words(Choice(), {"limits.pixel": " "}) == Choice().words()
