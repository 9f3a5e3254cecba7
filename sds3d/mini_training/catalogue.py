"""The objects the embedded prior learns from: which model, under which names, by whom, under which licence.

The models are those of Debian's package `sweethome3d-furniture` (five zip files of OBJ models with a catalogue).
`objects.csv` beside this file chooses among them and gives each a generic English name.
"""

from __future__ import annotations

import csv
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

LICENCES = {
    "BlendSwap-CC-0": "CC0 1.0",
    "BlendSwap-CC-BY": "CC BY 3.0",
    "KatorLegaz": "CC BY 3.0",
    "Reallusion": "CC BY 3.0",
    "Scopia": "CC BY 3.0",
}
"""Licence of each library of models, by the name of its file."""


@dataclass(frozen=True)
class Object:
    """One thing to learn."""

    name: str
    synonyms: tuple[str, ...]
    model: str
    """Folder of the model in the package, with its library in front where the folder's name is not unique."""
    tintable: bool
    """Whether it still is what it is in another colour."""
    wave: int
    """1 for the first objects trained, higher for those added later."""


@dataclass(frozen=True)
class Model:
    """Where the shape of an object comes from."""

    archive: Path
    path: str
    """Path of the OBJ file inside the archive."""
    title: str
    creator: str
    licence: str
    rotation: np.ndarray
    """3x3 matrix that turns the file's coordinates into +Y up, front +Z."""


@cache
def objects() -> tuple[Object, ...]:
    """Every object chosen, in the order of `objects.csv`."""
    with (Path(__file__).parent / "objects.csv").open(newline="", encoding="utf-8") as file:
        return tuple(
            Object(
                name=row["name"],
                synonyms=tuple(filter(None, row["synonyms"].split(";"))),
                model=row["model"],
                tintable=row["tint"] == "1",
                wave=int(row["wave"]),
            )
            for row in csv.DictReader(file)
        )


def models(furniture: Path) -> dict[str, Model]:
    """Model of each object's name, from the folder that holds the package's `*.sh3f` files.

    Raises:
        FileNotFoundError: the folder holds no such file, or lacks a model that `objects.csv` names.
    """
    archives = sorted(furniture.rglob("*.sh3f"))
    if not archives:
        raise FileNotFoundError(
            f"no *.sh3f file under {furniture}; unpack Debian's package sweethome3d-furniture there: "
            "apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb FOLDER"
        )
    by_folder: dict[str, Model] = {}
    for archive in archives:
        for path, fields in _entries(archive):
            model = Model(
                archive=archive,
                path=path,
                title=fields.get("name", path),
                creator=fields.get("creator", "unknown"),
                licence=LICENCES.get(archive.stem, "see the archive"),
                rotation=_rotation(fields.get("modelRotation")),
            )
            folder = Path(path).parent
            by_folder.setdefault(folder.name, model)
            by_folder[str(folder)] = model
    missing = [thing.name for thing in objects() if thing.model not in by_folder]
    if missing:
        raise FileNotFoundError(f"the models of {', '.join(missing)} are not in {furniture}; version 1.8 has them")
    return {thing.name: by_folder[thing.model] for thing in objects()}


def _entries(archive: Path) -> list[tuple[str, dict[str, str]]]:
    """(path of the model, fields) of each entry of an archive's catalogue."""
    with zipfile.ZipFile(archive) as file:
        text = file.read("PluginFurnitureCatalog.properties").decode("latin1").replace("\r", "")
    fields: dict[str, dict[str, str]] = {}
    for key, number, value in re.findall(r"(?m)^(\w+)#(\d+)\s*=\s*(.*)$", re.sub(r"\\\n\s*", "", text)):
        fields.setdefault(number, {})[key] = value.encode("latin1").decode("unicode_escape").strip()
    return [(entry["model"].lstrip("/"), entry) for entry in fields.values() if "model" in entry]


def _rotation(text: str | None) -> np.ndarray:
    """The catalogue's nine numbers, row by row, or no rotation."""
    return np.eye(3) if text is None else np.array([float(number) for number in text.split()]).reshape(3, 3)
