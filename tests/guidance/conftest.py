"""A tiny embedded prior with random weights."""

from __future__ import annotations

import pytest
import torch

from guidance.priors.mini.network import MiniNetwork, NetworkConfig
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.from_phrases(
        {
            "teddy bear": ("teddy", "plush bear"),
            "horse": ("pony",),
            "rocking horse": ("toy horse",),
            "wooden chair": ("chair",),
            "armchair": (),
            "bus": (),
        },
        ("red", "blue", "grey"),
        ("wood", "wooden"),
    )


@pytest.fixture(scope="session")
def network(vocabulary: Vocabulary) -> MiniNetwork:
    """In evaluation mode, with no weight left at the zero it starts training from."""
    torch.manual_seed(5)
    config = NetworkConfig(
        vocabulary=len(vocabulary.words),
        channels=12,
        grid=4,
        convolution_width=16,
        convolution_blocks=1,
        width=32,
        depth=2,
        heads=2,
        words=5,
        sketch_width=48,
        sketch_channels=8,
    )
    network = MiniNetwork(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    return network


@pytest.fixture(scope="session")
def codec() -> PatchCodec:
    """Fitted to smooth pictures, patches of 6 x 6 pixels."""
    rng = torch.Generator().manual_seed(6)
    codec = PatchCodec(12, 6)
    codec.fit(torch.nn.functional.interpolate(torch.rand(40, 3, 6, 6, generator=rng), (24, 24), mode="bilinear"))
    return codec


@pytest.fixture(scope="session")
def prior(network: MiniNetwork, codec: PatchCodec, vocabulary: Vocabulary) -> MiniPrior:
    return MiniPrior(network, codec, vocabulary)
