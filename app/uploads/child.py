"""The process in which an uploaded mesh is opened: `python -m app.uploads.child FILE SECONDS MEGABYTES`.

Says one JSON object: facts, or `refused` with one line. Whatever the file does to its reader ends with this process,
which may neither take more time or memory than it was given nor write a file.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from sds3d.mesh_import.load import inspect_mesh
from sds3d.mesh_import.parts import UNFOLDED_FACES, uv_problem

OUT_OF_MEMORY_MARKERS = ("MemoryError", "allocat", "failed to map", "start new thread")
"""What libraries say where there is no memory left."""


def mesh_facts(path: Path) -> dict[str, Any]:
    """What is in a mesh file, for people. Raises OSError, ValueError."""
    import numpy as np

    read, warnings = inspect_mesh(path)
    reason = uv_problem(read)
    if reason is not None and len(read.faces) > UNFOLDED_FACES:
        warnings.append(f"it will be simplified to {UNFOLDED_FACES:,} faces")
    if reason is not None:
        warnings.append(f"it will be unfolded anew: {reason}")
    return {
        "faces": len(read.faces),
        "vertices": len(read.vertices),
        "parts": len(read.paints),
        "textured": any(paint.image is not None for paint in read.paints),
        "size": [float(f"{side:.4g}") for side in np.ptp(read.vertices, axis=0).tolist()],
        "remarks": warnings,
    }


def limit_resources(seconds: int, megabytes: int) -> None:
    """From now on this process gets so much processor time and memory more, and writes nothing."""
    with suppress(FileNotFoundError), open("/proc/self/statm") as file:
        current = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (current + megabytes * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds + 5, seconds + 10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(argv: list[str]) -> int:
    """Looks into one file; returns the exit code."""
    path, seconds, megabytes = Path(argv[0]), int(argv[1]), int(argv[2])
    limit_resources(seconds, megabytes)
    try:
        result = mesh_facts(path)
    except Exception as error:  # a broken file makes its readers fail in every way there is
        result = {"refused": " ".join(str(error).split()) or type(error).__name__}
        if isinstance(error, MemoryError | ImportError) or any(
            mark in result["refused"] for mark in OUT_OF_MEMORY_MARKERS
        ):
            result = {"refused": f"{path.name} takes more than {megabytes} MB of memory to open; simplify it first"}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
