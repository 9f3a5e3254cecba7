"""Names for objectives: built in, from other packages, and as module:Class."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from configs import registry
from configs.registry import OBJECTIVES, objective_class, objective_name, objective_names, unknown_name_message
from guidance.objectives.base import Objective

PLUGIN = """
from dataclasses import dataclass
from guidance.objectives.base import Objective, ObjectiveOutput

@dataclass(frozen=True)
class Fancy(Objective):
    zest: float = 5.0
    def __call__(self, prior, critic, batch):
        return ObjectiveOutput(self.zest * batch.noise)

@dataclass(frozen=True)
class Demanding(Fancy):
    zest: float

class Incomplete(Objective):
    pass

thing = 3
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of an importable module with objectives."""
    (tmp_path / "fancy_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fancy_plugin", raising=False)
    return "fancy_plugin"


@pytest.fixture
def entries(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installed plug-ins, one of which does not load."""
    points = [
        EntryPoint("fancy", f"{plugin}:Fancy", "sds3d.objectives"),
        EntryPoint("broken", "no_such_module_anywhere:Thing", "sds3d.objectives"),
    ]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_names_round_trip(name: str) -> None:
    kind = objective_class(name)
    assert issubclass(kind, Objective)
    assert objective_name(kind()) == name


def test_every_objective_has_defaults() -> None:
    assert all(kind() == kind() for kind in OBJECTIVES.values())


def test_module_class_round_trip(plugin: str) -> None:
    kind = objective_class(f"{plugin}:Fancy")
    assert kind.__name__ == "Fancy"
    assert objective_class(objective_name(kind())) is kind


def test_plugin_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lying_here.py").write_text(PLUGIN)
    (tmp_path / "json.py").write_text("hidden = True")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    with pytest.raises(ImportError):
        objective_class("lying_here:Fancy")
    monkeypatch.chdir(tmp_path)
    assert objective_class("lying_here:Fancy").__name__ == "Fancy"
    with pytest.raises(ValueError, match="json has no hidden"):
        objective_class("json:hidden")


@pytest.mark.usefixtures("entries")
def test_entry_point_plugins_have_names() -> None:
    assert {"fancy", "sds"} <= set(objective_names())
    assert objective_class("fancy").__name__ == "Fancy"
    with pytest.raises(ValueError, match=r"unknown objective 'fanzy'; did you mean fancy\?"):
        objective_class("fanzy")


@pytest.mark.usefixtures("entries")
def test_plugin_import_errors_are_reported() -> None:
    with pytest.raises(ImportError, match="no_such_module_anywhere"):
        objective_class("broken")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown objective 'sdss'; did you mean sds\? \(known: .*sds.*\)"):
        objective_class("sdss")
    # As near as vsd, but one that begins alike.
    with pytest.raises(ValueError, match=r"unknown objective 'sdz'; did you mean sds\?"):
        objective_class("sdz")
    assert unknown_name_message("colour", "xyzzy", ["red", "blue"]) == "unknown colour 'xyzzy' (known: red, blue)"


def test_rejects_classes_that_are_not_objectives(plugin: str) -> None:
    for what in ("Incomplete", "thing"):
        with pytest.raises(ValueError, match=f"{plugin}:{what} is no objective"):
            objective_class(f"{plugin}:{what}")
    with pytest.raises(ValueError, match=r"guidance\.objectives\.base:Objective is no objective"):
        objective_class("guidance.objectives.base:Objective")
    with pytest.raises(ValueError, match=f"{plugin} has no Plain"):
        objective_class(f"{plugin}:Plain")
    with pytest.raises(
        ImportError, match="there is no module no_such_module_anywhere; expected an objective as module:"
    ):
        objective_class("no_such_module_anywhere:Fancy")
