"""The XML of 3MF files, walked through once without a tree of it; what it may hold is counted on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.parsers import expat

import numpy as np
from numpy import ndarray

from sds3d.formats.file_access import shortened


@dataclass
class Shape:
    points: list[float] = field(default_factory=list)
    corners: list[int] = field(default_factory=list)
    paint: list[tuple[str, int, int, int]] = field(default_factory=list)
    """Of each triangle: group and its entries at the corners; -1 none."""
    inside: list[tuple[tuple[str, str], ndarray]] = field(default_factory=list)
    """Objects within it, and their places."""


@dataclass
class Model:
    """One or more parts of XML."""

    most: int
    name: str
    unit: str = "millimeter"
    metadata: dict[str, str] = field(default_factory=dict)
    objects: dict[tuple[str, str], Shape] = field(default_factory=dict)
    """By part and id."""
    colors: dict[tuple[str, str], list[tuple[float, float, float]]] = field(default_factory=dict)
    places: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    texture_of: dict[tuple[str, str], str] = field(default_factory=dict)
    """The id of the picture of a group of texture coordinates."""
    textures: dict[tuple[str, str], str] = field(default_factory=dict)
    first_of: dict[tuple[str, str], list[tuple[str, int]]] = field(default_factory=dict)
    """Of groups that mix others: the group and entry that stands for each."""
    build: list[tuple[tuple[str, str], ndarray]] = field(default_factory=list)
    triangles: int = 0


class Walk:
    """Takes one part of XML, element by element."""

    def __init__(self, model: Model, part: str, is_root: bool) -> None:
        self._model, self._part, self._root = model, part, is_root
        self._object: Shape | None = None
        self._own: tuple[str, int] = ("", -1)
        self._group = ("", "")
        self._text: list[str] | None = None
        self._name = ""
        self.parts: set[str] = set()
        """Parts of the package whose objects this one names."""

    def parse(self, content: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._said
        parser.EntityDeclHandler = _no_entities
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise ValueError(f"its XML is broken in line {error.lineno}: {expat.errors.messages[error.code]}") from None

    def _said(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, tag: str) -> None:
        if self._text is not None:
            self._model.metadata.setdefault(self._name, "".join(self._text))
            self._text = None

    def _start(self, tag: str, given: dict[str, str]) -> None:
        kind, model, key = tag.rpartition(" ")[2], self._model, (self._part, given.get("id", ""))
        if kind == "vertex" and self._object is not None:
            self._object.points += [_number(given, name) for name in "xyz"]
        elif kind == "triangle" and self._object is not None:
            self._triangle(self._object, given)
        elif kind == "object":
            self._object = model.objects.setdefault(key, Shape())
            self._own = given.get("pid", ""), _whole(given, "pindex", -1)
        elif kind == "component" and self._object is not None:
            self._object.inside.append((self._named(given), placed(given.get("transform"))))
        elif kind == "item" and self._root:
            model.build.append((self._named(given), placed(given.get("transform"))))
        elif kind in ("basematerials", "colorgroup"):
            self._group = key
            model.colors.setdefault(key, [])
        elif kind in ("base", "color"):
            said = given.get("displaycolor") or given.get("color") or ""
            model.colors.setdefault(self._group, []).append(_color(said))
        elif kind == "texture2d":
            model.textures[key] = given.get("path", "")
        elif kind == "texture2dgroup":
            self._group = key
            model.texture_of[key], model.places[key] = given.get("texid", ""), []
        elif kind == "tex2coord":
            model.places.setdefault(self._group, []).append((_number(given, "u"), _number(given, "v")))
        elif kind in ("multiproperties", "compositematerials"):
            self._group = key
            self._ids = (given.get("pids") or given.get("matid") or "").split()
            self._named_entries = [_whole({"i": w}, "i", 0) for w in given.get("matindices", "").split()]
            model.first_of[key] = []
        elif kind in ("multi", "composite") and self._group in model.first_of:
            self._mixed(kind, given)
        elif kind == "metadata" and self._root:
            self._name, self._text = given.get("name", ""), []
        elif kind == "model" and self._root:
            model.unit = given.get("unit", "millimeter")

    def _mixed(self, kind: str, given: dict[str, str]) -> None:
        """The largest part of a mixture, or the last layer over a surface that has colours or a picture."""
        if kind == "composite":
            shares = [float(word) if re.fullmatch(r"[\d.]+", word) and word.count(".") < 2 and word != "." else 0.0
                      for word in given.get("values", "").split()]  # fmt: skip
            at = int(np.argmax(shares)) if shares else 0
            entry = self._named_entries[at] if at < len(self._named_entries) else at
            self._model.first_of[self._group].append((self._ids[0] if self._ids else "", entry))
            return
        entries = [_whole({"i": word}, "i", 0) for word in given.get("pindices", "").split()]
        entries += [0] * (len(self._ids) - len(entries))
        both = [(group, entry) for group, entry in zip(self._ids, entries, strict=False)
                if (self._part, group) in self._model.places or (self._part, group) in self._model.colors]  # fmt: skip
        pictures = [one for one in both if (self._part, one[0]) in self._model.places]
        self._model.first_of[self._group].append((pictures or both or [("", -1)])[-1])

    def _named(self, given: dict[str, str]) -> tuple[str, str]:
        """The object that an element names, in this part or another."""
        other = next((value for name, value in given.items() if name.rpartition(" ")[2] == "path"), None)
        part = self._part if other is None else unquote(other).lstrip("/")
        self.parts.add(part)
        return part, given.get("objectid", "")

    def _triangle(self, one: Shape, given: dict[str, str]) -> None:
        model = self._model
        model.triangles += 1
        if model.triangles > model.most:
            raise ValueError(
                f"{model.name} has more than {model.most:,} faces, the most that are read: simplify it first"
            )
        one.corners += [_whole(given, name, -1) for name in ("v1", "v2", "v3")]
        group = given.get("pid") or self._own[0]
        first = _whole(given, "p1", -1) if "p1" in given else (self._own[1] if "pid" not in given else -1)
        one.paint.append((group, first, _whole(given, "p2", first), _whole(given, "p3", first)))


def _no_entities(*_: object) -> None:
    raise ValueError("its XML declares entities, which 3MF does not allow")


def _number(given: dict[str, str], name: str) -> float:
    try:
        return float(given[name])
    except (KeyError, ValueError):
        said = given.get(name)
        raise ValueError(f"an element has {name} = {shortened(said)}" if said is not None else
                         f"an element lacks {name}; expected a number") from None  # fmt: skip


def _whole(given: dict[str, str], name: str, default: int) -> int:
    word = given.get(name)
    if word is None:
        return default
    if word.isdecimal() and len(word) < 13:
        return int(word)
    if not re.fullmatch(r"\s*\d{1,12}\s*", word):
        raise ValueError(f"an element has {name} = {shortened(word)}; expected a whole number")
    return int(word)


def _color(word: str) -> tuple[float, float, float]:
    """Of #RRGGBB or #RRGGBBAA; white where it is none."""
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?", word):
        return 1.0, 1.0, 1.0
    red, green, blue = (value / 255 for value in bytes.fromhex(word[1:7]))
    return red, green, blue


def placed(word: str | None) -> ndarray:
    """[4 3] Rows times it are positions in their place."""
    if not word:
        return np.eye(4)[:, :3]
    values = [_number({"transform": one}, "transform") for one in word.split()]
    if len(values) != 12:
        raise ValueError(f"a transform has {len(values)} numbers; expected 12")
    return np.array(values).reshape(4, 3)
