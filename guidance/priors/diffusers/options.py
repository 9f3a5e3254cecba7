"""What goes on top of a model of others, and how it is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Precision = Literal["auto", "full", "half"]


@dataclass(frozen=True)
class PriorOptions:
    """Choices for priors in the diffusers layout; the embedded prior takes none of them."""

    lora: str = ""
    """File of low-rank additions (.safetensors), merged into the weights."""
    lora_scale: float = 1.0
    """How strongly they count."""
    textual_inversion: str = ""
    """File of a learnt word (textual inversion, .safetensors); the prompt uses the word by the file's name in <>."""
    ip_adapter: str = ""
    """File of an IP-Adapter (.safetensors) beside a folder image_encoder, by which the model sees --image-prompt"""
    ip_adapter_scale: float = 1.0
    """How strongly what it sees counts."""
    vae: str = ""
    """Folder of another autoencoder, such as a tiny one for quick trials."""
    image_size: int = 0
    """Height and width of the pictures the model is shown, in pixels; 0 is what it was trained on."""
    embedded_guidance: float = 3.5
    """What a guidance-distilled model is told its guidance is."""
    precision: Precision = "auto"
    """Of the weights: half on CUDA and full on the CPU (auto), or one of them."""
    revision: str = ""
    """Branch, tag or commit of a model on the hub."""
    offline: bool = False
    """Never ask the hub: only what is on this disk."""
    max_batch: int = 0
    """Pictures in a pass of the network at most, for small memories; 0 is all at once."""
    low_memory: bool = False
    """Text encoders are there only while they read, what they read is kept on the disk, and the autoencoder takes one
    picture at a time, twice."""

    cpu_offload: bool = False
    """The network and the autoencoder lie in main memory, and are on the GPU only while they work."""

    def for_vram(self, gigabytes: int) -> PriorOptions:
        """The same, spared as a GPU of this much memory needs it. By count of what there is, not measured."""
        max_batch = 1 if gigabytes <= 6 else 2 if gigabytes <= 8 else 4 if gigabytes <= 12 else self.max_batch
        return replace(self, low_memory=self.low_memory or gigabytes <= 24, max_batch=max_batch)

    def adapter_names(self) -> str:
        """Names of what would change the model's answers; empty where nothing would."""
        return ", ".join(
            name for name in ("lora", "textual_inversion", "ip_adapter", "vae", "image_size") if getattr(self, name)
        )

    def __post_init__(self) -> None:
        if not -10 <= self.lora_scale <= 10:
            raise ValueError(f"lora_scale is {self.lora_scale}; expected -10 to 10, such as 1")
        if not 0 <= self.ip_adapter_scale <= 10:
            raise ValueError(f"ip_adapter_scale is {self.ip_adapter_scale}; expected 0 to 10, such as 1")
        if not 0 <= self.image_size <= 4096:
            raise ValueError(f"image_size is {self.image_size}; expected up to 4096 pixels, or 0 for the model's own")
        if not (0 <= self.embedded_guidance < math.inf):
            raise ValueError(f"embedded_guidance is {self.embedded_guidance}; expected 0 or above, such as 3.5")
        if not 0 <= self.max_batch <= 1024:
            raise ValueError(f"max_batch is {self.max_batch}; expected 1 to 1024 pictures in a pass, or 0 for all")
        for name in ("lora", "textual_inversion", "ip_adapter"):
            if (file := getattr(self, name)) and not file.endswith(".safetensors"):
                raise ValueError(f"{name} is {file}; only .safetensors files are read, as others can run code")
