"""Models of others, of every family: their own pipelines draw the same pictures, and every question has an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guidance.critic import LoRA
from guidance.families.camera import CameraAware
from guidance.families.codecs import Autoencoder
from guidance.families.extras import Extras
from guidance.families.networks import guidance_waves, packed, places, unpacked
from guidance.families.opening import open_family, precision_of
from guidance.families.prior import FamilyPrior, sharing_copy
from guidance.families.schedules import Table, noise_of
from guidance.objective import guided
from guidance.prior import Prior, cleaned, noised, per_view
from guidance.prompt import Prompt
from guidance.schedule import Flow
from tests.tiny_models import KINDS, build

CPU = torch.device("cpu")
SIZE = 32
STEPS = 4
TEXT = "a teddy bear"


class Opened:
    """A pipeline of the tests, its folder, and the prior that was opened from there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.pipe, self.folder = kind, build(kind), folder
        self.pipe.save_pretrained(folder)
        self.prior = open_family(folder, CPU, Extras(size=SIZE))

    def latents(self, count: int = 1) -> Tensor:
        shape = self.prior.encode(torch.zeros(1, 3, SIZE, SIZE)).shape
        return torch.randn(count, *shape[1:], generator=torch.Generator().manual_seed(3))


Open = Callable[[str], Opened]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    known: dict[str, Opened] = {}

    def open_one(kind: str) -> Opened:
        if kind not in known:
            known[kind] = Opened(kind, tmp_path_factory.mktemp("models") / kind)
        return known[kind]

    return open_one


@pytest.fixture(params=KINDS)
def one(request: pytest.FixtureRequest, opened: Open) -> Opened:
    return opened(str(request.param))


# --- parity with diffusers' own pipelines ---


def ddim(prior: FamilyPrior, x_t: Tensor, scheduler: Any, scale: float) -> Tensor:
    """Clean latents by our own DDIM steps at the times of a scheduler (Song et al. 2021, eq. 12 with no noise)."""
    text, empty = prior.read([TEXT]), prior.read([""])
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps.tolist()
    stride = scheduler.config.num_train_timesteps // STEPS
    for step in times:
        now = torch.tensor([step / 999])
        answers = prior.predict(x_t, now, [empty, text])
        answer = guided(answers[0], answers[1], scale)
        x = cleaned(x_t, answer, *prior.levels(now))
        # `set_alpha_to_one=False`: the last step ends at the first level.
        x_t = noised(x, answer, *prior.levels(torch.tensor([max(step - stride, 0) / 999])))
    return x_t


@pytest.mark.parametrize("kind", ["sd", "sd-v", "sdxl"])
@torch.no_grad()
def test_ddim_draws_the_picture_of_the_pipeline(kind: str, opened: Open) -> None:
    it = opened(kind)
    noise = it.latents()
    theirs = it.pipe(
        TEXT,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        latents=noise.clone(),
        output_type="pt",
    ).images
    ours = it.prior.decode(ddim(it.prior, noise, it.pipe.scheduler, 5.0)).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@torch.no_grad()
def test_deepfloyd_draws_the_picture_of_the_pipeline(opened: Open) -> None:
    """By the pipeline's own scheduler, which adds chance, thresholds, and here is told no variances."""
    from diffusers import DDPMScheduler

    it = opened("if")
    scheduler = DDPMScheduler.from_config(it.pipe.scheduler.config, variance_type="fixed_small")
    before, it.pipe.scheduler = it.pipe.scheduler, scheduler
    theirs = it.pipe(
        TEXT,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(1),
        output_type="pt",
    ).images
    it.pipe.scheduler = before
    chance = torch.Generator().manual_seed(1)
    x_t = torch.randn(1, 3, SIZE, SIZE, generator=chance) * scheduler.init_noise_sigma
    text, empty = it.prior.read([TEXT]), it.prior.read([""])
    scheduler.set_timesteps(STEPS)
    for step in scheduler.timesteps:
        answers = it.prior.predict(x_t, step.float()[None] / 999, [empty, text])
        x_t = scheduler.step(guided(answers[0], answers[1], 5.0), step, x_t, generator=chance).prev_sample
    torch.testing.assert_close(x_t, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sd3", "sd3-two", "flux", "flux-fast"])
@torch.no_grad()
def test_euler_draws_the_picture_of_the_pipeline(kind: str, opened: Open) -> None:
    """Steps of dx = v dsigma. They start a little below pure noise, where a noise answer says nothing of a flow."""
    it = opened(kind)
    noise, start = it.latents(), [0.98, 0.7, 0.4, 0.15]
    scale = 5.0 if kind.startswith("sd3") else 1.0
    given: dict[str, Any] = {"guidance_scale": scale if scale > 1 else 3.5, "sigmas": start}
    if kind == "flux-fast":
        given |= {"max_sequence_length": 256}
    latents = noise.clone() if scale > 1 else packed(noise)
    theirs = it.pipe(
        TEXT, height=SIZE, width=SIZE, num_inference_steps=4, latents=latents, output_type="pt", **given
    ).images
    text, empty = it.prior.read([TEXT]), it.prior.read([""])
    sigmas = it.pipe.scheduler.sigmas
    times = fractions(it.prior, sigmas)
    x_t = noise
    for number, t in enumerate(times[:-1]):
        alpha, sigma = it.prior.levels(t[None])
        torch.testing.assert_close(sigma[0], sigmas[number])
        answers = it.prior.predict(x_t, t[None], [empty, text])
        answer = guided(answers[0], answers[1], scale)
        velocity = (answer - x_t) / per_view(alpha)
        x_t = x_t + (sigmas[number + 1] - sigma[0]) * velocity
    ours = it.prior.decode(x_t).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def fractions(prior: FamilyPrior, sigmas: Tensor) -> Tensor:
    """The t at which a flow has these sigmas."""
    assert isinstance(prior.schedule, Flow)
    shift = prior.schedule.shift
    return sigmas / (shift - (shift - 1) * sigmas)


# --- schedules ---


@pytest.mark.parametrize("kind", ["sd", "sd-v", "sdxl", "if"])
def test_tables_are_those_of_diffusers(kind: str, opened: Open) -> None:
    it = opened(kind)
    alpha, sigma = it.prior.levels(torch.arange(1000, dtype=torch.float64) / 999)
    square = it.pipe.scheduler.alphas_cumprod.double()
    torch.testing.assert_close(alpha.square(), square, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1000, dtype=torch.float64))


def test_the_fixed_flow_is_that_of_diffusers(opened: Open) -> None:
    it = opened("sd3")
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler.from_config(it.pipe.scheduler.config)
    _, sigma = it.prior.levels(torch.arange(1000, 0, -1) / 1000)
    torch.testing.assert_close(sigma, theirs.sigmas)


def test_a_schedule_that_ends_in_pure_noise_stays_finite() -> None:
    table = Table(torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64))
    alpha, sigma = table.levels(torch.linspace(0, 1, 9))
    assert alpha.isfinite().all() and (alpha > 0).all() and (alpha.diff() < 0).all() and (sigma <= 1).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_whatever_a_network_says_its_noise_is_found(prediction: str) -> None:
    chance = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 1, 4, 4, generator=chance, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    levels = Flow(3.0).levels(t) if prediction == "flow" else (t.cos(), t.sin())
    alpha, sigma = map(per_view, levels)
    said = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x, "sample": x, "flow": noise - x}[prediction]
    torch.testing.assert_close(noise_of(said, alpha * x + sigma * noise, prediction, alpha, sigma), noise)


# --- answers ---


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
    assert precision_of("FluxPipeline", cuda, auto) == torch.bfloat16
    assert precision_of("StableDiffusionPipeline", cuda, Extras(precision="full")) == torch.float32


# --- texts ---


def test_a_text_is_read_once(one: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    first = one.prior.read([TEXT, ""])
    monkeypatch.setattr(one.prior.reader, "_way", lambda pipe, text: pytest.fail("read again"))
    again = one.prior.read([TEXT, ""])
    assert torch.equal(first.tokens, again.tokens) and bool(first.mask.all())


def test_rows_and_view_words_keep_the_pooled_text(opened: Open) -> None:
    prior = opened("sdxl").prior
    both = prior.read([TEXT, "a horse"])
    assert both.pooled is not None
    row = both.rows(torch.tensor([1]))
    assert row.pooled is not None and torch.equal(row.pooled, both.pooled[1:])
    wanted = Prompt(TEXT, perp_neg=1.0).seen_from(prior, torch.tensor([0.0, 1.0]), torch.zeros(2))
    assert wanted.text.pooled is not None
    torch.testing.assert_close(wanted.text.pooled[:1], prior.read([f"{TEXT}, front view"]).pooled)


def test_no_text_is_zeros_where_the_model_was_trained_so(opened: Open) -> None:
    read = opened("sdxl").prior.read([""])
    assert read.pooled is not None and not read.tokens.any() and not read.pooled.any()


@pytest.mark.parametrize(("kind", "limit"), [("sd", 77), ("sdxl", 77), ("if", 77), ("sd3", 256), ("sd3-two", 77)])
def test_the_end_of_a_long_text_is_named(kind: str, limit: int, opened: Open) -> None:
    prior = opened(kind).prior
    assert prior.check(TEXT) is None
    told = prior.check("a " * 300 + "unicorn")
    assert (
        told is not None
        and f"reads {limit} tokens, words for the view" in told
        and told.count("\n") == 0
        and len(told) < 160
    )


def test_words_for_the_view_have_to_fit_too(opened: Open, capfd: pytest.CaptureFixture[str]) -> None:
    prior = opened("sd").prior
    full = "a " * 74 + "b"  # With both ends 77 tokens of one letter.
    told = prior.check(full)
    assert told is not None and "overhead" in told.replace(" ", "")
    capfd.readouterr()
    prior.read([full + ", back view"])
    assert capfd.readouterr().err == ""  # Said once, by `check`, and not by every library again.


@pytest.mark.parametrize("kind", [*KINDS, "sd3-two", "flux-fast"])
def test_encoders_are_there_only_while_they_read(
    kind: str, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path / "cache"))
    it = opened(kind)
    for again in (False, True):
        frugal = open_family(it.folder, CPU, Extras(size=SIZE, frugal=True))
        assert frugal.reader._pipe.text_encoder is None
        if again:  # What was read before is on the disk.
            monkeypatch.setattr(frugal.reader, "_reopen", lambda: pytest.fail("opened again"))
        torch.testing.assert_close(frugal.read([TEXT, ""]).tokens, it.prior.read([TEXT, ""]).tokens)
        assert frugal.reader._pipe.text_encoder is None
        assert frugal.check(TEXT) is None and len(list((tmp_path / "cache" / "texts").iterdir())) == 2
        x_t, t = it.latents(), torch.tensor([0.4])
        ours, theirs = (p.predict(x_t, t, [p.read([TEXT])]) for p in (frugal, it.prior))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# --- the critic ---


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


# --- pieces ---


def test_patches_are_those_of_diffusers() -> None:
    from diffusers import FluxPipeline

    x = torch.randn(2, 4, 6, 8)
    torch.testing.assert_close(packed(x), FluxPipeline._pack_latents(x, 2, 4, 6, 8))
    torch.testing.assert_close(unpacked(packed(x), 6, 8), x)
    torch.testing.assert_close(places(3, 4), FluxPipeline._prepare_latent_image_ids(1, 3, 4, CPU, torch.float32))


def test_waves_of_guidance_are_those_of_diffusers() -> None:
    from diffusers import LatentConsistencyModelPipeline

    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    wanted = theirs(None, torch.tensor([7.5]), embedding_dim=16)
    torch.testing.assert_close(guidance_waves(7.5, 16), wanted)


def test_a_tiny_autoencoder_says_latents_themselves() -> None:
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    codec, rgb = Autoencoder.of(vae), torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(codec.encode(rgb), vae.encode(rgb * 2 - 1).latents)
    assert codec.decode(codec.encode(rgb)).shape == rgb.shape
