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
from guidance.timesteps import AnnealedUniform, DreamTime, LinearAnneal, SqrtAnneal, TimestepSampler, TwoStageUniform
from renderers.images.scene import ImageConfig
from renderers.meshes.config import MeshConfig
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig

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
TIMESTEP_SAMPLERS: dict[str, type[TimestepSampler]] = {
    "annealed": AnnealedUniform,
    "dreamtime": DreamTime,
    "linear": LinearAnneal,
    "sqrt": SqrtAnneal,
    "two-stage": TwoStageUniform,
}
"""Rules for noise times by name."""
SCENES: dict[str, type[SceneConfig]] = {
    "image": ImageConfig,
    "mesh": MeshConfig,
    "nerf": NerfConfig,
    "splats": SplatConfig,
}
"""Kinds of scenes by name."""
_ENTRY_POINT_GROUP = "sds3d.objectives"


def objective_names() -> list[str]:
    """Every objective that a name stands for, those of other packages included."""
    return sorted({*OBJECTIVES, *(point.name for point in entry_points(group=_ENTRY_POINT_GROUP))})


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
            cls = getattr(_import_module(module), attribute)
        except AttributeError:
            raise ValueError(f"{module} has no {attribute}; expected an objective as module:Class") from None
    else:
        entry_point = next(iter(entry_points(group=_ENTRY_POINT_GROUP, name=name)), None)
        if entry_point is None:
            raise ValueError(unknown_name_message("objective", name, objective_names()))
        cls = entry_point.load()
    if not (isinstance(cls, type) and issubclass(cls, Objective)) or isabstract(cls):
        raise ValueError(f"{name} is no objective; expected a complete subclass of guidance.objectives.base.Objective")
    return cls


def _import_module(name: str) -> ModuleType:
    """The module of that name, from the current folder too, which comes last: it can hide nothing that is installed."""
    cwd = os.getcwd()
    if cwd not in sys.path:
        sys.path.append(cwd)
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
    cls = type(objective)
    built_in = next((name for name, known in OBJECTIVES.items() if known is cls), None)
    address = f"{cls.__module__}:{cls.__qualname__}"
    installed = next((point.name for point in entry_points(group=_ENTRY_POINT_GROUP) if point.value == address), None)
    return built_in or installed or address


def timestep_sampler_class(name: str) -> type[TimestepSampler]:
    """The rule for noise times of that name. Raises ValueError that names the nearest one."""
    if name not in TIMESTEP_SAMPLERS:
        raise ValueError(unknown_name_message("timesteps", name, sorted(TIMESTEP_SAMPLERS)))
    return TIMESTEP_SAMPLERS[name]


def timestep_sampler_name(sampler: TimestepSampler) -> str:
    """The name that `timestep_sampler_class` finds a rule by."""
    return next(name for name, known in TIMESTEP_SAMPLERS.items() if known is type(sampler))


def scene_class(name: str) -> type[SceneConfig]:
    """The kind of scene of that name. Raises ValueError that names the nearest one."""
    if name not in SCENES:
        raise ValueError(unknown_name_message("scene", name, sorted(SCENES)))
    return SCENES[name]


def scene_name(scene: SceneConfig) -> str:
    """The name that `scene_class` finds a kind of scene by."""
    return next(name for name, known in SCENES.items() if known is type(scene))


def unknown_name_message(kind: str, name: str, known: list[str]) -> str:
    """One line that says a name is unknown, the nearest one, and all there are."""
    close = difflib.get_close_matches(name, known, 3, 0.5)
    # Of those that are as near, one that begins alike.
    best = max(
        close, key=lambda other: (difflib.SequenceMatcher(None, other, name).ratio(), other[0] == name[0]), default=None
    )
    hint = f"; did you mean {best}?" if best else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})"
