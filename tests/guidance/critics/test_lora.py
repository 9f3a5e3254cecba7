"""The critic: the prior itself at first, then what knows the renders, and the same after a stop."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from guidance.critics.discriminator import DiscriminatorCritic
from guidance.critics.lora import Critic, CriticConfig, LoRADenoiser, fork_rng_from, stratified_timesteps, strip_prefix
from guidance.objectives.variational.f_vsd import DensityRatioCritic
from guidance.priors.base import Condition, SupportsLoRA, make_rng
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.mini.prior import MiniPrior


def condition_with_camera(prior: MiniPrior, text: str, count: int = 6) -> Condition:
    """A text from as many sides."""
    azimuth = torch.linspace(-2, 2, count)
    return replace(prior.encode_prompt([text] * count), camera=torch.stack([azimuth, 0.3 * azimuth.cos()], -1))


def random_images(seed: int, count: int = 6) -> Tensor:
    """Latents of the tiny prior."""
    return torch.randn(count, 12, 4, 4, generator=make_rng(seed))


def states_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def mean_loss(critic: Critic, x: Tensor, condition: Condition, camera_known: bool = True) -> float:
    """The critic's error on latents, over many times and noises that are the same every time."""
    rng, total = make_rng(77), 0.0
    with torch.no_grad():
        for _ in range(8):
            noise = torch.randn(x.shape, generator=rng)
            known = torch.full((len(x),), camera_known)
            total += float(critic.per_view_loss(x, noise, stratified_timesteps(len(x), rng), condition, known).mean())
    return total / 8


@pytest.fixture
def critic(prior: MiniPrior) -> Critic:
    return CriticConfig(rank=4, lr=5e-3).build(prior, make_rng(1))


# --- at first ---


def test_new_critic_equals_prior(prior: MiniPrior, critic: Critic) -> None:
    x_t, t = random_images(2), torch.linspace(0.01, 0.99, 6)
    conditions = [condition_with_camera(prior, "a red teddy bear"), prior.encode_prompt([""] * 6)]
    assert torch.equal(critic.predict_noise(x_t, t, conditions), prior.predict_noise(x_t, t, conditions))
    assert all(map(torch.equal, critic.alpha_sigma(t), prior.alpha_sigma(t)))


def test_init_depends_only_on_the_rng(prior: MiniPrior) -> None:
    before = torch.get_rng_state()
    first, second, other = (CriticConfig().build(prior, make_rng(seed)).training_state() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert states_equal(first, second) and not states_equal(first, other)
    with fork_rng_from(make_rng(3)):
        inside = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    with fork_rng_from(make_rng(3)):
        assert torch.equal(torch.rand(2), inside)


def test_every_lora_layer_changes_the_output(prior: MiniPrior, critic: Critic) -> None:
    """Each one moves in a step: none sits on a layer that the network reads in another way or cuts off."""
    first = critic.denoiser.lora_state()
    for _ in range(2):  # the first factor of a product only moves once the second is not zero
        critic.train_step(random_images(3), condition_with_camera(prior, "a red teddy bear"))
    still = [name for name, value in critic.denoiser.lora_state().items() if torch.equal(value, first[name])]
    assert len(first) > 40 and still == []
    assert all("lora_" in name for name in first)
    assert not any("doubt" in name for name in first)
    for part_of_it in ("sketch.", "blocks.", "down.", "conv_in", "conv_out", "camera.", "text_pool."):
        assert any(name.startswith(part_of_it) for name in first), part_of_it


# --- it learns ---


def test_training_reduces_the_loss_on_renders(prior: MiniPrior, critic: Critic) -> None:
    x, condition = 0.5 * random_images(4), condition_with_camera(prior, "a red teddy bear")
    before = mean_loss(critic, x, condition)
    for _ in range(60):
        critic.train_step(x, condition)
    assert mean_loss(critic, x, condition) < 0.6 * before


def test_learns_camera_dependence(prior: MiniPrior, critic: Critic) -> None:
    """Half of the sides are dark, half bright: with the camera it can know which; without, it can not."""
    condition = condition_with_camera(prior, "a red teddy bear")
    x = torch.linspace(-1, 1, 6).sign()[:, None, None, None].expand(6, 12, 4, 4).contiguous()
    for _ in range(80):
        critic.train_step(x, condition)
    seen, unseen = mean_loss(critic, x, condition), mean_loss(critic, x, condition, camera_known=False)
    assert seen < 0.8 * unseen


def test_only_lora_weights_change(prior: MiniPrior, critic: Critic) -> None:
    def rest(module: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in module.state_dict().items() if "lora_" not in name}

    mine, priors = rest(critic.denoiser.network), rest(prior.network)
    weights = critic.denoiser.lora_state()
    critic.train_step(random_images(5), condition_with_camera(prior, "a bus"))
    assert states_equal(rest(critic.denoiser.network), mine) and states_equal(rest(prior.network), priors)
    assert not states_equal(critic.denoiser.lora_state(), weights)
    assert not any(parameter.requires_grad for parameter in prior.network.parameters())
    assert prior.network.detach_sketch and not critic.denoiser.network.detach_sketch


def test_new_parameters_are_trained_fully(prior: MiniPrior) -> None:
    """As what reads a camera does, put on a network that never saw one."""

    class Grown:
        alpha_sigma, predict_noise = prior.alpha_sigma, prior.predict_noise

        def lora_target(self) -> object:
            twin = prior.lora_target()
            twin.network.camera[2].requires_grad_(True)
            return twin

    critic = CriticConfig().build(Grown(), make_rng(1))
    names = {name for name in critic.denoiser.trainable_parameters() if "lora_" not in name}
    assert names == {"camera.2.base_layer.weight", "camera.2.base_layer.bias"}


@pytest.mark.parametrize("dropout", [0.0, 1.0, 0.5])
def test_camera_dropout_rate(prior: MiniPrior, dropout: float) -> None:
    """And where it is, the answer is that without a camera, view by view."""
    calls: list[tuple[int, bool]] = []

    class Listening(LoRADenoiser):
        def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            calls.append((len(x_t), conditions[0].camera is not None))
            return super().predict_noise(x_t, t, conditions)

    config = CriticConfig(rank=1, camera_dropout=dropout)
    critic = Critic(config, Listening(prior, 1, make_rng(1)), make_rng(2))
    for _ in range(40):
        critic.train_step(random_images(6, 4), condition_with_camera(prior, "a bus", 4))
    dropped = sum(count for count, known in calls if not known)
    assert sum(count for count, _ in calls) == 160
    assert abs(dropped / 160 - dropout) < 0.1


def test_loss_of_dropped_cameras_uses_no_camera(prior: MiniPrior, critic: Critic) -> None:
    x, noise, t = random_images(7), random_images(8), torch.linspace(0.05, 0.95, 6)
    condition = condition_with_camera(prior, "a red bus")
    shown = torch.tensor([True, False, True, True, False, False])
    with torch.no_grad():
        mixed = critic.per_view_loss(x, noise, t, condition, shown)
        seen = critic.per_view_loss(x, noise, t, condition, torch.ones(6, dtype=torch.bool))
        unseen = critic.per_view_loss(x, noise, t, condition, torch.zeros(6, dtype=torch.bool))
    torch.testing.assert_close(mixed, torch.where(shown, seen, unseen), rtol=0.02, atol=0)
    assert not torch.allclose(seen, unseen, rtol=0.02)


def test_loss_is_the_velocity_mse(prior: MiniPrior, critic: Critic) -> None:
    x, noise, t = random_images(9), random_images(10), torch.linspace(0.05, 0.95, 6)
    condition = condition_with_camera(prior, "a horse")
    alpha, sigma = (level[:, None, None, None] for level in prior.alpha_sigma(t))
    with torch.no_grad():
        v = prior.network(
            alpha * x + sigma * noise, t, condition.text_embeds, condition.attention_mask, condition.camera
        )
        wrong = (v - (alpha * noise - sigma * x)).square().flatten(1).mean(1)
        found = critic.per_view_loss(x, noise, t, condition, torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(found, wrong, rtol=0.05, atol=0.01)


# --- and goes on ---


def test_training_state_resumes_bit_exactly(prior: MiniPrior) -> None:
    condition, rng = condition_with_camera(prior, "a red bus"), make_rng(1)
    config = CriticConfig(rank=2, steps_per_update=2)
    whole = config.build(prior, rng)
    for _ in range(3):
        whole.train_step(random_images(11), condition)
    state, random = whole.training_state(), rng.get_state()
    whole.train_step(random_images(12), condition)
    again_chance = make_rng(99)
    again = config.build(prior, again_chance)
    again.train_step(random_images(13), condition)  # what it remembers of this has to go
    again.load_training_state(state)
    again_chance.set_state(random)
    assert states_equal(again.training_state(), state)
    again.train_step(random_images(12), condition)
    assert states_equal(again.training_state(), whole.training_state())


def test_training_state_is_a_copy(prior: MiniPrior, critic: Critic) -> None:
    critic.train_step(random_images(14), condition_with_camera(prior, "a bus"))
    state = critic.training_state()
    saved = {name: value.clone() for name, value in state.items()}
    critic.train_step(random_images(14), condition_with_camera(prior, "a bus"))
    assert states_equal(state, saved) and not states_equal(critic.training_state(), saved)


def test_rejects_state_of_another_critic(prior: MiniPrior, critic: Critic) -> None:
    with pytest.raises(ValueError, match="does not fit this prior and rank"):
        critic.load_training_state(CriticConfig(rank=5).build(prior, make_rng(1)).training_state())


# --- telling samples from renders ---


def test_discriminator_learns_density_ratio_and_resumes_bit_exactly(prior: MiniPrior) -> None:
    condition, rng = condition_with_camera(prior, "a red bus"), make_rng(1)
    samples, renders = 0.6 * random_images(20) + 0.8, 0.6 * random_images(21) - 0.8
    config = CriticConfig(rank=1)
    critic = DiscriminatorCritic(config.build(prior, rng), samples, condition)
    assert isinstance(critic, DensityRatioCritic)
    t = torch.full((6,), 0.3)
    assert bool((critic.density_ratio(renders, t, condition) == 1).all())
    for _ in range(60):
        critic.train_step(renders, condition)
    alpha = float(prior.alpha_sigma(t)[0][0])
    assert float(critic.density_ratio(alpha * samples, t, condition).log().mean()) > 1
    assert float(critic.density_ratio(alpha * renders, t, condition).log().mean()) < -1
    assert bool((critic.density_ratio(30 * samples, t, condition) <= torch.tensor(10.0).exp()).all())

    state, random = critic.training_state(), rng.get_state()
    critic.train_step(renders, condition)
    again_chance = make_rng(2)
    again = DiscriminatorCritic(config.build(prior, again_chance), samples, condition)
    again.train_step(samples, condition)
    again.load_training_state(state)
    again_chance.set_state(random)
    again.train_step(renders, condition)
    assert states_equal(again.training_state(), critic.training_state())
    assert strip_prefix(state, "head").keys() == dict(critic.head.named_parameters()).keys()


# --- what goes wrong ---


def test_priors_without_network_do_not_support_lora(prior: MiniPrior) -> None:
    toy = GaussianMixturePrior(torch.zeros(1, 3, 4, 4), torch.ones(1), {"": (1.0,)})
    assert isinstance(prior, SupportsLoRA) and not isinstance(toy, SupportsLoRA)


def test_missing_peft_is_named(prior: MiniPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'needs peft .*pip install "sds3d\[hub\]"'):
        CriticConfig().build(prior, make_rng(1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"steps_per_update": 0}, "steps_per_update is 0"),
        ({"num_prior_samples": 0}, "num_prior_samples is 0"),
        ({"num_stages": 0}, "num_stages is 0"),
        ({"stage_steps": -1}, "stage_steps is -1"),
        ({"lr": 0.0}, r"lr is 0\.0; expected a number between"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"camera_dropout": 1.1}, r"camera_dropout is 1\.1; expected a share"),
    ],
)
def test_rejects_invalid_config(change: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CriticConfig(**change)
