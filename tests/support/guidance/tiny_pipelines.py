"""Pipelines of the tests, and the priors that were opened from their folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidance.objectives.base import guided
from guidance.priors.base import cleaned, noised
from guidance.priors.diffusers.loading import open_family
from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import FamilyPrior
from tests.support.guidance.tiny_models import build

CPU = torch.device("cpu")
SIZE = 32
STEPS = 4
TEXT = "a teddy bear"


class Opened:
    """A pipeline of the tests, its folder, and the prior that was opened from there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.pipe, self.folder = kind, build(kind), folder
        self.pipe.save_pretrained(folder)
        self.prior = open_family(folder, CPU, Extras(size=SIZE))

    def latents(self, count: int = 1) -> Tensor:
        shape = self.prior.encode(torch.zeros(1, 3, SIZE, SIZE)).shape
        return torch.randn(count, *shape[1:], generator=torch.Generator().manual_seed(3))

    def drawn(self, **given: Any) -> Tensor:
        """The pipeline's own picture of `TEXT`, in a few steps."""
        if {"pixart", "sana"} & set(self.kind.split("-")):
            given["use_resolution_binning"] = False
        sizes = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS}
        pictures: Tensor = self.pipe(TEXT, **sizes, output_type="pt", **given).images
        return pictures


Open = Callable[[str], Opened]


def ddim(prior: FamilyPrior, x_t: Tensor, scheduler: Any, scale: float) -> Tensor:
    """Clean latents by our own DDIM steps at the times of a scheduler (Song et al. 2021, eq. 12 with no noise)."""
    text, empty = prior.read([TEXT]), prior.read([""])
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps.tolist()
    stride = scheduler.config.num_train_timesteps // STEPS
    for step in times:
        now = torch.tensor([step / 999])
        answers = prior.predict(x_t, now, [empty, text])
        answer = guided(answers[0], answers[1], scale)
        x = cleaned(x_t, answer, *prior.levels(now))
        # `set_alpha_to_one=False`: the last step ends at the first level.
        x_t = noised(x, answer, *prior.levels(torch.tensor([max(step - stride, 0) / 999])))
    return x_t
