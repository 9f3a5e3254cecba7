"""A cube of side 1 with six colours as GLB, put together by hand in every way that glTF allows.

+x green, -x yellow, +y light, -y dark, +z red, -z blue; two triangles a side, texture coordinates inside the tiles of a
picture of 3 x 2.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from renderers.meshes.mesh import Mesh

COLORS = ((0, 200, 0), (220, 220, 0), (230, 230, 230), (40, 40, 40), (220, 0, 0), (0, 0, 220))
"""Of the sides +x, -x, +y, -y, +z, -z."""
KINDS = {"b": 5120, "B": 5121, "h": 5122, "H": 5123, "I": 5125, "f": 5126}
NAMES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def sides() -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """(positions [24 3], normals [24 3], texture coordinates [24 2], corners [12 3])."""
    spots, normals, uv, corners = [], [], [], []
    for side in range(6):
        axis, sign = side // 2, 1 - 2 * (side % 2)
        across, up = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        if sign < 0:
            across, up = up, across
        middle = sign * np.eye(3)[axis]
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            spots.append((middle + a * across + b * up) / 2)
            normals.append(middle)
            uv.append(((side % 3 + 0.5 + 0.3 * a) / 3, (side // 3 + 0.5 - 0.3 * b) / 2))
        corners += [[4 * side, 4 * side + 1, 4 * side + 2], [4 * side, 4 * side + 2, 4 * side + 3]]
    return np.array(spots), np.array(normals), np.array(uv), np.array(corners)


def tiles(mode: str = "RGB", texels: int = 16) -> Image.Image:
    """The picture of all six colours."""
    rows = np.zeros((2 * texels, 3 * texels, 3), np.uint8)
    for side, color in enumerate(COLORS):
        down, across = side // 3 * texels, side % 3 * texels
        rows[down : down + texels, across : across + texels] = color
    picture = Image.fromarray(rows)
    return picture.quantize() if mode == "P" else picture.convert(mode)


def png(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


class Cube:
    """A document in the making; change `json` as you like before it is written."""

    def __init__(self, picture: bytes | None = None, **columns: ndarray) -> None:
        self.data = bytearray()
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "accessors": [], "bufferViews": [], "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0}}],
        }  # fmt: skip
        spots, normals, uv, corners = sides()
        usual: dict[str, ndarray] = {"POSITION": spots, "NORMAL": normals, "TEXCOORD_0": uv}
        named = {name: self.accessor(values.astype("f")) for name, values in {**usual, **columns}.items()}
        self.primitive: dict[str, Any] = {
            "attributes": named, "indices": self.accessor(corners.reshape(-1, 1).astype("H")), "material": 0,
        }  # fmt: skip
        self.json["meshes"] = [{"primitives": [self.primitive]}]
        self.texture(png(tiles()) if picture is None else picture)
        self.material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}

    @property
    def material(self) -> dict[str, Any]:
        return self.json["materials"][0]

    @property
    def base(self) -> dict[str, Any]:
        return self.material["pbrMetallicRoughness"]["baseColorTexture"]

    def view(self, content: bytes, **more: Any) -> int:
        self.data += bytes(-len(self.data) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content), **more})
        self.data += content
        return len(self.json["bufferViews"]) - 1

    def accessor(self, values: ndarray, normalized: bool = False, stride: int = 0) -> int:
        """Numbers as an accessor; rows `stride` bytes apart."""
        content, more = values.tobytes(), {}
        if stride:
            width = values.dtype.itemsize * values.shape[1]
            content = b"".join(row.tobytes() + bytes(stride - width) for row in values)
            more = {"byteStride": stride}
        entry = {"bufferView": self.view(content, **more), "componentType": KINDS[values.dtype.char],
                 "count": len(values), "type": NAMES[values.shape[1]]}  # fmt: skip
        self.json["accessors"].append(entry | ({"normalized": True} if normalized else {}))
        return len(self.json["accessors"]) - 1

    def texture(self, content: bytes, **texture: Any) -> int:
        self.json.setdefault("images", []).append({"bufferView": self.view(content), "mimeType": "image/png"})
        self.json.setdefault("textures", []).append(texture or {"source": len(self.json["images"]) - 1})
        return len(self.json["textures"]) - 1

    def binary(self) -> bytes:
        self.json["buffers"] = [{"byteLength": len(self.data)}]
        words = json.dumps(self.json).encode()
        words += b" " * (-len(words) % 4)
        data = bytes(self.data) + bytes(-len(self.data) % 4)
        chunks = struct.pack("<II", len(words), 0x4E4F534A) + words + struct.pack("<II", len(data), 0x004E4942) + data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, path: Path) -> Path:
        """As GLB, or as glTF with `b.bin` beside it."""
        if path.suffix == ".glb":
            path.write_bytes(self.binary())
        else:
            self.json["buffers"] = [{"byteLength": len(self.data), "uri": "b.bin"}]
            path.with_name("b.bin").write_bytes(self.data)
            path.write_text(json.dumps(self.json))
        return path


Change = Callable[[Cube], None]


def off(mesh: Mesh, wanted: tuple[tuple[int, int, int] | None, ...] = COLORS) -> float:
    """How far the colours of a loaded cube are from the wanted ones, in levels of 255; sides of None are passed."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    worst = 0.0
    for face, normal in enumerate(facing):
        axis = int(np.abs(normal).argmax())
        color = wanted[2 * axis + int(normal[axis] < 0)]
        if color is None:
            continue
        for bary in ((0.34, 0.33, 0.33), (0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6)):
            across, down = (mesh.uv[mesh.faces[face]] * np.array(bary)[:, None]).sum(0) * len(mesh.texture)
            last = len(mesh.texture) - 1
            texel = mesh.texture[min(int(down), last), min(int(across), last)].astype(float)
            worst = max(worst, float(np.abs(texel - color).max()))
    return worst


def seen_sides(mesh: Mesh) -> set[int]:
    """The sides that have triangles."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(facing).argmax(1)
    return set((2 * axis + (facing[np.arange(len(axis)), axis] < 0)).tolist())


def linear(color: tuple[int, int, int]) -> ndarray:
    """Linear values of an sRGB colour of 255 levels."""
    share = np.array(color) / 255
    values: ndarray = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return values
