"""What is written under a picture: name, colour, material, view."""

from __future__ import annotations

import numpy as np

from guidance.priors.mini.vocabulary import Vocabulary
from sds3d.mini_training.colors import COLORS
from sds3d.mini_training.corpus import Entry

MATERIALS = ("wood", "wooden", "leather", "metal", "plastic", "glass", "fabric", "stone", "rubber")


def vocabulary(entries: list[Entry]) -> Vocabulary:
    """Every word that captions of these objects can hold."""
    return Vocabulary.from_phrases({entry.name: tuple(entry.synonyms) for entry in entries}, tuple(COLORS), MATERIALS)


def caption(entry: Entry, painted: str | None, view: str | None, rng: np.random.Generator) -> str:
    """One of the many texts that fit a picture.

    Args:
        painted: colour the object was repainted in; it is always named. Otherwise its own colours sometimes are.
        view: word for the view, or None to leave it out.
    """
    name = entry.name
    if entry.synonyms and rng.random() < 0.3:
        name = entry.synonyms[rng.integers(len(entry.synonyms))]
    words = []
    if painted:
        words.append(painted)
    elif entry.colours and rng.random() < 0.4:
        words += entry.colours[: rng.integers(1, len(entry.colours) + 1)]
    if entry.materials and not painted and rng.random() < 0.15:
        words.append(entry.materials[rng.integers(len(entry.materials))])
    return " ".join([*words, name]) + (f", {view} view" if view else "")
