"""What visitors say to the command line names no file of the server and loads no code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.forms.argument_policy import MAX_TEXT_CHARS, PATH_FLAGS, REGISTRY_FLAGS, replace_flags, validate_args
from configs.run import RunConfig


@pytest.mark.parametrize(
    "words",
    [
        ("a cat",),
        ("a cat: black/white ~ 50 %", "--seed", "3"),
        ("a cat", "--negative-prompt=--dark/blurry", "--steps", "100"),
        ("a cat", "--prior", "toy", "--objective", "sds", "--objective.guidance-scale", "-2.5"),
        ("a cat", "--cameras.elevation-min", "-15", "--timesteps.start-range", "0.5", "0.98"),
        ("a cat", "--region", "a mug@0.4,0,0,0.5"),
    ],
)
def test_accepts_texts_numbers_and_names(words: tuple[str, ...]) -> None:
    assert validate_args(words, 1) == words


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("",),
        ("  ",),
        ("--help",),
        ("-h",),
        ("a cat", "a dog"),
        ("a cat", "--help"),
        ("a cat", "-h"),
        ("a cat", "--"),
        ("a cat", "--json"),
        ("a cat", "--negative-prompt", "--out=/tmp/x"),
        ("a cat", "--prior", "/etc"),
        ("a cat", "--prior", ".."),
        ("a cat", "--prior", "~"),
        ("a cat", "--prior=guidance"),
        ("a cat", "--objective", "os:system"),
        ("a cat", "--scene=some.module:Class"),
        ("a cat", "--timesteps", "..\\x"),
        ("a\0cat",),
        ("a cat", "--seed", "1\0"),
        ("x" * (MAX_TEXT_CHARS + 1),),
        ("a cat", *["--seed", "1"] * 300),
    ],
)
def test_rejects_harmful_args(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as refused:
        validate_args(words, 1)
    assert "\n" not in str(refused.value)


@given(st.sampled_from(sorted(PATH_FLAGS)), st.text(max_size=30), st.booleans())
def test_rejects_path_flags(flag: str, value: str, joined: bool) -> None:
    words = [f"--{flag}={value}"] if joined else [f"--{flag}", value]
    for spelled in (words, [words[0].replace("-", "_").replace("__", "--"), *words[1:]]):
        with pytest.raises(ValueError):
            validate_args(("a cat", *spelled), 1)


def test_trusted_values_are_accepted() -> None:
    words = ("a cat", "--prior", "/models/mine")
    assert validate_args(words, 1, {"/models/mine"}) == words
    with pytest.raises(ValueError):
        validate_args(("a cat", "--out", "/models/mine"), 1, {"/models/mine"})


def test_replace_flags_replaces_every_spelling() -> None:
    words = (
        "a cat",
        "--seed",
        "1",
        "--negative-prompt=dark",
        "--timesteps.start-range",
        "0.5",
        "0.9",
        "--seed=2",
        "--steps",
        "9",
    )
    changes = {
        "seed": "3",
        "negative-prompt": "blue - green",
        "timesteps.start-range": "0.1 0.2",
        "steps": "",
        "prompt": "a dog",
    }
    assert replace_flags(words, 1, changes) == (
        "a dog", "--seed", "3", "--negative-prompt=blue - green", "--timesteps.start-range", "0.1", "0.2",
    )  # fmt: skip


def test_leading_args_precede_the_prompt() -> None:
    assert validate_args(("a-cat", "a dog", "--seed", "1"), 2) == ("a-cat", "a dog", "--seed", "1")
    with pytest.raises(ValueError, match="prompt is missing"):
        validate_args(("a-cat",), 2)


def texts_of(value: object, before: str = "") -> Iterator[str]:
    """Names of the fields of a run that take any text."""
    for f in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            yield from texts_of(inner, f"{before}{f.name}.")
        elif get_type_hints(type(value))[f.name] is str:
            yield before + f.name


def test_every_text_field_is_classified_as_path_or_text() -> None:
    """A new field that takes a text has to be put on one of the lists."""
    plain = {"prompt", "device", "prior-options.revision"}
    flags = {name.replace("_", "-") for name in texts_of(RunConfig("a cat"))}
    assert flags == plain | {"negative-prompt"} | REGISTRY_FLAGS | PATH_FLAGS - {
        "out",
        "to",
        "config",
    }
