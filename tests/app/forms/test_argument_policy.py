"""What visitors say to the command line names no file of the server and loads no code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.forms.argument_policy import FILES, LONGEST, NAMED, changed, checked
from configs.run import RunConfig


@pytest.mark.parametrize(
    "words",
    [
        ("a cat",),
        ("a cat: black/white ~ 50 %", "--seed", "3"),
        ("a cat", "--negative=--dark/blurry", "--steps", "100"),
        ("a cat", "--prior", "toy", "--objective", "sds", "--objective.scale", "-2.5"),
        ("a cat", "--orbit.lowest", "-15", "--times.first", "0.5", "0.98"),
        ("a cat", "--part", "a mug@0.4,0,0,0.5"),
    ],
)
def test_texts_numbers_and_names_are_taken(words: tuple[str, ...]) -> None:
    assert checked(words, 1) == words


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
        ("a cat", "--negative", "--out=/tmp/x"),
        ("a cat", "--prior", "/etc"),
        ("a cat", "--prior", ".."),
        ("a cat", "--prior", "~"),
        ("a cat", "--prior=guidance"),
        ("a cat", "--objective", "os:system"),
        ("a cat", "--scene=some.module:Class"),
        ("a cat", "--times", "..\\x"),
        ("a\0cat",),
        ("a cat", "--seed", "1\0"),
        ("x" * (LONGEST + 1),),
        ("a cat", *["--seed", "1"] * 300),
    ],
)
def test_what_could_harm_is_refused_in_one_line(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as refused:
        checked(words, 1)
    assert "\n" not in str(refused.value)


@given(st.sampled_from(sorted(FILES)), st.text(max_size=30), st.booleans())
def test_no_flag_that_names_a_file_is_taken(flag: str, value: str, joined: bool) -> None:
    words = [f"--{flag}={value}"] if joined else [f"--{flag}", value]
    for spelled in (words, [words[0].replace("-", "_").replace("__", "--"), *words[1:]]):
        with pytest.raises(ValueError):
            checked(("a cat", *spelled), 1)


def test_the_server_may_trust_a_value() -> None:
    words = ("a cat", "--prior", "/models/mine")
    assert checked(words, 1, {"/models/mine"}) == words
    with pytest.raises(ValueError):
        checked(("a cat", "--out", "/models/mine"), 1, {"/models/mine"})


def test_a_change_takes_the_place_of_every_spelling() -> None:
    words = ("a cat", "--seed", "1", "--negative=dark", "--times.first", "0.5", "0.9", "--seed=2", "--steps", "9")
    changes = {"seed": "3", "negative": "blue - green", "times.first": "0.1 0.2", "steps": "", "prompt": "a dog"}
    assert changed(words, 1, changes) == (
        "a dog", "--seed", "3", "--negative=blue - green", "--times.first", "0.1", "0.2",
    )  # fmt: skip


def test_a_run_or_an_upload_stands_before_the_prompt() -> None:
    assert checked(("a-cat", "a dog", "--seed", "1"), 2) == ("a-cat", "a dog", "--seed", "1")
    with pytest.raises(ValueError, match="prompt is missing"):
        checked(("a-cat",), 2)


def texts_of(value: object, before: str = "") -> Iterator[str]:
    """Names of the fields of a run that take any text."""
    for f in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            yield from texts_of(inner, f"{before}{f.name}.")
        elif get_type_hints(type(value))[f.name] is str:
            yield before + f.name


def test_it_is_known_of_every_text_of_a_run_whether_it_names_a_file() -> None:
    """A new field that takes a text has to be put on one of the lists."""
    plain = {"prompt", "device", "extras.revision"}
    assert {*texts_of(RunConfig("a cat"))} == plain | {"negative"} | NAMED | FILES - {"out", "to", "config"}
