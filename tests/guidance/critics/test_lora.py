"""The critic: the prior itself at first, then what knows the renders, and the same after a stop."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from guidance.critics.discriminator import DiscerningCritic
from guidance.critics.lora import Adapted, Critic, LoRA, Trainable, part, seeded, spread_times
from guidance.objectives.variational.f_vsd import Weighing
from guidance.priors.base import Condition, generator
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.mini.prior import EmbeddedPrior


def told(prior: EmbeddedPrior, text: str, count: int = 6) -> Condition:
    """A text from as many sides."""
    azimuth = torch.linspace(-2, 2, count)
    return replace(prior.read([text] * count), camera=torch.stack([azimuth, 0.3 * azimuth.cos()], -1))


def pictures(seed: int, count: int = 6) -> Tensor:
    """Latents of the tiny prior."""
    return torch.randn(count, 12, 4, 4, generator=generator(seed))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def marked(critic: Critic, x: Tensor, condition: Condition, shown: bool = True) -> float:
    """The critic's error on latents, over many times and noises that are the same every time."""
    rng, total = generator(77), 0.0
    with torch.no_grad():
        for _ in range(8):
            noise = torch.randn(x.shape, generator=rng)
            known = torch.full((len(x),), shown)
            total += float(critic.error(x, noise, spread_times(len(x), rng), condition, known).mean())
    return total / 8


@pytest.fixture
def critic(prior: EmbeddedPrior) -> Critic:
    return LoRA(rank=4, rate=5e-3).build(prior, generator(1))


# --- at first ---


def test_it_starts_as_the_prior(prior: EmbeddedPrior, critic: Critic) -> None:
    x_t, t = pictures(2), torch.linspace(0.01, 0.99, 6)
    conditions = [told(prior, "a red teddy bear"), prior.read([""] * 6)]
    assert torch.equal(critic.predict(x_t, t, conditions), prior.predict(x_t, t, conditions))
    assert all(map(torch.equal, critic.levels(t), prior.levels(t)))


def test_chance_decides_its_start_and_nothing_of_the_surroundings(prior: EmbeddedPrior) -> None:
    before = torch.get_rng_state()
    first, second, other = (LoRA().build(prior, generator(seed)).state() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, second) and not same(first, other)
    with seeded(generator(3)):
        inside = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(generator(3)):
        assert torch.equal(torch.rand(2), inside)


def test_every_addition_is_heard(prior: EmbeddedPrior, critic: Critic) -> None:
    """Each one moves in a step: none sits on a layer that the network reads in another way or cuts off."""
    first = critic.adapted.weights()
    for _ in range(2):  # the first factor of a product only moves once the second is not zero
        critic.learn(pictures(3), told(prior, "a red teddy bear"))
    still = [name for name, value in critic.adapted.weights().items() if torch.equal(value, first[name])]
    assert len(first) > 40 and still == []
    assert all("lora_" in name for name in first)
    assert not any("doubt" in name for name in first)
    for part_of_it in ("sketch.", "blocks.", "down.", "conv_in", "conv_out", "camera.", "text_pool."):
        assert any(name.startswith(part_of_it) for name in first), part_of_it


# --- it learns ---


def test_it_comes_to_know_the_renders(prior: EmbeddedPrior, critic: Critic) -> None:
    x, condition = 0.5 * pictures(4), told(prior, "a red teddy bear")
    before = marked(critic, x, condition)
    for _ in range(60):
        critic.learn(x, condition)
    assert marked(critic, x, condition) < 0.6 * before


def test_it_tells_cameras_apart(prior: EmbeddedPrior, critic: Critic) -> None:
    """Half of the sides are dark, half bright: with the camera it can know which; without, it can not."""
    condition = told(prior, "a red teddy bear")
    x = torch.linspace(-1, 1, 6).sign()[:, None, None, None].expand(6, 12, 4, 4).contiguous()
    for _ in range(80):
        critic.learn(x, condition)
    seen, unseen = marked(critic, x, condition), marked(critic, x, condition, shown=False)
    assert seen < 0.8 * unseen


def test_only_the_additions_learn(prior: EmbeddedPrior, critic: Critic) -> None:
    def rest(module: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in module.state_dict().items() if "lora_" not in name}

    mine, priors = rest(critic.adapted.network), rest(prior.network)
    weights = critic.adapted.weights()
    critic.learn(pictures(5), told(prior, "a bus"))
    assert same(rest(critic.adapted.network), mine) and same(rest(prior.network), priors)
    assert not same(critic.adapted.weights(), weights)
    assert not any(parameter.requires_grad for parameter in prior.network.parameters())
    assert prior.network.sketch_apart and not critic.adapted.network.sketch_apart


def test_new_parts_of_a_twin_learn_as_a_whole(prior: EmbeddedPrior) -> None:
    """As what reads a camera does, put on a network that never saw one."""

    class Grown:
        levels, predict = prior.levels, prior.predict

        def twin(self) -> object:
            twin = prior.twin()
            twin.network.camera[2].requires_grad_(True)
            return twin

    critic = LoRA().build(Grown(), generator(1))
    names = {name for name in critic.adapted.trained() if "lora_" not in name}
    assert names == {"camera.2.base_layer.weight", "camera.2.base_layer.bias"}


@pytest.mark.parametrize("dropout", [0.0, 1.0, 0.5])
def test_the_camera_is_dropped_as_often_as_asked(prior: EmbeddedPrior, dropout: float) -> None:
    """And where it is, the answer is that without a camera, view by view."""
    heard: list[tuple[int, bool]] = []

    class Listening(Adapted):
        def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
            heard.append((len(x_t), conditions[0].camera is not None))
            return super().predict(x_t, t, conditions)

    knobs = LoRA(rank=1, camera_dropout=dropout)
    critic = Critic(knobs, Listening(prior, 1, generator(1)), generator(2))
    for _ in range(40):
        critic.learn(pictures(6, 4), told(prior, "a bus", 4))
    dropped = sum(count for count, known in heard if not known)
    assert sum(count for count, _ in heard) == 160
    assert abs(dropped / 160 - dropout) < 0.1


def test_views_without_the_camera_are_judged_without_it(prior: EmbeddedPrior, critic: Critic) -> None:
    x, noise, t = pictures(7), pictures(8), torch.linspace(0.05, 0.95, 6)
    condition = told(prior, "a red bus")
    shown = torch.tensor([True, False, True, True, False, False])
    with torch.no_grad():
        mixed = critic.error(x, noise, t, condition, shown)
        seen = critic.error(x, noise, t, condition, torch.ones(6, dtype=torch.bool))
        unseen = critic.error(x, noise, t, condition, torch.zeros(6, dtype=torch.bool))
    torch.testing.assert_close(mixed, torch.where(shown, seen, unseen), rtol=0.02, atol=0)
    assert not torch.allclose(seen, unseen, rtol=0.02)


def test_the_error_is_that_of_the_velocity(prior: EmbeddedPrior, critic: Critic) -> None:
    x, noise, t = pictures(9), pictures(10), torch.linspace(0.05, 0.95, 6)
    condition = told(prior, "a horse")
    alpha, sigma = (level[:, None, None, None] for level in prior.levels(t))
    with torch.no_grad():
        v = prior.network(alpha * x + sigma * noise, t, condition.tokens, condition.mask, condition.camera)
        wrong = (v - (alpha * noise - sigma * x)).square().flatten(1).mean(1)
        found = critic.error(x, noise, t, condition, torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(found, wrong, rtol=0.05, atol=0.01)


# --- and goes on ---


def test_it_goes_on_bit_for_bit(prior: EmbeddedPrior) -> None:
    condition, chance = told(prior, "a red bus"), generator(1)
    knobs = LoRA(rank=2, steps=2)
    whole = knobs.build(prior, chance)
    for _ in range(3):
        whole.learn(pictures(11), condition)
    state, random = whole.state(), chance.get_state()
    whole.learn(pictures(12), condition)
    again_chance = generator(99)
    again = knobs.build(prior, again_chance)
    again.learn(pictures(13), condition)  # what it remembers of this has to go
    again.restore(state)
    again_chance.set_state(random)
    assert same(again.state(), state)
    again.learn(pictures(12), condition)
    assert same(again.state(), whole.state())


def test_a_state_is_a_copy(prior: EmbeddedPrior, critic: Critic) -> None:
    critic.learn(pictures(14), told(prior, "a bus"))
    state = critic.state()
    kept = {name: value.clone() for name, value in state.items()}
    critic.learn(pictures(14), told(prior, "a bus"))
    assert same(state, kept) and not same(critic.state(), kept)


def test_the_state_of_another_critic_is_refused(prior: EmbeddedPrior, critic: Critic) -> None:
    with pytest.raises(ValueError, match="does not fit this prior and rank"):
        critic.restore(LoRA(rank=5).build(prior, generator(1)).state())


# --- telling samples from renders ---


def test_ratios_tell_samples_from_renders_and_go_on_bit_for_bit(prior: EmbeddedPrior) -> None:
    condition, chance = told(prior, "a red bus"), generator(1)
    samples, renders = 0.6 * pictures(20) + 0.8, 0.6 * pictures(21) - 0.8
    knobs = LoRA(rank=1)
    critic = DiscerningCritic(knobs.build(prior, chance), samples, condition)
    assert isinstance(critic, Weighing)
    t = torch.full((6,), 0.3)
    assert bool((critic.ratio(renders, t, condition) == 1).all())
    for _ in range(60):
        critic.learn(renders, condition)
    alpha = float(prior.levels(t)[0][0])
    assert float(critic.ratio(alpha * samples, t, condition).log().mean()) > 1
    assert float(critic.ratio(alpha * renders, t, condition).log().mean()) < -1
    assert bool((critic.ratio(30 * samples, t, condition) <= torch.tensor(10.0).exp()).all())

    state, random = critic.state(), chance.get_state()
    critic.learn(renders, condition)
    again_chance = generator(2)
    again = DiscerningCritic(knobs.build(prior, again_chance), samples, condition)
    again.learn(samples, condition)
    again.restore(state)
    again_chance.set_state(random)
    again.learn(renders, condition)
    assert same(again.state(), critic.state())
    assert part(state, "head").keys() == dict(critic.head.named_parameters()).keys()


# --- what goes wrong ---


def test_a_prior_without_a_network_is_no_material(prior: EmbeddedPrior) -> None:
    toy = ToyPrior(torch.zeros(1, 3, 4, 4), torch.ones(1), {"": (1.0,)})
    assert isinstance(prior, Trainable) and not isinstance(toy, Trainable)


def test_a_missing_library_is_named(prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'needs peft .*pip install "sds3d\[hub\]"'):
        LoRA().build(prior, generator(1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"steps": 0}, "steps is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"stages": 0}, "stages is 0"),
        ({"stage_steps": -1}, "stage_steps is -1"),
        ({"rate": 0.0}, r"rate is 0\.0; expected a number between"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"camera_dropout": 1.1}, r"camera_dropout is 1\.1; expected a share"),
    ],
)
def test_values_that_make_no_sense_are_refused(change: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LoRA(**change)
