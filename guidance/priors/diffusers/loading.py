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

from guidance.priors.diffusers.adapters import fuse_lora, load_ip_adapter, load_textual_inversion
from guidance.priors.diffusers.codecs import LATENT_OUTPUT, Codec, PixelCodec, VAECodec
from guidance.priors.diffusers.compatibility import check_compatible, check_weights_complete
from guidance.priors.diffusers.encoders import IncompleteWeights, load_encoder
from guidance.priors.diffusers.inspection import (
    PIPELINE_NETWORKS,
    PipelineFiles,
    check_complete,
    inspect_folder,
    read_json,
    tensor_names,
    weights_in,
)
from guidance.priors.diffusers.multiview.mvdream_pipeline import build_mvdream_pipeline
from guidance.priors.diffusers.multiview.unet import VIEWS_PER_GROUP, MultiViewUNet
from guidance.priors.diffusers.networks import (
    FluxTransformer,
    NetworkAdapter,
    PixArtTransformer,
    SanaTransformer,
    SD3Transformer,
    SDXLUNet,
    UNet,
)
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import DiffusersPrior, ImagePromptDiffusersPrior
from guidance.priors.diffusers.prompts import encoding
from guidance.priors.diffusers.prompts.cache import PromptCache, cache_key, default_folder
from guidance.priors.diffusers.prompts.image_prompt import ImageDreamEncoder, ImagePromptEncoder, IPAdapterEncoder
from guidance.priors.diffusers.schedules import (
    discrete_schedule_from_scheduler,
    flow_schedule_from_scheduler,
    prediction_type_from_scheduler,
)
from guidance.priors.diffusers.sizes import default_image_size, patch_size
from guidance.priors.schedule import Schedule

_PROMPT_ENCODERS: dict[str, encoding.EncodeFn] = {
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
BF16_PIPELINES = ("StableDiffusion3Pipeline", "FluxPipeline", "IFPipeline", "SanaPipeline")
"""Families whose half precision is bfloat16 and not float16: their activations are larger than that holds."""
_OPTIONAL_PARTS = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}
"""Parts that a family can do without."""


def load_diffusers_prior(folder: Path, device: torch.device, options: PriorOptions | None = None) -> DiffusersPrior:
    """The model of a folder.

    Raises:
        ValueError, OSError: it is none, it is not complete, or something on top does not fit; one line.
        ImportError: diffusers or transformers is not installed.
    """
    options = options or PriorOptions()
    files = inspect_folder(folder)
    pipe = _load_pipeline(folder, files, device, options)
    adapter_warnings = _apply_adapters(pipe, options, device)
    try:
        prior = _build_prior(pipe, folder, files, device, options)
        prior.warnings = adapter_warnings
        return prior
    except ValueError as error:
        raise ValueError(f"{folder} can not be used: {error}") from None


def weights_dtype(pipeline_class: str, device: torch.device, options: PriorOptions) -> torch.dtype:
    """Half on CUDA and full on the CPU, unless something else is asked for."""
    half = device.type == "cuda" if options.precision == "auto" else options.precision == "half"
    return torch.float32 if not half else torch.bfloat16 if pipeline_class in BF16_PIPELINES else torch.float16


@dataclass(frozen=True)
class _FamilyParts:
    """What differs between families."""

    adapter: NetworkAdapter
    schedule: Schedule
    prediction_type: str


def _build_prior(
    pipe: Any, folder: Path, files: PipelineFiles, device: torch.device, options: PriorOptions
) -> DiffusersPrior:
    """The prior around a pipeline."""
    network = getattr(pipe, PIPELINE_NETWORKS[files.pipeline_class])
    execution_device = device if options.cpu_offload and device.type != "cpu" else None
    codec: Codec = PixelCodec()
    if files.pipeline_class != "IFPipeline":
        whitened = files.pipeline_class == "StableDiffusionXLPipeline"
        codec = replace(
            VAECodec.from_vae(pipe.vae, whitened),
            execution_device=execution_device,
            checkpoint_per_image=options.low_memory or options.cpu_offload,
        )
    check_compatible(pipe, folder, files, codec)
    factor = codec.downsample_factor if isinstance(codec, VAECodec) else 1
    size = options.image_size or default_image_size(files.pipeline_class, network, factor)
    size_multiple = factor * patch_size(files.pipeline_class, network)
    if size % size_multiple:
        raise ValueError(f"size is {size}; this model takes multiples of {size_multiple} pixels")
    parts = _family_parts(files.pipeline_class, pipe, network, size, (size // factor // 2) ** 2, options)
    prompt_encoder = encoding.PromptEncoder(pipe, _PROMPT_ENCODERS[files.pipeline_class])
    if options.low_memory or options.cpu_offload:
        store = PromptCache(
            default_folder(), cache_key(folder, (options.lora, options.textual_inversion), str(network.dtype))
        )
        prompt_encoder = encoding.PromptEncoder(
            pipe,
            _PROMPT_ENCODERS[files.pipeline_class],
            _text_encoder_loader(folder, files, network, device, options),
            store,
        )
    args = (parts.adapter, parts.schedule, parts.prediction_type, codec, prompt_encoder, size, options.max_batch)
    image_encoder = _image_encoder(pipe, codec, size, device)
    prior = (
        DiffusersPrior(*args)
        if image_encoder is None
        else ImagePromptDiffusersPrior(*args).with_image_encoder(image_encoder)
    )
    prior.execution_device = execution_device
    return prior


def _image_encoder(pipe: Any, codec: Codec, size: int, device: torch.device) -> ImagePromptEncoder | None:
    """How the network sees a picture, where it does."""
    network: Any = getattr(pipe, "unet", None)
    if resampler := getattr(network, "image_resampler", None):
        del network.image_resampler  # It reads a picture once; a pass of the network has no use for it.
        # With offload it came with the network into main memory; the encoder that it reads from is on the device.
        return ImageDreamEncoder(pipe.image_encoder, resampler.to(device), codec, size, device)
    if getattr(getattr(network, "config", None), "encoder_hid_dim_type", None) == "ip_image_proj":
        projection = network.encoder_hid_proj.image_projection_layers[0]
        return IPAdapterEncoder(pipe.image_encoder, type(projection).__name__ != "ImageProjection")
    return None


def _family_parts(
    pipeline_class: str, pipe: Any, network: Any, size: int, patches: int, options: PriorOptions
) -> _FamilyParts:
    scheduler = pipe.scheduler
    if pipeline_class == "StableDiffusion3Pipeline":
        return _FamilyParts(SD3Transformer(network), flow_schedule_from_scheduler(scheduler, patches), "flow")
    if pipeline_class == "SanaPipeline":
        if network.config.guidance_embeds:
            raise ValueError("its network is told its guidance, as Sana Sprint's is, which is not read; Sana's is not")
        return _FamilyParts(SanaTransformer(network), flow_schedule_from_scheduler(scheduler, patches), "flow")
    if pipeline_class == "FluxPipeline":
        flux_guidance = options.embedded_guidance if network.config.guidance_embeds else None
        return _FamilyParts(
            FluxTransformer(network, flux_guidance), flow_schedule_from_scheduler(scheduler, patches), "flow"
        )
    schedule, prediction_type = discrete_schedule_from_scheduler(scheduler), prediction_type_from_scheduler(scheduler)
    if pipeline_class == "MVDreamPipeline":
        tokens = network.image_resampler.latents.shape[1] if hasattr(network, "image_resampler") else 0
        return _FamilyParts(
            MultiViewUNet(network, schedule.num_train_timesteps, VIEWS_PER_GROUP, tokens), schedule, prediction_type
        )
    if pipeline_class.startswith("PixArt"):
        return _FamilyParts(PixArtTransformer(network, schedule.num_train_timesteps, size), schedule, prediction_type)
    if pipeline_class == "StableDiffusionXLPipeline":
        return _FamilyParts(SDXLUNet(network, schedule.num_train_timesteps, size), schedule, prediction_type)
    embedded_guidance = options.embedded_guidance if network.config.time_cond_proj_dim else None
    return _FamilyParts(UNet(network, schedule.num_train_timesteps, embedded_guidance), schedule, prediction_type)


def _load_pipeline(folder: Path, files: PipelineFiles, device: torch.device, options: PriorOptions) -> Any:
    """The pipeline without what is not needed, frozen, on its device."""
    dtype = weights_dtype(files.pipeline_class, device, options)
    pipe = _from_pretrained(
        folder, files, dtype, _text_encoders(files) if options.low_memory or options.cpu_offload else ()
    )
    check_weights_complete(pipe, folder)
    if options.vae:
        if files.pipeline_class == "IFPipeline":
            raise ValueError(f"{folder} is a model of pixels and has no autoencoder; leave vae {options.vae} out")
        pipe.vae = _load_vae(Path(options.vae), dtype, VAECodec.from_vae(pipe.vae))
    _freeze_and_place(pipe, device, options)
    if "vae" in pipe.components and pipe.vae is not None and pipe.vae.config.get("force_upcast"):
        pipe.vae.float()  # Overflows in half precision, by its own word.
    return pipe


def _freeze_and_place(pipe: Any, device: torch.device, options: PriorOptions) -> None:
    """Freezes every part and puts it where it belongs."""
    for name, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            offloaded = options.cpu_offload and name in ("vae", *PIPELINE_NETWORKS.values())
            module.eval().requires_grad_(False).to("cpu" if offloaded else device)


def _from_pretrained(folder: Path, files: PipelineFiles, dtype: torch.dtype, skip: tuple[str, ...] = ()) -> Any:
    """What diffusers loads, with its many ways to fail in one line."""
    diffusers, transformers = _libraries()
    index = read_json(folder / "model_index.json")
    part_names = {
        *_OPTIONAL_PARTS.get(files.pipeline_class, ()),
        *(name for name, entry in index.items() if isinstance(entry, list)),
    }
    skipped: dict[str, None] = {name: None for name in part_names - {*files.parts} | {*skip}}
    encoders = [name for name in _text_encoders(files) if name not in skipped and index[name][0] == "transformers"]
    with silence_libraries():
        try:
            if files.pipeline_class == "MVDreamPipeline":
                return build_mvdream_pipeline(_libraries(), folder, files, dtype, {*skipped})
            loaded_encoders = {
                name: load_encoder(getattr(transformers, index[name][1]), folder / name, dtype, files.variant)
                for name in encoders
            }
            return getattr(diffusers, files.pipeline_class).from_pretrained(
                folder,
                torch_dtype=dtype,
                variant=files.variant,
                use_safetensors=True,
                local_files_only=True,
                **skipped,
                **loaded_encoders,
            )
        except IncompleteWeights:
            raise
        except Exception as error:  # whatever the library does with weights that do not fit their configuration
            raise ValueError(f"{folder} does not open: {_first_line(error)}") from None


def _load_vae(folder: Path, dtype: torch.dtype, original: VAECodec) -> Any:
    """Another autoencoder than the model's own. Raises as `load_diffusers_prior`."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"vae is {folder}; expected a folder with config.json and its weights")
    class_name = read_json(config).get("_class_name")
    if class_name not in LATENT_OUTPUT:
        raise ValueError(f"{folder} holds a {class_name}; expected one of {', '.join(LATENT_OUTPUT)}")
    if not (files := weights_in(folder)):
        raise FileNotFoundError(f"{folder} has no .safetensors file")
    for file in files:
        check_complete(file)
    with silence_libraries():
        try:
            vae = getattr(_libraries()[0], class_name).from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
        except Exception as error:  # as above
            raise ValueError(f"{folder} does not open: {_first_line(error)}") from None
    replacement = VAECodec.from_vae(vae)
    if (replacement.channels, replacement.downsample_factor) != (original.channels, original.downsample_factor):
        found, expected = (f"{c.channels} channels at 1/{c.downsample_factor}" for c in (replacement, original))
        raise ValueError(f"{folder} has latents of {found} of the image's size; this model takes {expected}")
    return vae


def _apply_adapters(pipe: Any, options: PriorOptions, device: torch.device) -> tuple[str, ...]:
    """Merges low-rank additions and learns words; returns what of them does not fit.

    Raises ValueError or FileNotFoundError where nothing does.
    """
    adapter_warnings: list[str] = []
    for file in (options.lora, options.textual_inversion, options.ip_adapter):
        if file:
            if not Path(file).is_file():
                raise FileNotFoundError(f"{file} is missing")
            check_complete(Path(file))
    if (
        (options.low_memory or options.cpu_offload)
        and options.lora
        and any("text_encoder" in n or "lora_te" in n for n in tensor_names(Path(options.lora)))
    ):
        raise ValueError(
            f"{options.lora} changes the text encoder too, which leaves the memory; leave frugal and offload out"
        )
    load_ip = partial(load_ip_adapter, encoder_class=_libraries()[1].CLIPVisionModelWithProjection)
    for file, apply in (
        (options.lora, fuse_lora),
        (options.textual_inversion, load_textual_inversion),
        (options.ip_adapter, load_ip),
    ):
        with silence_libraries():
            try:
                if file and (warning := apply(pipe, Path(file), options)):
                    adapter_warnings.append(f"{Path(file).name}: {warning}")
            except IncompleteWeights:
                raise
            except Exception as error:  # as above
                raise ValueError(f"{file} does not fit this model: {_first_line(error)}") from None
    _freeze_and_place(pipe, device, options)
    return tuple(adapter_warnings)


def _text_encoder_loader(
    folder: Path, files: PipelineFiles, network: Any, device: torch.device, options: PriorOptions
) -> encoding.LoadPipeline:
    """Gives the text encoders, around the network that is there anyway, for texts that were not read before."""

    def reopen() -> Any:
        name = PIPELINE_NETWORKS[files.pipeline_class]
        pipe = _from_pretrained(folder, files, network.dtype, tuple({"vae", name} & {*files.parts}))
        if options.textual_inversion:
            _apply_adapters(pipe, replace(options, lora="", ip_adapter=""), device)
        setattr(pipe, name, network)
        for encoder in _text_encoders(files):
            getattr(pipe, encoder).to(device)
        return pipe

    return reopen


def _text_encoders(files: PipelineFiles) -> tuple[str, ...]:
    return tuple(name for name in files.parts if name.startswith("text_encoder"))


def _libraries() -> tuple[Any, Any]:
    """diffusers and transformers. Raises ImportError where one is not installed."""
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise ImportError(f'this model needs diffusers ({error}); install it with: pip install "sds3d[hub]"') from error
    return diffusers, transformers


@contextmanager
def silence_libraries() -> Iterator[None]:
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
    first = lines[0] if lines else f"its parts do not match ({type(error).__name__})"
    return first if len(first) <= 300 else first[:300] + " ..."
