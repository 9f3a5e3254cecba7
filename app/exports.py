"""A run's asset for the programs that open it: made when somebody asks, checked, and kept in the run's folder."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from app.jobs.job import Full, Unknown
from app.jobs.progress import document
from app.jobs.store import Store
from sds3d.atomic_files import write_bytes
from sds3d.export.targets import KINDS, TARGETS

FOLDER = "exports"
LONGEST = 300.0
"""Seconds that one export may take."""
WAITING = 6
"""Exports that may be asked for at once; they are made one after another."""
READY = {"asset.glb": "GLB as made", "splats.ply": "splats, PLY", "picture.png": "picture"}
"""Files of a finished run that are there without an export."""
EXTRA = {"splat-glb": "splats in glTF", "spz": "splats, packed"}
"""Formats beside the targets, for scenes of splats."""
Standing = Literal["ready", "absent", "failed"]


@dataclass(frozen=True)
class Export:
    """One file that a user may take, or may have made."""

    name: str
    """Of a target, a format, or a file."""
    about: str
    state: Standing = "absent"
    file: str = ""
    """Its name inside the run's folder."""
    bytes: int = 0
    wrong: tuple[str, ...] = ()
    """What `sds3d check` finds wrong."""
    checked: bool = False
    reason: str = ""
    """Why it could not be made, in one line."""


class Exports:
    """What was exported of the runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(WAITING)

    def rows(self, id: str) -> list[Export]:
        """All that may be had of a run, made or not; nothing before it has an asset. Raises Unknown."""
        folder = self._store.folder(id)
        ready = [self._known(folder, name) for name in READY if (folder / name).is_file()]
        if not (folder / "asset.glb").is_file():
            return ready
        more = [*TARGETS, *(EXTRA if (folder / "splats.ply").is_file() else ())]
        return [*ready, *(self._known(folder, name) for name in more)]

    def make(self, id: str, name: str) -> Export:
        """Makes an export, or checks a file that is there; takes some seconds.

        Raises:
            Unknown: there is no such run or export.
            Full: too many are being made.
        """
        folder = self._store.folder(id)
        if name not in [row.name for row in self.rows(id)]:
            raise Unknown(f"run {id!r} has no export called {name[:80]!r}")
        if not self._room.acquire(blocking=False):
            raise Full(f"{WAITING} exports are being made already; try again in a moment")
        try:
            with self._turn:
                known = self._known(folder, name)
                if known.state == "ready" and known.checked:
                    return known
                made = self._checked(folder, known) if name in READY else self._made(folder, name)
                write_bytes(_note(folder, name), json.dumps(asdict(made)).encode())
                return made
        finally:
            self._room.release()

    def _known(self, folder: Path, name: str) -> Export:
        """An export as it stands; one that is older than the asset counts for nothing."""
        blank = Export(name, READY.get(name) or EXTRA.get(name) or TARGETS[name].about)
        note, asset = _note(folder, name), folder / "asset.glb"
        if name in READY:
            blank = replace(blank, state="ready", file=name, bytes=(folder / name).stat().st_size)
            asset = folder / name
        row = document(note)
        try:
            if not row or note.stat().st_mtime_ns < asset.stat().st_mtime_ns:
                return blank
            return Export(**{**row, "wrong": tuple(row["wrong"])})
        except (OSError, TypeError, KeyError):
            return blank

    def _made(self, folder: Path, name: str) -> Export:
        row = Export(name, EXTRA.get(name) or TARGETS[name].about)
        kind = name if name in EXTRA else TARGETS[name].kinds[0]
        place = folder / FOLDER / name
        file = place / f"{folder.name}.{KINDS[kind].ending}"
        asked = ["--format", name] if name in EXTRA else ["--target", name]
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        trouble = _said(["export", str(folder), *asked, "--to", str(file), "--quiet"])
        if trouble or not file.is_file():
            return replace(row, state="failed", reason=trouble or "nothing was written")
        checked = self._checked(folder, replace(row, state="ready", file=str(file.relative_to(folder))))
        parts = sorted(place.iterdir())
        if len(parts) > 1:
            file = place / f"{folder.name}-{name}.zip"
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for part in parts:
                    archive.write(part, part.name)
        return replace(checked, file=str(file.relative_to(folder)), bytes=file.stat().st_size)

    def _checked(self, folder: Path, row: Export) -> Export:
        """The same with what `sds3d check` says; files that it does not read are left unchecked."""
        file = folder / row.file
        report = _report(["check", str(file), "--json"])
        size = file.stat().st_size
        if report is None:
            return replace(row, bytes=size)
        return replace(row, bytes=size, checked=True, wrong=tuple(map(str, report.get("wrong", ()))))


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command of `sds3d` in a process of its own, behind the page on a busy machine. Raises ValueError."""
    command = ["nice", "-n", "5", sys.executable, "-m", "sds3d", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"it took more than {LONGEST:.0f} s") from None


def _said(words: Sequence[str]) -> str:
    """What went wrong with a command, in one line; empty where nothing did."""
    try:
        done = _run(words)
    except ValueError as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines or ["it ended without a word"])[-1].removeprefix("sds3d: ")[:400]


def _report(words: Sequence[str]) -> dict[str, Any] | None:
    """The JSON object that a command says; None where it says none."""
    try:
        found = json.loads(_run(words).stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _note(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.json"
