"""Tensors in files, and modules filled from them; a file that is damaged is named."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from None


def load_module_weights(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Gives a module all its parameters and buffers, in the module's own precision.

    Raises:
        ValueError: names or shapes are not those of the module.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    mismatched = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if mismatched:
        shapes = (
            f"{expected.get(mismatched[0], 'nothing')} is expected, {found.get(mismatched[0], 'nothing')} was found"
        )
        raise ValueError(
            f"{source} does not fit its configuration: {len(mismatched)} tensors differ; for {mismatched[0]} {shapes}"
        )
    module.load_state_dict(tensors)
