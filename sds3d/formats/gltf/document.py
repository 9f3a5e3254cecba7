"""A glTF file, opened: its JSON checked against the schema, its numbers and images within their bounds.

Every method raises ValueError with one line that names the place in the document. Shapes: N elements of an accessor, C
components.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.formats.file_access import content_of
from sds3d.formats.gltf import compression
from sds3d.formats.gltf.schema import Accessor, BufferView, Document, Head

_T = TypeVar("_T")
MAX_JSON = 128 * 2**20
"""Bytes of JSON."""
MAX_COUNT = 12_000_000
"""Elements of one accessor."""
MAX_NODES = 1_000_000
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
READ = {
    *("KHR_mesh_quantization", "KHR_texture_transform", "KHR_draco_mesh_compression", "EXT_meshopt_compression"),
    *("KHR_meshopt_compression", "KHR_texture_basisu", "EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds"),
    *("EXT_mesh_gpu_instancing", "KHR_lights_punctual", "KHR_animation_pointer", "KHR_xmp_json_ld"),
    "KHR_gaussian_splatting",
}  # fmt: skip
"""Extensions a file may require; those of materials (KHR_materials_…) are taken too."""


class Gltf:
    """An opened file."""

    def __init__(self, path: Path) -> None:
        """Reads and checks the JSON. Raises OSError where the file cannot be read."""
        self.path = path
        words, self._inner = chunks(path)
        self.json = _decoded(words, path, Document)
        self._content: dict[int, bytes] = {}
        self._views: dict[int, bytes] = {}
        if self.json.asset.version.partition(".")[0] != "2":
            version = self.json.asset.version[:20]
            raise ValueError(
                f"{path.name} is glTF {version}; only version 2 is read: save it anew with a newer program"
            )
        if len(self.json.nodes) > MAX_NODES:
            raise ValueError(f"{path.name} has {len(self.json.nodes):,} nodes; at most {MAX_NODES:,} are read")
        for name in self.json.extensionsRequired:
            if name not in READ and not name.startswith(("KHR_materials_", "EXT_materials_")):
                raise ValueError(f"{path.name} requires {name[:60]!r}, an extension that is not read here")

    def wrong(self, place: str, words: str) -> ValueError:
        """The error that something in the document is wrong."""
        return ValueError(f"{self.path.name} is not valid glTF: {place} {words}")

    def at(self, name: str, index: int, where: str) -> Any:
        """An entry of one of the document's lists."""
        rows = getattr(self.json, name)
        if index >= len(rows):
            raise self.wrong(where, f"names {name}[{index}], but there are {len(rows)}")
        return rows[index]

    def buffer(self, index: int, where: str) -> bytes:
        """All bytes of a buffer. An inner one that is cut short, or a file that is missing, is refused."""
        if index not in self._content:
            entry = self.at("buffers", index, where)
            if entry.uri is not None:
                try:
                    content = content_of(entry.uri, self.path.parent)
                except ValueError as error:
                    raise ValueError(f"{self.path.name} cannot be read: {error}") from None
            elif index == 0 and self._inner is not None:
                content = self._inner
            else:
                raise self.wrong(f"buffers[{index}]", "has no data: neither a uri nor a chunk of the file")
            if len(content) < entry.byteLength:
                raise self.wrong(
                    f"buffers[{index}]", f"is cut short: {len(content):,} bytes of {entry.byteLength:,} are there"
                )
            self._content[index] = content
        return self._content[index]

    def view(self, index: int, where: str) -> bytes:
        """The bytes of a buffer view, unpacked where it is compressed."""
        if index not in self._views:
            entry: BufferView = self.at("bufferViews", index, where)
            place = f"bufferViews[{index}]"
            packed = entry.extensions and (entry.extensions.ext or entry.extensions.khr)
            if packed:
                content = self._stretch(packed.buffer, packed.byteOffset, packed.byteLength, place)
                if packed.count * packed.byteStride > min(entry.byteLength, MAX_COUNT * 64):
                    raise self.wrong(place, f"unpacks to more than its {entry.byteLength:,} bytes")
                self._views[index] = compression.meshopt(packed, content, f"{self.path.name}: {place}")
            else:
                self._views[index] = self._stretch(entry.buffer, entry.byteOffset, entry.byteLength, place)
        return self._views[index]

    def _stretch(self, buffer: int, start: int, length: int, place: str) -> bytes:
        content = self.buffer(buffer, place)
        if start + length > len(content):
            raise self.wrong(place, f"ends at byte {start + length:,} of a buffer of {len(content):,}")
        return content[start : start + length]

    def numbers(self, index: int, where: str) -> Float[ndarray, "N C"]:
        """The values of an accessor in float64, normalised where it says so."""
        entry: Accessor = self.at("accessors", index, where)
        raw = self.raw(index, where)
        with np.errstate(invalid="ignore"):
            values = raw.astype(np.float64)
        if entry.normalized and entry.componentType not in (5125, 5126):
            values = np.maximum(values / np.iinfo(raw.dtype).max, -1)
        return values

    def raw(self, index: int, where: str) -> ndarray:
        """[N C] The values of an accessor as they are stored, sparse ones put in."""
        entry: Accessor = self.at("accessors", index, where)
        place = f"accessors[{index}]"
        if entry.componentType not in COMPONENTS or entry.type not in WIDTHS:
            raise self.wrong(place, f"has numbers of an unknown kind: {entry.componentType} {entry.type[:20]!r}")
        if entry.count > MAX_COUNT:
            raise ValueError(f"{self.path.name}: {place} has {entry.count:,} elements; at most {MAX_COUNT:,} are read")
        kind, width = np.dtype(COMPONENTS[entry.componentType]), WIDTHS[entry.type]
        if entry.bufferView is None:
            values = np.zeros((entry.count, width), kind)
        else:
            stride = self.at("bufferViews", entry.bufferView, place).byteStride
            values = self._rows(entry.bufferView, entry.byteOffset, entry.count, kind, width, place, stride)
        if entry.sparse is None:
            return values
        few = entry.sparse
        if few.indices.componentType not in (5121, 5123, 5125) or few.count > entry.count:
            raise self.wrong(f"{place}.sparse", "is malformed")
        index_kind = np.dtype(COMPONENTS[few.indices.componentType])
        rows = self._rows(few.indices.bufferView, few.indices.byteOffset, few.count, index_kind, 1, place)[:, 0]
        if int(rows.max()) >= entry.count:
            raise self.wrong(f"{place}.sparse", f"replaces element {int(rows.max())} of {entry.count}")
        values = values.copy()
        values[rows] = self._rows(few.values.bufferView, few.values.byteOffset, few.count, kind, width, place)
        return values

    def _rows(
        self, view: int, start: int, count: int, kind: np.dtype[Any], width: int, place: str, stride: int | None = None
    ) -> ndarray:
        content, packed = self.view(view, place), kind.itemsize * width
        step = stride or packed
        end = start + step * (count - 1) + packed
        if end > len(content) or step < packed:
            raise self.wrong(place, f"reaches byte {end:,} of bufferViews[{view}], which has {len(content):,}")
        return np.ndarray((count, width), kind, content, start, (step, kind.itemsize))


def head_of(path: Path) -> Head:
    """What a glTF file of either kind says of itself. Raises as `Gltf`."""
    return _decoded(chunks(path)[0], path, Head)


def chunks(path: Path) -> tuple[bytes, bytes | None]:
    """The JSON of a glTF file of either kind, and the binary chunk where there is one."""
    content = path.read_bytes()
    if content[:4] != b"glTF":
        if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            raise _no_gltf(path, "neither the mark of a GLB nor JSON is at its start")
        return content.removeprefix(b"\xef\xbb\xbf"), None
    if len(content) < 20:
        raise _no_gltf(path, "it ends inside its header")
    version, total, length, kind = struct.unpack_from("<IIII", content, 4)
    if version != 2:
        raise ValueError(f"{path.name} is GLB of version {version}; only version 2 is read")
    if total > len(content):
        raise ValueError(f"{path.name} is cut short: {len(content):,} bytes of {total:,} are there")
    if kind != 0x4E4F534A or 20 + length > len(content):
        raise _no_gltf(path, "its first part is not JSON, or is cut short")
    words, start, inner = content[20 : 20 + length], 20 + length, None
    while start + 8 <= len(content):
        length, kind = struct.unpack_from("<II", content, start)
        if kind == 0x004E4942:
            inner = content[start + 8 : start + 8 + length]
            break
        start += 8 + length
    return words, inner


def _no_gltf(path: Path, words: str) -> ValueError:
    return ValueError(f"{path.name} cannot be read as {path.suffix[1:].upper()}: it is no glTF file, {words}")


def _decoded(words: bytes, path: Path, kind: type[_T]) -> _T:
    if len(words) > MAX_JSON:
        raise ValueError(f"{path.name} has {len(words):,} bytes of JSON; at most {MAX_JSON:,} are read")
    try:
        return msgspec.json.decode(words.rstrip(b" \0\r\n\t"), type=kind)
    except RecursionError:
        raise ValueError(f"{path.name} is not valid glTF: its JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not valid glTF: its JSON is not UTF-8") from None
    except msgspec.DecodeError as error:
        said = " ".join(str(error).replace("$.", "").split())
        raise ValueError(f"{path.name} is not valid glTF: {said[:200]}") from None


def extras_of(path: Path) -> dict[str, Any] | None:
    """`asset.extras` of a file; None where it is no object."""
    asset = head_of(path).asset
    extras = asset.extras if asset is not None else None
    return extras if isinstance(extras, dict) else None
