"""A corpus of three objects, which are spheres."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from sds3d.mini_training.corpus import Entry, file_of


def entry(name: str, **facts: object) -> Entry:
    plain = Entry(name, [], True, 1, ["red"], ["wood"], 0.8, f"The {name}", "Jane Doe", "CC BY 3.0")
    return replace(plain, **facts)  # type: ignore[arg-type]


ENTRIES = [
    entry("teddy bear", synonyms=["teddy"], creator="Élise", licence="CC0 1.0"),
    entry("horse", synonyms=["pony"], tintable=False, colours=[], materials=[]),
    entry("mug", wave=2),
]


def draw(folder: Path) -> Path:
    """A corpus of spheres of different sizes and colours, seen from around."""
    for place, thing in enumerate(ENTRIES):
        arrays: dict[str, np.ndarray] = {}
        for kind, size, count in (("prior", 96, 6), ("judge", 64, 16)):
            y, x = np.mgrid[1 : -1 : size * 1j, -1 : 1 : size * 1j]
            radius = 0.5 + 0.2 * place
            inside = x**2 + y**2 < radius**2
            z = np.sqrt(np.clip(radius**2 - x**2 - y**2, 0, None))
            normal = np.where(inside[..., None], np.stack([x, y, z], -1) / radius, -1)
            albedo = np.zeros((size, size, 4))
            albedo[inside] = [*(np.array([(0.8, 0.1, 0.1), (0.2, 0.3, 0.8), (0.5, 0.5, 0.5)][place]) * 255), 255]
            angles = np.stack([np.arange(count) * 2 * np.pi / count - np.pi, np.full(count, 0.2)], -1)
            arrays[f"{kind}_albedo"] = np.tile(albedo.round().astype(np.uint8), (count, 1, 1, 1))
            arrays[f"{kind}_normal"] = np.tile((127.5 * (normal + 1)).round().astype(np.uint8), (count, 1, 1, 1))
            arrays[f"{kind}_angles"] = angles.astype(np.float32)
        np.savez(file_of(folder, thing.name), **arrays)
    (folder / "entries.json").write_text(json.dumps([asdict(thing) for thing in ENTRIES]))
    return folder
