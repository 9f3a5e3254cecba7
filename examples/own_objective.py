"""An objective of one's own, in one file: Classifier Score Distillation (Yu et al. 2023), the guidance term alone.

    python examples/own_objective.py                 distils a single point towards a known answer
    cd examples && sds3d generate "a teddy bear" --objective own_objective:Classifier

The first needs no weights: the prior is a mixture of Gaussians whose noise answer is exact.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import Objective, ObjectiveOutput, ViewBatch
from guidance.objectives.differences.sds import SDS
from guidance.priors.base import Denoiser, add_noise, expand_like_latents, make_rng
from guidance.priors.gaussian_mixture import GaussianMixturePrior


@dataclass(frozen=True)
class Classifier(Objective):
    """gradient = scale * sigma^2 * (answer with the text - answer without)."""

    scale: float = 1.0
    """How strongly the text pulls."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        empty, text = prior.predict_noise(x_t, batch.t, [batch.conditions.uncond, batch.conditions.text])
        return ObjectiveOutput(self.scale * expand_like_latents(sigma.square()) * (text - empty))


def distilled(objective: Objective, steps: int = 2000) -> float:
    """Where one number ends up that is pulled by an objective, starting from 0.

    The prior's data is two Gaussians of deviation 0.5: all of it lies at -1 and 1, and "right" means the one at 1.
    """
    means = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    prior = GaussianMixturePrior(means, torch.tensor([0.5, 0.5]), {"": (1.0, 1.0), "right": (0.0, 1.0)})
    right, empty = prior.encode_prompt(["right"] * 64), prior.encode_prompt([""] * 64)
    wanted = ViewConditions(right, empty, empty, right)
    chance, x = make_rng(0), torch.zeros(1)
    for _ in range(steps):
        t = 0.02 + 0.96 * torch.rand(64, generator=chance)
        view = ViewBatch.sample(x.expand(64)[:, None, None, None], t, wanted, chance)
        x = x - 0.02 * objective(prior, prior, view).grad.mean()
    return float(x)


if __name__ == "__main__":
    for objective in (SDS(guidance_scale=1.0), SDS(guidance_scale=3.0), Classifier(scale=1.0)):
        sys.stdout.write(f"{objective} ends at {distilled(objective):.2f}\n")
