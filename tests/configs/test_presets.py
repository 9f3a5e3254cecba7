"""Presets and recipes: what a run takes from names."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from configs import serialization
from configs.presets import PRESETS, preset, recipe
from configs.published import PUBLISHED
from configs.recipe import Recipe, faster
from configs.registry import OBJECTIVES, TIMES, times_class, times_name
from configs.run import RunConfig
from configs.tuned import TUNED
from guidance.critics.lora import LoRA
from guidance.gradient_clipping import Limits
from guidance.objectives.differences.sds import SDS
from guidance.timesteps import Falling, Linear
from renderers.splats.config import Splats


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("rows", [TUNED, PUBLISHED], ids=["tuned", "published"])
def test_every_objective_has_a_row(rows: dict[str, Recipe], name: str) -> None:
    assert type(rows[name].objective) is OBJECTIVES[name]


@pytest.mark.parametrize("rows", [TUNED, PUBLISHED], ids=["tuned", "published"])
def test_no_row_is_of_nothing(rows: dict[str, Recipe]) -> None:
    assert rows.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_preset_takes_every_objective(name: str, objective: str) -> None:
    for embedded, rows in ((True, TUNED), (False, PUBLISHED)):
        run = preset(name).run("a bear", objective, embedded)
        row = rows[objective]
        assert (run.objective, run.times, run.limits, run.critic) == (row.objective, row.times, row.limits, row.critic)
        assert (run.steps, run.views) == (PRESETS[name].steps, PRESETS[name].views)
        assert run.scene == faster(PRESETS[name].scene, row.rates)
        assert serialization.load(serialization.dump(run)) == run


def test_a_preset_brings_its_own_objective() -> None:
    for ready in PRESETS.values():
        assert ready.run("a bear") == ready.run("a bear", ready.objective, True)
        assert ready.run("a bear", embedded=False) == ready.run("a bear", ready.objective, False)


def test_the_class_of_a_built_in_objective_has_its_row_too() -> None:
    assert recipe("guidance.objectives.differences.sds:SDS", True) is TUNED["sds"]


def test_an_objective_from_elsewhere_has_its_own_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spicy_plugin.py").write_text(
        "from dataclasses import dataclass\nfrom guidance.objectives.base import Objective, Update\n"
        "@dataclass(frozen=True)\nclass Spicy(Objective):\n    heat: float = 5.0\n"
        "    def __call__(self, prior, critic, view): return Update(view.noise)\n"
        "@dataclass(frozen=True)\nclass Demanding(Objective):\n    heat: float\n"
        "    def __call__(self, prior, critic, view): return Update(view.noise)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for embedded, times in ((True, Falling()), (False, Falling((0.02, 0.98), (0.02, 0.98)))):
        row = recipe("spicy_plugin:Spicy", embedded)
        assert vars(row.objective) == {"heat": 5.0} and row.times == times
        with pytest.raises(ValueError, match="spicy_plugin:Demanding needs a default for each of its fields"):
            recipe("spicy_plugin:Demanding", embedded)
    with pytest.raises(ValueError, match=r"unknown objective 'sdss'; did you mean sds\?"):
        recipe("sdss", True)


def test_a_recipe_replaces_its_part_and_nothing_else() -> None:
    run = RunConfig("a bear", "red", prior="other", steps=7, seed=3)
    row = Recipe(SDS(3.0), Linear(), Limits(pixel=0.1), LoRA(rank=2), rates=2.0)
    laid = row.laid_over(run)
    changed = {f.name for f in fields(run) if getattr(run, f.name) != getattr(laid, f.name)}
    assert changed == {"objective", "times", "limits", "critic", "scene"}
    assert Recipe(run.objective).laid_over(run) == run


def test_rates_change_by_a_factor_and_nothing_else() -> None:
    scene, fast = Splats(), faster(Splats(), 3.0)
    changed = {f.name for f in fields(scene) if getattr(scene, f.name) != getattr(fast, f.name)}
    assert changed == {name for name in (f.name for f in fields(scene)) if "_rate" in name}
    assert all(getattr(fast, name) == 3 * getattr(scene, name) for name in changed)
    for factor in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(ValueError, match="rates is"):
            Recipe(SDS(), rates=factor)


@pytest.mark.parametrize("name", sorted(TIMES))
def test_rules_for_times_have_names(name: str) -> None:
    times = times_class(name)()
    assert times_name(times) == name and times.about
    run = replace(RunConfig("a bear"), times=times)
    assert serialization.load(serialization.dump(run)).times == times


def test_unknown_times_come_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown times 'fallin'; did you mean falling\? \(known: dreamtime, drop"):
        times_class("fallin")
