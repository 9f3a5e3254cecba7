"""Runs as YAML: nothing is lost, nothing unknown gets in."""

from __future__ import annotations

import math
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs import serialization
from configs.presets import PRESETS, preset
from configs.run import Part, RunConfig
from guidance.gradient_clipping import Limits
from guidance.objectives.differences.sds import SDS, Weighting
from guidance.timesteps import DreamTime, Dropping, Falling, Linear, SquareRoot, Times
from renderers.camera_sampler import Orbit
from renderers.meshing.extraction import Meshing
from renderers.splats.config import Splats


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_comes_back_from_its_file(name: str) -> None:
    run = preset(name).run("a teddy bear")
    assert serialization.load(serialization.dump(run)) == run
    assert serialization.dump(serialization.load(serialization.dump(run))) == serialization.dump(run)


printable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scales = st.floats(-1e6, 1e6)


@given(
    printable,
    printable,
    scales,
    st.sampled_from(get_args(Weighting)),
    st.floats(0.001, 100),
    st.integers(0, 2**29 - 1),
)
def test_any_run_comes_back(text: str, negative: str, scale: float, kind: Weighting, level: float, seed: int) -> None:
    run = RunConfig(
        text,
        negative,
        objective=SDS(scale, kind),
        scene=Splats(count=7, anisotropy=level),
        orbit=Orbit(lowest=-level / 2),
        mesh=Meshing(level=level),
        times=Falling((0.0, min(level, 1.0))),
        seed=seed,
    )
    assert serialization.load(serialization.dump(run)) == run


@pytest.mark.parametrize("text", ["a\x85b", "\u2028", "a bear \u2029\n ", "\ufeffbear", "\N{TEDDY BEAR}", "\x00\x7f"])
def test_any_text_comes_back(text: str) -> None:
    run = RunConfig(text, text, debias=text)
    assert serialization.load(serialization.dump(run)) == run


def test_the_file_holds_every_value_plainly() -> None:
    row = yaml.safe_load(serialization.dump(RunConfig("a bear")))
    assert set(row) == {f.name for f in fields(RunConfig)}
    assert row["objective"] == {"kind": "sds", "scale": 7.5, "weighting": "sds", "rescale": 0.0}
    assert row["times"] == {"kind": "falling", "first": [0.5, 0.98], "last": [0.02, 0.4], "until": 1.0}
    assert row["limits"] == {"clamp": None, "unit": False, "pixel": None}


def test_whole_numbers_stand_for_floats() -> None:
    run = serialization.load(changed("scale", 8))
    assert isinstance(run.objective, SDS)
    assert run.objective.scale == 8 and isinstance(run.objective.scale, float)
    assert serialization.load(changed("level", 2)).mesh.level == 2.0


def test_objectives_of_others_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zesty_plugin.py").write_text(
        "from dataclasses import dataclass\nfrom guidance.objectives.base import Objective, Update\n"
        "@dataclass(frozen=True)\nclass Zesty(Objective):\n    zest: float = 5.0\n"
        "    def __call__(self, prior, critic, view): return Update(view.noise)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from configs.registry import objective_class

    run = RunConfig("a bear", objective=objective_class("zesty_plugin:Zesty")())
    assert "kind: zesty_plugin:Zesty" in serialization.dump(run)
    with pytest.raises(ValueError, match="--trust"):
        serialization.load(serialization.dump(run))
    assert serialization.load(serialization.dump(run), trust=True) == run
    monkeypatch.delitem(sys.modules, "zesty_plugin")


def changed(name: str, value: object) -> str:
    """A run's YAML with every key of that name, at any depth, holding another value."""

    def change(row: object) -> object:
        if not isinstance(row, dict):
            return row
        return {key: value if key == name else change(inner) for key, inner in row.items()}

    return yaml.safe_dump(change(yaml.safe_load(serialization.dump(RunConfig("a bear")))), allow_unicode=True)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("steps", "many", "steps is 'many'; expected int"),
        ("steps", 1.5, "steps is 1.5; expected int"),
        ("steps", True, "steps is True; expected int"),
        ("prompt", 5, "prompt is 5; expected str"),
        ("prompt", None, "prompt is None; expected str"),
        ("scale", "7", "scale is '7'; expected float"),
        ("scale", False, "scale is False; expected float"),
        ("scale", math.nan, "scale is nan; expected a finite number"),
        ("weighting", "sdz", "weighting is 'sdz'; expected one of sds, uniform"),
        ("first", [0.1], "first is [0.1]; expected a list of 2: float, float"),
        ("first", [0.1, "x"], "expected a list of 2: float, float"),
        ("first", 0.5, "expected a list of 2"),
        ("first", [0.9, 0.1], "expected 0 <= low <= high <= 1"),
        ("level", "high", "level is 'high'; expected float or nothing"),
        ("scene", 3, "scene needs a kind, the name of a scene"),
        ("times", [], "times needs a kind, the name of a rule for times"),
        ("objective", "sds", "objective needs a kind"),
        ("kind", 7, "objective needs a kind"),
        ("kind", "sdss", "unknown objective 'sdss'; did you mean sds?"),
        ("views", 0, "views is 0"),
        ("device", "gpu", "expected auto, cpu or cuda"),
        ("count", -3, "count is -3"),
        ("fov", 10**400, "expected float"),
        ("clamp", [2], "expected a list of 2: float, float or nothing"),
        ("clamp", [2, -8], "clamp is -8.0; expected a positive number"),
        ("pixel", "small", "pixel is 'small'; expected float or nothing"),
        ("limits", [], "limits is []; expected the fields of Limits"),
        ("direction", "word", "direction is 'word'; expected one of auto, words, none"),
        ("perp_neg", math.nan, "perp_neg is nan; expected a number"),
        ("opacity_rate", math.nan, "scene.opacity_rate is nan; expected a number"),
        ("until", 2, "until is 2.0; expected a progress"),
    ],
)
def test_a_value_that_does_not_fit_is_named(name: str, value: object, told: str) -> None:
    with pytest.raises(ValueError) as refused:
        serialization.load(changed(name, value))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_that_do_not_exist_come_with_the_nearest() -> None:
    row = yaml.safe_load(serialization.dump(RunConfig("a bear")))
    with pytest.raises(ValueError, match=r"run\.yaml: unknown key 'step'; did you mean steps\?"):
        serialization.load(yaml.safe_dump(row | {"step": 3}))
    row["objective"]["scal"] = 1
    with pytest.raises(ValueError, match=r"objective: unknown key 'scal'; did you mean scale\?"):
        serialization.load(yaml.safe_dump(row))


def test_missing_keys_are_named() -> None:
    row = yaml.safe_load(serialization.dump(replace(RunConfig("a bear"), parts=(Part("a mug", (0.0, 0.0, 0.0), 0.5),))))
    del row["parts"][0]["text"]
    with pytest.raises(ValueError, match="mine: parts 1 lacks text"):
        serialization.load(yaml.safe_dump(row), "mine")
    del row["prompt"], row["seed"], row["parts"]
    with pytest.raises(ValueError, match="mine lacks prompt, seed"):
        serialization.load(yaml.safe_dump(row), "mine")


def test_runs_from_before_a_field_came_load_with_its_default() -> None:
    """Of the run itself those that came later, of its parts any."""
    config = preset("draft").run("a cat")
    row = yaml.safe_load(serialization.dump(config))
    for name in serialization._LATER:
        del row[name]
    for part in ("scene", "orbit", "times", "mesh"):
        standard = type(getattr(config, part))()
        for field in fields(standard):
            if getattr(standard, field.name) == getattr(getattr(config, part), field.name):
                del row[part][field.name]
    assert serialization.load(yaml.safe_dump(row)) == config


@pytest.mark.parametrize("text", ["", "3", "- a", "a: [", "\t", "{", "!!python/object:os.system {}"])
def test_what_is_no_run_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        serialization.load(text)
    assert str(refused.value).startswith("run.yaml") and "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.yaml is missing"):
        serialization.read(tmp_path / "run.yaml")


def test_bytes_that_are_no_text_are_refused_in_one_line(tmp_path: Path) -> None:
    for content in (bytes(range(256)), b"\xff\xfe\x00", b"\x00" * 50, b"[" * 5000):
        (tmp_path / "run.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.yaml is (no text; expected the YAML|not YAML)") as refused:
            serialization.read(tmp_path / "run.yaml")
        assert "\n" not in str(refused.value) and "codec" not in str(refused.value)


# --- times, limits, and what came later ---


@pytest.mark.parametrize(
    "times", [Falling(until=0.3), Dropping(at=0.7), Linear(0.8), SquareRoot(0.9, 0.1), DreamTime(below=0.2)], ids=str
)
def test_every_rule_for_times_comes_back(times: Times) -> None:
    run = RunConfig("a bear", times=times, limits=Limits((2.0, 8.0), True, 0.1), direction="words", perp_neg=0.5)
    assert serialization.load(serialization.dump(run)) == run


def test_rules_for_times_that_do_not_exist_come_with_the_nearest() -> None:
    row = yaml.safe_load(serialization.dump(RunConfig("a bear")))
    row["times"] = {"kind": "dreamtimes"}
    with pytest.raises(ValueError, match=r"unknown times 'dreamtimes'; did you mean dreamtime\?"):
        serialization.load(yaml.safe_dump(row))
    row["times"] = {"kind": "linear", "first": [0.5, 0.98]}
    with pytest.raises(ValueError, match="times: unknown key 'first'"):
        serialization.load(yaml.safe_dump(row))


def test_runs_from_before_times_had_a_kind_still_load() -> None:
    run = RunConfig("a bear", objective=SDS(2.0), times=Falling((0.6, 0.9), (0.1, 0.3)), steps=800)
    row = yaml.safe_load(serialization.dump(run))
    for later in ("limits", "direction", "perp_neg", "debias", "critic", "particles"):
        del row[later]
    del row["times"]["kind"], row["times"]["until"]
    assert serialization.load(yaml.safe_dump(row)) == run


# --- runs and presets ---


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("steps", 0, "steps is 0; a run takes at least 1"),
        ("steps", -5, "at least 1"),
        ("steps", 10**9, "at most 1000000"),
        ("views", 0, "expected 1 to 64"),
        ("views", 10**6, "expected 1 to 64"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**29, "expected 0 to 536870911"),
        ("device", "tpu", "expected auto, cpu or cuda"),
    ],
)
def test_runs_refuse_what_makes_no_sense(name: str, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(RunConfig("a bear"), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "knobs",
    [
        {"count": 0},
        {"count": 10, "max_count": 5},
        {"count": 10**9, "max_count": 10**9},
        {"smallest": 0.2, "largest": 0.1},
        {"opacity": 1.0},
        {"grow_from": 0.8},
        {"mean_rate": 0.0},
        {"radius": -1.0},
    ],
    ids=str,
)
def test_scenes_refuse_what_makes_no_sense(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs)).split("_")[0]):
        Splats(**knobs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="degree 9"):
        Splats(sh_degree=9)


@pytest.mark.parametrize(
    "knobs", [{"lowest": 60.0}, {"highest": 91.0}, {"distance": 1.0}, {"distance": math.nan}, {"fov": 0.0}]
)
def test_orbits_refuse_what_makes_no_sense(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Orbit(**knobs)


def test_unknown_presets_come_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'draf'; did you mean draft\? \(known: draft, standard\)"):
        preset("draf")


def test_presets_leave_the_prompt_to_the_user() -> None:
    for ready in PRESETS.values():
        assert ready.run("x") == replace(ready.run("y"), prompt="x")
        assert ready.purpose
