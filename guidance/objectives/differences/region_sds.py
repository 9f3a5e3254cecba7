"""Region-composed score distillation (Yang et al. 2024, SemanticSDS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite, weight
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised, per_view

Composition = Literal["sum", "mean"]
"""How the regions' gradients come together. The authors take the mean over the K regions, which leaves each region
one K-th of its pull; the sum gives each what SDS would."""


@dataclass(frozen=True)
class RegionSDS(Guided):
    """gradient = sum over regions of mask * w(t) * (answer guided to the region's text - drawn noise).

    All regions look at the same noised picture, and share the answer to no prompt. A latent of no region is not
    pulled; one of several is pulled by each.
    """

    about: ClassVar[About | None] = About(
        title="Region-composed SDS",
        source="Yang et al. 2024 (SemanticSDS); guidance/stable_diffusion.py of the authors",
        passes=(2, 17),
        scale="101",
        times="0.02 to 0.98, falling to 0.02 to 0.5",
        good_for="several things side by side, each with its own text (one answer more than there are parts)",
    )
    needs_regions: ClassVar[bool] = True

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none). The authors used 101."""
    weighting: Weighting = "sds"
    composition: Composition = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        check_choice("composition", self.composition, get_args(Composition))

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        regions = view.regions
        if regions is None:
            raise ValueError("the objective composes regions, and the view has none")
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        against, *texts = prior.predict(x_t, view.t, [view.wanted.negative, *regions.texts])
        composed = torch.zeros_like(x_t)
        for mask, text in zip(regions.masks, texts, strict=True):
            composed = composed + mask[:, None] * (
                self.answer(prior, x_t, view.t, against, text, self.scale) - view.noise
            )
        if self.composition == "mean":
            composed = composed / len(texts)
        gradient = per_view(weight(self.weighting, alpha, sigma)) * composed
        return Update(gradient, {"t": float(view.t.mean())})
