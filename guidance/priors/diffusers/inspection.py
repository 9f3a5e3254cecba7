"""What is in the folder of a model, looked at before anything is loaded, so that mistakes are named in one line."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIPELINE_NETWORKS = {
    "StableDiffusionPipeline": "unet",
    "LatentConsistencyModelPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "IFPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
    "FluxPipeline": "transformer",
    "PixArtAlphaPipeline": "transformer",
    "PixArtSigmaPipeline": "transformer",
    "SanaPipeline": "transformer",
    "MVDreamPipeline": "unet",
}
"""Classes of pipelines that are read, and the part that is their network."""
_TASK_INFIXES = (
    *("Img2Img", "Inpaint", "PAG", "PAGImg2Img", "PAGInpaint"),
    *("ControlNet", "ControlNetImg2Img", "ControlNetInpaint", "ControlNetPAG", "ControlNetPAGImg2Img"),
)
"""What diffusers puts before `Pipeline` in the names of pipelines for other tasks around the same parts."""
CORE_PIPELINES = {
    f"{kind.removesuffix('Pipeline')}{task}Pipeline": kind
    for kind in PIPELINE_NETWORKS
    if kind not in ("MVDreamPipeline", "IFPipeline")
    for task in _TASK_INFIXES
} | {"IFImg2ImgPipeline": "IFPipeline", "IFInpaintingPipeline": "IFPipeline"}
"""Classes of pipelines for other tasks, and the text-to-image pipeline that is made of their parts."""
_TWO_ENCODER_PARTS = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
_REQUIRED_PARTS = {kind: ("vae", "text_encoder", "tokenizer") for kind in PIPELINE_NETWORKS} | {
    "IFPipeline": ("text_encoder", "tokenizer"),
    **dict.fromkeys(("StableDiffusionXLPipeline", "FluxPipeline", "StableDiffusion3Pipeline"), _TWO_ENCODER_PARTS),
}
"""Parts, beside network and scheduler, that a family cannot do without."""
UNUSED_PARTS = ("safety_checker", "feature_extractor", "watermarker", "controlnet")
"""Parts that are not needed here."""
AUTOENCODERS = {"SanaPipeline": ("AutoencoderDC",)}
"""Classes of autoencoders of a family, where they are not `DEFAULT_AUTOENCODERS`."""
DEFAULT_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
IMAGE_CONDITIONED = ("MVDreamPipeline",)
"""Classes of which some see pictures, by the part `image_encoder`; of others it is not needed either."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")
_FILES_WITHOUT_WEIGHTS = {
    "scheduler": ("scheduler_config.json",),
    "tokenizer": _TOKENIZER_FILES,
    "tokenizer_2": _TOKENIZER_FILES,
    "tokenizer_3": _TOKENIZER_FILES,
}
"""Parts without weights, and files of which there has to be one."""
HALF_VARIANTS = ("fp16", "bf16")
"""What files of weights in half precision are marked by."""
_UNSAFE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx")


@dataclass(frozen=True)
class PipelineFiles:
    """What a folder holds."""

    pipeline_class: str
    """Class of the pipeline."""
    parts: tuple[str, ...]
    """Parts that are needed and there."""
    variant: str | None
    """One of `HALF_VARIANTS` where weights are there in half precision alone."""


def inspect_folder(folder: Path) -> PipelineFiles:
    """What is in the folder of a model in the diffusers layout.

    Raises:
        ValueError: it is no model, one of another kind, damaged, or not in safetensors files.
        FileNotFoundError: a part of it is missing.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{folder} is no model: model_index.json is missing{_hint(folder)}")
    data = read_json(index)
    class_name = data.get("_class_name")
    if not isinstance(class_name, str):
        raise ValueError(f"{index} is damaged: _class_name is {class_name!r}; expected the name of a pipeline")
    pipeline_class = CORE_PIPELINES.get(class_name, class_name)
    if pipeline_class not in PIPELINE_NETWORKS:
        raise ValueError(
            f"{folder} holds a {pipeline_class}; read are: {', '.join(PIPELINE_NETWORKS)}, and the embedded prior"
        )
    parts = tuple(
        name
        for name, entry in data.items()
        if not name.startswith("_")
        and name not in UNUSED_PARTS
        and isinstance(entry, list)
        and entry[1:] not in ([], [None])
        if name != "image_encoder" or pipeline_class in IMAGE_CONDITIONED
    )
    for name in (PIPELINE_NETWORKS[pipeline_class], "scheduler", *_REQUIRED_PARTS[pipeline_class]):
        if name not in parts:
            raise ValueError(f"{folder} is not complete: model_index.json names no {name}")
    supported = AUTOENCODERS.get(pipeline_class, DEFAULT_AUTOENCODERS)
    if (vae_class := data["vae"][-1] if "vae" in parts else supported[0]) not in supported:
        raise ValueError(
            f"{folder} has a {vae_class} for an autoencoder; a {pipeline_class} has one of {', '.join(supported)}"
        )
    variants = set[str | None]()
    for name in parts:
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder} is not complete: the folder {name} is missing")
        if name not in _FILES_WITHOUT_WEIGHTS:
            variants.add(_weights_variant(folder / name))
        elif not any((folder / name / file).is_file() for file in _FILES_WITHOUT_WEIGHTS[name]):
            raise FileNotFoundError(f"{folder / name} is not complete: {_FILES_WITHOUT_WEIGHTS[name][0]} is missing")
    return PipelineFiles(pipeline_class, parts, next((half for half in HALF_VARIANTS if half in variants), None))


def weights_in(folder: Path, variant: str | None = None) -> list[Path]:
    """Weight files of one part of a model.

    Raises:
        FileNotFoundError: a file that an index names is missing.
        ValueError: the index is damaged.
    """
    names = sorted(path.name for path in folder.iterdir() if ".safetensors" in path.name)
    names = [name for name in names if "non_ema" not in name and half_variant_of(name) == variant]
    single = [folder / name for name in names if name.endswith(".safetensors") and "-of-" not in name]
    indices = [folder / name for name in names if name.endswith(".json")]
    if single or not indices:
        return single
    shards = sorted(set(read_json(indices[0]).get("weight_map", {}).values()))
    for name in shards:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not complete: of {len(shards)} shards {name} is missing")
    return [folder / name for name in shards]


def half_variant_of(name: str) -> str | None:
    """By what of `HALF_VARIANTS` the name of a file of weights is marked; None where it is of full precision."""
    return next((half for half in HALF_VARIANTS if f".{half}." in name or f".{half}-" in name), None)


def tensor_names(file: Path) -> list[str]:
    """Of the tensors in a safetensors file that is `whole`."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return [name for name in json.loads(stream.read(length)) if name != "__metadata__"]


def check_complete(file: Path) -> None:
    """Raises ValueError for a safetensors file that was cut short, or is none."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, 100_000_000):
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        end = max((row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged or no safetensors file ({error})") from None
    if size != 8 + length + end:
        raise ValueError(f"{file} is damaged: it has {size} bytes, and its header says {8 + length + end}")


def read_json(file: Path) -> dict[str, Any]:
    """An object in a JSON file. Raises ValueError if it is damaged, FileNotFoundError if it is not there."""
    try:
        text = file.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise ValueError(f"{file} begins with a byte order mark; save it as UTF-8 without one")
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: no JSON ({error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is damaged: no JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{file} is damaged: expected a JSON object")
    return row


def _weights_variant(folder: Path) -> str | None:
    """Which weights of a part there are: None for plain ones, or one of `HALF_VARIANTS`. Raises as `look`."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not complete: config.json is missing")
    for variant in (None, *HALF_VARIANTS):
        if files := weights_in(folder, variant):
            for file in files:
                check_complete(file)
            return variant
    unsafe = sorted(path.name for path in folder.iterdir() if path.suffix in _UNSAFE_SUFFIXES)
    if unsafe:
        raise ValueError(f"{folder} has {unsafe[0]} alone; only safetensors files are read, as others can run code")
    raise FileNotFoundError(f"{folder} is not complete: no .safetensors file in it")


def _hint(folder: Path) -> str:
    """A hint where the folder holds something else that people take for a model."""
    names = sorted(path.name for path in folder.iterdir())
    single = [name for name in names if name.endswith((*_UNSAFE_SUFFIXES, ".safetensors"))]
    if single:
        return f" ({single[0]} is a file of weights; expected a whole pipeline: {conversion_hint(folder / single[0])})"
    inner = [name for name in names if (folder / name / "model_index.json").is_file()]
    return f"; did you mean {folder / inner[0]}?" if inner else ""


def conversion_hint(file: Path) -> str:
    """How a checkpoint of one file becomes a folder that is read, as a clause."""
    if file.suffix != ".safetensors":
        return "only safetensors files are read, as others can run code"
    code = f"StableDiffusionPipeline.from_single_file({str(file)!r}).save_pretrained('FOLDER')"
    command = f'python -c "from diffusers import StableDiffusionPipeline; {code}"'
    return f"make one of it once, with a network, by {command} (of an XL model by StableDiffusionXLPipeline)"


def hub_snapshot(folder: Path) -> Path:
    """Of a folder of the hub's cache (`models--owner--name`) the newest snapshot; of any other the folder itself."""
    refs, snapshots = folder / "refs", folder / "snapshots"
    if (folder / "model_index.json").is_file() or not snapshots.is_dir():
        return folder
    for ref in [refs / "main", *(sorted(refs.iterdir()) if refs.is_dir() else [])]:
        name = ref.read_bytes().decode("ascii", "replace").strip() if ref.is_file() else ""
        if re.fullmatch(r"\w+", name) and (snapshots / name).is_dir():
            return snapshots / name
    found = sorted((path for path in snapshots.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else folder
