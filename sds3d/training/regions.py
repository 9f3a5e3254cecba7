"""Parts of a scene that have texts of their own, as one step sees them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from configs.run import Part
from guidance.conditioning.prompt import Prompt
from guidance.objectives.base import Regions
from guidance.priors.base import Prior
from renderers.cameras import Cameras
from renderers.region_masks import part_masks
from renderers.scene import Frame


def regions(
    parts: tuple[Part, ...], prompt: Prompt, prior: Prior, cameras: Cameras, frame: Frame, x: Float[Tensor, "B C h w"]
) -> Regions:
    """Where in the latents the parts are, and each one's text as seen from the cameras around itself."""
    centres = torch.tensor([part.centre for part in parts], device=x.device)
    radii = torch.tensor([part.radius for part in parts], device=x.device)
    masks = part_masks(frame, cameras, centres, radii, (x.shape[2], x.shape[3]))
    texts = []
    for part, centre in zip(parts, centres, strict=True):
        asked = replace(prompt, text=part.text, texts={})
        texts.append(asked.seen_from(prior, *cameras.seen_from(centre)).text)
    return Regions(masks.to(x), tuple(texts))
