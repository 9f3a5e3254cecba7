"""Opens the prior that a run names."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from configs.registry import unknown_name_message
from guidance.priors.base import Prior
from guidance.priors.diffusers.inspection import conversion_hint, hub_snapshot
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.flow_adapter import FlowMatchingAdapter
from guidance.priors.mini.prior import FOLDER, MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary
from guidance.priors.mini3d.prior import FOLDER as FOLDER_3D
from guidance.priors.mini3d.prior import Mini3DPrior, is_mini3d_folder
from sds3d.models.registry import MODELS

MINI = "mini"
"""Name of the prior that comes with sds3d."""
SOLID = "mini-3d"
"""Name of the prior that comes with sds3d and knows its objects in three dimensions."""
MINI_FLOW = "mini-flow"
"""Name of the same prior, asked as a flow-matching one."""
TOY = "toy"
"""Name of the exact prior of flat pictures."""


def load_prior(name: str, device: torch.device, extras: PriorOptions | None = None) -> Prior:
    """The prior of a name, of a folder, of a training that goes on in a folder, or of the hub.

    Raises:
        ValueError: no prior has that name, or the folder holds another kind of model.
        OSError: a part of the model is missing, or the hub can not be reached.
        ImportError: it needs a library that is not installed.
    """
    extras = extras or PriorOptions()
    if name == TOY or is_mini(name):
        if extras.adapter_names():
            raise ValueError(f"the prior {name} takes nothing on top; {extras.adapter_names()} is for models of others")
        if name == MINI_FLOW:
            return FlowMatchingAdapter(load_mini(MINI, device))
        if name != TOY:
            return load_mini(name, device)
        from guidance.priors.toy_images import toy_image_prior

        return toy_image_prior().to(device)
    from guidance.priors.diffusers.loading import load_diffusers_prior

    folder = folder_of(name, extras)
    try:
        return load_diffusers_prior(folder, device, extras)
    except torch.OutOfMemoryError:
        less = "--vram GB, --prior-options.cpu-offload or --device cpu take less"
        raise ValueError(f"{name} does not fit into the memory of {device}; {less}") from None


def folder_of(name: str, extras: PriorOptions) -> Path:
    """The folder of a model of others, fetched where it is not on this disk yet. Raises as `load_prior`."""
    if re.match(r"[a-z]+://|(?:www\.)?(?:huggingface\.co|hf\.co)/", name, re.IGNORECASE):
        raise ValueError(f"the prior {name} is an address; {_fetching(name)}")
    path = Path(name).expanduser()
    if path.is_dir():
        return hub_snapshot(path)
    if path.is_file():
        raise ValueError(f"{name} is a file; expected the folder of a pipeline: {conversion_hint(path)}")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", name):
        raise ValueError(f"the prior {name!r} is a path of Windows; give the folder as it is called here, /mnt/c/...")
    if name in MODELS or is_hub_name(name):
        from sds3d.models.download import download

        return download(name, extras)
    raise ValueError(
        f"{unknown_name_message('prior', name, [MINI, SOLID, MINI_FLOW, TOY, *MODELS])}, and no folder has that name"
    )


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


def load_mini(name: str, device: torch.device) -> MiniPrior | Mini3DPrior:
    """One of the embedded priors, or another one of their kind. Raises as `load_prior`."""
    if name == SOLID:
        return Mini3DPrior.load(FOLDER_3D, device)
    if name == MINI:
        return MiniPrior.load(FOLDER, device)
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"{unknown_name_message('prior', name, [MINI, SOLID, TOY])}, and no folder has that name")
    if (folder / "state.safetensors").is_file():
        from sds3d.models.mini_checkpoint import trained

        return trained(folder).to(device)
    return Mini3DPrior.load(folder, device) if is_mini3d_folder(folder) else MiniPrior.load(folder, device)


def is_mini(name: str) -> bool:
    """Whether a name or folder is of a prior like the embedded one, which runs have to be tuned for."""
    folder = Path(name)
    inside = ("tokenizer/vocabulary.json", "state.safetensors")
    return name in (MINI, SOLID, MINI_FLOW) or any((folder / part).is_file() for part in inside)


def mini_vocabulary() -> Vocabulary:
    """The words of the prior that comes with sds3d. Raises FileNotFoundError where it was not installed."""
    return MiniPrior.vocabulary_of(FOLDER)
