"""Encoders of texts and pictures, whole: transformers would draw at random what their files lack, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from guidance.priors.diffusers.inspection import HALVES, weights_in


class Incomplete(ValueError):
    """A file of weights lacks some; its text is one line that names both."""


def encoder_of(kind: Any, folder: Path, dtype: torch.dtype, half: str | None = None) -> Any:
    """The encoder in a folder.

    Args:
        kind: its class, one of transformers.
        half: by what of `HALVES` the files are marked that are taken where they are there.

    Raises:
        Incomplete: a tensor is missing that the library does not make of others or passes over on purpose.
    """
    marked = next((mark for mark in (half, None, *HALVES) if weights_in(folder, mark)), None)
    model, told = kind.from_pretrained(
        folder,
        torch_dtype=dtype,
        variant=marked,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=True,
        output_loading_info=True,
    )
    if lacks := sorted(told["missing_keys"]):
        files = weights_in(folder, marked)
        where = f"{files[0]} lacks" if len(files) == 1 else f"{folder} is not complete: its {len(files)} files lack"
        raise Incomplete(f"{where} {len(lacks)} of its tensors, such as {lacks[0]}")
    return model
