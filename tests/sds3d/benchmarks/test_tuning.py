"""The search behind configs/tuned.py: what it tries, who wins its races, and what it writes."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from configs.tuned import TUNED
from guidance.objectives.differences.bsd import BSD
from sds3d.training.loop import StopSignal

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def tuning() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("tuning", FOLDER / "tuning.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["tuning"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture
def race(tuning: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A search whose runs have the marks that a function of values and prompt says."""

    def of(name: str, mark: Any, knobs: tuple[str, ...] = ()) -> Any:
        def run(self: Any, values: dict[str, Any], prompt: str, before: str) -> dict[str, Any]:
            return {"values": tuning.label(values), "prompt": prompt, "mark": mark(values, prompt)}

        monkeypatch.setattr(tuning.Search, "run", run)
        return tuning.Search(name, argparse.Namespace(out=tmp_path, prompts=10, steps=1, knobs=knobs), {}, StopSignal())

    return of


def kept(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"from": "", "runs": rows}


def furthest(tuning: ModuleType, rows: list[dict[str, Any]]) -> dict[str, Any]:
    for row in rows:
        row |= {"probability": 1.0, "recognised": 8, "off": {"saturation": 0.0, "contrast": 0.0}}
    best: dict[str, Any] = tuning.standing(kept(rows))["values"][0]
    return best


def test_runs_around_other_values_do_not_count(tuning: ModuleType, race: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    race("sds", lambda values, prompt: 0.0).race()
    assert race("sds", None).rows
    monkeypatch.setitem(tuning.TUNED, "sds", tuning.changed(TUNED["sds"], {"lr_scale": 3.0}))
    assert not race("sds", None).rows


@pytest.mark.parametrize("name", TUNED)
def test_all_that_is_tried_can_be_asked_for_and_is_something_else(tuning: ModuleType, name: str) -> None:
    tried = [{}, *tuning.around(name)]
    recipes = [tuning.changed(TUNED[name], values) for values in tried]
    assert recipes[0] == TUNED[name]
    assert all(one != other for place, one in enumerate(recipes) for other in recipes[:place])
    assert len({tuning.label(values) for values in tried}) == len(tried)


def test_a_change_is_of_its_knob_alone(tuning: ModuleType) -> None:
    recipe = TUNED["vsd"]
    now = tuning.changed(recipe, {"objective.guidance_scale": 3.25, "critic.lr": 0.02})
    assert (now.objective.guidance_scale, now.critic.lr) == (3.25, 0.02)
    assert (
        tuning.changed(
            now, {"objective.guidance_scale": recipe.objective.guidance_scale, "critic.lr": recipe.critic.lr}
        )
        == recipe
    )


def test_the_best_of_steady_marks_wins_after_ten_prompts(tuning: ModuleType, race: Any) -> None:
    search = race(
        "sds", lambda values, prompt: 0.5 + (values == {"lr_scale": 0.5}) * 0.25 - ("lr_scale" in values) * 0.125
    )
    search.race()
    best = furthest(tuning, search.rows)
    assert (best["values"], best["prompts"], best["gain"]) == ("lr_scale 0.5", 10, 0.125)


def test_what_is_better_alone_is_tried_together(tuning: ModuleType, race: Any) -> None:
    good = {"objective.guidance_scale": 1.0, "lr_scale": 2.0}
    search = race("sds", lambda values, prompt: sum(good.get(path) == value for path, value in values.items()))
    search.race()
    assert furthest(tuning, search.rows)["values"] in (
        "guidance_scale 1.0, lr_scale 2.0",
        "lr_scale 2.0, guidance_scale 1.0",
    )


def test_knobs_of_an_objective_that_is_replaced_are_not_changed_too(tuning: ModuleType, race: Any) -> None:
    order = [{"objective": BSD(variant="released")}, {"objective.text_weight": 1.0}, {"lr_scale": 2.0}, {}]
    assert race("bsd", None).combine(order) == {"objective": BSD(variant="released"), "lr_scale": 2.0}


def test_runs_that_are_done_are_not_done_again(tuning: ModuleType, race: Any) -> None:
    race("sds", lambda values, prompt: 0.0).race()

    def never(values: Any, prompt: str) -> float:
        raise AssertionError("it was done already")

    again = race("sds", never)
    again.race()
    assert again.rows


@pytest.mark.parametrize("name", TUNED)
def test_only_the_knobs_asked_for_are_tried(tuning: ModuleType, name: str) -> None:
    assert {path for values in tuning.around(name, ("lr_scale",)) for path in values} == {"lr_scale"}
    assert tuning.around(name, ("timesteps", "guidance_scale", "lr_scale")) == [
        values for values in tuning.around(name) if set(values) <= {"timesteps", "objective.guidance_scale", "lr_scale"}
    ]


def test_the_page_tells_every_objective_and_who_came_second(tuning: ModuleType, race: Any) -> None:
    rates = 2 * TUNED["asd"].lr_scale
    search = race("asd", lambda values, prompt: 0.5 + 0.125 * (values == {"lr_scale": rates}), ("lr_scale",))
    search.race()
    furthest(tuning, search.rows)
    page = tuning.told({"races": {"100": {"asd": tuning.standing(kept(search.rows))}}})
    assert "## 100 steps" in page
    assert f"| asd | 3 | 10 | lr_scale {rates} | 0.625 | +0.125 | as it is: -0.125 ± 0.000 |" in page


def test_races_of_other_steps_stand_apart(tuning: ModuleType, race: Any, tmp_path: Path) -> None:
    for steps in (1, 2):
        search = race("sds", lambda values, prompt: 0.5, ("lr_scale",))
        search.given.steps = steps
        search = tuning.Search("sds", search.given, {}, StopSignal())
        assert not search.rows
        search.race()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_values_without_those_as_they_were_have_no_gain(tuning: ModuleType, race: Any) -> None:
    search = race("sds", lambda values, prompt: 0.5)
    search.measure([{"lr_scale": 2.0}], 2)
    best = furthest(tuning, search.rows)
    assert (best["gain"], best["mark"]) == (None, 0.5)
    assert "| sds | 1 | 2 | lr_scale 2.0 | 0.500 |  |  |" in tuning.told(
        {"races": {"1": {"sds": tuning.standing(kept(search.rows))}}}
    )
