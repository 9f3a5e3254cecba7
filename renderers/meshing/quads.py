"""A surface made of quads, by Instant Meshes (Jakob et al. 2015): the only room of pyinstantmeshes.

It runs in a process of its own: it talks on standard output, and a mesh that it cannot take may end its process.
Shapes: V vertices, Q quads.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from renderers.meshes.mesh import Mesh, Surface

SECONDS = 300.0
MIN_QUADS = 50
"""Quads, at least."""
_SCRIPT = """
import sys, pyinstantmeshes
given, made, count = sys.argv[1:]
pyinstantmeshes.remesh_file(given, made, target_face_count=int(count), pure_quad=True, deterministic=True)
"""


def needs_instant_meshes() -> None:
    """Raises ImportError where pyinstantmeshes is missing."""
    if importlib.util.find_spec("pyinstantmeshes") is None:
        raise ImportError("quads need pyinstantmeshes (Python 3.11 or newer); get it with: pip install 'sds3d[quads]'")


def remesh_quads(surface: Surface, count: int) -> Surface:
    """About `count` quads along the curves of the surface: triangles 2 i and 2 i + 1 are quad i.

    Raises ImportError without pyinstantmeshes, ValueError where it gives no closed surface of quads.
    """
    needs_instant_meshes()
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "in.obj", Path(folder) / "out.obj"
        lines = [f"v {x:.8g} {y:.8g} {z:.8g}" for x, y, z in surface.vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (surface.faces + 1).tolist()]
        given.write_text("\n".join([*lines, ""]), encoding="ascii")
        # Pure quads are every face of a first mesh cut in four.
        command = [sys.executable, "-c", _SCRIPT, str(given), str(made), str(max(count, MIN_QUADS) // 4)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode or not made.exists():
            last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise ValueError(f"Instant Meshes made no quads of this surface: {last[:160]}")
        rows = [line.split() for line in made.read_text(encoding="ascii", errors="replace").splitlines()]
    vertices = np.array([row[1:4] for row in rows if row[:1] == ["v"]], np.float64).reshape(-1, 3)
    corners = [[int(word.split("/")[0]) - 1 for word in row[1:]] for row in rows if row[:1] == ["f"]]
    if not corners or any(len(row) != 4 for row in corners):
        raise ValueError("Instant Meshes made no quads of this surface")
    quads = np.array(corners, np.int32)
    # Cut along the shorter diagonal, which starts at the first corner.
    lengths = [np.linalg.norm(vertices[quads[:, k]] - vertices[quads[:, k + 2]], axis=-1) for k in (0, 1)]
    quads = np.where((lengths[1] < lengths[0])[:, None], np.roll(quads, -1, axis=1), quads)
    cut = Surface(vertices.astype(np.float32), quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3))
    if surface.closed and not cut.closed:
        raise ValueError("the quads that Instant Meshes made do not close; try another number of --faces")
    return cut


def group_quads(mesh: Mesh) -> Mesh:
    """The mesh, of whose triangles each two in a row were a quad, with the quads that no seam cuts in front."""
    first, second = mesh.faces[0::2], mesh.faces[1::2]
    whole = (first[:, 0] == second[:, 0]) & (first[:, 2] == second[:, 1])
    front = np.stack([first[whole], second[whole]], 1).reshape(-1, 3)
    rest = np.stack([first[~whole], second[~whole]], 1).reshape(-1, 3)
    return replace(mesh, faces=np.concatenate([front, rest]), quads=int(whole.sum()))
