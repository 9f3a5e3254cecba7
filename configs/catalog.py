"""Names for the things a run chooses among: built in, from other packages' entry points, or `module:Class`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from importlib.metadata import entry_points
from inspect import isabstract
from types import ModuleType

from guidance.asd import ASD
from guidance.balanced import BSD
from guidance.csd import CSD
from guidance.csm import CSM
from guidance.dds import DDS
from guidance.ism import ISM
from guidance.noise_free import NFSD
from guidance.objective import Objective
from guidance.pds import PDS
from guidance.regions import RegionSDS
from guidance.rfds import RFDS, RFDSRev
from guidance.sdi import SDI
from guidance.sds import SDS
from guidance.sjc import SJC
from guidance.tsm import TSM

OBJECTIVES: dict[str, type[Objective]] = {
    "asd": ASD,
    "bsd": BSD,
    "csd": CSD,
    "csm": CSM,
    "dds": DDS,
    "ism": ISM,
    "nfsd": NFSD,
    "pds": PDS,
    "regions": RegionSDS,
    "rfds": RFDS,
    "rfds-rev": RFDSRev,
    "sdi": SDI,
    "sds": SDS,
    "sjc": SJC,
    "tsm": TSM,
}
"""Built-in objectives by name."""
_GROUP = "sds3d.objectives"


def objective_names() -> list[str]:
    """Every objective that a name stands for, those of other packages included."""
    return sorted({*OBJECTIVES, *(point.name for point in entry_points(group=_GROUP))})


def objective_class(name: str) -> type[Objective]:
    """The class behind a name or a `module:Class`.

    Raises:
        ValueError: nothing has that name, or what has it is no objective.
        ImportError: a plug-in does not load; its own error is kept.
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
        raise ValueError(f"{name} is no objective; expected a complete subclass of guidance.objective.Objective")
    return found


def _module(name: str) -> ModuleType:
    """The module of that name, from the current folder too, which comes last: it can hide nothing that is installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ImportError:
        raise
    except Exception as error:  # whatever a stranger's module does while it loads
        raise ImportError(f"{name} does not load: {type(error).__name__}: {error}") from error


def objective_name(objective: Objective) -> str:
    """The name that `objective_class` finds an objective by."""
    kind = type(objective)
    built_in = next((name for name, known in OBJECTIVES.items() if known is kind), None)
    return built_in or f"{kind.__module__}:{kind.__qualname__}"


def unknown(what: str, name: str, known: list[str]) -> str:
    """One line that says a name is unknown, the nearest one, and all there are."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown {what} {name!r}{hint} (known: {', '.join(known)})"
