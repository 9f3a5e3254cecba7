"""Meshes that visitors bring: capped, cleaned of all that names other files, and opened in a process of its own before
anything else touches them.

A visitor names an upload by its id, which is the name of its file in the store's folder for uploads.
"""

from __future__ import annotations

import json
import re
import secrets
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.jobs.job import Full
from app.jobs.process import POLITE, environment
from app.jobs.store import Store
from app.uploads.child import SHORT
from sds3d.atomic_files import write_bytes

KINDS = (".glb", ".obj")
MEGABYTE = 2**20
MEGABYTES = 30
"""Size of a file, at most."""
WAITING = 4
"""Uploads that may be opened at once, each in a process of its own."""
OF_ONE_OWNER = 2
"""Of them, those of one visitor."""
_NAMES_FILES = re.compile(rb"mtllib", re.IGNORECASE)


@dataclass(frozen=True)
class Upload:
    """A mesh that was found sound."""

    id: str
    name: str
    """What its owner called it."""
    faces: int
    vertices: int
    parts: int
    textured: bool
    size: tuple[float, ...]
    """Of the box around it, along x, y and z, in the file's own unit."""
    megabytes: float
    remarks: tuple[str, ...]
    """What will be mended or changed."""

    def told(self) -> str:
        """For people, in one line."""
        texture = "with a texture" if self.textured else "without a texture"
        return f"{self.name}: {self.faces:,} faces, {texture}, {self.megabytes:.1f} MB"


class Uploads:
    """The uploaded files of a store."""

    def __init__(
        self, store: Store, megabytes: int = MEGABYTES, kept: int = 50, seconds: int = 20, memory_mb: int = 3000
    ) -> None:
        """
        Args:
            megabytes: size of a file, at most.
            kept: files that are kept; beyond that the oldest go.
            seconds, memory_mb: what opening a file may take.
        """
        self._store = store
        self.megabytes, self.kept, self.seconds, self.memory_mb = megabytes, kept, seconds, memory_mb
        self._lock = threading.Lock()
        self._opening: Counter[str] = Counter()

    def take(self, source: Path, name: str, in_use: Collection[str] = (), owner: str = "") -> Upload:
        """Looks into a file and keeps a copy of it.

        Args:
            source: where the server put what was uploaded.
            name: what its owner calls it.
            in_use: ids that must not go though they are old.
            owner: the visitor.

        Raises:
            Full: too many uploads, of this visitor or of all, are being opened.
            ValueError: in one line, what is wrong with it.
        """
        shown = Path(name.replace("\\", "/")).name[:80] or "the file"
        content = self._content(source, shown)
        stem = re.sub(r"[^a-z0-9]+", "-", Path(shown).stem.lower()).strip("-")[:30] or "model"
        id = f"{stem}-{secrets.token_hex(4)}{Path(shown).suffix.lower()}"
        draft = self._store.uploads / f".{id}"
        with self._place(owner):
            try:
                write_bytes(draft, content)
                told = self._opened(draft, shown)
                with self._lock:
                    draft.rename(self._store.uploads / id)
                    self._drop({*in_use, id})
            finally:
                draft.unlink(missing_ok=True)
        return Upload(
            id=id,
            name=shown,
            faces=told["faces"],
            vertices=told["vertices"],
            parts=told["parts"],
            textured=told["textured"],
            size=tuple(told["size"]),
            megabytes=round(len(content) / MEGABYTE, 2),
            remarks=tuple(line.replace(draft.name, shown) for line in told["remarks"]),
        )

    @contextmanager
    def _place(self, owner: str) -> Iterator[None]:
        """Holds one of the places for uploads that are being opened. Raises Full."""
        with self._lock:
            if self._opening[owner] >= OF_ONE_OWNER:
                raise Full(f"{OF_ONE_OWNER} of your uploads are being opened already; try again in a moment")
            if self._opening.total() >= WAITING:
                raise Full(f"{WAITING} uploads are being opened already; try again in a moment")
            self._opening[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._opening[owner] -= 1
                if not self._opening[owner]:
                    del self._opening[owner]

    def _content(self, source: Path, shown: str) -> bytes:
        """The bytes of a file, so that it names no other. Raises ValueError."""
        kind = Path(shown).suffix.lower()
        if kind not in KINDS:
            raise ValueError(f"{shown}: expected a mesh, a file that ends in {' or '.join(KINDS)}")
        with source.open("rb") as file:
            content = file.read(self.megabytes * MEGABYTE + 1)
        if not 0 < len(content) <= self.megabytes * MEGABYTE:
            what = "is empty" if not content else f"has more than {self.megabytes} MB, the most that is taken"
            raise ValueError(f"{shown} {what}")
        if kind == ".glb":
            if others := _others(content, shown):
                raise ValueError(f"{shown} names other files ({others[0][:60]!r}); export it with all inside")
            return content
        # An OBJ comes alone: the file of materials that it names is not there, or is not its owner's.
        return _NAMES_FILES.sub(b"#tllib", content)

    def _opened(self, draft: Path, shown: str) -> dict[str, Any]:
        """What the child process says. Raises ValueError."""
        limits = (str(self.seconds), str(self.memory_mb))
        command = ["nice", "-n", str(POLITE), sys.executable, "-m", "app.uploads.child", str(draft), *limits]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=2 * self.seconds + 20,  # of which the interpreter takes some to begin
                check=False,
                env=environment(1) | {"OMP_NUM_THREADS": "1"},
            )
            told = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise ValueError(f"{shown} takes too long to open; simplify it first") from None
        except ValueError:
            if done.returncode < 0 or any(mark in done.stderr for mark in SHORT):
                raise ValueError(f"{shown} takes too long or too much memory to open; simplify it first") from None
            line = (done.stderr.strip().splitlines() or ["its reader ended without a word"])[-1]
            raise ValueError(f"{shown} cannot be opened: {line[:160]}") from None
        if "refused" in told:
            raise ValueError(str(told["refused"]).replace(draft.name, shown))
        found: dict[str, Any] = told
        return found

    def _drop(self, in_use: Collection[str]) -> None:
        """Deletes the oldest files beyond those that are kept."""
        with_age = [(path.stat().st_mtime_ns, path) for path in self._store.uploads.iterdir() if path.is_file()]
        over = len(with_age) - self.kept
        for _, path in sorted(with_age):
            if over > 0 and path.name not in in_use:
                path.unlink(missing_ok=True)
                over -= 1


def _others(content: bytes, shown: str) -> list[str]:
    """Files that a GLB names outside itself. Raises ValueError for what is no GLB."""
    with suppress(struct.error, ValueError, AttributeError, TypeError, RecursionError):
        magic, _, _, length, kind = struct.unpack("<4sIII4s", content[:20])
        if magic == b"glTF" and kind == b"JSON":
            tree = json.loads(content[20 : 20 + length])
            named = [row.get("uri", "") for key in ("buffers", "images") for row in tree.get(key, [])]
            return [str(uri) for uri in named if uri and not str(uri).startswith("data:")]
    raise ValueError(f"{shown} is no GLB: its head cannot be read")
