"""Encoders of texts and pictures, whole: transformers would draw at random what their files lack, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from guidance.priors.diffusers.inspection import HALF_VARIANTS, weights_in


class IncompleteWeights(ValueError):
    """A file of weights lacks some; its text is one line that names both."""


def load_encoder(encoder_class: Any, folder: Path, dtype: torch.dtype, half_variant: str | None = None) -> Any:
    """The encoder in a folder.

    Args:
        encoder_class: its class, one of transformers.
        half_variant: by what of `HALF_VARIANTS` the files are marked that are taken where they are there.

    Raises:
        Incomplete: a tensor is missing that the library does not make of others or passes over on purpose.
    """
    variant = next((mark for mark in (half_variant, None, *HALF_VARIANTS) if weights_in(folder, mark)), None)
    model, loading_info = encoder_class.from_pretrained(
        folder,
        torch_dtype=dtype,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=True,
        output_loading_info=True,
    )
    if missing := sorted(loading_info["missing_keys"]):
        files = weights_in(folder, variant)
        subject = f"{files[0]} lacks" if len(files) == 1 else f"{folder} is not complete: its {len(files)} files lack"
        raise IncompleteWeights(f"{subject} {len(missing)} of its tensors, such as {missing[0]}")
    return model
