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

from app.jobs.job import LimitReached, NotFound
from app.jobs.progress import read_json
from app.jobs.store import Store
from sds3d.atomic_files import write_bytes
from sds3d.export.targets import FORMATS, TARGETS

FOLDER = "exports"
TIMEOUT_S = 300.0
"""Seconds that one export may take."""
MAX_PENDING = 6
"""Exports that may be asked for at once; they are made one after another."""
READY_FILES = {"asset.glb": "GLB as made", "splats.ply": "splats, PLY", "picture.png": "picture"}
"""Files of a finished run that are there without an export."""
EXTRA_FORMATS = {"splat-glb": "splats in glTF", "spz": "splats, packed"}
"""Formats beside the targets, for scenes of splats."""
ExportState = Literal["ready", "absent", "failed"]


@dataclass(frozen=True)
class Export:
    """One file that a user may take, or may have made."""

    name: str
    """Of a target, a format, or a file."""
    description: str
    state: ExportState = "absent"
    file: str = ""
    """Its name inside the run's folder."""
    bytes: int = 0
    problems: tuple[str, ...] = ()
    """What `sds3d check` finds wrong."""
    checked: bool = False
    reason: str = ""
    """Why it could not be made, in one line."""


class Exports:
    """What was exported of the runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_PENDING)

    def rows(self, id: str) -> list[Export]:
        """All that may be had of a run, made or not; nothing before it has an asset. Raises Unknown."""
        folder = self._store.folder(id)
        ready = [self._load(folder, name) for name in READY_FILES if (folder / name).is_file()]
        if not (folder / "asset.glb").is_file():
            return ready
        more = [*TARGETS, *(EXTRA_FORMATS if (folder / "splats.ply").is_file() else ())]
        return [*ready, *(self._load(folder, name) for name in more)]

    def make(self, id: str, name: str) -> Export:
        """Makes an export, or checks a file that is there; takes some seconds.

        Raises:
            Unknown: there is no such run or export.
            Full: too many are being made.
        """
        folder = self._store.folder(id)
        if name not in [row.name for row in self.rows(id)]:
            raise NotFound(f"run {id!r} has no export called {name[:80]!r}")
        if not self._slots.acquire(blocking=False):
            raise LimitReached(f"{MAX_PENDING} exports are being made already; try again in a moment")
        try:
            with self._lock:
                current = self._load(folder, name)
                if current.state == "ready" and current.checked:
                    return current
                result = self._check(folder, current) if name in READY_FILES else self._make(folder, name)
                write_bytes(_record_file(folder, name), json.dumps(asdict(result)).encode())
                return result
        finally:
            self._slots.release()

    def _load(self, folder: Path, name: str) -> Export:
        """An export as it stands; one that is older than the asset counts for nothing."""
        blank = Export(name, READY_FILES.get(name) or EXTRA_FORMATS.get(name) or TARGETS[name].about)
        note, asset = _record_file(folder, name), folder / "asset.glb"
        if name in READY_FILES:
            blank = replace(blank, state="ready", file=name, bytes=(folder / name).stat().st_size)
            asset = folder / name
        row = read_json(note)
        try:
            if not row or note.stat().st_mtime_ns < asset.stat().st_mtime_ns:
                return blank
            return Export(**{**row, "problems": tuple(row["problems"])})
        except (OSError, TypeError, KeyError):
            return blank

    def _make(self, folder: Path, name: str) -> Export:
        row = Export(name, EXTRA_FORMATS.get(name) or TARGETS[name].about)
        kind = name if name in EXTRA_FORMATS else TARGETS[name].kinds[0]
        folder_of_export = folder / FOLDER / name
        file = folder_of_export / f"{folder.name}.{FORMATS[kind].ending}"
        target_flags = ["--format", name] if name in EXTRA_FORMATS else ["--target", name]
        folder_of_export.mkdir(parents=True, exist_ok=True)
        for old in folder_of_export.iterdir():
            old.unlink()
        error = _error_of(["export", str(folder), *target_flags, "--to", str(file), "--quiet"])
        if error or not file.is_file():
            return replace(row, state="failed", reason=error or "nothing was written")
        checked = self._check(folder, replace(row, state="ready", file=str(file.relative_to(folder))))
        parts = sorted(folder_of_export.iterdir())
        if len(parts) > 1:
            file = folder_of_export / f"{folder.name}-{name}.zip"
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for part in parts:
                    archive.write(part, part.name)
        return replace(checked, file=str(file.relative_to(folder)), bytes=file.stat().st_size)

    def _check(self, folder: Path, row: Export) -> Export:
        """The same with what `sds3d check` says; files that it does not read are left unchecked."""
        file = folder / row.file
        report = _json_of(["check", str(file), "--json"])
        size = file.stat().st_size
        if report is None:
            return replace(row, bytes=size)
        return replace(row, bytes=size, checked=True, problems=tuple(map(str, report.get("problems", ()))))


def _run(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command of `sds3d` in a process of its own, behind the page on a busy machine. Raises ValueError."""
    command = ["nice", "-n", "5", sys.executable, "-m", "sds3d", *args]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"it took more than {TIMEOUT_S:.0f} s") from None


def _error_of(args: Sequence[str]) -> str:
    """What went wrong with a command, in one line; empty where nothing did."""
    try:
        result = _run(args)
    except ValueError as error:
        return str(error)
    lines = result.stderr.strip().splitlines()
    return "" if result.returncode == 0 else (lines or ["it ended without a word"])[-1].removeprefix("sds3d: ")[:400]


def _json_of(args: Sequence[str]) -> dict[str, Any] | None:
    """The JSON object that a command says; None where it says none."""
    try:
        found = json.loads(_run(args).stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _record_file(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.json"
