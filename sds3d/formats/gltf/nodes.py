"""Where the meshes of a glTF document stand: its tree of nodes, walked without recursion, every node once.

Shapes: N nodes, I places of one mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray

from sds3d.formats.gltf.document import Gltf
from sds3d.formats.gltf.schema import Node


@dataclass
class Places:
    """Where one mesh stands."""

    matrices: list[ndarray] = field(default_factory=list)
    """[4 4] of every node that draws it as it is."""
    posed: list[Node] = field(default_factory=list)
    """Nodes that bend it by a skeleton or mix its shapes in their own way."""
    at: list[ndarray] = field(default_factory=list)
    """[4 4] of those."""


def places(gltf: Gltf) -> tuple[dict[int, Places], dict[int, ndarray]]:
    """Where each mesh of the scene stands, by its number; and the matrices of the nodes that have one."""
    found: dict[int, Places] = {}
    world: dict[int, ndarray] = {}
    plain = np.eye(4)
    nodes = gltf.json.nodes
    local = _matrices(nodes)
    seen = bytearray(len(nodes))
    waiting = [(index, -1) for index in reversed(_roots(gltf))]
    with np.errstate(all="ignore"):
        while waiting:
            index, parent = waiting.pop()
            node: Node = gltf.at("nodes", index, f"nodes[{parent}]" if parent >= 0 else "a scene")
            if seen[index]:
                raise gltf.wrong(f"nodes[{index}]", "stands in the tree twice; a node has one parent")
            seen[index] = 1
            above, own = world.get(parent), local.get(index)
            here = above if own is None else own if above is None else above @ own
            if here is not None:
                world[index] = here
            waiting += [(child, index) for child in reversed(node.children)]
            if node.mesh is None:
                continue
            gltf.at("meshes", node.mesh, f"nodes[{index}]")
            entry = found.setdefault(node.mesh, Places())
            matrix = plain if here is None else here
            if node.extensions is not None and node.extensions.instancing is not None:
                many = _instances(gltf, node.extensions.instancing.attributes, f"nodes[{index}]")
                entry.matrices += list(matrix @ many)
            elif node.skin is not None or node.weights:
                entry.posed.append(node)
                entry.at.append(matrix)
            else:
                entry.matrices.append(matrix)
    return found, world


def _roots(gltf: Gltf) -> list[int]:
    """The first nodes of the scene that is shown; of a document without one, all nodes that have no parent."""
    if gltf.json.scenes:
        return list(gltf.at("scenes", gltf.json.scene or 0, "scene").nodes)
    children = {child for node in gltf.json.nodes for child in node.children}
    return [index for index in range(len(gltf.json.nodes)) if index not in children]


def _matrices(nodes: list[Node]) -> dict[int, ndarray]:
    """[4 4] How nodes move what is below them, of those that do."""
    whole = {index: node.matrix for index, node in enumerate(nodes) if node.matrix is not None}
    parts = [index for index, node in enumerate(nodes)
             if node.matrix is None and (node.translation or node.rotation or node.scale)]  # fmt: skip
    if not parts and not whole:
        return {}
    rows = [(*(nodes[k].translation or (0, 0, 0)), *(nodes[k].rotation or (0, 0, 0, 1)), *(nodes[k].scale or (1, 1, 1)))
            for k in parts]  # fmt: skip
    table = np.array(rows, np.float64).reshape(-1, 10)
    with np.errstate(all="ignore"):
        moves = composed(table[:, :3], table[:, 3:7], table[:, 7:])
    given = np.array(list(whole.values()), np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
    return dict(zip(parts, moves, strict=True)) | dict(zip(whole, given, strict=True))


def composed(translation: ndarray, rotation: ndarray, scale: ndarray) -> ndarray:
    """[I 4 4] of translations [I 3], rotations (x, y, z, w) [I 4] and scales [I 3]."""
    length = np.linalg.norm(rotation, axis=-1, keepdims=True)
    x, y, z, w = (rotation / np.where(length > 0, length, 1)).T
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    matrices = np.tile(np.eye(4), (len(translation), 1, 1))
    matrices[:, :3, :3] = np.stack(rows, -1).reshape(-1, 3, 3) * scale[:, None]
    matrices[:, :3, 3] = translation
    return matrices


def _instances(gltf: Gltf, named: dict[str, int], where: str) -> ndarray:
    """[I 4 4] of EXT_mesh_gpu_instancing."""
    columns = {"TRANSLATION": 3, "ROTATION": 4, "SCALE": 3}
    got = {name: gltf.numbers(named[name], where) for name in columns if name in named}
    count = len(next(iter(got.values()))) if got else 0
    if any(got[name].shape != (count, columns[name]) for name in got):
        raise gltf.wrong(where, "has instances whose numbers do not go together")
    usual = {"TRANSLATION": [0.0, 0, 0], "ROTATION": [0.0, 0, 0, 1], "SCALE": [1.0, 1, 1]}
    rows = [got[name] if name in got else np.tile(usual[name], (count, 1)) for name in columns]
    return composed(*rows)
