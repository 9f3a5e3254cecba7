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


def fill(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Gives a module all its parameters and buffers, in the module's own precision.

    Raises:
        ValueError: names or shapes are not those of the module.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if odd:
        shapes = f"{wanted.get(odd[0], 'nothing')} is expected, {found.get(odd[0], 'nothing')} was found"
        raise ValueError(f"{source} does not fit its configuration: {len(odd)} tensors differ; for {odd[0]} {shapes}")
    module.load_state_dict(tensors)
