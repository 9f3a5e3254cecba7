"""The triangles of a glTF document where they stand, one piece for each material.

Shapes: V vertices, F triangles, I places of one mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from sds3d.formats.gltf import compression
from sds3d.formats.gltf.document import Gltf
from sds3d.formats.gltf.nodes import Places, places
from sds3d.formats.gltf.schema import Node, Primitive

MAX_PRIMITIVES = 20_000
_TRIANGLES = (4, 5, 6)
_USED = ("POSITION", "NORMAL", "COLOR_0", "TEXCOORD_", "JOINTS_", "WEIGHTS_")


@dataclass
class Piece:
    """Triangles of one material."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    normals: Float[ndarray, "V 3"] | None
    uv: dict[int, Float[ndarray, "V 2"]]
    """By the number of the set."""
    colors: Float[ndarray, "V 4"] | None
    """Linear, with alpha."""
    material: int | None


@dataclass
class _Shape:
    """A primitive as it is stored."""

    columns: dict[str, ndarray]
    faces: ndarray


def pieces(gltf: Gltf, most: int, remarks: list[str]) -> list[Piece]:
    """All triangles of the scene. What is left out is said in `remarks`.

    Raises ValueError for more than `most` triangles, and where they are compressed and a package is missing.
    """
    found, world = places(gltf)
    if sum(len(gltf.json.meshes[number].primitives) for number in found) > MAX_PRIMITIVES:
        raise ValueError(f"{gltf.path.name} has more than {MAX_PRIMITIVES:,} primitives: join its meshes first")
    count = sum(_count(gltf, number, where) for number, where in found.items())
    if count > most:
        raise ValueError(f"{gltf.path.name} has {count:,} faces; at most {most:,} are read: simplify it first")
    groups: dict[tuple[object, ...], list[Piece]] = {}
    other = 0
    for number, where in found.items():
        for row, primitive in enumerate(gltf.json.meshes[number].primitives):
            place = f"meshes[{number}].primitives[{row}]"
            if primitive.mode not in _TRIANGLES:
                other += 1
            elif "POSITION" in primitive.attributes:
                shape = _read(gltf, primitive, place)
                for piece in _standing(gltf, number, primitive, shape, where, world, place):
                    kind = (piece.material, tuple(sorted(piece.uv)), piece.colors is None, piece.normals is None)
                    groups.setdefault(kind, []).append(piece)
    if other:
        remarks.append(f"{other} parts of points or lines were left out")
    return [_joined(group) for group in groups.values()]


def _count(gltf: Gltf, number: int, where: Places) -> int:
    """About how many triangles a mesh has in all its places, without reading it."""
    total = 0
    for row, primitive in enumerate(gltf.json.meshes[number].primitives):
        named = primitive.indices if primitive.indices is not None else primitive.attributes.get("POSITION")
        if named is not None and primitive.mode in _TRIANGLES:
            corners = gltf.at("accessors", named, f"meshes[{number}].primitives[{row}]").count
            total += corners // 3 if primitive.mode == 4 else max(corners - 2, 0)
    return total * (len(where.matrices) + len(where.posed))


def _read(gltf: Gltf, primitive: Primitive, place: str) -> _Shape:
    named = {name: index for name, index in primitive.attributes.items() if name.startswith(_USED)}
    draco = primitive.extensions.draco if primitive.extensions is not None else None
    columns, faces = {}, None
    if draco is not None:
        try:
            faces, by_id = compression.draco(gltf.view(draco.bufferView, place), f"{gltf.path.name}: {place}")
            for name, number in draco.attributes.items():
                if name in named and number in by_id:
                    columns[name] = _scaled(gltf, named.pop(name), by_id[number], place)
        except ValueError:
            if gltf.at("accessors", primitive.attributes["POSITION"], place).bufferView is None:
                raise
            faces, columns = None, {}
            named = {name: index for name, index in primitive.attributes.items() if name.startswith(_USED)}
    columns |= {name: gltf.numbers(index, place) for name, index in named.items()}
    vertices = columns["POSITION"]
    for name, values in columns.items():
        if len(values) != len(vertices):
            raise gltf.wrong(place, f"has {len(vertices):,} positions and {len(values):,} of {name[:20]}")
        wide = 2 if name.startswith("TEXCOORD_") else 3 if name in ("POSITION", "NORMAL") else 0
        if (wide and values.shape[1] != wide) or (name == "COLOR_0" and values.shape[1] not in (3, 4)):
            raise gltf.wrong(place, f"has {name[:20]} of {values.shape[1]} numbers each")
    if faces is None:
        faces = _triangles(gltf, primitive, len(vertices), place)
    if len(faces) and (int(faces.max()) >= len(vertices) or int(faces.min()) < 0):
        raise gltf.wrong(place, f"has a triangle that names vertex {int(faces.max())} of {len(vertices)}")
    return _Shape(columns, faces)


def _scaled(gltf: Gltf, index: int, values: ndarray, place: str) -> ndarray:
    """Numbers out of a Draco stream as the accessor means them."""
    entry = gltf.at("accessors", index, place)
    if entry.normalized and values.dtype.kind in "iu":
        return np.maximum(values / np.iinfo(values.dtype).max, -1)
    return values.astype(np.float64)


def _triangles(gltf: Gltf, primitive: Primitive, vertices: int, place: str) -> ndarray:
    """[F 3] Corners, of single triangles, a strip or a fan."""
    if primitive.indices is None:
        corners = np.arange(vertices)
    else:
        raw = gltf.raw(primitive.indices, place)
        if raw.dtype.kind != "u" or raw.shape[1] != 1:
            raise gltf.wrong(place, "has indices that are no whole numbers from 0 up")
        corners = raw[:, 0].astype(np.int64)
    if primitive.mode == 4:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if len(corners) < 3:
        return np.zeros((0, 3), np.int64)
    if primitive.mode == 6:
        return np.stack([corners[1:-1], corners[2:], np.full(len(corners) - 2, corners[0])], -1)
    odd = np.arange(len(corners) - 2) % 2
    start = np.arange(len(corners) - 2)
    strip: ndarray = np.stack([corners[start], corners[start + 1 + odd], corners[start + 2 - odd]], -1)
    # Strips are sewn together by triangles that have a corner twice.
    flat = (strip[:, 0] == strip[:, 1]) | (strip[:, 1] == strip[:, 2]) | (strip[:, 0] == strip[:, 2])
    solid: ndarray = strip[~flat]
    return solid


def _standing(
    gltf: Gltf, number: int, primitive: Primitive, shape: _Shape, where: Places, world: dict[int, ndarray], place: str
) -> list[Piece]:
    """A primitive in all its places."""
    weights = gltf.json.meshes[number].weights
    found = []
    if where.matrices:
        found.append(_moved(_morphed(gltf, primitive, shape, weights, place), np.stack(where.matrices), primitive))
    for node, matrix in zip(where.posed, where.at, strict=True):
        own = _morphed(gltf, primitive, shape, node.weights or weights, place)
        bent = _skinned(gltf, own, node, world, place) if node.skin is not None else None
        found.append(_moved(own, matrix[None], primitive) if bent is None else _moved(bent, np.eye(4)[None], primitive))
    return found


def _morphed(gltf: Gltf, primitive: Primitive, shape: _Shape, weights: list[float], place: str) -> _Shape:
    """The shape with its targets mixed in."""
    columns = dict(shape.columns)
    for weight, target in zip(weights, primitive.targets, strict=False):
        for name in ("POSITION", "NORMAL"):
            if weight and name in target and name in columns:
                shift = gltf.numbers(target[name], place)
                if shift.shape != columns[name].shape:
                    raise gltf.wrong(place, f"has a target of {len(shift):,} positions")
                columns[name] = columns[name] + weight * shift
    return _Shape(columns, shape.faces)


def _skinned(gltf: Gltf, shape: _Shape, node: Node, world: dict[int, ndarray], place: str) -> _Shape | None:
    """The shape bent by its skeleton as that stands; None where the shape is not tied to it."""
    skin = gltf.at("skins", node.skin or 0, place)
    columns = shape.columns
    if "JOINTS_0" not in columns or "WEIGHTS_0" not in columns or not skin.joints:
        return None
    count = len(skin.joints)
    if max(skin.joints) >= len(gltf.json.nodes):
        raise gltf.wrong(
            f"skins[{node.skin}]", f"names nodes[{max(skin.joints)}], but there are {len(gltf.json.nodes)}"
        )
    bones = np.stack([world.get(joint, np.eye(4)) for joint in skin.joints])
    if skin.inverseBindMatrices is not None:
        back = gltf.numbers(skin.inverseBindMatrices, place)
        if back.shape[0] < count or back.shape[1] != 16:
            raise gltf.wrong(f"skins[{node.skin}]", f"has {len(back)} matrices for {count} joints")
        with np.errstate(all="ignore"):
            bones = bones @ back[:count].reshape(-1, 4, 4).transpose(0, 2, 1)
    blend = np.zeros((len(columns["POSITION"]), 4, 4))
    for group in range(8):
        if f"JOINTS_{group}" in columns and f"WEIGHTS_{group}" in columns:
            joints, weights = columns[f"JOINTS_{group}"], columns[f"WEIGHTS_{group}"]
            joints = joints.astype(np.int64)
            if joints.shape != weights.shape or joints.min() < 0 or joints.max() >= count:
                raise gltf.wrong(place, f"is tied to joint {joints.max()} of {count}")
            for column in range(joints.shape[1]):
                blend += weights[:, column, None, None] * bones[joints[:, column]]
    bent = dict(columns)
    with np.errstate(all="ignore"):
        bent["POSITION"] = np.einsum("vij,vj->vi", blend[:, :3, :3], columns["POSITION"]) + blend[:, :3, 3]
        if "NORMAL" in columns:
            bent["NORMAL"] = np.einsum("vij,vj->vi", blend[:, :3, :3], columns["NORMAL"])
    return _Shape(bent, shape.faces)


def _moved(shape: _Shape, matrices: Float[ndarray, "I 4 4"], primitive: Primitive) -> Piece:
    """Copies of a shape, turned around where a matrix mirrors it."""
    columns, times = shape.columns, len(matrices)
    count = len(columns["POSITION"])
    with np.errstate(all="ignore"):
        turn = matrices[:, :3, :3]
        spots = columns["POSITION"] @ turn.transpose(0, 2, 1) + matrices[:, None, :3, 3]
        mirrored = np.linalg.det(turn) < 0
        normals = None
        if "NORMAL" in columns:
            # The cofactors: as the inverse transposed, and there for flat matrices too.
            cofactors = np.stack([np.cross(turn[:, (k + 1) % 3], turn[:, (k + 2) % 3]) for k in range(3)], 1)
            normals = (columns["NORMAL"] @ cofactors.transpose(0, 2, 1)) * np.where(mirrored, -1, 1)[:, None, None]
    faces = (
        np.where(mirrored[:, None, None], shape.faces[:, ::-1], shape.faces) + count * np.arange(times)[:, None, None]
    )
    colors = columns.get("COLOR_0")
    if colors is not None and colors.shape[1] == 3:
        colors = np.concatenate([colors, np.ones((count, 1))], 1)
    return Piece(
        spots.reshape(-1, 3),
        faces.reshape(-1, 3),
        None if normals is None else normals.reshape(-1, 3),
        {
            int(name[9:]): np.tile(values, (times, 1))
            for name, values in columns.items()
            if name.startswith("TEXCOORD_") and name[9:].isdecimal()
        },
        None if colors is None else np.tile(colors.clip(0, 1), (times, 1)),
        primitive.material,
    )


def _joined(group: list[Piece]) -> Piece:
    """Pieces of one kind as one."""
    first = group[0]
    starts = np.cumsum([0, *(len(piece.vertices) for piece in group[:-1])])
    return Piece(
        np.concatenate([piece.vertices for piece in group]),
        np.concatenate([piece.faces + start for piece, start in zip(group, starts, strict=True)]),
        None if first.normals is None else np.concatenate([n for p in group if (n := p.normals) is not None]),
        {number: np.concatenate([piece.uv[number] for piece in group]) for number in first.uv},
        None if first.colors is None else np.concatenate([c for p in group if (c := p.colors) is not None]),
        first.material,
    )
