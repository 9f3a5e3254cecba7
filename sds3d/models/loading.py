"""Opens the prior that a run names."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from configs.registry import unknown
from guidance.priors.base import Prior
from guidance.priors.diffusers.inspection import converting, snapshot_of
from guidance.priors.diffusers.options import Extras
from guidance.priors.flow_adapter import FlowReading
from guidance.priors.mini.prior import FOLDER, EmbeddedPrior
from guidance.priors.mini.vocabulary import Vocabulary
from guidance.priors.mini3d.prior import FOLDER as FOLDER_3D
from guidance.priors.mini3d.prior import MiniPrior, is_mini
from sds3d.models.registry import BOOK

EMBEDDED = "mini"
"""Name of the prior that comes with sds3d."""
SOLID = "mini-3d"
"""Name of the prior that comes with sds3d and knows its objects in three dimensions."""
FLOW = "mini-flow"
"""Name of the same prior, asked as a flow-matching one."""
TOY = "toy"
"""Name of the exact prior of flat pictures."""


def open_prior(name: str, device: torch.device, extras: Extras | None = None) -> Prior:
    """The prior of a name, of a folder, of a training that goes on in a folder, or of the hub.

    Raises:
        ValueError: no prior has that name, or the folder holds another kind of model.
        OSError: a part of the model is missing, or the hub can not be reached.
        ImportError: it needs a library that is not installed.
    """
    extras = extras or Extras()
    if name == TOY or is_embedded(name):
        if extras.on_top():
            raise ValueError(f"the prior {name} takes nothing on top; {extras.on_top()} is for models of others")
        if name == FLOW:
            return FlowReading(open_embedded(EMBEDDED, device))
        if name != TOY:
            return open_embedded(name, device)
        from guidance.priors.toy_images import toy_pictures

        return toy_pictures().to(device)
    from guidance.priors.diffusers.loading import open_family

    folder = folder_of(name, extras)
    try:
        return open_family(folder, device, extras)
    except torch.OutOfMemoryError:
        less = "--vram GB, --extras.offload or --device cpu take less"
        raise ValueError(f"{name} does not fit into the memory of {device}; {less}") from None


def folder_of(name: str, extras: Extras) -> Path:
    """The folder of a model of others, fetched where it is not on this disk yet. Raises as `open_prior`."""
    if re.match(r"[a-z]+://|(?:www\.)?(?:huggingface\.co|hf\.co)/", name, re.IGNORECASE):
        raise ValueError(f"the prior {name} is an address; {_fetching(name)}")
    path = Path(name).expanduser()
    if path.is_dir():
        return snapshot_of(path)
    if path.is_file():
        raise ValueError(f"{name} is a file; expected the folder of a pipeline: {converting(path)}")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", name):
        raise ValueError(f"the prior {name!r} is a path of Windows; give the folder as it is called here, /mnt/c/...")
    if name in BOOK or is_hub_name(name):
        from sds3d.models.download import fetched

        return fetched(name, extras)
    raise ValueError(f"{unknown('prior', name, [EMBEDDED, SOLID, FLOW, TOY, *BOOK])}, and no folder has that name")


def _fetching(address: str) -> str:
    """How a model behind an address is had, as a clause."""
    if address.startswith("file://"):
        return f"give the folder alone, --prior {address.removeprefix('file://')}"
    hub = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/"
    page = re.match(hub + r"(?!datasets/|spaces/)([\w.-]+/[\w.-]+)", address)
    if page:
        return f"give the name alone, --prior {page[1]}, or fetch it first: sds3d models fetch {page[1]}"
    return "download the model and give its folder, in the diffusers layout"


def is_hub_name(name: str) -> bool:
    """Whether a name could be owner/name on the hub, and does not look like a path."""
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and "/" not in rest and owner not in (".", "..", "~") and not name.startswith("/")


def open_embedded(name: str, device: torch.device) -> EmbeddedPrior | MiniPrior:
    """One of the embedded priors, or another one of their kind. Raises as `open_prior`."""
    if name == SOLID:
        return MiniPrior.load(FOLDER_3D, device)
    if name == EMBEDDED:
        return EmbeddedPrior.load(FOLDER, device)
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"{unknown('prior', name, [EMBEDDED, SOLID, TOY])}, and no folder has that name")
    if (folder / "state.safetensors").is_file():
        from sds3d.models.mini_checkpoint import trained

        return trained(folder).to(device)
    return MiniPrior.load(folder, device) if is_mini(folder) else EmbeddedPrior.load(folder, device)


def is_embedded(name: str) -> bool:
    """Whether a name or folder is of a prior like the embedded one, which runs have to be tuned for."""
    folder = Path(name)
    inside = ("tokenizer/vocabulary.json", "state.safetensors")
    return name in (EMBEDDED, SOLID, FLOW) or any((folder / part).is_file() for part in inside)


def embedded_vocabulary() -> Vocabulary:
    """The words of the prior that comes with sds3d. Raises FileNotFoundError where it was not installed."""
    return EmbeddedPrior.vocabulary_of(FOLDER)
