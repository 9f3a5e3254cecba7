"""A training's last checkpoint as a prior."""

from __future__ import annotations

import json
from pathlib import Path

from guidance.priors.mini.network import MiniNetwork, NetworkConfig
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary
from guidance.priors.weights import load_module_weights, read_tensors

PATCH = 6
"""Pixels along a side of a patch; pictures are PATCH * grid pixels."""


def trained(folder: Path) -> MiniPrior:
    """The averaged network of a training's last checkpoint.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: it is damaged.
    """
    file = folder / "state.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"no checkpoint in {folder}; train one with: sds3d prior train CORPUS --out {folder}")
    config = NetworkConfig(**json.loads((folder / "state.json").read_text())["config"])
    tensors = read_tensors(file)
    network = MiniNetwork(config)
    # Buffers are not averaged; they come from the network as it stands.
    ours = [{k[8:]: v for k, v in tensors.items() if k.startswith(f"{kind}.")} for kind in ("network", "average")]
    load_module_weights(network, ours[0] | ours[1], file)
    codec = PatchCodec(config.channels, PATCH)
    load_module_weights(codec, {k[6:]: v for k, v in tensors.items() if k.startswith("codec.")}, file)
    return MiniPrior(network, codec, Vocabulary.load(folder / "vocabulary.json"))
