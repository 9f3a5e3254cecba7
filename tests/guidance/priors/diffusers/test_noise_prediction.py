"""What a model of others answers, in how many passes, and in which precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from guidance.priors.base import Prior
from guidance.priors.diffusers.loading import open_family, precision_of
from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import FamilyPrior
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, Open, Opened


def test_it_is_a_prior(one: Opened) -> None:
    assert isinstance(one.prior, Prior) and not one.prior.sees_camera and one.prior.picture_size == SIZE
    assert one.prior.distilled == (one.kind == "flux")


def test_conditions_asked_together_are_answered_as_if_alone(one: Opened) -> None:
    prior, x_t, t = one.prior, one.latents(2), torch.tensor([0.3, 0.8])
    first, second = prior.read([TEXT, "a horse"]), prior.read(["", ""])
    together = prior.predict(x_t, t, [first, second])
    assert together.shape == (2, *x_t.shape) and together.dtype == torch.float32
    for place, condition in enumerate((first, second)):
        torch.testing.assert_close(together[place], prior.predict(x_t, t, [condition])[0], atol=1e-5, rtol=1e-4)
    alone = prior.predict(x_t[1:], t[1:], [first.rows(torch.tensor([1]))])[0]
    torch.testing.assert_close(together[0, 1:], alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_passes_may_be_cut_into_rows(one: Opened) -> None:
    prior, x_t, t = one.prior, one.latents(3), torch.tensor([0.2, 0.5, 0.7])
    conditions = [prior.read([TEXT] * 3), prior.read([""] * 3)]
    whole = prior.predict(x_t, t, conditions)
    few = FamilyPrior(prior.asking, prior.schedule, prior.prediction, prior.codec, prior.reader, SIZE, rows=2)
    torch.testing.assert_close(few.predict(x_t, t, conditions), whole, atol=1e-5, rtol=1e-4)


def test_passes_shrink_where_the_memory_runs_out(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    it = opened("sd")
    prior, x_t, t = it.prior, it.latents(4), torch.tensor([0.2, 0.5, 0.7, 0.9])
    wanted = prior.predict(x_t, t, [prior.read([TEXT] * 4)])
    small = FamilyPrior(prior.asking, prior.schedule, prior.prediction, prior.codec, prior.reader, SIZE)
    answer, most = type(prior.asking).answer, 1

    def short(self: Any, question: Any) -> Tensor:
        if len(question.x_t) > most:
            raise torch.OutOfMemoryError
        return answer(self, question)

    monkeypatch.setattr(type(prior.asking), "answer", short)
    with pytest.warns(UserWarning, match="the memory ran out: from here on 1 pictures in a pass"):
        told = small.predict(x_t, t, [prior.read([TEXT] * 4)])
    torch.testing.assert_close(told, wanted, atol=1e-5, rtol=1e-4)
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        small.predict(x_t, t, [prior.read([TEXT] * 4)])


def test_the_gradient_reaches_the_picture(one: Opened) -> None:
    rgb = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    latents = one.prior.encode(rgb)
    (gradient,) = torch.autograd.grad(latents.square().sum(), rgb)
    assert latents.dtype == torch.float32 and gradient.isfinite().all() and gradient.abs().max() > 0
    torch.testing.assert_close(one.prior.encode(rgb), latents)  # The mean, not a draw.


def test_encoding_is_the_pipeline_s(opened: Open) -> None:
    for kind in ("sd", "sd3"):
        it = opened(kind)
        rgb = torch.rand(1, 3, SIZE, SIZE)
        mean = it.pipe.vae.encode(rgb * 2 - 1).latent_dist.mean
        wanted = (mean - (it.pipe.vae.config.shift_factor or 0)) * it.pipe.vae.config.scaling_factor
        torch.testing.assert_close(it.prior.encode(rgb), wanted)
    vae = opened("sana").pipe.vae
    torch.testing.assert_close(opened("sana").prior.encode(rgb), vae.encode(rgb * 2 - 1).latent * 0.41407)


def test_pixels_come_back_from_a_model_of_pixels(opened: Open) -> None:
    rgb = torch.rand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(opened("if").prior.decode(opened("if").prior.encode(rgb)), rgb)


def test_pictures_that_an_autoencoder_can_not_halve_are_refused(opened: Open) -> None:
    with pytest.raises(ValueError, match="33 x 32; this model takes multiples of 2"):
        opened("sd").prior.encode(torch.rand(1, 3, 32, 33))


def test_half_precision_answers_in_single(opened: Open) -> None:
    it = opened("sd")
    half = open_family(it.folder, CPU, Extras(size=SIZE, precision="half"))
    x_t, t = it.latents(2), torch.tensor([0.3, 0.8])
    assert half.dtype == torch.float16 and half.encode(torch.rand(1, 3, SIZE, SIZE)).dtype == torch.float32
    answer = half.predict(x_t, t, [half.read([TEXT] * 2)])
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, it.prior.predict(x_t, t, [it.prior.read([TEXT] * 2)]), atol=5e-3, rtol=1e-2)


def test_the_device_decides_the_precision() -> None:
    cuda, auto = torch.device("cuda"), Extras()
    assert precision_of("StableDiffusionPipeline", CPU, auto) == torch.float32
    assert precision_of("StableDiffusionPipeline", cuda, auto) == torch.float16
    assert {precision_of(f"{name}Pipeline", cuda, auto) for name in ("Flux", "Sana", "IF")} == {torch.bfloat16}
    assert precision_of("StableDiffusionPipeline", cuda, Extras(precision="full")) == torch.float32
