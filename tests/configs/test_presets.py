"""Presets and recipes: what a run takes from names."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from configs import serialization
from configs.presets import PRESETS, objective_preset, preset
from configs.published import PUBLISHED
from configs.recipe import ObjectivePreset
from configs.registry import OBJECTIVES, TIMESTEP_SAMPLERS, timestep_sampler_class, timestep_sampler_name
from configs.run import RunConfig
from configs.tuned import TUNED
from guidance.critics.lora import CriticConfig
from guidance.gradient_clipping import GradientClipping
from guidance.objectives.differences.sds import SDS
from guidance.timesteps import AnnealedUniform, LinearAnneal
from renderers.splats.config import SplatConfig


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("rows", [TUNED, PUBLISHED], ids=["tuned", "published"])
def test_every_objective_has_published_and_tuned_presets(rows: dict[str, ObjectivePreset], name: str) -> None:
    assert type(rows[name].objective) is OBJECTIVES[name]


@pytest.mark.parametrize("rows", [TUNED, PUBLISHED], ids=["tuned", "published"])
def test_every_preset_names_a_known_objective(rows: dict[str, ObjectivePreset]) -> None:
    assert rows.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_preset_builds_with_every_objective(name: str, objective: str) -> None:
    for embedded, rows in ((True, TUNED), (False, PUBLISHED)):
        run = preset(name).run("a bear", objective, embedded)
        row = rows[objective]
        assert (run.objective, run.timesteps, run.clipping, run.critic) == (
            row.objective,
            row.timesteps,
            row.clipping,
            row.critic,
        )
        assert (run.steps, run.batch_size) == (PRESETS[name].steps, PRESETS[name].batch_size)
        assert run.scene == PRESETS[name].scene.scale_lrs(row.lr_scale)
        assert serialization.from_yaml(serialization.to_yaml(run)) == run


def test_preset_has_a_default_objective() -> None:
    for ready in PRESETS.values():
        assert ready.run("a bear") == ready.run("a bear", ready.objective, True)
        assert ready.run("a bear", for_mini_prior=False) == ready.run("a bear", ready.objective, False)


def test_module_class_of_a_built_in_uses_its_preset() -> None:
    assert objective_preset("guidance.objectives.differences.sds:SDS", True) is TUNED["sds"]


def test_plugin_objectives_keep_their_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spicy_plugin.py").write_text(
        "from dataclasses import dataclass\nfrom guidance.objectives.base import Objective, ObjectiveOutput\n"
        "@dataclass(frozen=True)\nclass Spicy(Objective):\n    heat: float = 5.0\n"
        "    def __call__(self, prior, critic, batch): return ObjectiveOutput(batch.noise)\n"
        "@dataclass(frozen=True)\nclass Demanding(Objective):\n    heat: float\n"
        "    def __call__(self, prior, critic, batch): return ObjectiveOutput(batch.noise)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for embedded, times in ((True, AnnealedUniform()), (False, AnnealedUniform((0.02, 0.98), (0.02, 0.98)))):
        row = objective_preset("spicy_plugin:Spicy", embedded)
        assert vars(row.objective) == {"heat": 5.0} and row.timesteps == times
        with pytest.raises(ValueError, match="spicy_plugin:Demanding needs a default for each of its fields"):
            objective_preset("spicy_plugin:Demanding", embedded)
    with pytest.raises(ValueError, match=r"unknown objective 'sdss'; did you mean sds\?"):
        objective_preset("sdss", True)


def test_apply_to_replaces_only_its_fields() -> None:
    run = RunConfig("a bear", "red", prior="other", steps=7, seed=3)
    row = ObjectivePreset(
        SDS(3.0), LinearAnneal(), GradientClipping(pixel_norm=0.1), CriticConfig(rank=2), lr_scale=2.0
    )
    laid = row.apply_to(run)
    changed = {f.name for f in fields(run) if getattr(run, f.name) != getattr(laid, f.name)}
    assert changed == {"objective", "timesteps", "clipping", "critic", "scene"}
    assert ObjectivePreset(run.objective).apply_to(run) == run


def test_scale_lrs_changes_only_lrs() -> None:
    scene, fast = SplatConfig(), SplatConfig().scale_lrs(3.0)
    changed = {f.name for f in fields(scene) if getattr(scene, f.name) != getattr(fast, f.name)}
    assert changed == {"means_lr", "means_lr_final", "scales_lr", "quats_lr", "opacities_lr", "sh_lr"}
    assert all(getattr(fast, name) == 3 * getattr(scene, name) for name in changed)
    for factor in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(ValueError, match="lr_scale is"):
            ObjectivePreset(SDS(), lr_scale=factor)


@pytest.mark.parametrize("name", sorted(TIMESTEP_SAMPLERS))
def test_timestep_sampler_names_round_trip(name: str) -> None:
    times = timestep_sampler_class(name)()
    assert timestep_sampler_name(times) == name and times.summary
    run = replace(RunConfig("a bear"), timesteps=times)
    assert serialization.from_yaml(serialization.to_yaml(run)).timesteps == times


def test_unknown_timestep_samplers_suggest_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown timesteps 'anneled'; did you mean annealed\? \(known: annealed, dreamtime"
    ):
        timestep_sampler_class("anneled")
