"""What a training of the embedded prior is: its knobs, and its whole state in memory and on disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from guidance.priors.mini.network import MiniNetwork, NetworkConfig
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary
from guidance.priors.weights import load_module_weights, read_tensors
from sds3d.mini_training.dataset import CorpusDataset
from sds3d.models.mini_checkpoint import PATCH


@dataclass(frozen=True)
class TrainConfig:
    """How to train."""

    corpus: Path
    out: Path
    minutes: float = math.inf
    """Stops earlier after this long, with a checkpoint."""
    workers: int = 1
    """Processes of one thread each."""
    stage: int = 2
    """Objects of this wave and all before it."""
    batch: int = 16
    """Pictures in a step of one worker."""
    codec_images: int = 1024
    """Pictures that the codec is fitted to."""
    sketch_images: int = 2_400_000
    """Pictures for the sketch alone; after that the denoiser and the sketch take turns."""
    num_images: int = 75_000
    """Pictures for the denoiser, until the training is complete."""
    lr_decay_images: int = 45_000
    """Over the last this many of them the rate falls to a twentieth, on a cosine."""
    sketch_batch: int = 48
    lr: float = 1e-3
    """Learning rate of AdamW after warm-up."""
    warmup: int = 400
    """Steps of a worker until the full rate."""
    sync_interval_s: float = 12.0
    """Time between two averagings of the workers."""
    checkpoint_minutes: float = 4.0
    sheet_minutes: float = 10.0
    """Time between two sheets of samples in `out/sheets`; 0 for none."""
    start_from: Path | None = None
    """Folder of a shipped prior whose weights a new training starts from."""
    seed: int = 0


@dataclass
class TrainState:
    """Everything a training is, between two rounds."""

    network: MiniNetwork
    codec: PatchCodec
    average: dict[str, Tensor]
    """Exponential moving average of the network's parameters: what is shipped."""
    optimizer: torch.optim.AdamW
    round: int = 0
    step: int = 0
    samples: int = 0
    """Pictures the denoiser has seen."""
    sketch_images_seen: int = 0
    """Pictures the sketch has seen alone."""
    loss: float = 1.0

    def in_order(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters by name that the optimiser has moved, the same in every worker."""
        return [
            (name, p) for name, p in self.network.named_parameters() if "exp_avg" in self.optimizer.state.get(p, {})
        ]


def begin(knobs: TrainConfig, config: NetworkConfig, pictures: CorpusDataset) -> TrainState:
    """A fresh state, or the one that was saved last."""
    torch.manual_seed(knobs.seed)
    network = MiniNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    codec = PatchCodec(config.channels, PATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=knobs.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    file = knobs.out / "state.safetensors"
    if not file.exists():
        if knobs.start_from is None:
            codec.fit(pictures(knobs.codec_images, np.random.default_rng(knobs.seed)).rgb)
        else:
            _start_from(knobs.start_from, network, codec)
        network.response.copy_(codec.response())
        average = {name: p.detach().clone() for name, p in network.named_parameters()}
        return TrainState(network, codec, average, optimiser)
    tensors, numbers = read_tensors(file), json.loads((knobs.out / "state.json").read_text())
    load_module_weights(network, {k[8:]: v for k, v in tensors.items() if k.startswith("network.")}, file)
    load_module_weights(codec, {k[6:]: v for k, v in tensors.items() if k.startswith("codec.")}, file)
    average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
    for name, parameter in network.named_parameters():
        if f"first.{name}" in tensors:
            optimiser.state[parameter] = {
                "step": tensors[f"steps.{name}"],
                "exp_avg": tensors[f"first.{name}"].clone(memory_format=torch.preserve_format),
                "exp_avg_sq": tensors[f"second.{name}"].clone(memory_format=torch.preserve_format),
            }
    counts = {key: numbers[key] for key in ("round", "step", "samples", "sketch_images_seen", "loss")}
    return TrainState(network, codec, average, optimiser, **counts)


def _start_from(folder: Path, network: MiniNetwork, codec: PatchCodec) -> None:
    """Weights of a shipped prior. Raises FileNotFoundError, or ValueError where its words are others."""
    shipped = MiniPrior.load(folder)
    load_module_weights(network, shipped.network.state_dict(), folder)
    load_module_weights(codec, shipped.codec.state_dict(), folder)


def save(state: TrainState, words: Vocabulary, knobs: TrainConfig) -> None:
    """Writes the whole state; a crash while writing leaves the last one whole."""
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"codec.{k}": v for k, v in state.codec.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    for name, parameter in state.in_order():
        memory = state.optimizer.state[parameter]
        tensors |= {
            f"first.{name}": memory["exp_avg"],
            f"second.{name}": memory["exp_avg_sq"],
            f"steps.{name}": memory["step"],
        }
    save_file({k: v.contiguous() for k, v in tensors.items()}, knobs.out / "state.partial")
    numbers = {
        "round": state.round,
        "step": state.step,
        "samples": state.samples,
        "sketch_images_seen": state.sketch_images_seen,
        "loss": state.loss,
        "stage": knobs.stage,
    }
    (knobs.out / "state.json.partial").write_text(json.dumps(numbers | {"config": asdict(state.network.config)}))
    words.save(knobs.out / "vocabulary.json")
    (knobs.out / "state.partial").replace(knobs.out / "state.safetensors")
    (knobs.out / "state.json.partial").replace(knobs.out / "state.json")
