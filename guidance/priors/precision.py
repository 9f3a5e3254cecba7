"""Which floating-point format a network runs in."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

_FLAGS = ("avx512_bf16", "amx_bf16", "bf16 ")


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; where it does not, bfloat16 is many times slower."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return False
    text = file.read_text()
    return any(flag in text for flag in _FLAGS)


def autocast(device: torch.device) -> torch.autocast:
    """The context a frozen network runs in: bfloat16 on processors that have it, float16 on CUDA, else float32."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.float16)
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16())
