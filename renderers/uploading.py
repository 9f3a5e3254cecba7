"""Random numbers are drawn in main memory, the same for every device; here they go to where they are wanted."""

from __future__ import annotations

from torch import Tensor


def moved_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor in the type and on the device of another; to a GPU from pinned memory, without waiting."""
    if tensor.device.type == "cpu" and like.device.type == "cuda":
        return tensor.to(like.dtype).pin_memory().to(like.device, non_blocking=True)
    return tensor.to(like)
