"""Opens a folder in the diffusers layout as a `Prior`; the room of diffusers and transformers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from guidance.families import texts
from guidance.families.codecs import Autoencoder, Pixels
from guidance.families.extras import Extras
from guidance.families.files import FAMILIES, Found, look, names_in, read_json, weights_in, whole
from guidance.families.kept import KeptTexts, default_folder, identity
from guidance.families.networks import Asking, JointTransformer, PackedTransformer, SizedUNet, UNet
from guidance.families.prior import FamilyPrior
from guidance.families.schedules import flow_of, prediction_of, table_of
from guidance.schedule import Schedule

_READERS: dict[str, texts.Way] = {
    "StableDiffusionPipeline": texts.stable_diffusion,
    "LatentConsistencyModelPipeline": texts.stable_diffusion,
    "StableDiffusionXLPipeline": texts.stable_diffusion_xl,
    "IFPipeline": texts.deepfloyd,
    "StableDiffusion3Pipeline": texts.stable_diffusion_3,
    "FluxPipeline": texts.flux,
}
_BRAIN = {"StableDiffusion3Pipeline": torch.bfloat16, "FluxPipeline": torch.bfloat16, "IFPipeline": torch.bfloat16}
"""Families whose half precision is not float16: their activations are larger than it holds."""
_OPTIONAL = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}
"""Parts that a family can do without."""
_FLUX_SIZE = 1024


def open_family(folder: Path, device: torch.device, extras: Extras | None = None) -> FamilyPrior:
    """The model of a folder.

    Raises:
        ValueError, OSError: it is none, it is not complete, or something on top does not fit; one line.
        ImportError: diffusers or transformers is not installed.
    """
    extras = extras or Extras()
    found = look(folder)
    pipe = _pipeline(folder, found, device, extras)
    _put_on_top(pipe, extras, device)
    try:
        return _prior(pipe, folder, found, device, extras)
    except ValueError as error:
        raise ValueError(f"{folder} can not be used: {error}") from None


def precision_of(kind: str, device: torch.device, extras: Extras) -> torch.dtype:
    """Half on CUDA and full on the CPU, unless something else is asked for."""
    half = device.type == "cuda" if extras.precision == "auto" else extras.precision == "half"
    return _BRAIN.get(kind, torch.float16) if half else torch.float32


@dataclass(frozen=True)
class _Parts:
    """What differs between families."""

    asking: Asking
    schedule: Schedule
    prediction: str


def _prior(pipe: Any, folder: Path, found: Found, device: torch.device, extras: Extras) -> FamilyPrior:
    """The prior around a pipeline."""
    network = getattr(pipe, FAMILIES[found.kind])
    codec = Pixels() if found.kind == "IFPipeline" else Autoencoder.of(pipe.vae)
    factor = 1 if isinstance(codec, Pixels) else codec.factor
    size = extras.size or _own_size(found.kind, network, factor)
    grain = factor * (2 if FAMILIES[found.kind] == "transformer" else 1)
    if size % grain:
        raise ValueError(f"size is {size}; this model takes multiples of {grain} pixels")
    parts = _parts(found.kind, pipe, network, size, (size // factor // 2) ** 2, extras)
    reader = texts.Reader(pipe, _READERS[found.kind])
    if extras.frugal:
        if "vae" in found.parts:
            pipe.vae.enable_slicing()
        store = KeptTexts(default_folder(), identity(folder, (extras.lora, extras.words), str(network.dtype)))
        reader = texts.Reader(pipe, _READERS[found.kind], _reopening(folder, found, network, extras), store)
    return FamilyPrior(parts.asking, parts.schedule, parts.prediction, codec, reader, size, extras.rows)


def _parts(kind: str, pipe: Any, network: Any, size: int, patches: int, extras: Extras) -> _Parts:
    scheduler = pipe.scheduler
    if kind == "StableDiffusion3Pipeline":
        return _Parts(JointTransformer(network), flow_of(scheduler, patches), "flow")
    if kind == "FluxPipeline":
        guidance = extras.guidance if network.config.guidance_embeds else None
        return _Parts(PackedTransformer(network, guidance), flow_of(scheduler, patches), "flow")
    table, prediction = table_of(scheduler), prediction_of(scheduler)
    if kind == "StableDiffusionXLPipeline":
        return _Parts(SizedUNet(network, table.steps, size), table, prediction)
    told = extras.guidance if network.config.time_cond_proj_dim else None
    return _Parts(UNet(network, table.steps, told), table, prediction)


def _own_size(kind: str, network: Any, factor: int) -> int:
    """Pixels of the pictures a model was trained on."""
    if kind == "FluxPipeline":
        return _FLUX_SIZE
    return int(network.config.sample_size) * factor


def _pipeline(folder: Path, found: Found, device: torch.device, extras: Extras) -> Any:
    """The pipeline without what is not needed, frozen, on its device."""
    dtype = precision_of(found.kind, device, extras)
    pipe = _loaded(folder, found, dtype, _encoders(found) if extras.frugal else ())
    if extras.vae and found.kind != "IFPipeline":
        pipe.vae = _autoencoder(Path(extras.vae), dtype)
    for name, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False).to(device)
            if name == "vae" and module.config.get("force_upcast"):  # type: ignore[operator, union-attr]
                module.float()  # Overflows in half precision, by its own word.
    return pipe


def _loaded(folder: Path, found: Found, dtype: torch.dtype, left_out: tuple[str, ...] = ()) -> Any:
    """What diffusers loads, with its many ways to fail in one line."""
    diffusers = _diffusers()
    index = read_json(folder / "model_index.json")
    named = {*_OPTIONAL.get(found.kind, ()), *(name for name, entry in index.items() if isinstance(entry, list))}
    skipped: dict[str, None] = {name: None for name in named - {*found.parts} | {*left_out}}
    with _quiet():
        try:
            return getattr(diffusers, found.kind).from_pretrained(
                folder,
                torch_dtype=dtype,
                variant=found.variant,
                use_safetensors=True,
                local_files_only=True,
                **skipped,
            )
        except Exception as error:  # whatever the library does with weights that do not fit their configuration
            raise ValueError(f"{folder} does not open: {_first_line(error)}") from None


def _autoencoder(folder: Path, dtype: torch.dtype) -> Any:
    """Another autoencoder. Raises as `open_family`."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"vae is {folder}; expected a folder with config.json and its weights")
    kind = read_json(config).get("_class_name")
    if kind not in ("AutoencoderKL", "AutoencoderTiny"):
        raise ValueError(f"{folder} holds a {kind}; expected an AutoencoderKL or AutoencoderTiny")
    if not (files := weights_in(folder)):
        raise FileNotFoundError(f"{folder} has no .safetensors file")
    for file in files:
        whole(file)
    with _quiet():
        try:
            return getattr(_diffusers(), kind).from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
        except Exception as error:  # as above
            raise ValueError(f"{folder} does not open: {_first_line(error)}") from None


def _put_on_top(pipe: Any, extras: Extras, device: torch.device) -> None:
    """Merges low-rank additions and learns words. Raises ValueError or FileNotFoundError where they do not fit."""
    for file in (extras.lora, extras.words):
        if file:
            if not Path(file).is_file():
                raise FileNotFoundError(f"{file} is missing")
            whole(Path(file))
    if (
        extras.frugal
        and extras.lora
        and any("text_encoder" in n or "lora_te" in n for n in names_in(Path(extras.lora)))
    ):
        raise ValueError(f"{extras.lora} changes the text encoder too, which leaves the memory; leave frugal out")
    with _quiet():
        try:
            if extras.lora:
                path = Path(extras.lora)
                pipe.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
                pipe.fuse_lora(lora_scale=extras.lora_scale)
                pipe.unload_lora_weights()
            if extras.words and pipe.text_encoder is not None:
                pipe.load_textual_inversion(extras.words, token=f"<{Path(extras.words).stem}>", local_files_only=True)
        except Exception as error:  # as above
            raise ValueError(f"{extras.lora or extras.words} does not fit this model: {_first_line(error)}") from None
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.requires_grad_(False).to(device)


def _reopening(folder: Path, found: Found, network: Any, extras: Extras) -> texts.Reopen:
    """Gives the text encoders, around the network that is there anyway, for texts that were not read before."""

    def reopen() -> Any:
        name = FAMILIES[found.kind]
        pipe = _loaded(folder, found, network.dtype, tuple({"vae", name} & {*found.parts}))
        if extras.words:
            _put_on_top(pipe, replace(extras, lora=""), network.device)
        setattr(pipe, name, network)
        return pipe.to(network.device)

    return reopen


def _encoders(found: Found) -> tuple[str, ...]:
    return tuple(name for name in found.parts if name.startswith("text_encoder"))


def _diffusers() -> Any:
    try:
        import diffusers
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(f'this model needs diffusers ({error}); install it with: pip install "sds3d[hub]"') from error
    return diffusers


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the libraries draw no bars and log nothing: what fails is raised."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    before = ours.get_verbosity(), theirs.get_verbosity()
    for library in (ours, theirs):
        library.set_verbosity(logging.CRITICAL)
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ours.set_verbosity(before[0])
        theirs.set_verbosity(before[1])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[0] if lines else type(error).__name__
    return told if len(told) <= 300 else told[:300] + " ..."
