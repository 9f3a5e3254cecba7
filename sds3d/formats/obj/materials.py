"""Materials of OBJ files: the grammar of MTL with its options, as programs write it.

A picture is its material's colour; `Kd` tints it only where it is no grey, for most programs write some grey there that
they do not mean. `Pr`, `Pm`, `norm` and `map_Ke` are the additions that newer programs share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.file_access import shortened
from sds3d.formats.library_errors import refuse_unlike_a_file
from sds3d.formats.meshes.images import MAX_BYTES as MAX_PICTURE
from sds3d.formats.meshes.images import Pictures
from sds3d.formats.meshes.named_files import NamedFiles
from sds3d.formats.meshes.surfaces import Layer, Skin
from sds3d.formats.meshes.text_numbers import as_text, joined, number, plain_bytes

MAX_BYTES = 32 * 2**20
"""Bytes of all libraries of one file."""
MAX_NAME = 8192
"""Letters of the options and the name of a map."""
_FIXED = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-texres": 1, "-type": 1,
          "-bm": 1, "-mm": 2, "-colorspace": 1}  # fmt: skip
"""Options of maps and how many words follow each."""
_UP_TO_THREE = ("-o", "-s", "-t")
_LAYERS = {
    "map_kd": "color", "map_ka": "ambient", "map_ke": "glow", "map_emissive": "glow", "map_d": "alpha",
    "map_pr": "roughness", "map_pm": "metallic", "norm": "normal", "map_norm": "normal", "map_kn": "normal",
    "bump": "bump", "map_bump": "bump",
}  # fmt: skip
_OTHER_MAPS = re.compile(r"map_(ks|ns|tr|opacity|ps|pc|rma|orm)|disp|decal|refl")
_XYZ = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
"""From CIE XYZ to linear sRGB."""


@dataclass
class Library:
    """The materials of one or more MTL files."""

    files: NamedFiles
    lacking: dict[str, None] = field(default_factory=dict)
    """What cannot be had, a line each, in order."""
    remarks: dict[str, None] = field(default_factory=dict)
    _texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """The statements of each material."""
    _near: dict[str, list[str]] = field(default_factory=dict)
    """Names of materials by what is left of them without quotes and letter case."""
    _skins: dict[str, Skin] = field(default_factory=dict)
    _pictures: Pictures = field(default_factory=Pictures)
    _normal_maps: dict[int, bool] = field(default_factory=dict)
    _left: int = MAX_BYTES
    _opaque: set[str] = field(default_factory=set)
    """Materials that say how opaque they are; what they say of transparency does not count then."""

    def say(self, line: str) -> None:
        self.remarks[line] = None

    def lack(self, line: str) -> None:
        self.lacking[line] = None

    def __bool__(self) -> bool:
        """Whether there are any materials."""
        return bool(self._texts)

    def read(self, path: Path) -> None:
        """All materials of a file; the first of a name counts."""
        try:
            size = path.stat().st_size
            if size > self._left:
                raise ValueError(f"it has {size:,} bytes; up to {self._left:,} are read")
            content = joined(plain_bytes(path.read_bytes(), path.name))
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            self.lack(f"{path.name}, which it names, cannot be read: {words}; what it holds is left grey")
            return
        self._left -= size
        own: list[tuple[str, str]] = []
        for word, rest in _statements(as_text(content)):
            if word == "newmtl":
                own, rest = [], _without_comment(rest)
                if self._texts.setdefault(rest, own) is own:
                    self._near.setdefault(_plain(rest), []).append(rest)
            else:
                own.append((word, rest))

    def named(self, name: str) -> Skin | None:
        """The material of a name, in another letter case where only one fits; what is wrong in it is said."""
        if name not in self._texts:
            near = self._near.get(_plain(name), [])
            if len(near) != 1:
                return None
            (name,) = near
        if name not in self._skins:
            skin = self._skins[name] = Skin(name)
            for word, rest in self._texts[name]:
                try:
                    self._statement(skin, word, _without_comment(rest))
                except ValueError as error:
                    self.lack(str(error))
            self._settle(skin)
        return self._skins[name]

    def layer(self, name: str) -> Layer:
        """A picture by its name. Raises ValueError, saying why it cannot be had."""
        path = self.files.find(name)
        shown = shortened(name.strip("\"' ")) or "a picture without a name"
        if path is None:
            raise ValueError(f"{shown}, which it names, is not there; what it holds is left grey")
        try:
            refuse_unlike_a_file(path, MAX_PICTURE)
            picture = self._pictures.decoded(path, shown, path.read_bytes)
        except OSError as error:
            raise ValueError(f"{shown}, which it names, cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{error}; what it holds is left grey") from None
        if self.files.elsewhere(name, path):
            self.say(f"{shown}, which it names, was found as {shortened(self.files.relative(path))}")
        return Layer(path.name, *picture)

    def _statement(self, skin: Skin, word: str, rest: str) -> None:
        where = f"material {shortened(skin.name)}, {word}"
        if word in ("kd", "ke"):
            color = self._color(rest, where)
            skin.color, skin.glow = (color, skin.glow) if word == "kd" else (skin.color, color)
        elif word in ("pr", "pm"):
            value = min(max(_value(rest, where), 0.0), 1.0)
            skin.roughness, skin.metallic = (value, skin.metallic) if word == "pr" else (skin.roughness, value)
        elif word == "d":
            skin.alpha = _value(rest.removeprefix("-halo"), where)
            self._opaque.add(skin.name)
        elif word == "tr" and skin.name not in self._opaque:
            skin.alpha = 1 - _value(rest, where)
        elif word in _LAYERS and rest:
            self._map(skin, _LAYERS[word], rest)
        elif _OTHER_MAPS.fullmatch(word) and rest:
            self.say(f"{word} of a material was left out: no such texture is kept here")

    def _color(self, rest: str, where: str) -> tuple[float, float, float] | None:
        words = rest.split()
        if words[:1] == ["spectral"]:
            self.say(f"{where} is a spectral curve, which is not read")
            return None
        values = [_value(word, where) for word in (words[1:] if words[:1] == ["xyz"] else words)[:3]]
        if not values:
            return None
        color = np.nan_to_num(np.array(values * 3 if len(values) < 3 else values)[:3])
        if words[0] == "xyz":
            linear = (_XYZ @ color).clip(0, 1)
            color = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        elif color.max() > 2:
            color = color / 255
        red, green, blue = color.clip(0, 1).tolist()
        return red, green, blue

    def _map(self, skin: Skin, holds: str, rest: str) -> None:
        if len(rest) > MAX_NAME:
            raise ValueError(f"{shortened(rest)} is not the name of a picture; what it holds is left grey")
        problem = None
        for options, name in _readings(rest):
            try:
                skin.layers[holds] = self._changed(self.layer(name), options, holds)
                return
            except ValueError as error:
                # The first way to read the line stands for what was meant, unless another leads to a file.
                if problem is None or self.files.find(name) is not None:
                    problem = error
        skin.lost = skin.lost or holds == "color"
        raise problem or ValueError(f"{shortened(rest)} names no picture; what it holds is left grey")

    def _changed(self, layer: Layer, options: dict[str, list[str]], holds: str) -> Layer:
        """The picture with the options of its map."""
        # One number stands for the first axis alone.
        layer.scale = _pair(options.get("-s"), 1.0, 1.0)
        layer.offset = _pair(options.get("-o"), 0.0, 0.0)
        layer.clamp = [word.lower() for word in options.get("-clamp", [])] == ["on"]
        base, gain = _pair(options.get("-mm"), 0.0, 1.0)
        channel = (options.get("-imfchan") or ["l"])[0].lower() if holds in ("roughness", "metallic", "alpha") else ""
        if channel or (base, gain) != (0.0, 1.0):
            pixels, way = layer.pixels, (base, gain, channel, holds == "alpha")
            layer.pixels = self._pictures.made(pixels, way, layer.name, lambda: _converted(pixels, *way))
        return layer

    def _settle(self, skin: Skin) -> None:
        """Puts what stands for another thing than it says where it belongs."""
        ambient = skin.layers.pop("ambient", None)
        if ambient is not None and "color" not in skin.layers and not skin.lost:
            skin.layers["color"] = ambient
            self.say(f"{shortened(ambient.name)} is named as the ambient colour alone; it was taken as the colour")
        bump = skin.layers.pop("bump", None)
        if bump is not None and "normal" not in skin.layers:
            key = id(bump.pixels)
            if key not in self._normal_maps:
                self._normal_maps[key] = _is_normal_map(bump.pixels)
            if self._normal_maps[key]:
                skin.layers["normal"] = bump
            else:
                self.say(f"{shortened(bump.name)} is a map of heights; it was left out")


def _plain(name: str) -> str:
    return name.strip().strip("\"'").casefold()


def _value(word: str, where: str) -> float:
    words = word.split()
    if not words:
        raise ValueError(f"{where}: expected a number, not nothing")
    value = number(words[0].encode(), where)
    return value if np.isfinite(value) else 0.0


def _statements(text: str) -> Iterator[tuple[str, str]]:
    """Every (keyword in small letters, rest of the line)."""
    for line in text.splitlines():
        word, _, rest = line.strip().replace("\t", " ").partition(" ")
        if word and not word.startswith("#"):
            yield word.lower(), rest.strip()


def _without_comment(rest: str) -> str:
    """Blank and # begin a comment; a # inside a name does not."""
    return re.sub(r"\s#(\s.*)?$", "", rest)


def _readings(rest: str) -> Iterator[tuple[dict[str, list[str]], str]]:
    """All ways to read the words of a map: (options, name), the likeliest first.

    Numbers after an option may belong to the name, and options may stand behind it.
    """
    for most in (3, 2, 1):
        options: dict[str, list[str]] = {}
        words = [(match.group(), match.start()) for match in re.finditer(r"\S+", rest)]
        at = 0
        while at < len(words) - 1:
            word = words[at][0].lower()
            if word in _FIXED:
                width = _FIXED[word]
            elif word in _UP_TO_THREE:
                width = 0
                while width < most and at + width + 2 < len(words) and _is_number(words[at + 1 + width][0]):
                    width += 1
            else:
                break
            options[word] = [one for one, _ in words[at + 1 : at + 1 + width]]
            at += 1 + width
        if at < len(words):
            name = rest[words[at][1] :].strip()
            yield options, name
            behind = re.search(r"\s-[a-z]+\s", name)
            if behind and behind.group().strip() in (*_FIXED, *_UP_TO_THREE):
                later = next(_readings(name[behind.start() :].strip() + " x"), (dict[str, list[str]](), ""))[0]
                yield {**options, **later}, name[: behind.start()].strip()
        if not any(option in options for option in _UP_TO_THREE):
            return


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word) is not None


def _pair(words: list[str] | None, first: float, second: float) -> tuple[float, float]:
    """The first two numbers of an option, or what stands for those that it lacks."""
    values = [float(word) for word in words or [] if _is_number(word)]
    return (values or [first])[0], values[1] if len(values) > 1 else second


def _converted(pixels: ndarray, base: float, gain: float, channel: str, alpha: bool) -> ndarray:
    """The picture with its values moved, and one of its channels in all where one is named."""
    color = pixels[..., :3]
    if (base, gain) != (0.0, 1.0):
        color = (color.astype(np.float32) * gain + 255 * base).clip(0, 255).round().astype(np.uint8)
    if not channel:
        return np.concatenate([color, pixels[..., 3:]], -1)
    if channel in ("r", "g", "b"):
        one = color[..., "rgb".index(channel)]
    elif channel == "m" or (alpha and pixels[..., 3].min() < 255):
        one = pixels[..., 3]
    else:
        one = (color.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32)).round().astype(np.uint8)
    return np.repeat(one[..., None], 4, -1)


def _is_normal_map(pixels: ndarray) -> bool:
    """Whether a picture is mostly blue: programs write normal maps where heights belong."""
    red, green, blue = (float(pixels[..., channel].mean()) for channel in range(3))
    return blue > 150 and abs(red - 128) < 48 and abs(green - 128) < 48 and blue - max(red, green) > 24
