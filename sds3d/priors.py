"""Opens the prior that a run names."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.catalog import unknown
from guidance.embedded import FOLDER, EmbeddedPrior
from guidance.vocabulary import Vocabulary

EMBEDDED = "mini"
"""Name of the prior that comes with sds3d."""


def open_prior(name: str, device: torch.device) -> EmbeddedPrior:
    """The prior of a name, of a folder, or of a training that goes on in a folder.

    Raises:
        ValueError: no prior has that name, or the folder holds another kind of model.
        FileNotFoundError: a part of the model is missing.
    """
    if name == EMBEDDED:
        return EmbeddedPrior.load(FOLDER, device)
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"{unknown('prior', name, [EMBEDDED])}, and no folder has that name")
    if (folder / "state.safetensors").is_file():
        from sds3d.mini.checkpoint import trained

        return trained(folder).to(device)
    return EmbeddedPrior.load(folder, device)


def embedded_vocabulary() -> Vocabulary:
    """The words of the prior that comes with sds3d. Raises FileNotFoundError where it was not installed."""
    return EmbeddedPrior.vocabulary_of(FOLDER)
