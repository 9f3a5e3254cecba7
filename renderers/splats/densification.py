"""How splats come and go: from the rows of their parameters to other rows.

Three ways, the knob `growth` of renderers/splats/config.py:
share      of all splats, those that are pulled hardest divide; a clone and its parent share their opacity
threshold  all that are pulled harder than a threshold divide (Kerbl et al. 2023; gsplat's DefaultStrategy)
mcmc       faint splats move to strong ones, more are drawn where strong ones are, and noise moves the faint
           (Kheradmand et al. 2024; gsplat's MCMCStrategy)

gsplat's own classes draw from torch's global generator, and two steps of the last run on CUDA only. Tests hold these
functions to gsplat's, row by row. Shapes: N rows before, M after, P parents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from renderers.splats import spherical_harmonics
from renderers.splats.reference import rotations

SPLIT_SCALE_FACTOR = 1.6
"""By this much the halves of a splat are smaller than it was."""
MAX_COPIES = 51
"""More splats than this at one place are taken for as many."""
_SHARPNESS = 100.0
"""How suddenly noise ends above the faintest opacity."""


@dataclass(frozen=True)
class DensifiedRows:
    """The parameters after a change."""

    values: dict[str, Tensor]
    """By name, not activated, M rows each: means, log_scales, quats, logit_opacities, sh."""
    origin: Int64[Tensor, " M"]
    """The row before whose state of the optimiser each row goes on with; -1: it starts from zeros."""


def ball(
    count: int, radius: float, scale: float, opacity: float, coefficients: int, rng: torch.Generator
) -> dict[str, Tensor]:
    """A start: so many round splats of one scale and one opacity, grey, that fill a ball, denser in the middle."""
    place = rng.device
    distance = radius * torch.rand(count, 1, generator=rng, device=place).sqrt()
    means = functional.normalize(torch.randn(count, 3, generator=rng, device=place), dim=-1) * distance
    colours = torch.zeros(count, coefficients, 3, device=place)
    colours[:, 0] = 0.02 / spherical_harmonics.CONSTANT * torch.randn(count, 3, generator=rng, device=place)
    return {
        "means": means,
        "log_scales": torch.full_like(means, math.log(scale)),
        "quats": functional.normalize(torch.randn(count, 4, generator=rng, device=place), dim=-1),
        "logit_opacities": torch.full((count,), logit(opacity), device=place),
        "sh": colours,
    }


def logit(share: float) -> float:
    """Of 0..1."""
    return math.log(share / (1 - share))


def remove(values: Mapping[str, Tensor], keep: Bool[Tensor, " N"]) -> DensifiedRows:
    """Only these."""
    rows = keep.nonzero()[:, 0]
    return DensifiedRows({name: value[rows] for name, value in values.items()}, rows)


def split_or_clone(
    values: Mapping[str, Tensor], parents: Int64[Tensor, " P"], split_above: float, rng: torch.Generator
) -> DensifiedRows:
    """The parents as two each: large ones as smaller ones beside their place, small ones as fainter ones."""
    scales = values["log_scales"][parents].exp()
    large = (scales.amax(-1) > split_above)[:, None]
    children = {name: torch.cat([value[parents]] * 2) for name, value in values.items()}
    noise = _normal((2, len(parents), 3), rng, scales)
    noise[0] *= large  # of a clone and its parent, the parent stays
    children["means"] += _moved(values["quats"][parents], noise * scales).flatten(0, 1)
    children["log_scales"] -= math.log(SPLIT_SCALE_FACTOR) * large.repeat(2, 1)
    # Two of opacity 1 - sqrt(1 - o) at one place let through what one of o did (Rota Bulo et al. 2024, eq. 9).
    opacity = values["logit_opacities"][parents].sigmoid()
    fainter = (1 - (1 - opacity).sqrt()).clamp(1e-6, 1 - 1e-6).logit()
    halved = torch.where(large[:, 0], values["logit_opacities"][parents], fainter)
    children["logit_opacities"] = halved.repeat(2)
    rest = _others(parents, len(values["means"]))
    origin = torch.cat([rest, parents, torch.full_like(parents, -1)])
    return DensifiedRows({name: torch.cat([value[rest], children[name]]) for name, value in values.items()}, origin)


def duplicate_and_split(
    values: Mapping[str, Tensor], parents: Int64[Tensor, " P"], split_above: float, rng: torch.Generator
) -> DensifiedRows:
    """Small parents with a copy beside them; in place of large ones, two smaller ones each, drawn from the splat.

    As gsplat's `duplicate` and `split` one after the other, of opacities as they were.
    """
    parents = parents.sort().values
    large = values["log_scales"][parents].exp().amax(-1) > split_above
    copies, halves = parents[~large], parents[large]
    scales = values["log_scales"][halves].exp()
    noise = _normal((2, len(halves), 3), rng, scales)
    children = {name: torch.cat([value[halves]] * 2) for name, value in values.items()}
    children["means"] += _moved(values["quats"][halves], noise * scales).flatten(0, 1)
    children["log_scales"] = (scales / SPLIT_SCALE_FACTOR).log().repeat(2, 1)
    rest = _others(halves, len(values["means"]))
    new = torch.full((len(copies) + 2 * len(halves),), -1, device=rest.device)
    joined = {name: torch.cat([value[rest], value[copies], children[name]]) for name, value in values.items()}
    return DensifiedRows(joined, torch.cat([rest, new]))


def relocate(
    values: Mapping[str, Tensor], dead: Bool[Tensor, " N"], min_opacity: float, rng: torch.Generator
) -> DensifiedRows:
    """The dead at the places of others, drawn by opacity, who share what they show with them.

    `min_opacity` bounds the opacity of a share from below. Where all are dead, all stay.
    """
    origin = torch.arange(len(dead), device=dead.device)
    moved, alive = dead.nonzero()[:, 0], (~dead).nonzero()[:, 0]
    if not len(moved) or not len(alive):
        return DensifiedRows(dict(values), origin)
    hosts = alive[_drawn(values["logit_opacities"][alive].sigmoid(), len(moved), rng)]
    after = _shared(values, hosts, min_opacity)
    for value in after.values():
        value[moved] = value[hosts]
    origin[hosts] = -1
    return DensifiedRows(after, origin)


def sample_add(values: Mapping[str, Tensor], number: int, min_opacity: float, rng: torch.Generator) -> DensifiedRows:
    """So many more, at the places of others, drawn by opacity, who share what they show with them."""
    opacity = values["logit_opacities"].sigmoid()
    hosts = _drawn(opacity, number, rng)
    after = _shared(values, hosts, min_opacity)
    origin = torch.cat([torch.arange(len(opacity), device=hosts.device), torch.full_like(hosts, -1)])
    return DensifiedRows({name: torch.cat([value, value[hosts]]) for name, value in after.items()}, origin)


def compute_relocation(
    opacities: Float[Tensor, " P"], scales: Float[Tensor, "P 3"], copies: Int64[Tensor, " P"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
    """Opacity and scales of each of so many equal splats that show at one place what one did.

    Kheradmand et al. 2024, equation 9: along a line through the middle they let through as much at the middle, and
    cover as much in all. The inner sum of the equation is a binomial coefficient. Copies are counted up to
    `MAX_COPIES`.
    """
    terms = torch.arange(1, MAX_COPIES + 1, dtype=torch.float64, device=opacities.device)
    count = copies.clamp(1, MAX_COPIES)
    opacity = 1 - (1 - opacities.double()) ** (1 / count.double())
    table = [[math.comb(n, k) for k in range(1, MAX_COPIES + 1)] for n in range(MAX_COPIES + 1)]
    binomials = torch.tensor(table, dtype=torch.float64, device=opacities.device)[count]
    signs = 1 - 2 * ((terms - 1) % 2)
    covered = (binomials * signs * opacity[:, None] ** terms / terms.sqrt()).sum(-1)
    factor = opacities / covered
    return opacity.to(opacities), (factor[:, None] * scales).to(scales)


def inject_noise_to_position(
    values: Mapping[str, Tensor], strength: float, min_opacity: float, rng: torch.Generator
) -> Float[Tensor, "N 3"]:
    """Means with noise of the shape of the squared splat, which ends above the faintest opacity (equation 10 there)."""
    weight = (_SHARPNESS * (min_opacity - values["logit_opacities"].sigmoid())).sigmoid()
    axes = rotations(values["quats"]) * values["log_scales"].exp()[:, None]
    noise = _normal((len(weight), 3), rng, axes) * (strength * weight[:, None])
    return values["means"] + torch.einsum("nij,nkj,nk->ni", axes, axes, noise)


def _shared(values: Mapping[str, Tensor], hosts: Int64[Tensor, " P"], min_opacity: float) -> dict[str, Tensor]:
    """Copies of the values in which hosts share with as many as drew them."""
    after = {name: value.clone() for name, value in values.items()}
    copies = torch.bincount(hosts, minlength=len(after["means"]))[hosts] + 1
    opacity, scales = compute_relocation(
        values["logit_opacities"][hosts].sigmoid(), values["log_scales"][hosts].exp(), copies
    )
    after["logit_opacities"][hosts] = opacity.clamp(min_opacity, 1 - torch.finfo(torch.float32).eps).logit()
    after["log_scales"][hosts] = scales.log()
    return after


def _drawn(weights: Float[Tensor, " N"], number: int, rng: torch.Generator) -> Int64[Tensor, " P"]:
    """Rows, each as likely as its weight, with repetition."""
    return torch.multinomial(weights.to(rng.device), number, replacement=True, generator=rng).to(weights.device)


def _normal(shape: tuple[int, ...], rng: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(*shape, generator=rng, device=rng.device).to(like)


def _moved(quats: Float[Tensor, "P 4"], offsets: Float[Tensor, "2 P 3"]) -> Float[Tensor, "2 P 3"]:
    """Offsets along the axes of splats as offsets in space."""
    return torch.einsum("nij,knj->kni", rotations(quats), offsets)


def _others(rows: Int64[Tensor, " P"], count: int) -> Int64[Tensor, " Q"]:
    """All rows but these."""
    others = torch.ones(count, dtype=torch.bool, device=rows.device)
    others[rows] = False
    return others.nonzero()[:, 0]
