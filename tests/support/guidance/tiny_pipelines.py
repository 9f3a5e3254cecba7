"""Pipelines of the tests, and the priors that were opened from their folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidance.priors.base import add_noise, predict_x0
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.diffusers.loading import load_diffusers_prior
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import DiffusersPrior
from tests.support.guidance.tiny_models import build

CPU = torch.device("cpu")
SIZE = 32
STEPS = 4
TEXT = "a teddy bear"


class LoadedPipeline:
    """A pipeline of the tests, its folder, and the prior that was opened from there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.pipe, self.folder = kind, build(kind), folder
        self.pipe.save_pretrained(folder)
        self.prior = load_diffusers_prior(folder, CPU, PriorOptions(image_size=SIZE))

    def latents(self, count: int = 1) -> Tensor:
        shape = self.prior.encode(torch.zeros(1, 3, SIZE, SIZE)).shape
        return torch.randn(count, *shape[1:], generator=torch.Generator().manual_seed(3))

    def pipeline_image(self, **kwargs: Any) -> Tensor:
        """The pipeline's own picture of `TEXT`, in a few steps."""
        if {"pixart", "sana"} & set(self.kind.split("-")):
            kwargs["use_resolution_binning"] = False
        sizes = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS}
        images: Tensor = self.pipe(TEXT, **sizes, output_type="pt", **kwargs).images
        return images


LoadPipeline = Callable[[str], LoadedPipeline]


def sample_ddim_reference(prior: DiffusersPrior, x_t: Tensor, scheduler: Any, guidance_scale: float) -> Tensor:
    """Clean latents by our own DDIM steps at the times of a scheduler (Song et al. 2021, eq. 12 with no noise)."""
    text, uncond = prior.encode_prompt([TEXT]), prior.encode_prompt([""])
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps.tolist()
    stride = scheduler.config.num_train_timesteps // STEPS
    for step in times:
        t = torch.tensor([step / 999])
        noise_preds = prior.predict_noise(x_t, t, [uncond, text])
        noise_pred = classifier_free_guidance(noise_preds[0], noise_preds[1], guidance_scale)
        x = predict_x0(x_t, noise_pred, *prior.alpha_sigma(t))
        # `set_alpha_to_one=False`: the last step ends at the first level.
        x_t = add_noise(x, noise_pred, *prior.alpha_sigma(torch.tensor([max(step - stride, 0) / 999])))
    return x_t
