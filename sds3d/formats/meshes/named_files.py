"""Files that OBJ, MTL and PLY files name, as people's programs wrote the name, found in the file's own folder.

Names hold separators of Windows, drive letters, quotes, another letter case than the disk, percent signs, and paths of
the machine where they were made. Nothing outside the folder is read.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

MAX_ENTRIES = 20_000
"""Files of one folder that are compared with a name."""
_DRIVE = re.compile(r"^[A-Za-z]:|^[A-Za-z][A-Za-z0-9+.-]+:/")


class NamedFiles:
    """The files of a folder and those below it, by their names in other files; each folder is listed once."""

    def __init__(self, folder: Path) -> None:
        self._home = folder.resolve()
        self._known: dict[str, Path | None] = {}
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path | None:
        """The file of this name; None where there is none, or several fit.

        The path as it is written is tried first, then its ends, so that of an absolute path the file beside is found.
        """
        if name not in self._known:
            ends = (parts[start:] for parts in _ways(name) for start in range(len(parts)))
            self._known[name] = next((path for end in ends if (path := self._walked(end)) is not None), None)
        return self._known[name]

    def elsewhere(self, name: str, path: Path) -> bool:
        """Whether a file was found at another place than its name says, separators and quotes apart."""
        plain = _unquoted(name)
        return all((self._home / way).resolve() != path for way in (unquote(plain).replace("\\", "/"), plain))

    def relative(self, path: Path) -> str:
        """The path of a file that was found, from the folder."""
        return str(path.relative_to(self._home))

    def _walked(self, parts: list[str]) -> Path | None:
        """The file at the end of a path below the folder, in another letter case where only one fits."""
        place = self._home
        try:
            for part in parts:
                if not os.path.lexists(place / part):
                    near = self._folded_names(place).get(_folded(part), [])
                    if len(near) != 1:
                        return None
                    part = near[0]
                place = place / part
            path = place.resolve()
            return path if path.is_relative_to(self._home) and path.is_file() else None
        except (OSError, ValueError, RuntimeError):
            return None

    def _folded_names(self, place: Path) -> dict[str, list[str]]:
        if place not in self._listed:
            names = self._listed[place] = {}
            # What a link leads to outside is not listed.
            if place.resolve().is_relative_to(self._home):
                with os.scandir(place) as entries:
                    for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False):
                        names.setdefault(_folded(entry.name), []).append(entry.name)
        return self._listed[place]


def _unquoted(name: str) -> str:
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1].strip()
    return name


def _ways(name: str) -> Iterator[list[str]]:
    """The parts of a path, of every way in which the name can be meant."""
    plain = _unquoted(name)
    for way in dict.fromkeys((plain, unquote(plain))):
        if "\0" in way or len(way) > 4096:
            continue
        for separated in dict.fromkeys((way.replace("\\", "/"), way)):
            parts = [part for part in _DRIVE.sub("", separated).split("/") if part not in ("", ".")]
            if ".." in parts:
                parts = parts[len(parts) - parts[::-1].index("..") :]
            if parts:
                yield parts[-16:]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
