"""Critics on models of others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.critics.lora import LoRA
from guidance.priors.diffusers.loading import open_family
from guidance.priors.diffusers.multiview.camera_embedding import CameraAware
from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import sharing_copy
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, Open, Opened


def test_a_critic_comes_and_goes_without_a_trace(one: Opened) -> None:
    prior, x_t, t = one.prior, one.latents(2), torch.tensor([0.3, 0.6])
    text = prior.read([TEXT] * 2)
    posed = replace(text, camera=torch.tensor([[0.1, 0.2], [2.0, 0.3]]))
    before = prior.predict(x_t, t, [text])
    names = [name for name, _ in prior.asking.network.named_modules()]
    weights = {name: value.clone() for name, value in prior.asking.network.state_dict().items()}

    critic = LoRA(rank=2).build(prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic.predict(x_t, t, [posed]), before)  # It starts as the prior.
    for _ in range(3):
        critic.learn(x_t, posed)
    learnt = critic.predict(x_t, t, [posed, replace(text, camera=None)])
    assert (learnt[0] - before[0]).abs().max() > 1e-4
    assert (learnt[0] - learnt[1]).abs().max() > 1e-6  # It hears the camera.

    assert torch.equal(prior.predict(x_t, t, [text]), before)
    assert [name for name, _ in prior.asking.network.named_modules()] == names
    after = prior.asking.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert not any(parameter.requires_grad for parameter in prior.asking.network.parameters())


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_a_critic_of_a_network_in_half_precision_learns_in_full(kind: str, opened: Open) -> None:
    it = opened(kind)
    prior = open_family(it.folder, CPU, Extras(size=SIZE, precision="half"))
    critic = LoRA(rank=2).build(prior, torch.Generator().manual_seed(0))
    posed = replace(prior.read([TEXT] * 2), camera=torch.zeros(2, 2))
    assert {weight.dtype for weight in critic.adapted.trained().values()} == {torch.float32}
    for _ in range(3):
        critic.learn(it.latents(2), posed)
    assert all(weight.isfinite().all() for weight in critic.adapted.trained().values())
    assert prior.dtype == (torch.bfloat16 if kind == "flux" else torch.float16)


def test_a_critic_shares_the_weights_and_takes_little_of_its_own(opened: Open) -> None:
    prior = opened("sd").prior
    network = sharing_copy(prior.asking.network)
    assert {id(p) for p in network.parameters()} == {id(p) for p in prior.asking.network.parameters()}
    assert not {id(m) for m in network.modules()} & {id(m) for m in prior.asking.network.modules()}
    twin = prior.twin()
    own = [p for p in twin.network.parameters() if p.requires_grad]
    assert len(own) == 4 and isinstance(getattr(twin.network, "time_embedding"), CameraAware)  # noqa: B009
