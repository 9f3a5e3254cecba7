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

from app.jobs.job import LimitReached
from app.jobs.process import NICENESS, environment
from app.jobs.store import Store
from app.uploads.child import OUT_OF_MEMORY_MARKERS
from sds3d.atomic_files import write_bytes

SUFFIXES = (".glb", ".obj")
MEGABYTE = 2**20
MAX_MEGABYTES = 30
"""Size of a file, at most."""
MAX_OPENING = 4
"""Uploads that may be opened at once, each in a process of its own."""
MAX_OPENING_PER_OWNER = 2
"""Of them, those of one visitor."""
_MTLLIB = re.compile(rb"mtllib", re.IGNORECASE)


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

    def describe(self) -> str:
        """For people, in one line."""
        texture = "with a texture" if self.textured else "without a texture"
        return f"{self.name}: {self.faces:,} faces, {texture}, {self.megabytes:.1f} MB"


class Uploads:
    """The uploaded files of a store."""

    def __init__(
        self,
        store: Store,
        max_megabytes: int = MAX_MEGABYTES,
        max_files: int = 50,
        timeout_s: int = 20,
        memory_mb: int = 3000,
    ) -> None:
        """
        Args:
            max_megabytes: size of a file, at most.
            max_files: files that are kept; beyond that the oldest go.
            seconds, memory_mb: what opening a file may take.
        """
        self._store = store
        self.max_megabytes, self.max_files, self.timeout_s, self.memory_mb = (
            max_megabytes,
            max_files,
            timeout_s,
            memory_mb,
        )
        self._lock = threading.Lock()
        self._opening: Counter[str] = Counter()

    def add(self, source: Path, name: str, in_use: Collection[str] = (), owner: str = "") -> Upload:
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
        display_name = Path(name.replace("\\", "/")).name[:80] or "the file"
        content = self._read_content(source, display_name)
        stem = re.sub(r"[^a-z0-9]+", "-", Path(display_name).stem.lower()).strip("-")[:30] or "model"
        id = f"{stem}-{secrets.token_hex(4)}{Path(display_name).suffix.lower()}"
        draft = self._store.uploads / f".{id}"
        with self._slot(owner):
            try:
                write_bytes(draft, content)
                facts = self._inspect(draft, display_name)
                with self._lock:
                    draft.rename(self._store.uploads / id)
                    self._evict({*in_use, id})
            finally:
                draft.unlink(missing_ok=True)
        return Upload(
            id=id,
            name=display_name,
            faces=facts["faces"],
            vertices=facts["vertices"],
            parts=facts["parts"],
            textured=facts["textured"],
            size=tuple(facts["size"]),
            megabytes=round(len(content) / MEGABYTE, 2),
            remarks=tuple(line.replace(draft.name, display_name) for line in facts["remarks"]),
        )

    @contextmanager
    def _slot(self, owner: str) -> Iterator[None]:
        """Holds one of the places for uploads that are being opened. Raises Full."""
        with self._lock:
            if self._opening[owner] >= MAX_OPENING_PER_OWNER:
                raise LimitReached(
                    f"{MAX_OPENING_PER_OWNER} of your uploads are being opened already; try again in a moment"
                )
            if self._opening.total() >= MAX_OPENING:
                raise LimitReached(f"{MAX_OPENING} uploads are being opened already; try again in a moment")
            self._opening[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._opening[owner] -= 1
                if not self._opening[owner]:
                    del self._opening[owner]

    def _read_content(self, source: Path, shown: str) -> bytes:
        """The bytes of a file, so that it names no other. Raises ValueError."""
        kind = Path(shown).suffix.lower()
        if kind not in SUFFIXES:
            raise ValueError(f"{shown}: expected a mesh, a file that ends in {' or '.join(SUFFIXES)}")
        with source.open("rb") as file:
            content = file.read(self.max_megabytes * MEGABYTE + 1)
        if not 0 < len(content) <= self.max_megabytes * MEGABYTE:
            what = "is empty" if not content else f"has more than {self.max_megabytes} MB, the most that is taken"
            raise ValueError(f"{shown} {what}")
        if kind == ".glb":
            if external := _external_uris(content, shown):
                raise ValueError(f"{shown} names other files ({external[0][:60]!r}); export it with all inside")
            return content
        # An OBJ comes alone: the file of materials that it names is not there, or is not its owner's.
        return _MTLLIB.sub(b"#tllib", content)

    def _inspect(self, draft: Path, shown: str) -> dict[str, Any]:
        """What the child process says. Raises ValueError."""
        limits = (str(self.timeout_s), str(self.memory_mb))
        command = ["nice", "-n", str(NICENESS), sys.executable, "-m", "app.uploads.child", str(draft), *limits]
        try:
            process = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=2 * self.timeout_s + 20,  # of which the interpreter takes some to begin
                check=False,
                env=environment(1) | {"OMP_NUM_THREADS": "1"},
            )
            result = json.loads(process.stdout)
        except subprocess.TimeoutExpired:
            raise ValueError(f"{shown} takes too long to open; simplify it first") from None
        except ValueError:
            if process.returncode < 0 or any(mark in process.stderr for mark in OUT_OF_MEMORY_MARKERS):
                raise ValueError(f"{shown} takes too long or too much memory to open; simplify it first") from None
            line = (process.stderr.strip().splitlines() or ["its reader ended without a word"])[-1]
            raise ValueError(f"{shown} cannot be opened: {line[:160]}") from None
        if "refused" in result:
            raise ValueError(str(result["refused"]).replace(draft.name, shown))
        found: dict[str, Any] = result
        return found

    def _evict(self, in_use: Collection[str]) -> None:
        """Deletes the oldest files beyond those that are kept."""
        with_age = [(path.stat().st_mtime_ns, path) for path in self._store.uploads.iterdir() if path.is_file()]
        over = len(with_age) - self.max_files
        for _, path in sorted(with_age):
            if over > 0 and path.name not in in_use:
                path.unlink(missing_ok=True)
                over -= 1


def _external_uris(content: bytes, shown: str) -> list[str]:
    """Files that a GLB names outside itself. Raises ValueError for what is no GLB."""
    with suppress(struct.error, ValueError, AttributeError, TypeError, RecursionError):
        magic, _, _, length, kind = struct.unpack("<4sIII4s", content[:20])
        if magic == b"glTF" and kind == b"JSON":
            tree = json.loads(content[20 : 20 + length])
            named = [row.get("uri", "") for key in ("buffers", "images") for row in tree.get(key, [])]
            return [str(uri) for uri in named if uri and not str(uri).startswith("data:")]
    raise ValueError(f"{shown} is no GLB: its head cannot be read")
