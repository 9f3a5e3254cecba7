"""`sds3d objectives`: every objective is in the table, with what it says of itself."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from configs import registry
from configs.registry import OBJECTIVES
from guidance.objectives.base import Objective
from sds3d.__main__ import main
from sds3d.cli.objectives import NEEDS

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installed plug-ins: one that says nothing of itself, and one that does not load."""
    (tmp_path / "silent_plugin.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from guidance.objectives.base import Objective, ObjectiveOutput\n"
        "@dataclass(frozen=True)\nclass Silent(Objective):\n    needs_critic: ClassVar[bool] = True\n"
        "    def __call__(self, prior, critic, batch): return ObjectiveOutput(batch.noise)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "silent_plugin", raising=False)
    points = [
        EntryPoint("silent", "silent_plugin:Silent", "sds3d.objectives"),
        EntryPoint("broken", "no_such_module_anywhere:Thing", "sds3d.objectives"),
    ]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)


def told(words: list[str], captured: Captured) -> str:
    assert main(["objectives", *words]) == 0
    return captured.readouterr().out


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_says_what_it_is(name: str, capsys: Captured) -> None:
    about = OBJECTIVES[name].info
    assert about is not None
    text = told([name], capsys)
    for fact in (about.title, about.guidance_scale, about.timestep_range, about.summary, about.reference):
        assert fact and fact in text
    fewest, most = about.forward_passes
    assert 1 <= fewest <= most
    assert text.splitlines()[1].split()[:2] == [name, str(fewest)]
    assert "\n" not in about.summary


def test_the_table_has_a_row_for_each(capsys: Captured) -> None:
    rows = [line.split()[0] for line in told([], capsys).splitlines() if line and not line.startswith(" ")]
    assert rows[0] == "name"
    assert rows[1 : len(OBJECTIVES) + 1] == sorted(OBJECTIVES)


@pytest.mark.usefixtures("plugins")
def test_json_holds_the_same(capsys: Captured) -> None:
    rows = {row["name"]: row for row in json.loads(told(["--json"], capsys))}
    assert rows.keys() == {*OBJECTIVES, "silent", "broken"}
    about = OBJECTIVES["sds"].info
    assert about is not None
    assert (
        rows["sds"]["forward_passes"] == list(about.forward_passes)
        and rows["sds"]["guidance_scale"] == about.guidance_scale
    )
    assert rows["sds"]["needs"] == [] and rows["vsd"]["needs"] == ["critic"] and rows["vsd"]["critic_passes"] == 1
    assert rows["silent"]["title"] == "-" and rows["silent"]["forward_passes"] is None
    assert rows["silent"]["needs"] == ["critic"]
    assert rows["broken"]["title"] == "does not load" and "no_such_module_anywhere" in rows["broken"]["reference"]


@pytest.mark.usefixtures("plugins")
def test_plug_ins_are_in_the_table(capsys: Captured) -> None:
    lines = told([], capsys).splitlines()
    assert next(line for line in lines if line.startswith("silent")).split() == ["silent", "-", "-", "-", "critic"]
    assert any(line.startswith("broken") and "does not load" in line for line in lines)
    assert "silent_plugin:Silent  -" in told(["silent_plugin:Silent"], capsys)


def test_every_need_has_words() -> None:
    flags = {name for name in vars(Objective) if name.startswith("needs_")}
    assert flags == NEEDS.keys()


def test_names_that_do_not_exist_are_refused(capsys: Captured) -> None:
    assert main(["objectives", "sdss"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("sds3d: unknown objective 'sdss'; did you mean sds?") and err.count("\n") == 1
