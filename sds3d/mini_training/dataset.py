"""Batches of lit, painted, captioned pictures, made from the corpus while training runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guidance.priors.mini.vocabulary import Vocabulary
from guidance.priors.views import view_label
from sds3d.mini_training.captions import caption
from sds3d.mini_training.colors import COLORS
from sds3d.mini_training.corpus import Entry, file_of

KEY_LIGHT = np.array([0.37, 0.74, 0.56])
"""Direction towards the one directional light of the prior's pictures: above, in front, a little to the left."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_PAINTS = np.array(list(COLORS.values()), np.float32)
_PAINT_NAMES = tuple(COLORS)


@dataclass(frozen=True)
class Batch:
    """Pictures and what they show."""

    foreground: Float[Tensor, "B 4 H W"]
    """The lit object, premultiplied by its opacity, and its opacity."""
    background: Float[Tensor, "B 3 1 1"]
    """Colour of the background."""
    words: Int[Tensor, "B L"]
    mask: Bool[Tensor, "B L"]
    camera: Float[Tensor, "B 2"]
    camera_known: Bool[Tensor, " B"]

    @property
    def rgb(self) -> Float[Tensor, "B 3 H W"]:
        """The pictures."""
        return self.composite(self.background)

    def composite(self, colour: Tensor | float) -> Float[Tensor, "B 3 H W"]:
        """The objects before another background."""
        return self.foreground[:, :3] + (1 - self.foreground[:, 3:]) * colour


def lit(normal: np.ndarray) -> np.ndarray:
    """Brightness of a surface with world normals [..., 3]: light from the sky and one key light."""
    light: np.ndarray = 0.6 + 0.2 * normal[..., 1] + 0.3 * np.clip(normal @ KEY_LIGHT, 0, 1)
    return light


class CorpusDataset:
    """The prior's part of a corpus, kept on disk and read where needed: albedo and light of every view."""

    def __init__(self, corpus: Path, entries: list[Entry], words: Vocabulary, longest: int) -> None:
        self._entries, self._vocabulary, self._longest = entries, words, longest
        self._albedo = []
        self._light = []
        self._angles = []
        for entry in entries:
            packed = _packed(corpus, entry.name)
            self._albedo.append(np.load(packed["albedo"], mmap_mode="r"))
            self._light.append(np.load(packed["light"], mmap_mode="r"))
            self._angles.append(np.load(packed["angles"]))

    def __call__(self, count: int, rng: np.random.Generator) -> Batch:
        """Random objects, views, backgrounds, paints and captions."""
        things: list[int] = rng.integers(len(self._entries), size=count).tolist()
        views = [int(rng.integers(len(self._angles[thing]))) for thing in things]
        albedo = np.stack([self._albedo[o][v] for o, v in zip(things, views, strict=True)]).astype(np.float32) / 255
        light = np.stack([self._light[o][v] for o, v in zip(things, views, strict=True)]).astype(np.float32) / 200
        angles = np.stack([self._angles[o][v] for o, v in zip(things, views, strict=True)])
        paints = [self._paint(thing, rng) for thing in things]
        colour, opacity = albedo[..., :3], albedo[..., 3:]
        for row, paint in enumerate(paints):
            if paint is not None:
                shade = (colour[row] @ _LUMINANCE) / max(self._entries[things[row]].brightness, 0.05)
                colour[row] = np.minimum(shade, 1.15 * opacity[row, ..., 0])[..., None] * _PAINTS[paint]
        solid = np.concatenate([np.clip(colour * light[..., None], 0, 1), opacity], -1)
        behind = backgrounds(count, rng)[:, :, None, None]
        words, mask, known = self._conditions(things, angles, paints, rng)
        return Batch(
            torch.from_numpy(np.ascontiguousarray(solid.transpose(0, 3, 1, 2))),
            torch.from_numpy(behind),
            words,
            mask,
            torch.from_numpy(angles.astype(np.float32)),
            known,
        )

    def _paint(self, thing: int, rng: np.random.Generator) -> int | None:
        if not self._entries[thing].tintable or rng.random() > 0.35:
            return None
        return int(rng.integers(len(_PAINTS)))

    def _conditions(
        self, things: list[int], angles: np.ndarray, paints: list[int | None], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Word numbers, which of them count, and whether the camera is told; each dropped now and then."""
        words = np.zeros((len(things), self._longest), np.int64)
        mask = np.zeros((len(things), self._longest), bool)
        known = rng.random(len(things)) > 0.12
        for row, (thing, paint) in enumerate(zip(things, paints, strict=True)):
            if rng.random() < 0.1:
                known[row] &= rng.random() > 0.5
                continue
            view = view_label(*angles[row].tolist()) if rng.random() < (0.15 if known[row] else 0.6) else None
            text = caption(self._entries[thing], None if paint is None else _PAINT_NAMES[paint], view, rng)
            numbers = self._vocabulary.tokenize(text)[: self._longest]
            words[row, : len(numbers)] = numbers
            mask[row, : len(numbers)] = True
        return torch.from_numpy(words), torch.from_numpy(mask), torch.from_numpy(known)


def backgrounds(count: int, rng: np.random.Generator) -> np.ndarray:
    """[B, 3] solid colours: a third white, a third grey of any level, a third any colour."""
    kind = rng.integers(3, size=count)[:, None]
    grey = np.repeat(rng.random((count, 1)), 3, -1)
    return np.where(kind == 0, 1.0, np.where(kind == 1, grey, rng.random((count, 3)))).astype(np.float32)


def _packed(corpus: Path, name: str) -> dict[str, Path]:
    """Files that can be mapped into memory, made from the corpus' file when first asked for."""
    source = file_of(corpus, name)
    files = {key: source.with_suffix(f".{key}.npy") for key in ("albedo", "light", "angles")}
    if not all(file.exists() for file in files.values()):
        with np.load(source) as arrays:
            light = lit(arrays["prior_normal"].astype(np.float32) / 127.5 - 1)
            values = {
                "albedo": arrays["prior_albedo"],
                "light": np.clip(light * 200, 0, 255).astype(np.uint8),
                "angles": arrays["prior_angles"],
            }
        for key, file in files.items():
            np.save(file, values[key])
    return files
