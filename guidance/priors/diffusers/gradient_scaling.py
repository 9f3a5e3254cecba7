"""Gradients through a network in half precision, which would vanish there where they are small.

The gradient of a latent is divided by the number of views and may be bounded on top; float16 holds nothing below 6e-8.
So it is brought to a size of about 1 on its way in, by a power of two, and back on its way out. Nobody waits for the
device: the factor stays there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def with_scaled_gradient(network: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """What `network` makes of `given`, both in single precision, whose gradients are of size 1 inside."""
    shared: dict[str, Tensor] = {}
    out: Tensor = _Leave.apply(network(_Enter.apply(given, shared)), shared)  # type: ignore[no-untyped-call]
    return out


def scale_for(gradient: Tensor) -> Tensor:
    """The power of two that brings the greatest entry to 0.5..1; 1 where that is 0 or no number."""
    greatest = gradient.abs().amax()
    exponent = torch.frexp(greatest).exponent.clamp(-100, 100)
    sound = greatest.isfinite() & (greatest > 0)
    return torch.where(sound, torch.exp2(-exponent.to(greatest.dtype)), 1.0)


class _Enter(torch.autograd.Function):
    """On the way back: out of the network."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, shared: dict[str, Tensor]) -> Tensor:
        ctx.shared = shared
        return given.view_as(given)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return gradient / ctx.shared.pop("scale"), None


class _Leave(torch.autograd.Function):
    """On the way back: into the network."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, shared: dict[str, Tensor]) -> Tensor:
        ctx.shared = shared
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        scale = scale_for(gradient)
        ctx.shared["scale"] = scale
        return gradient * scale, None
