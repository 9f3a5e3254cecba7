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
from configs.run import Region, RunConfig
from guidance.gradient_clipping import GradientClipping
from guidance.objectives.differences.sds import SDS
from guidance.objectives.weighting import Weighting
from guidance.timesteps import AnnealedUniform, DreamTime, LinearAnneal, SqrtAnneal, TimestepSampler, TwoStageUniform
from renderers.camera_sampler import CameraSampler
from renderers.meshing.extraction import MeshExtractionConfig
from renderers.splats.config import SplatConfig


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_round_trip(name: str) -> None:
    run = preset(name).run("a teddy bear")
    assert serialization.from_yaml(serialization.to_yaml(run)) == run
    assert serialization.to_yaml(serialization.from_yaml(serialization.to_yaml(run))) == serialization.to_yaml(run)


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
def test_any_run_round_trips(text: str, negative: str, scale: float, kind: Weighting, level: float, seed: int) -> None:
    run = RunConfig(
        text,
        negative,
        objective=SDS(scale, kind),
        scene=SplatConfig(init_count=7, lambda_anisotropy=level),
        cameras=CameraSampler(elevation_min=-level / 2),
        mesh_extraction=MeshExtractionConfig(iso_level=level),
        timesteps=AnnealedUniform((0.0, min(level, 1.0))),
        seed=seed,
    )
    assert serialization.from_yaml(serialization.to_yaml(run)) == run


@pytest.mark.parametrize("text", ["a\x85b", "\u2028", "a bear \u2029\n ", "\ufeffbear", "\N{TEDDY BEAR}", "\x00\x7f"])
def test_any_text_round_trips(text: str) -> None:
    run = RunConfig(text, text, debias_model=text)
    assert serialization.from_yaml(serialization.to_yaml(run)) == run


def test_yaml_contains_every_value() -> None:
    row = yaml.safe_load(serialization.to_yaml(RunConfig("a bear")))
    assert set(row) == {f.name for f in fields(RunConfig)}
    assert row["objective"] == {"kind": "sds", "guidance_scale": 7.5, "weighting": "sds", "guidance_rescale": 0.0}
    assert row["timesteps"] == {
        "kind": "annealed",
        "start_range": [0.5, 0.98],
        "end_range": [0.02, 0.4],
        "anneal_until": 1.0,
    }
    assert row["clipping"] == {"value": None, "normalize": False, "pixel_norm": None}


def test_integers_are_accepted_as_floats() -> None:
    run = serialization.from_yaml(preset_with("guidance_scale", 8))
    assert isinstance(run.objective, SDS)
    assert run.objective.guidance_scale == 8 and isinstance(run.objective.guidance_scale, float)
    assert serialization.from_yaml(preset_with("iso_level", 2)).mesh_extraction.iso_level == 2.0


def test_plugin_objectives_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zesty_plugin.py").write_text(
        "from dataclasses import dataclass\nfrom guidance.objectives.base import Objective, ObjectiveOutput\n"
        "@dataclass(frozen=True)\nclass Zesty(Objective):\n    zest: float = 5.0\n"
        "    def __call__(self, prior, critic, batch): return ObjectiveOutput(batch.noise)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from configs.registry import objective_class

    run = RunConfig("a bear", objective=objective_class("zesty_plugin:Zesty")())
    assert "kind: zesty_plugin:Zesty" in serialization.to_yaml(run)
    with pytest.raises(ValueError, match="--trust"):
        serialization.from_yaml(serialization.to_yaml(run))
    assert serialization.from_yaml(serialization.to_yaml(run), trust=True) == run
    monkeypatch.delitem(sys.modules, "zesty_plugin")


def preset_with(name: str, value: object) -> str:
    """A run's YAML with every key of that name, at any depth, holding another value."""

    def change(row: object) -> object:
        if not isinstance(row, dict):
            return row
        return {key: value if key == name else change(inner) for key, inner in row.items()}

    return yaml.safe_dump(change(yaml.safe_load(serialization.to_yaml(RunConfig("a bear")))), allow_unicode=True)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("steps", "many", "steps is 'many'; expected int"),
        ("steps", 1.5, "steps is 1.5; expected int"),
        ("steps", True, "steps is True; expected int"),
        ("prompt", 5, "prompt is 5; expected str"),
        ("prompt", None, "prompt is None; expected str"),
        ("guidance_scale", "7", "guidance_scale is '7'; expected float"),
        ("guidance_scale", False, "guidance_scale is False; expected float"),
        ("guidance_scale", math.nan, "guidance_scale is nan; expected a finite number"),
        ("weighting", "sdz", "weighting is 'sdz'; expected one of sds, uniform"),
        ("start_range", [0.1], "start_range is [0.1]; expected a list of 2: float, float"),
        ("start_range", [0.1, "x"], "expected a list of 2: float, float"),
        ("start_range", 0.5, "expected a list of 2"),
        ("start_range", [0.9, 0.1], "expected 0 <= low <= high <= 1"),
        ("iso_level", "high", "iso_level is 'high'; expected float or nothing"),
        ("scene", 3, "scene needs a kind, the name of a scene"),
        ("timesteps", [], "timesteps needs a kind, the name of a timestep sampler"),
        ("objective", "sds", "objective needs a kind"),
        ("kind", 7, "objective needs a kind"),
        ("kind", "sdss", "unknown objective 'sdss'; did you mean sds?"),
        ("batch_size", 0, "batch_size is 0"),
        ("device", "gpu", "expected auto, cpu or cuda"),
        ("init_count", -3, "init_count is -3"),
        ("fov_y", 10**400, "expected float"),
        ("value", [2], "expected a list of 2: float, float or nothing"),
        ("value", [2, -8], "value is -8.0; expected a positive number"),
        ("pixel_norm", "small", "pixel_norm is 'small'; expected float or nothing"),
        ("clipping", [], "clipping is []; expected the fields of GradientClipping"),
        ("view_conditioning", "word", "view_conditioning is 'word'; expected one of auto, text, none"),
        ("perp_neg", math.nan, "perp_neg is nan; expected a number"),
        ("opacities_lr", math.nan, "scene.opacities_lr is nan; expected a number"),
        ("anneal_until", 2, "anneal_until is 2.0; expected a progress"),
    ],
)
def test_invalid_values_are_named(name: str, value: object, told: str) -> None:
    with pytest.raises(ValueError) as refused:
        serialization.from_yaml(preset_with(name, value))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_keys_suggest_the_nearest() -> None:
    row = yaml.safe_load(serialization.to_yaml(RunConfig("a bear")))
    with pytest.raises(ValueError, match=r"run\.yaml: unknown key 'step'; did you mean steps\?"):
        serialization.from_yaml(yaml.safe_dump(row | {"step": 3}))
    row["objective"]["guidance_scal"] = 1
    with pytest.raises(ValueError, match=r"objective: unknown key 'guidance_scal'; did you mean guidance_scale\?"):
        serialization.from_yaml(yaml.safe_dump(row))


def test_missing_keys_are_named() -> None:
    row = yaml.safe_load(
        serialization.to_yaml(replace(RunConfig("a bear"), regions=(Region("a mug", (0.0, 0.0, 0.0), 0.5),)))
    )
    del row["regions"][0]["text"]
    with pytest.raises(ValueError, match="mine: regions 1 lacks text"):
        serialization.from_yaml(yaml.safe_dump(row), "mine")
    del row["prompt"], row["seed"], row["regions"]
    with pytest.raises(ValueError, match="mine lacks prompt, regions, seed"):
        serialization.from_yaml(yaml.safe_dump(row), "mine")


def test_missing_fields_of_parts_get_their_default() -> None:
    """Of the run itself every field is needed, of its parts only those without a default."""
    config = preset("draft").run("a cat")
    row = yaml.safe_load(serialization.to_yaml(config))
    for part in ("scene", "cameras", "timesteps", "mesh_extraction"):
        standard = type(getattr(config, part))()
        for field in fields(standard):
            if getattr(standard, field.name) == getattr(getattr(config, part), field.name):
                del row[part][field.name]
    assert serialization.from_yaml(yaml.safe_dump(row)) == config


@pytest.mark.parametrize("text", ["", "3", "- a", "a: [", "\t", "{", "!!python/object:os.system {}"])
def test_rejects_files_that_are_not_runs(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        serialization.from_yaml(text)
    assert str(refused.value).startswith("run.yaml") and "\n" not in str(refused.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.yaml is missing"):
        serialization.load_config(tmp_path / "run.yaml")


def test_rejects_files_that_are_not_utf8(tmp_path: Path) -> None:
    for content in (bytes(range(256)), b"\xff\xfe\x00", b"\x00" * 50, b"[" * 5000):
        (tmp_path / "run.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.yaml is (no text; expected the YAML|not YAML)") as refused:
            serialization.load_config(tmp_path / "run.yaml")
        assert "\n" not in str(refused.value) and "codec" not in str(refused.value)


# --- timestep samplers and clipping ---


@pytest.mark.parametrize(
    "timesteps",
    [
        AnnealedUniform(anneal_until=0.3),
        TwoStageUniform(switch_at=0.7),
        LinearAnneal(0.8),
        SqrtAnneal(0.9, 0.1),
        DreamTime(std_below=0.2),
    ],
    ids=str,
)
def test_timestep_samplers_round_trip(timesteps: TimestepSampler) -> None:
    run = RunConfig(
        "a bear",
        timesteps=timesteps,
        clipping=GradientClipping((2.0, 8.0), True, 0.1),
        view_conditioning="text",
        perp_neg=0.5,
    )
    assert serialization.from_yaml(serialization.to_yaml(run)) == run


def test_unknown_timestep_samplers_suggest_the_nearest() -> None:
    row = yaml.safe_load(serialization.to_yaml(RunConfig("a bear")))
    row["timesteps"] = {"kind": "dreamtimes"}
    with pytest.raises(ValueError, match=r"unknown timesteps 'dreamtimes'; did you mean dreamtime\?"):
        serialization.from_yaml(yaml.safe_dump(row))
    row["timesteps"] = {"kind": "linear", "first": [0.5, 0.98]}
    with pytest.raises(ValueError, match="timesteps: unknown key 'first'"):
        serialization.from_yaml(yaml.safe_dump(row))


# --- runs and presets ---


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("steps", 0, "steps is 0; a run takes at least 1"),
        ("steps", -5, "at least 1"),
        ("steps", 10**9, "at most 1000000"),
        ("batch_size", 0, "expected 1 to 64"),
        ("batch_size", 10**6, "expected 1 to 64"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**29, "expected 0 to 536870911"),
        ("device", "tpu", "expected auto, cpu or cuda"),
    ],
)
def test_rejects_invalid_runs(name: str, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(RunConfig("a bear"), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "knobs",
    [
        {"init_count": 0},
        {"init_count": 10, "cap_max": 5},
        {"init_count": 10**9, "cap_max": 10**9},
        {"min_scale": 0.2, "max_scale": 0.1},
        {"init_opacity": 1.0},
        {"refine_start": 0.8},
        {"means_lr": 0.0},
        {"init_radius": -1.0},
    ],
    ids=str,
)
def test_rejects_invalid_scenes(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="|".join(knobs)):
        SplatConfig(**knobs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="degree 9"):
        SplatConfig(sh_degree=9)


@pytest.mark.parametrize(
    "knobs",
    [{"elevation_min": 60.0}, {"elevation_max": 91.0}, {"distance": 1.0}, {"distance": math.nan}, {"fov_y": 0.0}],
)
def test_rejects_invalid_camera_samplers(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CameraSampler(**knobs)


def test_unknown_presets_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'draf'; did you mean draft\? \(known: draft, standard\)"):
        preset("draf")


def test_presets_keep_the_given_prompt() -> None:
    for ready in PRESETS.values():
        assert ready.run("x") == replace(ready.run("y"), prompt="x")
        assert ready.description
