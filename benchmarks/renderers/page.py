"""The page docs/renderers.md, from docs/renderers.json: one section for each room."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import meshes
import splats
import volumes

ROOMS: dict[str, ModuleType] = {"splats": splats, "volumes": volumes, "meshes": meshes}
IDLE = 0.3
"""Load of a machine on which nothing else runs."""


def kept(room: str, figures: dict[str, Any], about: dict[str, Any], docs: Path) -> None:
    """Puts the figures of a room in the place of older ones, and writes the page anew."""
    data = json.loads((docs / "renderers.json").read_text())
    data["rooms"][room] = {"about": about | {"date": date.today().isoformat()}, "figures": figures}
    (docs / "renderers.json").write_text(json.dumps(data, indent=1) + "\n")
    (docs / "renderers.md").write_text(told(data))


def told(data: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# How fast the CPU renderers are",
        "",
        "Forward and backward passes, on one thread unless said otherwise. Ratios are medians of rounds in which both "
        "sides take turns in one process. Written by "
        "`python benchmarks/renderers`, which takes `splats`, `volumes` or `meshes` for one of the sections; all "
        "numbers are in [renderers.json](renderers.json).",
    ]
    for name, room in ROOMS.items():
        if name in data["rooms"]:
            found = data["rooms"][name]
            lines += ["", f"## {name.capitalize()}", "", setting(found["about"]), "", *room.told(found["figures"])]
    return "\n".join([*lines, ""])


def setting(about: dict[str, Any]) -> str:
    """Where a room was measured."""
    load = about["load"]
    beside = "beside other work" if load is None else f"beside other work (load {load:.1f})"
    state = "on an idle machine" if load is not None and load < IDLE else beside
    return f"{about['processor']}, {about['cores']} cores, {about['kernels']} kernels, {state}, {about['date']}."
