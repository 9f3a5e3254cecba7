"""The prior in closed form around splats: its door, its words, its pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guidance.priors.base import Prior, add_noise, make_rng, predict_x0
from guidance.priors.mini3d.prior import ELEVATIONS, FOLDER, Mini3DPrior, is_mini3d_folder
from guidance.priors.mini3d.splat_rendering import render_splats
from guidance.priors.sampling import sample_ddim


@pytest.fixture(scope="module")
def prior() -> Mini3DPrior:
    return Mini3DPrior.load()


CAMERA = torch.tensor([[0.0, 0.3], [2.0, 0.1]])


def true_image(prior: Mini3DPrior, text: str) -> torch.Tensor:
    """The splats themselves before white."""
    (candidate,) = prior.candidates(text)
    rgba = render_splats([candidate.model] * 2, CAMERA, prior.image_size)
    return rgba[:, :3] + 1 - rgba[:, 3:]


def test_implements_prior_deterministically(prior: Mini3DPrior) -> None:
    assert isinstance(prior, Prior) and prior.camera_conditioned and is_mini3d_folder(FOLDER)
    text, empty = replace(prior.encode_prompt(["a cat"] * 2), camera=CAMERA), prior.encode_prompt([""] * 2)
    x_t = torch.randn(prior.encode(true_image(prior, "cat")).shape, generator=make_rng(0))
    t = torch.tensor([0.3, 0.9])
    together = prior.predict_noise(x_t, t, [text, empty])
    assert torch.equal(together, prior.predict_noise(x_t, t, [text, empty]))
    torch.testing.assert_close(together[1], prior.predict_noise(x_t, t, [empty])[0])


def test_codec_is_lossless(prior: Mini3DPrior) -> None:
    rgb = torch.rand(2, 3, prior.image_size, prior.image_size, generator=make_rng(0))
    torch.testing.assert_close(prior.decode(prior.encode(rgb)), rgb, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", ["teddy bear", "snowman", "cat", "grand piano"])
def test_denoises_a_render_of_its_object(prior: Mini3DPrior, name: str) -> None:
    picture = true_image(prior, name)
    x, t = prior.encode(picture), torch.full((2,), 0.6)
    alpha, sigma = prior.alpha_sigma(t)
    x_t = add_noise(x, torch.randn(x.shape, generator=make_rng(1)), alpha, sigma)
    text = replace(prior.encode_prompt([name] * 2), camera=CAMERA)
    clean = prior.decode(predict_x0(x_t, prior.predict_noise(x_t, t, [text])[0], alpha, sigma))
    assert -10 * math.log10(float((clean - picture).square().mean())) > 26


def test_samples_show_the_object_from_the_camera(prior: Mini3DPrior) -> None:
    text, empty = replace(prior.encode_prompt(["a teddy bear"] * 2), camera=CAMERA), prior.encode_prompt([""] * 2)
    noise = torch.randn(prior.encode(true_image(prior, "cat")).shape, generator=make_rng(2))
    drawn = sample_ddim(prior, noise, text, empty, 1.0, 8)
    (candidate,) = prior.candidates("teddy bear")
    solid = render_splats([candidate.model] * 2, CAMERA, prior.image_size)[:, 3:] > 0.5
    errors = torch.stack(
        [((drawn - true_image(prior, name)).square() * solid).mean() for name in ("teddy bear", "cat")]
    )
    assert errors[0] < 0.25 * errors[1]


def test_color_words_recolor_or_select_models(prior: Mini3DPrior) -> None:
    plain, red, own, fixed = (
        prior.candidates(t) for t in ("teddy", "a red teddy", "brown teddy bear", "green snowman")
    )
    assert torch.equal(plain[0].model.colors, own[0].model.colors)
    assert torch.equal(fixed[0].model.colors, prior.candidates("snowman")[0].model.colors)
    r, g, b = red[0].model.colors.mean(0)
    assert r > 3 * g and r > 3 * b
    assert prior.candidates("") == () and prior.candidates("dragon") == ()


def test_without_camera_mixes_all_sides(prior: Mini3DPrior) -> None:
    # One of the sides that are expected exactly, the front.
    camera = torch.tensor([[0.0, ELEVATIONS[1]]])
    rgba = render_splats([prior.candidates("cat")[0].model], camera, prior.image_size)
    x, t = prior.encode(rgba[:, :3] + 1 - rgba[:, 3:]), torch.full((1,), 0.5)
    alpha, sigma = prior.alpha_sigma(t)
    x_t = add_noise(x, torch.randn(x.shape, generator=make_rng(1)), alpha, sigma)
    errors = {}
    for text in ("a cat", "a cat, front view", "a cat, back view"):
        clean = predict_x0(x_t, prior.predict_noise(x_t, t, [prior.encode_prompt([text])])[0], alpha, sigma)
        errors[text] = float((clean - x).square().mean())
    assert errors["a cat, back view"] > 3 * errors["a cat, front view"]
    assert errors["a cat"] == pytest.approx(errors["a cat, front view"], rel=1e-3)


def test_save_and_load_round_trip(prior: Mini3DPrior, tmp_path: Path) -> None:
    prior.save(tmp_path)
    text = replace(prior.encode_prompt(["a cat"] * 2), camera=CAMERA)
    x_t = torch.randn(prior.encode(true_image(prior, "cat")).shape, generator=make_rng(0))
    t = torch.tensor([0.3, 0.9])
    assert torch.equal(Mini3DPrior.load(tmp_path).predict_noise(x_t, t, [text]), prior.predict_noise(x_t, t, [text]))
    (tmp_path / "model_index.json").write_text('{"_class_name": "Other"}')
    with pytest.raises(ValueError, match="holds a Other, expected Mini3DPrior"):
        Mini3DPrior.load(tmp_path)


def test_lora_target_starts_as_the_prior_and_learns(prior: Mini3DPrior) -> None:
    pytest.importorskip("peft")
    from guidance.critics.lora import CriticConfig

    critic = CriticConfig(rank=2).build(prior, make_rng(0))
    text = replace(prior.encode_prompt(["a cat"] * 2), camera=CAMERA)
    x, t = prior.encode(true_image(prior, "teddy bear")), torch.tensor([0.3, 0.9])
    x_t = add_noise(x, torch.randn(x.shape, generator=make_rng(1)), *prior.alpha_sigma(t))
    assert torch.equal(critic.predict_noise(x_t, t, [text]), prior.predict_noise(x_t, t, [text]))
    first = critic.train_step(x, text)
    assert min(critic.train_step(x, text) for _ in range(10)) < first
    assert prior.correction is None
