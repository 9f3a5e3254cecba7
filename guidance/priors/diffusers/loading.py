"""Opens a folder in the diffusers layout as a `Prior`; the room of diffusers and transformers."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guidance.priors.diffusers.adapters import give_eyes, merge, teach
from guidance.priors.diffusers.codecs import SAID, Autoencoder, Codec, Pixels
from guidance.priors.diffusers.compatibility import refuse_empty, refuse_unfit
from guidance.priors.diffusers.encoders import Incomplete, encoder_of
from guidance.priors.diffusers.inspection import FAMILIES, Found, look, names_in, read_json, weights_in, whole
from guidance.priors.diffusers.multiview.mvdream_pipeline import assembled
from guidance.priors.diffusers.multiview.unet import VIEWS, MultiViewUNet
from guidance.priors.diffusers.networks import (
    Asking,
    JointTransformer,
    LinearTransformer,
    PackedTransformer,
    PatchTransformer,
    SizedUNet,
    UNet,
)
from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import FamilyPrior, SeeingPrior
from guidance.priors.diffusers.prompts import encoding
from guidance.priors.diffusers.prompts.cache import KeptTexts, default_folder, identity
from guidance.priors.diffusers.prompts.image_prompt import AdapterLooker, Looker, ViewLooker
from guidance.priors.diffusers.schedules import flow_of, prediction_of, table_of
from guidance.priors.diffusers.sizes import own_size, patch_size
from guidance.priors.schedule import Schedule

_READERS: dict[str, encoding.Way] = {
    "StableDiffusionPipeline": encoding.stable_diffusion,
    "LatentConsistencyModelPipeline": encoding.stable_diffusion,
    "StableDiffusionXLPipeline": encoding.stable_diffusion_xl,
    "IFPipeline": encoding.deepfloyd,
    "StableDiffusion3Pipeline": encoding.stable_diffusion_3,
    "FluxPipeline": encoding.flux,
    "PixArtAlphaPipeline": encoding.pixart,
    "PixArtSigmaPipeline": encoding.pixart,
    "SanaPipeline": encoding.sana,
    "MVDreamPipeline": encoding.stable_diffusion,
}
_BRAIN = ("StableDiffusion3Pipeline", "FluxPipeline", "IFPipeline", "SanaPipeline")
"""Families whose half precision is bfloat16 and not float16: their activations are larger than that holds."""
_OPTIONAL = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}
"""Parts that a family can do without."""


def open_family(folder: Path, device: torch.device, extras: Extras | None = None) -> FamilyPrior:
    """The model of a folder.

    Raises:
        ValueError, OSError: it is none, it is not complete, or something on top does not fit; one line.
        ImportError: diffusers or transformers is not installed.
    """
    extras = extras or Extras()
    found = look(folder)
    pipe = _pipeline(folder, found, device, extras)
    remarks = _put_on_top(pipe, extras, device)
    try:
        prior = _prior(pipe, folder, found, device, extras)
        prior.remarks = remarks
        return prior
    except ValueError as error:
        raise ValueError(f"{folder} can not be used: {error}") from None


def precision_of(kind: str, device: torch.device, extras: Extras) -> torch.dtype:
    """Half on CUDA and full on the CPU, unless something else is asked for."""
    half = device.type == "cuda" if extras.precision == "auto" else extras.precision == "half"
    return torch.float32 if not half else torch.bfloat16 if kind in _BRAIN else torch.float16


@dataclass(frozen=True)
class _Parts:
    """What differs between families."""

    asking: Asking
    schedule: Schedule
    prediction: str


def _prior(pipe: Any, folder: Path, found: Found, device: torch.device, extras: Extras) -> FamilyPrior:
    """The prior around a pipeline."""
    network = getattr(pipe, FAMILIES[found.kind])
    away = device if extras.offload and device.type != "cpu" else None
    codec: Codec = Pixels()
    if found.kind != "IFPipeline":
        whitened = found.kind == "StableDiffusionXLPipeline"
        codec = replace(Autoencoder.of(pipe.vae, whitened), away=away, sparing=extras.frugal or extras.offload)
    refuse_unfit(pipe, folder, found, codec)
    factor = codec.factor if isinstance(codec, Autoencoder) else 1
    size = extras.size or own_size(found.kind, network, factor)
    grain = factor * patch_size(found.kind, network)
    if size % grain:
        raise ValueError(f"size is {size}; this model takes multiples of {grain} pixels")
    parts = _parts(found.kind, pipe, network, size, (size // factor // 2) ** 2, extras)
    reader = encoding.Reader(pipe, _READERS[found.kind])
    if extras.frugal or extras.offload:
        store = KeptTexts(default_folder(), identity(folder, (extras.lora, extras.words), str(network.dtype)))
        reader = encoding.Reader(pipe, _READERS[found.kind], _reopening(folder, found, network, device, extras), store)
    given = (parts.asking, parts.schedule, parts.prediction, codec, reader, size, extras.rows)
    looker = _looker(pipe, codec, size, device)
    prior = FamilyPrior(*given) if looker is None else SeeingPrior(*given).seeing(looker)
    prior.away = away
    return prior


def _looker(pipe: Any, codec: Codec, size: int, device: torch.device) -> Looker | None:
    """How the network sees a picture, where it does."""
    network: Any = getattr(pipe, "unet", None)
    if reader := getattr(network, "picture_reader", None):
        del network.picture_reader  # It reads a picture once; a pass of the network has no use for it.
        return ViewLooker(pipe.image_encoder, reader, codec, size, device)
    if getattr(getattr(network, "config", None), "encoder_hid_dim_type", None) == "ip_image_proj":
        projection = network.encoder_hid_proj.image_projection_layers[0]
        return AdapterLooker(pipe.image_encoder, type(projection).__name__ != "ImageProjection")
    return None


def _parts(kind: str, pipe: Any, network: Any, size: int, patches: int, extras: Extras) -> _Parts:
    scheduler = pipe.scheduler
    if kind == "StableDiffusion3Pipeline":
        return _Parts(JointTransformer(network), flow_of(scheduler, patches), "flow")
    if kind == "SanaPipeline":
        if network.config.guidance_embeds:
            raise ValueError("its network is told its guidance, as Sana Sprint's is, which is not read; Sana's is not")
        return _Parts(LinearTransformer(network), flow_of(scheduler, patches), "flow")
    if kind == "FluxPipeline":
        guidance = extras.guidance if network.config.guidance_embeds else None
        return _Parts(PackedTransformer(network, guidance), flow_of(scheduler, patches), "flow")
    table, prediction = table_of(scheduler), prediction_of(scheduler)
    if kind == "MVDreamPipeline":
        tokens = network.picture_reader.latents.shape[1] if hasattr(network, "picture_reader") else 0
        return _Parts(MultiViewUNet(network, table.steps, VIEWS, tokens), table, prediction)
    if kind.startswith("PixArt"):
        return _Parts(PatchTransformer(network, table.steps, size), table, prediction)
    if kind == "StableDiffusionXLPipeline":
        return _Parts(SizedUNet(network, table.steps, size), table, prediction)
    told = extras.guidance if network.config.time_cond_proj_dim else None
    return _Parts(UNet(network, table.steps, told), table, prediction)


def _pipeline(folder: Path, found: Found, device: torch.device, extras: Extras) -> Any:
    """The pipeline without what is not needed, frozen, on its device."""
    dtype = precision_of(found.kind, device, extras)
    pipe = _loaded(folder, found, dtype, _encoders(found) if extras.frugal or extras.offload else ())
    refuse_empty(pipe, folder)
    if extras.vae:
        if found.kind == "IFPipeline":
            raise ValueError(f"{folder} is a model of pixels and has no autoencoder; leave vae {extras.vae} out")
        pipe.vae = _autoencoder(Path(extras.vae), dtype, Autoencoder.of(pipe.vae))
    _settle(pipe, device, extras)
    if "vae" in pipe.components and pipe.vae is not None and pipe.vae.config.get("force_upcast"):
        pipe.vae.float()  # Overflows in half precision, by its own word.
    return pipe


def _settle(pipe: Any, device: torch.device, extras: Extras) -> None:
    """Freezes every part and puts it where it belongs."""
    for name, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            stays = extras.offload and name in ("vae", *FAMILIES.values())
            module.eval().requires_grad_(False).to("cpu" if stays else device)


def _loaded(folder: Path, found: Found, dtype: torch.dtype, left_out: tuple[str, ...] = ()) -> Any:
    """What diffusers loads, with its many ways to fail in one line."""
    diffusers, transformers = _libraries()
    index = read_json(folder / "model_index.json")
    named = {*_OPTIONAL.get(found.kind, ()), *(name for name, entry in index.items() if isinstance(entry, list))}
    skipped: dict[str, None] = {name: None for name in named - {*found.parts} | {*left_out}}
    encoders = [name for name in _encoders(found) if name not in skipped and index[name][0] == "transformers"]
    with _quiet():
        try:
            if found.kind == "MVDreamPipeline":
                return assembled(_libraries(), folder, found, dtype, {*skipped})
            read = {
                name: encoder_of(getattr(transformers, index[name][1]), folder / name, dtype, found.variant)
                for name in encoders
            }
            return getattr(diffusers, found.kind).from_pretrained(
                folder,
                torch_dtype=dtype,
                variant=found.variant,
                use_safetensors=True,
                local_files_only=True,
                **skipped,
                **read,
            )
        except Incomplete:
            raise
        except Exception as error:  # whatever the library does with weights that do not fit their configuration
            raise ValueError(f"{folder} does not open: {_first_line(error)}") from None


def _autoencoder(folder: Path, dtype: torch.dtype, own: Autoencoder) -> Any:
    """Another autoencoder than the model's own. Raises as `open_family`."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"vae is {folder}; expected a folder with config.json and its weights")
    kind = read_json(config).get("_class_name")
    if kind not in SAID:
        raise ValueError(f"{folder} holds a {kind}; expected one of {', '.join(SAID)}")
    if not (files := weights_in(folder)):
        raise FileNotFoundError(f"{folder} has no .safetensors file")
    for file in files:
        whole(file)
    with _quiet():
        try:
            vae = getattr(_libraries()[0], kind).from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
        except Exception as error:  # as above
            raise ValueError(f"{folder} does not open: {_first_line(error)}") from None
    given = Autoencoder.of(vae)
    if (given.channels, given.factor) != (own.channels, own.factor):
        has = f"{given.channels} numbers for {given.factor} x {given.factor} pixels"
        raise ValueError(
            f"{folder} has latents of {has}; this model wants {own.channels} for {own.factor} x {own.factor}"
        )
    return vae


def _put_on_top(pipe: Any, extras: Extras, device: torch.device) -> tuple[str, ...]:
    """Merges low-rank additions and learns words; returns what of them does not fit.

    Raises ValueError or FileNotFoundError where nothing does.
    """
    remarks: list[str] = []
    for file in (extras.lora, extras.words, extras.adapter):
        if file:
            if not Path(file).is_file():
                raise FileNotFoundError(f"{file} is missing")
            whole(Path(file))
    if (
        (extras.frugal or extras.offload)
        and extras.lora
        and any("text_encoder" in n or "lora_te" in n for n in names_in(Path(extras.lora)))
    ):
        raise ValueError(
            f"{extras.lora} changes the text encoder too, which leaves the memory; leave frugal and offload out"
        )
    see = partial(give_eyes, kind=_libraries()[1].CLIPVisionModelWithProjection)
    for file, put in ((extras.lora, merge), (extras.words, teach), (extras.adapter, see)):
        with _quiet():
            try:
                if file and (remark := put(pipe, Path(file), extras)):
                    remarks.append(f"{Path(file).name}: {remark}")
            except Incomplete:
                raise
            except Exception as error:  # as above
                raise ValueError(f"{file} does not fit this model: {_first_line(error)}") from None
    _settle(pipe, device, extras)
    return tuple(remarks)


def _reopening(folder: Path, found: Found, network: Any, device: torch.device, extras: Extras) -> encoding.Reopen:
    """Gives the text encoders, around the network that is there anyway, for texts that were not read before."""

    def reopen() -> Any:
        name = FAMILIES[found.kind]
        pipe = _loaded(folder, found, network.dtype, tuple({"vae", name} & {*found.parts}))
        if extras.words:
            _put_on_top(pipe, replace(extras, lora="", adapter=""), device)
        setattr(pipe, name, network)
        for encoder in _encoders(found):
            getattr(pipe, encoder).to(device)
        return pipe

    return reopen


def _encoders(found: Found) -> tuple[str, ...]:
    return tuple(name for name in found.parts if name.startswith("text_encoder"))


def _libraries() -> tuple[Any, Any]:
    """diffusers and transformers. Raises ImportError where one is not installed."""
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise ImportError(f'this model needs diffusers ({error}); install it with: pip install "sds3d[hub]"') from error
    return diffusers, transformers


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
    text = re.sub(r"tensor\(.*?\)", "a tensor", str(error), flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # as torch puts what does not fit under a title
        lines[0] += f" {lines[1]}"
    told = lines[0] if lines else f"its parts do not match ({type(error).__name__})"
    return told if len(told) <= 300 else told[:300] + " ..."
