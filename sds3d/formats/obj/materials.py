"""Reads MTL files, the materials of OBJ files, and finds the files that either names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sds3d.formats.file_access import inside, shortened

MAX_BYTES = 64 * 2**20
"""Bytes of an MTL file."""
_OPTIONS = {"-mm": 2, "-o": 3, "-s": 3, "-t": 3}
"""Options before a file name, and how many numbers they take at most; all others take one word."""
_MAPS = {
    "map_kd": "color",
    "map_pr": "roughness",
    "map_pm": "metallic",
    "norm": "normal",
    "map_kn": "normal",
    "map_ke": "emission",
}


@dataclass(frozen=True)
class TextureMap:
    """A texture of a material."""

    name: str
    """As the file has it, without options and quotes."""
    offset: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    clamp: bool = False


@dataclass
class Material:
    """One `newmtl`."""

    color: tuple[float, float, float] | None = None
    """Kd, sRGB as exporters write it."""
    roughness: float | None = None
    metallic: float | None = None
    maps: dict[str, TextureMap] = field(default_factory=dict)
    """By kind: color, roughness, metallic, normal, emission."""


def text_of(content: bytes, name: str) -> str:
    """The text of an OBJ or MTL file: UTF-8, with or without a byte order mark, or Latin-1.

    Raises:
        ValueError: it is UTF-16, or no text.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[:64].count(0) > 8:
        raise ValueError(f"{name} is UTF-16 or no text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_mtl(text: str) -> dict[str, Material]:
    """Materials by name; statements that are not known or damaged are passed over."""
    found: dict[str, Material] = {}
    one = Material()
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        words = line.split(None, 1)
        if len(words) < 2 or words[0].startswith("#"):
            continue
        key, rest = words[0].lower(), words[1].strip()
        if key == "newmtl":
            one = found.setdefault(rest, Material())
        elif key == "kd" and (values := _numbers(rest, 3)):
            one.color = (values[0], values[1], values[2])
        elif key == "pr" and (values := _numbers(rest, 1)):
            one.roughness = values[0]
        elif key == "pm" and (values := _numbers(rest, 1)):
            one.metallic = values[0]
        elif key in _MAPS and (texture := _texture(rest)):
            one.maps[_MAPS[key]] = texture
    return found


def locate(name: str, folder: Path) -> Path | None:
    """The file that an OBJ or MTL file of `folder` means, None where there is none.

    Names may be quoted, have the separators of Windows, be absolute paths of another machine, of which the file of that
    name beside the OBJ file is taken, or be spelled in other letters' case where only one file fits. Nothing outside
    the folder is found.
    """
    plain = unquoted(name).replace("\\", "/")
    absolute = bool(re.match(r"[A-Za-z]:/|/", plain))
    for way in ([] if absolute else [plain]) + [plain.rsplit("/", 1)[-1]]:
        try:
            path = inside(way, folder)
        except ValueError:
            continue
        if path.is_file():
            return path
        if (other := _in_other_case(way, folder)) is not None:
            return other
    return None


def libraries(rest: str, folder: Path) -> list[str]:
    """The names of one `mtllib` line: one with spaces in it where such a file is there, else several."""
    if locate(rest, folder) is not None:
        return [rest]
    return [unquoted(word) for word in re.findall(r'"[^"]*"|\S+', rest)]


def unquoted(name: str) -> str:
    """A name without the quotes around it."""
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name


def lacking(name: str) -> str:
    """A remark about a file that is named and not there."""
    return f"{shortened(unquoted(name))}, which it names, is not there; what it holds is left grey"


def _in_other_case(name: str, folder: Path) -> Path | None:
    place = folder
    for part in name.split("/"):
        fitting = [path for path in place.iterdir() if path.name.lower() == part.lower()] if place.is_dir() else []
        if len(fitting) != 1:
            return None
        place = fitting[0]
    return place if place.is_file() and place.resolve().is_relative_to(folder.resolve()) else None


def _numbers(text: str, count: int) -> list[float]:
    """The first numbers of a statement; empty where there are fewer."""
    try:
        values = [float(word) for word in text.split()[:count]]
    except ValueError:
        return []
    return values if len(values) == count else []


def _texture(rest: str) -> TextureMap | None:
    """Options and a file name, which may have spaces in it."""
    offset, scale, clamp = (0.0, 0.0), (1.0, 1.0), False
    while match := re.match(r"(-[A-Za-z]+)\s+", rest):
        option = match[1].lower()
        rest = rest[match.end() :]
        values: list[float] = []
        word = ""
        for _ in range(_OPTIONS.get(option, 1)):
            following = re.match(r"(\S+)\s+", rest)
            if following is None or (option in _OPTIONS and not _numbers(following[1], 1)):
                break
            word, rest = following[1], rest[following.end() :]
            values += _numbers(word, 1)
        if option in ("-o", "-s") and values:
            pair = (values[0], values[1] if len(values) > 1 else (0.0 if option == "-o" else 1.0))
            offset, scale = (pair, scale) if option == "-o" else (offset, pair)
        clamp = word.lower() == "on" if option == "-clamp" else clamp
    name = unquoted(rest)
    return TextureMap(name, offset, scale, clamp) if name else None
