"""What goes on top of a model of others, and how it is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Precision = Literal["auto", "full", "half"]


@dataclass(frozen=True)
class Extras:
    """Choices for priors in the diffusers layout; the embedded prior takes none of them."""

    lora: str = ""
    """File of low-rank additions (.safetensors), merged into the weights."""
    lora_scale: float = 1.0
    """How strongly they count."""
    words: str = ""
    """File of a learnt word (textual inversion, .safetensors); the prompt uses the word by the file's name in <>."""
    adapter: str = ""
    """File of an IP-Adapter (.safetensors) beside a folder image_encoder, by which the model sees --image."""
    adapter_scale: float = 1.0
    """How strongly what it sees counts."""
    vae: str = ""
    """Folder of another autoencoder, such as a tiny one for quick trials."""
    size: int = 0
    """Height and width of the pictures the model is shown, in pixels; 0 is what it was trained on."""
    guidance: float = 3.5
    """What a guidance-distilled model is told its guidance is."""
    precision: Precision = "auto"
    """Of the weights: half on CUDA and full on the CPU (auto), or one of them."""
    revision: str = ""
    """Branch, tag or commit of a model on the hub."""
    offline: bool = False
    """Never ask the hub: only what is on this disk."""
    rows: int = 0
    """Pictures in a pass of the network at most, for small memories; 0 is all at once."""
    frugal: bool = False
    """Text encoders are there only while they read, what they read is kept on the disk, and the autoencoder takes one
    picture at a time, twice."""

    offload: bool = False
    """The network and the autoencoder lie in main memory, and are on the GPU only while they work."""

    def within(self, gigabytes: int) -> Extras:
        """The same, spared as a GPU of this much memory needs it. By count of what there is, not measured."""
        rows = 1 if gigabytes <= 6 else 2 if gigabytes <= 8 else 4 if gigabytes <= 12 else self.rows
        return replace(self, frugal=self.frugal or gigabytes <= 24, rows=rows)

    def on_top(self) -> str:
        """Names of what would change the model's answers; empty where nothing would."""
        return ", ".join(name for name in ("lora", "words", "adapter", "vae", "size") if getattr(self, name))

    def __post_init__(self) -> None:
        if not -10 <= self.lora_scale <= 10:
            raise ValueError(f"lora_scale is {self.lora_scale}; expected -10 to 10, such as 1")
        if not 0 <= self.adapter_scale <= 10:
            raise ValueError(f"adapter_scale is {self.adapter_scale}; expected 0 to 10, such as 1")
        if not 0 <= self.size <= 4096:
            raise ValueError(f"size is {self.size}; expected up to 4096 pixels, or 0 for the model's own")
        if not (0 <= self.guidance < math.inf):
            raise ValueError(f"guidance is {self.guidance}; expected 0 or above, such as 3.5")
        if not 0 <= self.rows <= 1024:
            raise ValueError(f"rows is {self.rows}; expected 1 to 1024 pictures in a pass, or 0 for all")
        for name in ("lora", "words", "adapter"):
            if (file := getattr(self, name)) and not file.endswith(".safetensors"):
                raise ValueError(f"{name} is {file}; only .safetensors files are read, as others can run code")
