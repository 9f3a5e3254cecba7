"""The network: rows of a batch are strangers, absent conditions leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guidance.priors.mini.network import MiniNetwork, NetworkConfig
from guidance.priors.mini.sketch import ALPHA_CHANNELS, composite_over_background, expected_velocity

Inputs = dict[str, Tensor]


@pytest.fixture
def inputs(network: MiniNetwork) -> Inputs:
    rng = torch.Generator().manual_seed(3)
    config = network.config
    words = torch.randint(1, config.vocabulary, (4, config.words), generator=rng)
    return {
        "x_t": torch.randn(4, config.channels, config.grid, config.grid, generator=rng),
        "t": torch.tensor([0.1, 0.4, 0.7, 0.9]),
        "tokens": network.embed(words),
        "mask": torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4, [False] * 5]),
        "camera": torch.tensor([[0.0, 0.1], [1.0, 0.2], [-2.0, -0.1], [3.0, 0.9]]),
        "camera_known": torch.tensor([True, True, False, True]),
    }


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=1e-5))


def test_output_has_the_shape_of_the_latents(network: MiniNetwork, inputs: Inputs) -> None:
    noise_pred = network(**inputs)
    assert noise_pred.shape == inputs["x_t"].shape
    assert float(noise_pred.std()) > 0.01, "the fixture's network should not be silent"


def test_rows_are_independent(network: MiniNetwork, inputs: Inputs) -> None:
    together = network(**inputs)
    for place in range(4):
        assert close(
            network(**{name: value[place : place + 1] for name, value in inputs.items()}), together[place][None]
        )
    other = inputs | {"x_t": torch.cat([inputs["x_t"][:1], torch.randn(3, *inputs["x_t"].shape[1:])])}
    assert close(network(**other)[0], together[0])
    assert not close(network(**other)[1], together[1])


def test_unknown_camera_equals_no_camera(network: MiniNetwork, inputs: Inputs) -> None:
    nowhere = network(**{**inputs, "camera_known": torch.zeros(4, dtype=torch.bool)})
    assert torch.equal(nowhere, network(**{**inputs, "camera": None, "camera_known": None}))
    everywhere = network(**{**inputs, "camera_known": torch.ones(4, dtype=torch.bool)})
    assert torch.equal(everywhere, network(**{**inputs, "camera_known": None}))
    assert not close(nowhere, everywhere)


def test_masked_tokens_are_ignored(network: MiniNetwork, inputs: Inputs) -> None:
    tokens = torch.where(inputs["mask"][..., None], inputs["tokens"], 1e3)
    assert torch.equal(network(**{**inputs, "tokens": tokens}), network(**inputs))


def test_is_invariant_to_word_order(network: MiniNetwork, inputs: Inputs) -> None:
    order = torch.tensor([4, 2, 0, 3, 1])
    turned = {**inputs, "tokens": inputs["tokens"][:, order], "mask": inputs["mask"][:, order]}
    assert close(network(**turned), network(**inputs))


@pytest.mark.parametrize("name", ["x_t", "t", "tokens", "camera"])
def test_every_input_changes_the_output(network: MiniNetwork, inputs: Inputs, name: str) -> None:
    changed = network(**{**inputs, name: 0.5 * inputs[name]})
    assert not close(changed[0], network(**inputs)[0])


def test_azimuth_is_periodic(network: MiniNetwork, inputs: Inputs) -> None:
    turned = {**inputs, "camera": inputs["camera"] + torch.tensor([2 * torch.pi, 0.0])}
    torch.testing.assert_close(network(**turned), network(**inputs), rtol=0, atol=1e-4)


def test_initial_output_is_the_sketch_velocity() -> None:
    network = MiniNetwork(NetworkConfig(vocabulary=5, channels=3, grid=4, convolution_width=8, width=16, depth=1))
    x_t, tokens = torch.randn(2, 3, 4, 4), network.embed(torch.zeros(2, 12, dtype=torch.long))
    mask, t = torch.ones(2, 12, dtype=torch.bool), torch.rand(2)
    alpha, sigma = (level[:, None, None, None] for level in network.schedule.alpha_sigma(t))
    sketch = network.predict_sketch(tokens, mask, None)
    guess = composite_over_background(x_t, sketch, network.response, alpha, sigma)
    expected = expected_velocity(x_t, guess, torch.full((2, 3, 1, 1), 0.2), alpha, sigma)
    torch.testing.assert_close(network(x_t, t, tokens, mask, None), expected)


def test_sketch_ignores_noise_and_t(network: MiniNetwork, inputs: Inputs) -> None:
    text = {name: inputs[name] for name in ("tokens", "mask", "camera", "camera_known")}
    sketch = network.predict_sketch(**text)
    size = network.config.grid
    assert sketch.shape == (4, network.config.channels + ALPHA_CHANNELS, size, size)
    masked = torch.where(text["mask"][..., None], text["tokens"], 1e3)
    assert torch.equal(network.predict_sketch(**{**text, "tokens": masked}), sketch)
    nowhere = network.predict_sketch(text["tokens"], text["mask"], None)
    assert close(nowhere[2], sketch[2]) and not close(nowhere[0], sketch[0])
