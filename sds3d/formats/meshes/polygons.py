"""Polygons as triangles: cut from the first corner where they bulge everywhere, by their ears where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

MAX_EARS = 200
"""Corners of a polygon whose ears are looked for; larger ones are cut from their first corner."""
MAX_WORK = 300_000
"""Squares of the numbers of corners of all polygons whose ears are looked for, so that it ends in seconds."""


def triangulated(
    polygons: list[tuple[Int[ndarray, "_ _ _"], Int[ndarray, " _"]]], positions: Float[ndarray, "P 3"], faces: int
) -> tuple[Int[ndarray, "T 3 _"], Int[ndarray, " T"], int]:
    """Triangles in the order of the faces, the face of each, and how many faces of four corners stand first.

    `polygons` holds rows of corners, and the number of each among all `faces`; the first column of a corner is its
    position.
    """
    columns = polygons[0][0].shape[2] if polygons else 3
    corners, face, size = [np.zeros((0, 3, columns), np.int64)], [np.zeros(0, np.int64)], np.zeros(faces, np.int64)
    work = MAX_WORK
    for rows, numbers in polygons:
        count = rows.shape[1]
        size[numbers] = count
        if count < 3:
            continue
        cut = np.broadcast_to(_fan(count), (len(rows), count - 2, 3))
        inward = _inward(rows[..., 0], positions) if count > 3 else np.zeros((0, count), bool)
        dented = np.flatnonzero(inward.any(1))
        if len(dented):
            cut = cut.copy()
        if count == 4 and len(dented):
            cut[dented] = (cut[dented] + inward[dented].argmax(1)[:, None, None]) % 4
        elif count <= MAX_EARS:
            for row in dented[: work // count**2]:
                cut[row] = _ears(positions[rows[row, :, 0]])
                work -= count**2
        corners.append(np.take_along_axis(rows, cut.reshape(len(rows), -1, 1), 1).reshape(-1, 3, columns))
        face.append(np.repeat(numbers, count - 2))
    every, face_of = np.concatenate(corners), np.concatenate(face)
    order = np.argsort(face_of, kind="stable")
    every, face_of = every[order], face_of[order]
    quads = int(np.argmin(size == 4)) if len(size) and not (size == 4).all() else len(size)
    plain = every[: 2 * quads].reshape(-1, 2, 3, columns)[..., 0]
    bent = np.flatnonzero((plain[:, 0, 0] != plain[:, 1, 0]) | (plain[:, 0, 2] != plain[:, 1, 1]))
    return every, face_of, int(bent[0]) if len(bent) else quads


def _fan(count: int) -> ndarray:
    inner = np.arange(count - 2)
    return np.stack([np.zeros_like(inner), inner + 1, inner + 2], -1)


def _area(corners: ndarray) -> ndarray:
    """[. 3] Twice the area of polygons [. K 3], as a vector."""
    middle = corners - corners[..., :1, :]
    total: ndarray = np.cross(middle, np.roll(middle, -1, -2)).sum(-2)
    return total


def _inward(rows: Int[ndarray, "R K"], positions: ndarray) -> ndarray:
    """[R K] Which corners of polygons point inward, so that a fan from elsewhere could leave them."""
    bad = np.zeros(rows.shape, bool)
    if (rows < 0).any() or int(rows.max(initial=-1)) >= len(positions):
        return bad
    step = max(1, 1_000_000 // rows.shape[1])
    with np.errstate(all="ignore"):
        for start in range(0, len(rows), step):
            corners = positions[rows[start : start + step]]
            normal = _area(corners)
            before, behind = corners - np.roll(corners, 1, 1), np.roll(corners, -1, 1) - corners
            turn = (np.cross(before, behind) * normal[:, None]).sum(-1)
            bad[start : start + step] = turn < -1e-9 * (normal**2).sum(-1, keepdims=True)
    return bad


def _ears(corners: Float[ndarray, "K 3"]) -> ndarray:
    """[K-2 3] Triangles of one polygon, inside it."""
    count = len(corners)
    normal = _area(corners)
    if not np.isfinite(corners).all() or not normal.any():
        return _fan(count)
    keep = np.delete(np.arange(3), int(np.abs(normal).argmax()))
    flat = corners[:, keep]
    sign = 1.0 if _cross(flat, np.roll(flat, -1, 0)).sum() > 0 else -1.0
    left, triangles = list(range(count)), []
    while len(left) > 3:
        for at in range(len(left)):
            a, b, c = left[at - 1], left[at], left[(at + 1) % len(left)]
            if sign * _cross(flat[b] - flat[a], flat[c] - flat[b]) <= 0:
                continue
            others = flat[[i for i in left if i not in (a, b, c)]]
            # Corners at the same place, of a cut to a hole, are in no way.
            others = others[(others[:, None] != flat[[a, b, c]]).any(-1).all(-1)]
            sides = [sign * _cross(flat[q] - flat[p], others - flat[p]) for p, q in ((a, b), (b, c), (c, a))]
            if not (np.min(sides, 0) >= 0).any():
                break
        else:
            at = 1
        triangles.append((left[at - 1], left[at], left[(at + 1) % len(left)]))
        del left[at]
    return np.array([*triangles, tuple(left)])


def _cross(a: ndarray, b: ndarray) -> Any:
    values = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return values
