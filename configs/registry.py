"""Names for the things a run chooses among: built in, from other packages' entry points, or `module:Class`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from importlib.metadata import entry_points
from inspect import isabstract
from types import ModuleType

from guidance.objectives.base import Objective
from guidance.objectives.differences.asd import ASD
from guidance.objectives.differences.bsd import BSD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.differences.rfds import RFDS, RFDSRev
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.objectives.edits.dds import DDS
from guidance.objectives.edits.pds import PDS
from guidance.objectives.intervals.csm import CSM
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.intervals.sdi import SDI
from guidance.objectives.intervals.tsm import TSM
from guidance.objectives.variational.disback import DisBack
from guidance.objectives.variational.esd import ESD
from guidance.objectives.variational.f_vsd import FVSD
from guidance.objectives.variational.pg_sb import PGSB
from guidance.objectives.variational.vsd import VSD
from guidance.timesteps import DreamTime, Dropping, Falling, Linear, SquareRoot, Times
from renderers.images.scene import Picture
from renderers.meshes.config import Solid
from renderers.scene import SceneKnobs
from renderers.splats.config import Splats
from renderers.volumes.config import Nerf

OBJECTIVES: dict[str, type[Objective]] = {
    "asd": ASD,
    "bsd": BSD,
    "csd": CSD,
    "csm": CSM,
    "dds": DDS,
    "disback": DisBack,
    "esd": ESD,
    "f-vsd": FVSD,
    "ism": ISM,
    "nfsd": NFSD,
    "pds": PDS,
    "pg-sb": PGSB,
    "regions": RegionSDS,
    "rfds": RFDS,
    "rfds-rev": RFDSRev,
    "sdi": SDI,
    "sds": SDS,
    "sjc": SJC,
    "tsm": TSM,
    "vsd": VSD,
}
"""Built-in objectives by name."""
TIMES: dict[str, type[Times]] = {
    "dreamtime": DreamTime,
    "drop": Dropping,
    "falling": Falling,
    "linear": Linear,
    "sqrt": SquareRoot,
}
"""Rules for noise times by name."""
SCENES: dict[str, type[SceneKnobs]] = {"mesh": Solid, "nerf": Nerf, "picture": Picture, "splats": Splats}
"""Kinds of scenes by name."""
_GROUP = "sds3d.objectives"


def objective_names() -> list[str]:
    """Every objective that a name stands for, those of other packages included."""
    return sorted({*OBJECTIVES, *(point.name for point in entry_points(group=_GROUP))})


def objective_class(name: str) -> type[Objective]:
    """The class behind a name or a `module:Class`.

    Raises:
        ValueError: nothing has that name, or what has it is no objective.
        ImportError: there is no such module, or a plug-in does not load; its own error is kept.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(_module(module), attribute)
        except AttributeError:
            raise ValueError(f"{module} has no {attribute}; expected an objective as module:Class") from None
    else:
        point = next(iter(entry_points(group=_GROUP, name=name)), None)
        if point is None:
            raise ValueError(unknown("objective", name, objective_names()))
        found = point.load()
    if not (isinstance(found, type) and issubclass(found, Objective)) or isabstract(found):
        raise ValueError(f"{name} is no objective; expected a complete subclass of guidance.objectives.base.Objective")
    return found


def _module(name: str) -> ModuleType:
    """The module of that name, from the current folder too, which comes last: it can hide nothing that is installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ImportError(f"there is no module {error.name}; expected an objective as module:Class") from None
    except ImportError:
        raise
    except Exception as error:  # whatever a stranger's module does while it loads
        raise ImportError(f"{name} does not load: {type(error).__name__}: {error}") from error


def objective_name(objective: Objective) -> str:
    """The name that `objective_class` finds an objective by."""
    kind = type(objective)
    built_in = next((name for name, known in OBJECTIVES.items() if known is kind), None)
    address = f"{kind.__module__}:{kind.__qualname__}"
    installed = next((point.name for point in entry_points(group=_GROUP) if point.value == address), None)
    return built_in or installed or address


def times_class(name: str) -> type[Times]:
    """The rule for noise times of that name. Raises ValueError that names the nearest one."""
    if name not in TIMES:
        raise ValueError(unknown("times", name, sorted(TIMES)))
    return TIMES[name]


def times_name(times: Times) -> str:
    """The name that `times_class` finds a rule by."""
    return next(name for name, known in TIMES.items() if known is type(times))


def scene_class(name: str) -> type[SceneKnobs]:
    """The kind of scene of that name. Raises ValueError that names the nearest one."""
    if name not in SCENES:
        raise ValueError(unknown("scene", name, sorted(SCENES)))
    return SCENES[name]


def scene_name(scene: SceneKnobs) -> str:
    """The name that `scene_class` finds a kind of scene by."""
    return next(name for name, known in SCENES.items() if known is type(scene))


def unknown(what: str, name: str, known: list[str]) -> str:
    """One line that says a name is unknown, the nearest one, and all there are."""
    near = difflib.get_close_matches(name, known, 3, 0.5)
    # Of those that are as near, one that begins alike.
    best = max(
        near, key=lambda other: (difflib.SequenceMatcher(None, other, name).ratio(), other[0] == name[0]), default=None
    )
    hint = f"; did you mean {best}?" if best else ""
    return f"unknown {what} {name!r}{hint} (known: {', '.join(known)})"
