"""How long the CPU renderers take, beside other ways to do the same: splats, volumes, meshes.

    python benchmarks/renderers [splats] [volumes] [meshes] [--quick] [--repeats 9] [--no-page]

Without a name all are timed, one after the other. What each compares, and the least that it could cost, stands at the
top of its file here; `timing.py` says how. Writes docs/renderers.json and docs/renderers.md; the figures of rooms that
are left out stay. This is a folder, not a file renderers.py, since other benchmarks would import that in the place of
the package.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from page import ROOMS, kept

from renderers import kernels as renderers_kernels

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"any of {', '.join(ROOMS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="the cases with a bar, and fewer rounds")
    parser.add_argument("--repeats", type=int, default=9, help="rounds of what takes long")
    parser.add_argument("--no-page", action="store_true", help="only print")
    given = parser.parse_args()
    unknown = [room for room in given.rooms if room not in ROOMS]
    if unknown:
        parser.error(f"no room is called {unknown[0]}; there are {', '.join(ROOMS)}")
    if given.repeats < 1:
        parser.error(f"--repeats is {given.repeats}; at least 1 is needed")
    if renderers_kernels.library() is None:
        parser.error(f"there is nothing to time: {renderers_kernels.why_missing()}")
    torch.set_num_threads(1)
    about = machine()
    for room in given.rooms or ROOMS:
        figures = ROOMS[room].measured(given.quick, given.repeats)
        if not given.no_page:
            kept(room, figures, about, DOCS)


def machine() -> dict[str, Any]:
    """What it is, which kernels it takes, and how busy it was before."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kernels = Path(renderers_kernels.library()._name).stem.removeprefix("libsds3d_")
    load = round(os.getloadavg()[0], 2)
    name = names[0] if names else platform.processor()
    return {"processor": name, "cores": os.cpu_count(), "kernels": kernels, "load": load}


if __name__ == "__main__":
    main()
