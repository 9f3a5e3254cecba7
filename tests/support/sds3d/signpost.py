"""An asset that shows what a format did to it: which way is up, front, left, and whether colours were kept.

A panel with the word FRONT on its front and a grey patch under it, an arrow that points up, a red box on the asset's
left (+X) and a blue one on its right (-X). One unit is one metre, +Y is up, the front is +Z.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from renderers.meshes.mesh import Mesh

SIZE = 256
"""Texels along a side of its texture."""
WORD = (0, 64, 256, 128)
"""Left, top, right, bottom of the word in the texture."""
WHITE, GREY, RED, BLUE, GREEN = (255, 255, 255), (119, 119, 119), (200, 30, 20), (20, 40, 210), (30, 160, 60)
TILES = {WHITE: 0, GREY: 1, RED: 2, BLUE: 3, GREEN: 4}
"""The flat colours, 48 texels each along the top of the texture."""
TIP = (0.0, 0.75, 0.0)
"""The arrow's tip, the highest point."""
_BOX = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_SIDES = ((4, 6, 7, 5), (0, 1, 3, 2), (2, 3, 7, 6), (0, 4, 5, 1), (0, 2, 6, 4))
"""Left, right, top, bottom, back."""
_FRONT = (1, 5, 7, 3)


def picture() -> ndarray:
    """The texture [T, T, 3]: flat tiles, and the word as a viewer in front reads it."""
    sheet = Image.new("RGB", (SIZE, SIZE), WHITE)
    draw = ImageDraw.Draw(sheet)
    for colour, tile in TILES.items():
        draw.rectangle((48 * tile, 0, 48 * tile + 47, 47), fill=colour)
    draw.text((128, 96), "FRONT", fill=(0, 0, 0), font=ImageFont.load_default(64), anchor="mm")
    return np.asarray(sheet)


def signpost() -> Mesh:
    """The asset: five closed pieces."""
    corners: list[ndarray] = []
    places: list[ndarray] = []
    faces: list[tuple[int, int, int]] = []

    def piece(points: ndarray, uv: ndarray) -> None:
        start = sum(map(len, corners))
        corners.append(points)
        places.append(uv)
        faces.extend((start, start + k, start + k + 1) for k in range(1, len(points) - 1))

    def flat(colour: tuple[int, int, int], count: int) -> ndarray:
        middle = (48 * TILES[colour] + 24) / SIZE
        spread = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[:count] * 16 / SIZE
        return spread + np.array([middle, 24 / SIZE])

    def box(middle: tuple[float, float, float], half: tuple[float, float, float], colour: tuple[int, int, int]) -> None:
        points = _BOX * half + middle
        for order in _SIDES:
            piece(points[list(order)], flat(colour, 4))
        front = flat(colour, 4)
        if colour == WHITE:
            left, top, right, bottom = np.array(WORD) / SIZE
            front = np.array([[left, bottom], [right, bottom], [right, top], [left, top]])
        piece(points[list(_FRONT)], front)

    box((0, 0.1, 0), (0.4, 0.3, 0.1), WHITE)
    box((0, -0.4, 0.05), (0.15, 0.1, 0.05), GREY)
    box((0.6, 0.1, 0), (0.1, 0.1, 0.1), RED)
    box((-0.6, 0.1, 0), (0.1, 0.1, 0.1), BLUE)
    foot = np.array([[-0.1, 0.5, 0.1], [0.1, 0.5, 0.1], [0.1, 0.5, -0.1], [-0.1, 0.5, -0.1]])
    for k in range(4):
        piece(np.array([foot[k], foot[(k + 1) % 4], TIP]), flat(GREEN, 3))
    piece(foot[::-1], flat(GREEN, 4))
    vertices = np.concatenate(corners).astype(np.float32)
    triangles = np.array(faces, np.int32)
    normals = np.zeros_like(vertices)
    for a, b, c in triangles:
        across = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        normals[[a, b, c]] = across / np.linalg.norm(across)
    return Mesh(vertices, triangles, normals, np.concatenate(places).astype(np.float32), picture())
