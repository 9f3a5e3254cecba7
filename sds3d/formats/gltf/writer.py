"""glTF 2.0: one binary file, or a text file with its numbers and pictures beside it."""

from __future__ import annotations

import json
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from renderers.meshes.mesh import Mesh
from renderers.meshing.tangents import tangents
from sds3d.atomic_files import atomic_write, write_bytes
from sds3d.formats.layout import GENERATOR, Facts, checked, facts_json, uniform_metallic_roughness
from sds3d.formats.png import png

VERTICES, INDICES = 34962, 34963
"""glTF's numbers for what a buffer view holds."""
_COMPONENTS = {"f": 5126, "u1": 5121, "u4": 5125}
_SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_REPEAT, _LINEAR, _MIPMAPS = 10497, 9729, 9987


class Tree:
    """A glTF document in the making: its JSON, its numbers, its pictures."""

    def __init__(self, facts: Facts) -> None:
        extras = json.loads(facts_json(facts))
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": GENERATOR, "extras": extras},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": "asset", "mesh": 0}],
            "bufferViews": [],
            "accessors": [],
        }
        self.numbers = bytearray()
        self.pictures: list[tuple[str, bytes]] = []

    def accessor(self, values: ndarray, target: int, normalized: bool = False) -> int:
        """The number of an accessor for `values` [N] or [N, C], which are added to the buffer."""
        kind = _COMPONENTS["f" if values.dtype.kind == "f" else values.dtype.str[1:]]
        if values.dtype.kind == "f":
            values = values.astype("<f4")
        columns = 1 if values.ndim == 1 else values.shape[1]
        view = self.view(np.ascontiguousarray(values).tobytes(), target)
        made = {"bufferView": view, "componentType": kind, "count": len(values), "type": _SHAPES[columns]}
        if target == INDICES or kind == _COMPONENTS["f"]:
            made |= {name: np.atleast_1d(part(0)).tolist() for name, part in (("min", values.min), ("max", values.max))}
        if normalized:
            made["normalized"] = True
        self.json["accessors"].append(made)
        return len(self.json["accessors"]) - 1

    def view(self, content: bytes, target: int | None = None) -> int:
        """The number of a view of the buffer that holds `content`, at a multiple of four bytes."""
        self.numbers += bytes(-len(self.numbers) % 4)
        made = {"buffer": 0, "byteOffset": len(self.numbers), "byteLength": len(content)}
        self.json["bufferViews"].append(made if target is None else {**made, "target": target})
        self.numbers += content
        return len(self.json["bufferViews"]) - 1

    def texture(self, name: str, picture: ndarray) -> dict[str, int]:
        """A reference to a new texture."""
        self.pictures.append((name, png(picture)))
        self.json["samplers"] = [{"magFilter": _LINEAR, "minFilter": _MIPMAPS, "wrapS": _REPEAT, "wrapT": _REPEAT}]
        self.json.setdefault("textures", []).append({"sampler": 0, "source": len(self.pictures) - 1})
        return {"index": len(self.json["textures"]) - 1}

    def binary(self) -> bytes:
        """The whole document as one GLB file."""
        for name, content in self.pictures:
            image = {"name": name, "mimeType": "image/png", "bufferView": self.view(content)}
            self.json.setdefault("images", []).append(image)
        self.numbers += bytes(-len(self.numbers) % 4)
        self.json["buffers"] = [{"byteLength": len(self.numbers)}]
        words = json.dumps(self.json, separators=(",", ":"), ensure_ascii=False).encode()
        words += b" " * (-len(words) % 4)
        chunks = b"".join(
            struct.pack("<I4s", len(part), kind) + part for part, kind in ((words, b"JSON"), (self.numbers, b"BIN\0"))
        )
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def write_glb(path: Path, mesh: Mesh, facts: Facts) -> None:
    """One binary file with its textures inside; `facts` go to `asset.extras`.

    Raises ValueError for a mesh or facts that cannot be written, OSError when the disk refuses.
    """
    write_bytes(path, _of_mesh(mesh, facts).binary())


def write_gltf(path: Path, mesh: Mesh, facts: Facts) -> None:
    """A text file, with `<name>.bin` and a `<name>_<map>.png` for each texture beside it. Errors as in `write_glb`."""
    tree = _of_mesh(mesh, facts)
    beside = {f"{path.stem}.bin": bytes(tree.numbers)}
    tree.json["buffers"] = [{"byteLength": len(tree.numbers), "uri": f"{path.stem}.bin"}]
    tree.json["images"] = []
    for name, content in tree.pictures:
        beside[f"{path.stem}_{name}.png"] = content
        tree.json["images"].append({"name": name, "uri": f"{path.stem}_{name}.png"})
    with ExitStack() as drafts:
        for name, content in beside.items():
            drafts.enter_context(atomic_write(path.with_name(name))).write_bytes(content)
        draft = drafts.enter_context(atomic_write(path))
        draft.write_text(json.dumps(tree.json, indent=1, ensure_ascii=False), encoding="utf-8")


def _of_mesh(mesh: Mesh, facts: Facts) -> Tree:
    checked(mesh)
    tree = Tree(facts)
    length = np.linalg.norm(mesh.normals, axis=-1, keepdims=True)
    normals = np.where(length > 1e-6, mesh.normals / np.maximum(length, 1e-6), [0.0, 1.0, 0.0])
    attributes = {
        "POSITION": tree.accessor(mesh.vertices, VERTICES),
        "NORMAL": tree.accessor(normals, VERTICES),
        "TEXCOORD_0": tree.accessor(mesh.uv, VERTICES),
    }
    corners = tree.accessor(mesh.faces.astype("<u4").reshape(-1), INDICES)
    tree.json["meshes"] = [
        {"name": "asset", "primitives": [{"attributes": attributes, "indices": corners, "material": 0, "mode": 4}]}
    ]
    colour: dict[str, Any] = {"baseColorTexture": tree.texture("color", mesh.texture)}
    grain = uniform_metallic_roughness(mesh)
    roughness, metallic = grain or (1.0, 1.0)
    colour |= {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": metallic, "roughnessFactor": roughness}
    material = {"name": "material", "pbrMetallicRoughness": colour, "doubleSided": False, "alphaMode": "OPAQUE"}
    if mesh.maps is not None and grain is None:
        # Green is roughness, blue is metal; nothing is shadowed, so red, where some look for that, is full.
        full = np.full_like(mesh.maps.roughness, 255)
        texture = np.stack([full, mesh.maps.roughness, mesh.maps.metallic], -1)
        colour["metallicRoughnessTexture"] = tree.texture("metallic_roughness", texture)
    if mesh.maps is not None and mesh.maps.normals is not None:
        material["normalTexture"] = tree.texture("normal", mesh.maps.normals)
        frames = tangents(mesh.vertices, normals, mesh.uv, mesh.faces)
        attributes["TANGENT"] = tree.accessor(frames, VERTICES)
    tree.json["materials"] = [material]
    return tree
