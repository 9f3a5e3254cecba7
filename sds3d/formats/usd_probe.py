"""Opens a USD file in a process of its own: damaged ones make the library hang or crash, and it writes to stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sds3d.formats.file_access import shortened

SECONDS = 12.0
"""Time for opening a file and going through it."""


def probe(path: Path) -> None:
    """Raises ValueError where a file cannot be opened in time, or is put together from files outside its folder."""
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", _CODE, root, str(path.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path.name} cannot be read as USD: it takes more than {SECONDS:.0f} s to open") from None
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    if done.returncode != 0 or not said:
        raise ValueError(f"{path.name} cannot be read as USD: it is damaged")
    if said[-1] != "fine":
        raise ValueError(said[-1])


_CODE = """
import sys
sys.path[0] = sys.argv[1]  # and never the current folder
from pathlib import Path
from sds3d.formats.usd_probe import look
look(Path(sys.argv[2]))
"""


def look(path: Path) -> None:
    """Goes through all of a file; says "fine" or what is wrong."""
    from pxr import Tf, Usd

    try:
        _inside(path)
        stage = Usd.Stage.Open(str(path))
        for prim in stage.Traverse():
            for attribute in prim.GetAttributes():
                attribute.Get()
        said = "fine"
    except ValueError as error:
        said = str(error)
    except Tf.ErrorException:
        said = f"{path.name} cannot be read as USD: it is damaged"
    sys.stdout.write(said + "\n")


def _inside(path: Path) -> None:
    """Raises ValueError where a stage is put together from files outside its own folder."""
    from pxr import Sdf, Tf

    home, waiting, seen = path.resolve().parent, [str(path)], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            layer = Sdf.Layer.FindOrOpen(name)
        except Tf.ErrorException:
            layer = None
        if layer is None:
            continue
        for named in layer.GetCompositionAssetDependencies():
            place = layer.ComputeAbsolutePath(named)
            if reason := unopened(place, home):
                raise ValueError(f"{path.name}: {shortened(named)}, which it names, {reason}")
            waiting.append(place)


def unopened(place: str, home: Path) -> str | None:
    """Why a place that a stage in a folder names must not be opened; None where it may."""
    if not beside(place, home):
        return "is outside its own folder and is not read"
    path = Path(place.partition("[")[0])
    return "is not a file" if path.exists() and not path.is_file() else None


def beside(place: str, home: Path) -> bool:
    """Whether a place, which may lie in a package, is in a folder or below it."""
    try:
        return "://" not in place and Path(place.partition("[")[0]).resolve().is_relative_to(home)
    except (OSError, ValueError, RuntimeError):
        return False
