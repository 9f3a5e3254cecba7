"""From main memory to a GPU without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uploaded(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one type on a device; to a GPU they go in one copy, from pinned memory, so that the host does not
    wait. What lies there already stays as it is.
    """
    if device.type != "cuda" or any(tensor.device.type != "cpu" for tensor in tensors):
        return [tensor.to(device) for tensor in tensors]
    flat = torch.cat([tensor.flatten() for tensor in tensors]).pin_memory().to(device, non_blocking=True)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
