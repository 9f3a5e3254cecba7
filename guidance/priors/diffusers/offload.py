"""Modules that lie in main memory, and are on the GPU only while they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def on_device(module: nn.Module, device: torch.device | None) -> Iterator[None]:
    """Inside, what a module calls its parameters and buffers are copies on a device; None changes nothing.

    The copies leave with the block, or with the last graph that was made in it; gradients reach the module's own.
    """
    swapped: list[tuple[dict[str, Any], str, Tensor]] = []
    copies: dict[int, Tensor] = {}
    try:
        if device is not None:
            for submodule in module.modules():
                holders: tuple[dict[str, Any], ...] = (submodule._parameters, submodule._buffers)
                swapped += [(tensors, name, v) for tensors in holders for name, v in tensors.items() if v is not None]
            for tensors, name, value in swapped:
                if id(value) not in copies:
                    copies[id(value)] = value.to(device, non_blocking=True)
                tensors[name] = copies[id(value)]
        yield
    finally:
        for tensors, name, value in swapped:
            tensors[name] = value
