"""The prior in closed form around splats: its door, its words, its pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guidance.priors.base import Prior, cleaned, generator, noised
from guidance.priors.mini3d.prior import ELEVATIONS, FOLDER, MiniPrior, is_mini
from guidance.priors.mini3d.splat_rendering import pictures
from guidance.priors.sampling import sample


@pytest.fixture(scope="module")
def prior() -> MiniPrior:
    return MiniPrior.load()


CAMERA = torch.tensor([[0.0, 0.3], [2.0, 0.1]])


def truth(prior: MiniPrior, text: str) -> torch.Tensor:
    """The splats themselves before white."""
    (candidate,) = prior.candidates(text)
    rgba = pictures([candidate.model] * 2, CAMERA, prior.picture_size)
    return rgba[:, :3] + 1 - rgba[:, 3:]


def test_it_is_a_prior_and_answers_are_repeatable(prior: MiniPrior) -> None:
    assert isinstance(prior, Prior) and prior.sees_camera and is_mini(FOLDER)
    text, empty = replace(prior.read(["a cat"] * 2), camera=CAMERA), prior.read([""] * 2)
    x_t = torch.randn(prior.encode(truth(prior, "cat")).shape, generator=generator(0))
    t = torch.tensor([0.3, 0.9])
    together = prior.predict(x_t, t, [text, empty])
    assert torch.equal(together, prior.predict(x_t, t, [text, empty]))
    torch.testing.assert_close(together[1], prior.predict(x_t, t, [empty])[0])


def test_latents_lose_nothing(prior: MiniPrior) -> None:
    rgb = torch.rand(2, 3, prior.picture_size, prior.picture_size, generator=generator(0))
    torch.testing.assert_close(prior.decode(prior.encode(rgb)), rgb, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", ["teddy bear", "snowman", "cat", "grand piano"])
def test_what_was_drawn_is_found_through_noise(prior: MiniPrior, name: str) -> None:
    picture = truth(prior, name)
    x, t = prior.encode(picture), torch.full((2,), 0.6)
    alpha, sigma = prior.levels(t)
    x_t = noised(x, torch.randn(x.shape, generator=generator(1)), alpha, sigma)
    text = replace(prior.read([name] * 2), camera=CAMERA)
    clean = prior.decode(cleaned(x_t, prior.predict(x_t, t, [text])[0], alpha, sigma))
    assert -10 * math.log10(float((clean - picture).square().mean())) > 26


def test_samples_show_the_object_from_the_side_that_is_asked_for(prior: MiniPrior) -> None:
    text, empty = replace(prior.read(["a teddy bear"] * 2), camera=CAMERA), prior.read([""] * 2)
    noise = torch.randn(prior.encode(truth(prior, "cat")).shape, generator=generator(2))
    drawn = sample(prior, noise, text, empty, 1.0, 8)
    (candidate,) = prior.candidates("teddy bear")
    solid = pictures([candidate.model] * 2, CAMERA, prior.picture_size)[:, 3:] > 0.5
    errors = torch.stack([((drawn - truth(prior, name)).square() * solid).mean() for name in ("teddy bear", "cat")])
    assert errors[0] < 0.25 * errors[1]


def test_a_colour_paints_what_can_be_painted_and_else_picks(prior: MiniPrior) -> None:
    plain, red, own, fixed = (
        prior.candidates(t) for t in ("teddy", "a red teddy", "brown teddy bear", "green snowman")
    )
    assert torch.equal(plain[0].model.colours, own[0].model.colours)
    assert torch.equal(fixed[0].model.colours, prior.candidates("snowman")[0].model.colours)
    r, g, b = red[0].model.colours.mean(0)
    assert r > 3 * g and r > 3 * b
    assert prior.candidates("") == () and prior.candidates("dragon") == ()


def test_without_a_camera_every_side_is_expected_and_words_narrow_them(prior: MiniPrior) -> None:
    # One of the sides that are expected exactly, the front.
    camera = torch.tensor([[0.0, ELEVATIONS[1]]])
    rgba = pictures([prior.candidates("cat")[0].model], camera, prior.picture_size)
    x, t = prior.encode(rgba[:, :3] + 1 - rgba[:, 3:]), torch.full((1,), 0.5)
    alpha, sigma = prior.levels(t)
    x_t = noised(x, torch.randn(x.shape, generator=generator(1)), alpha, sigma)
    errors = {}
    for text in ("a cat", "a cat, front view", "a cat, back view"):
        clean = cleaned(x_t, prior.predict(x_t, t, [prior.read([text])])[0], alpha, sigma)
        errors[text] = float((clean - x).square().mean())
    assert errors["a cat, back view"] > 3 * errors["a cat, front view"]
    assert errors["a cat"] == pytest.approx(errors["a cat, front view"], rel=1e-3)


def test_it_survives_the_disk(prior: MiniPrior, tmp_path: Path) -> None:
    prior.save(tmp_path)
    text = replace(prior.read(["a cat"] * 2), camera=CAMERA)
    x_t = torch.randn(prior.encode(truth(prior, "cat")).shape, generator=generator(0))
    t = torch.tensor([0.3, 0.9])
    assert torch.equal(MiniPrior.load(tmp_path).predict(x_t, t, [text]), prior.predict(x_t, t, [text]))
    (tmp_path / "model_index.json").write_text('{"_class_name": "Other"}')
    with pytest.raises(ValueError, match="holds a Other, expected MiniPrior"):
        MiniPrior.load(tmp_path)


def test_a_twin_begins_as_the_prior_and_learns(prior: MiniPrior) -> None:
    pytest.importorskip("peft")
    from guidance.critics.lora import LoRA

    critic = LoRA(rank=2).build(prior, generator(0))
    text = replace(prior.read(["a cat"] * 2), camera=CAMERA)
    x, t = prior.encode(truth(prior, "teddy bear")), torch.tensor([0.3, 0.9])
    x_t = noised(x, torch.randn(x.shape, generator=generator(1)), *prior.levels(t))
    assert torch.equal(critic.predict(x_t, t, [text]), prior.predict(x_t, t, [text]))
    first = critic.learn(x, text)
    assert min(critic.learn(x, text) for _ in range(10)) < first
    assert prior.correction is None
