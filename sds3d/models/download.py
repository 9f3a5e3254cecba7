"""Models from the hub: what is needed of them, into the hub's own cache, whole or not at all."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from guidance.priors.diffusers.inspection import (
    HALF_VARIANTS,
    PIPELINE_NETWORKS,
    UNUSED_PARTS,
    half_variant_of,
    inspect_folder,
    weights_in,
)
from guidance.priors.diffusers.options import PriorOptions
from sds3d.models.registry import MODELS

HUB = "https://huggingface.co"
_PLAIN = (".json", ".txt", ".model")
_WEIGHTED = (*PIPELINE_NETWORKS.values(), "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder")
_MANY_VIEWS = "unet/mv_unet.py"
"""Only models that come with this code need what sees pictures; the code itself is not fetched."""


def download(name: str, extras: PriorOptions) -> Path:
    """The folder of a model of the book, or of owner/name on the hub; downloaded unless it is there already.

    Raises:
        OSError: it is not here, and no source gave it; one line with what each said and what else works.
        ValueError: what the source has is no model that is read.
        ImportError: huggingface_hub is not installed.
    """
    sources = MODELS[name].sources if name in MODELS else (name,)
    for source in sources:
        if folder := cached(source, extras):
            return folder
    if extras.offline:
        online = f"with a network, sds3d models fetch {name} fetches it"
        raise OSError(f"{name} is not on this disk, and nothing is fetched offline; {_instead(name)}; {online}")
    said = []
    for source in sources:
        try:
            return _downloaded(source, extras)
        except OSError as error:
            said.append(f"{source}: {error}")
    raise OSError(f"{name} could not be fetched ({'; '.join(said)}); {_instead(name)}")


def cached(source: str, extras: PriorOptions) -> Path | None:
    """The folder of a model that was fetched before, or None where it was not, or not all of it."""
    hub = _hub()
    try:
        folder = Path(hub.snapshot_download(source, revision=extras.revision or None, local_files_only=True))
        inspect_folder(folder)
    except (OSError, ValueError):
        return None
    return folder


def select_files(names: list[str], half: bool) -> list[str]:
    """Of a repository's files, those that are needed: safetensors in one precision, and what is beside them.

    Raises ValueError where a part has no safetensors weights, or the repository is no pipeline.
    """
    if "model_index.json" not in names:
        raise ValueError("it has no model_index.json; expected a pipeline in the diffusers layout")
    kept = ["model_index.json"]
    needless = UNUSED_PARTS if _MANY_VIEWS in names else (*UNUSED_PARTS, "image_encoder")
    for part in dict.fromkeys(name.split("/")[0] for name in names if name.count("/") == 1):
        inside = [name for name in names if name.startswith(part + "/") and name.count("/") == 1]
        if part in needless or (f"{part}/config.json" not in inside and part in _WEIGHTED):
            continue
        kept += [name for name in inside if name.endswith(_PLAIN) and ".index." not in name]
        if part not in _WEIGHTED:
            continue
        weights = [name for name in inside if ".safetensors" in name and "non_ema" not in name]
        marked = next((half for half in HALF_VARIANTS if any(half_variant_of(name) == half for name in weights)), None)
        halved = [name for name in weights if marked and half_variant_of(name) == marked]
        plain = [name for name in weights if not half_variant_of(name)]
        if not weights:
            raise ValueError(f"{part} has no .safetensors weights; others can run code and are not read")
        kept += halved if (half and halved) or not plain else plain
    return kept


def verify(folder: Path) -> list[str]:
    """A line for each weight file of a model: that it is whole, and its checksum where one is known.

    A file in the hub's cache lies under its SHA-256; of others only the lengths in their headers can be checked.

    Raises:
        ValueError, OSError: a file is missing, cut short, or not what its checksum says.
    """
    found, told = inspect_folder(folder), []
    for part in found.parts:
        if not (folder / part / "config.json").is_file():
            continue
        for file in weights_in(folder / part, found.variant) or weights_in(folder / part):
            wanted = file.resolve().name
            if re.fullmatch("[0-9a-f]{64}", wanted):
                if (real := _sha256(file)) != wanted:
                    raise ValueError(f"{file} is damaged: its SHA-256 is {real}, expected {wanted}")
                told.append(f"{part}/{file.name}: whole, SHA-256 as on the hub")
            else:
                told.append(f"{part}/{file.name}: whole (no checksum is known)")
    return told


def _downloaded(source: str, extras: PriorOptions) -> Path:
    """Raises OSError with a reason in a few words, ValueError where there is nothing that is read."""
    hub, revision = _hub(), extras.revision or None
    half = extras.precision == "half" or (extras.precision == "auto" and torch.cuda.is_available())
    try:
        names = [row.rfilename for row in hub.HfApi().model_info(source, revision=revision).siblings or []]
        wanted = select_files(names, half)
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=wanted))
    except ValueError as error:
        if isinstance(error, hub.errors.HfHubHTTPError | hub.errors.HFValidationError):
            raise OSError(_reason(error)) from None
        raise ValueError(f"{source} can not be used: {error}") from None
    except Exception as error:  # the client's own errors, and those of what it speaks HTTP with
        raise OSError(_reason(error)) from None
    finally:
        _remove_partial(source)


def _reason(error: Exception) -> str:
    """Why the hub gave nothing, in a few words."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if "GatedRepoError" in kinds:
        return "gated: accept its licence on its page and log in with: hf auth login"
    if "RepositoryNotFoundError" in kinds or "HFValidationError" in kinds:
        return "not on the hub, or private"
    if "RevisionNotFoundError" in kinds:
        return "no such revision"
    if "OfflineModeIsEnabled" in kinds or "LocalEntryNotFoundError" in kinds:
        return "the hub is switched off or can not be reached"
    if kinds[0] in ("OSError", "PermissionError"):
        return str(error)
    lines = str(error).splitlines()
    return f"no answer from the hub ({kinds[0]}{': ' + lines[0][:160] if lines else ''})"


def _remove_partial(source: str) -> None:
    """Takes away what was downloaded in part."""
    cache = Path(_hub().constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    for partial in cache.glob("blobs/*.incomplete"):
        partial.unlink(missing_ok=True)


def _instead(name: str) -> str:
    """What works where a model is not to be had."""
    free = [other for other, model in MODELS.items() if not model.gated and other != name]
    return f"a local folder works (--prior FOLDER), so does --prior mini; models without a gate: {', '.join(free)}"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        hint = 'pip install "sds3d[hub]"'
        raise ImportError(f"models of the hub need huggingface_hub ({error}); install it with: {hint}") from error
    return huggingface_hub
