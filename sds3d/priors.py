"""Opens the prior that a run names."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.catalog import unknown
from guidance.embedded import FOLDER, EmbeddedPrior
from guidance.prior import Prior
from guidance.vocabulary import Vocabulary

EMBEDDED = "mini"
"""Name of the prior that comes with sds3d."""
TOY = "toy"
"""Name of the exact prior of flat pictures."""


def open_prior(name: str, device: torch.device) -> Prior:
    """The prior of a name, of a folder, or of a training that goes on in a folder.

    Raises:
        ValueError: no prior has that name, or the folder holds another kind of model.
        FileNotFoundError: a part of the model is missing.
    """
    if name == TOY:
        from guidance.toy_pictures import toy_pictures

        return toy_pictures().to(device)
    return open_embedded(name, device)


def open_embedded(name: str, device: torch.device) -> EmbeddedPrior:
    """The embedded prior, or another one of its kind. Raises as `open_prior`."""
    if name == EMBEDDED:
        return EmbeddedPrior.load(FOLDER, device)
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"{unknown('prior', name, [EMBEDDED, TOY])}, and no folder has that name")
    if (folder / "state.safetensors").is_file():
        from sds3d.mini.checkpoint import trained

        return trained(folder).to(device)
    return EmbeddedPrior.load(folder, device)


def is_embedded(name: str) -> bool:
    """Whether a name or folder is of a prior like the embedded one, which runs have to be tuned for."""
    folder = Path(name)
    inside = ("tokenizer/vocabulary.json", "state.safetensors")
    return name == EMBEDDED or any((folder / part).is_file() for part in inside)


def embedded_vocabulary() -> Vocabulary:
    """The words of the prior that comes with sds3d. Raises FileNotFoundError where it was not installed."""
    return EmbeddedPrior.vocabulary_of(FOLDER)
