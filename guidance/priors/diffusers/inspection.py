"""What is in the folder of a model, looked at before anything is loaded, so that mistakes are named in one line."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = {
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
_TASKS = (
    *("Img2Img", "Inpaint", "PAG", "PAGImg2Img", "PAGInpaint"),
    *("ControlNet", "ControlNetImg2Img", "ControlNetInpaint", "ControlNetPAG", "ControlNetPAGImg2Img"),
)
"""What diffusers puts before `Pipeline` in the names of pipelines for other tasks around the same parts."""
CORES = {
    f"{kind.removesuffix('Pipeline')}{task}Pipeline": kind
    for kind in FAMILIES
    if kind not in ("MVDreamPipeline", "IFPipeline")
    for task in _TASKS
} | {"IFImg2ImgPipeline": "IFPipeline", "IFInpaintingPipeline": "IFPipeline"}
"""Classes of pipelines for other tasks, and the text-to-image pipeline that is made of their parts."""
_TWO_ENCODERS = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
_NEEDED = {kind: ("vae", "text_encoder", "tokenizer") for kind in FAMILIES} | {
    "IFPipeline": ("text_encoder", "tokenizer"),
    **dict.fromkeys(("StableDiffusionXLPipeline", "FluxPipeline", "StableDiffusion3Pipeline"), _TWO_ENCODERS),
}
"""Parts, beside network and scheduler, that a family cannot do without."""
UNUSED = ("safety_checker", "feature_extractor", "watermarker", "controlnet")
"""Parts that are not needed here."""
AUTOENCODERS = {"SanaPipeline": ("AutoencoderDC",)}
"""Classes of autoencoders of a family, where they are not `PLAIN_AUTOENCODERS`."""
PLAIN_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
SEEING = ("MVDreamPipeline",)
"""Classes of which some see pictures, by the part `image_encoder`; of others it is not needed either."""
_WORDS = ("tokenizer.json", "vocab.json", "spiece.model")
_WEIGHTLESS = {
    "scheduler": ("scheduler_config.json",),
    "tokenizer": _WORDS,
    "tokenizer_2": _WORDS,
    "tokenizer_3": _WORDS,
}
"""Parts without weights, and files of which there has to be one."""
HALVES = ("fp16", "bf16")
"""What files of weights in half precision are marked by."""
_UNSAFE = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx")


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    kind: str
    """Class of the pipeline."""
    parts: tuple[str, ...]
    """Parts that are needed and there."""
    variant: str | None
    """One of `HALVES` where weights are there in half precision alone."""


def look(folder: Path) -> Found:
    """What is in the folder of a model in the diffusers layout.

    Raises:
        ValueError: it is no model, one of another kind, damaged, or not in safetensors files.
        FileNotFoundError: a part of it is missing.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{folder} is no model: model_index.json is missing{_instead(folder)}")
    row = read_json(index)
    named = row.get("_class_name")
    if not isinstance(named, str):
        raise ValueError(f"{index} is damaged: _class_name is {named!r}; expected the name of a pipeline")
    kind = CORES.get(named, named)
    if kind not in FAMILIES:
        raise ValueError(f"{folder} holds a {kind}; read are: {', '.join(FAMILIES)}, and the embedded prior")
    parts = tuple(
        name
        for name, entry in row.items()
        if not name.startswith("_") and name not in UNUSED and isinstance(entry, list) and entry[1:] not in ([], [None])
        if name != "image_encoder" or kind in SEEING
    )
    for name in (FAMILIES[kind], "scheduler", *_NEEDED[kind]):
        if name not in parts:
            raise ValueError(f"{folder} is not complete: model_index.json names no {name}")
    fine = AUTOENCODERS.get(kind, PLAIN_AUTOENCODERS)
    if (coder := row["vae"][-1] if "vae" in parts else fine[0]) not in fine:
        raise ValueError(f"{folder} has a {coder} for an autoencoder; a {kind} has one of {', '.join(fine)}")
    variants = set[str | None]()
    for name in parts:
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder} is not complete: the folder {name} is missing")
        if name not in _WEIGHTLESS:
            variants.add(_variant(folder / name))
        elif not any((folder / name / file).is_file() for file in _WEIGHTLESS[name]):
            raise FileNotFoundError(f"{folder / name} is not complete: {_WEIGHTLESS[name][0]} is missing")
    return Found(kind, parts, next((half for half in HALVES if half in variants), None))


def weights_in(folder: Path, variant: str | None = None) -> list[Path]:
    """Weight files of one part of a model.

    Raises:
        FileNotFoundError: a file that an index names is missing.
        ValueError: the index is damaged.
    """
    names = sorted(path.name for path in folder.iterdir() if ".safetensors" in path.name)
    names = [name for name in names if "non_ema" not in name and half_of(name) == variant]
    single = [folder / name for name in names if name.endswith(".safetensors") and "-of-" not in name]
    indices = [folder / name for name in names if name.endswith(".json")]
    if single or not indices:
        return single
    shards = sorted(set(read_json(indices[0]).get("weight_map", {}).values()))
    for name in shards:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not complete: of {len(shards)} shards {name} is missing")
    return [folder / name for name in shards]


def half_of(name: str) -> str | None:
    """By what of `HALVES` the name of a file of weights is marked; None where it is of full precision."""
    return next((half for half in HALVES if f".{half}." in name or f".{half}-" in name), None)


def names_in(file: Path) -> list[str]:
    """Of the tensors in a safetensors file that is `whole`."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return [name for name in json.loads(stream.read(length)) if name != "__metadata__"]


def whole(file: Path) -> None:
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


def _variant(folder: Path) -> str | None:
    """Which weights of a part there are: None for plain ones, or one of `HALVES`. Raises as `look`."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not complete: config.json is missing")
    for variant in (None, *HALVES):
        if files := weights_in(folder, variant):
            for file in files:
                whole(file)
            return variant
    unsafe = sorted(path.name for path in folder.iterdir() if path.suffix in _UNSAFE)
    if unsafe:
        raise ValueError(f"{folder} has {unsafe[0]} alone; only safetensors files are read, as others can run code")
    raise FileNotFoundError(f"{folder} is not complete: no .safetensors file in it")


def _instead(folder: Path) -> str:
    """A hint where the folder holds something else that people take for a model."""
    names = sorted(path.name for path in folder.iterdir())
    single = [name for name in names if name.endswith((*_UNSAFE, ".safetensors"))]
    if single:
        return f" ({single[0]} is a file of weights; expected a whole pipeline: {converting(folder / single[0])})"
    inner = [name for name in names if (folder / name / "model_index.json").is_file()]
    return f"; did you mean {folder / inner[0]}?" if inner else ""


def converting(file: Path) -> str:
    """How a checkpoint of one file becomes a folder that is read, as a clause."""
    if file.suffix != ".safetensors":
        return "only safetensors files are read, as others can run code"
    code = f"StableDiffusionPipeline.from_single_file({str(file)!r}).save_pretrained('FOLDER')"
    command = f'python -c "from diffusers import StableDiffusionPipeline; {code}"'
    return f"make one of it once, with a network, by {command} (of an XL model by StableDiffusionXLPipeline)"


def snapshot_of(folder: Path) -> Path:
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
