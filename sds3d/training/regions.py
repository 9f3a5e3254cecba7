"""Parts of a scene that have texts of their own, as one step sees them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from configs.run import Region
from guidance.conditioning.prompt import Prompt
from guidance.objectives.base import RegionMasks
from guidance.priors.base import Prior
from renderers.cameras import Cameras
from renderers.region_masks import region_masks
from renderers.scene import RenderOutput


def region_masks_of(
    parts: tuple[Region, ...],
    prompt: Prompt,
    prior: Prior,
    cameras: Cameras,
    frame: RenderOutput,
    x: Float[Tensor, "B C h w"],
) -> RegionMasks:
    """Where in the latents the parts are, and each one's text as seen from the cameras around itself."""
    centres = torch.tensor([part.center for part in parts], device=x.device)
    radii = torch.tensor([part.radius for part in parts], device=x.device)
    masks = region_masks(frame, cameras, centres, radii, (x.shape[2], x.shape[3]))
    texts = []
    for part, centre in zip(parts, centres, strict=True):
        asked = replace(prompt, text=part.text, view_texts={})
        texts.append(asked.conditions_for(prior, *cameras.angles_around(centre)).text)
    return RegionMasks(masks.to(x), tuple(texts))
