"""Multi-view models: several views of one object in one attention, each told its pose."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guidance.conditioning.prompt import Prompt
from guidance.critics.lora import CriticConfig
from guidance.priors.base import Condition, ImagePromptPrior, MultiViewPrior, views_per_group
from guidance.priors.diffusers.loading import load_diffusers_prior
from guidance.priors.diffusers.multiview.camera_embedding import camera_features
from guidance.priors.diffusers.multiview.ldm_conversion import diffusers_key, unet_config_from_ldm
from guidance.priors.diffusers.multiview.unet import camera_to_pose
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import DiffusersPrior, ImagePromptDiffusersPrior
from guidance.priors.diffusers.prompts.image_prompt import Resampler
from renderers.cameras import look_at_origin
from tests.support.guidance.multiview_reference import CONFIG, IMAGE_TOKENS, MultiViewReference
from tests.support.guidance.tiny_models import build, clip_vision

CPU = torch.device("cpu")
SIZE = 16
TEXT = "a teddy bear"
ANGLES = torch.tensor([[0.3 + turn * math.pi / 2, 0.2] for turn in range(4)])


def make_folder(reference: MultiViewReference, folder: Path) -> Path:
    """The folder of a multi-view model around a network."""
    build("sd").save_pretrained(folder)
    for file in (folder / "unet").iterdir():
        file.unlink()
    (folder / "unet").rmdir()
    row = json.loads((folder / "model_index.json").read_text())
    row |= {"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"]}
    more: dict[str, Tensor] = {}
    if reference.image_prompt:
        row["image_encoder"] = ["transformers", "CLIPVisionModel"]
        clip_vision().save_pretrained(folder / "image_encoder")
        more = {f"image_embed.{name}": value for name, value in reader().state_dict().items()}
    reference.save(folder / "unet", more)
    (folder / "unet" / "mv_unet.py").write_text("raise SystemExit('code of a model was run')")
    (folder / "model_index.json").write_text(json.dumps(row))
    return folder


def reader() -> Resampler:
    made, rng = Resampler(24, 32, IMAGE_TOKENS, depth=2, heads=2), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(MultiViewReference(), tmp_path_factory.mktemp("models") / "mv")


@pytest.fixture(scope="module")
def prior(folder: Path) -> DiffusersPrior:
    return load_diffusers_prior(folder, CPU, PriorOptions(image_size=SIZE))


@pytest.fixture(scope="module")
def image_prompt_prior(tmp_path_factory: pytest.TempPathFactory) -> ImagePromptDiffusersPrior:
    opened = load_diffusers_prior(
        make_folder(MultiViewReference(image_prompt=True), tmp_path_factory.mktemp("models") / "mv"),
        CPU,
        PriorOptions(image_size=SIZE),
    )
    assert isinstance(opened, ImagePromptDiffusersPrior)
    return opened


def noise(count: int, seed: int = 3) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def posed(prior: DiffusersPrior, groups: int = 1, text: str = TEXT) -> Condition:
    return replace(prior.encode_prompt([text] * 4 * groups), camera=ANGLES.repeat(groups, 1))


# --- the network ---


@pytest.mark.parametrize("groups", [1, 2])
def test_matches_the_reference_network(groups: int, prior: DiffusersPrior) -> None:
    x_t, t = noise(4 * groups), torch.tensor([0.3, 0.8][:groups]).repeat_interleave(4)
    text = posed(prior, groups)
    expected = MultiViewReference()(
        x_t, t * 999, text.text_embeds, camera_to_pose(camera_features(ANGLES)).repeat(groups, 1), views=4
    )
    assert expected.std() > 0.1
    torch.testing.assert_close(prior.predict_noise(x_t, t, [text])[0], expected, atol=1e-4, rtol=1e-4)


def test_no_camera_adds_no_embedding(prior: DiffusersPrior) -> None:
    x_t, t, text = noise(4), torch.full((4,), 0.5), prior.encode_prompt([TEXT] * 4)
    expected = MultiViewReference()(x_t, t * 999, text.text_embeds, None, views=4)
    torch.testing.assert_close(prior.predict_noise(x_t, t, [text])[0], expected, atol=1e-4, rtol=1e-4)


def test_single_view_without_camera_equals_the_plain_unet(prior: DiffusersPrior, folder: Path) -> None:
    from diffusers import UNet2DConditionModel

    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    names = {name: diffusers_key(name, 1).replace(".inner.", ".") for name in tensors if "camera" not in name}
    plain = UNet2DConditionModel(**unet_config_from_ldm(CONFIG))
    plain.load_state_dict({new: tensors[old] for old, new in names.items()})
    alone, x_t, t = prior.lora_target(), noise(2), torch.tensor([0.2, 0.7])
    for module in alone.network.modules():
        if hasattr(processor := getattr(module, "processor", None), "views"):
            processor.views = 1
    assert isinstance(alone.denoiser, DiffusersPrior)
    alone.denoiser.adapter = replace(alone.denoiser.adapter, views_per_group=1)  # type: ignore[type-var]
    text = prior.encode_prompt([TEXT] * 2)
    with torch.no_grad():
        expected = plain(x_t, t * 999, text.text_embeds).sample
        torch.testing.assert_close(alone.denoiser.predict_noise(x_t, t, [text])[0], expected, atol=1e-5, rtol=1e-4)


def test_is_equivariant_to_view_order(prior: DiffusersPrior) -> None:
    x_t, t, text, order = noise(4), torch.full((4,), 0.5), posed(prior), torch.tensor([2, 0, 3, 1])
    swapped = prior.predict_noise(x_t[order], t, [text.select(order)])[0]
    torch.testing.assert_close(swapped, prior.predict_noise(x_t, t, [text])[0][order], atol=1e-5, rtol=1e-4)


def test_attention_is_within_groups(prior: DiffusersPrior) -> None:
    x_t, t, text = noise(8), torch.full((8,), 0.5), posed(prior, 2)
    before = prior.predict_noise(x_t, t, [text])[0]
    x_t[7] += 1
    moved = (prior.predict_noise(x_t, t, [text])[0] - before).flatten(1).abs().amax(1)
    assert (moved[:4] < 1e-5).all() and (moved[4:7] > 1e-4).all()


def test_camera_changes_the_output(prior: DiffusersPrior) -> None:
    x_t, t, text = noise(4), torch.full((4,), 0.5), posed(prior)
    turned = replace(text, camera=ANGLES + torch.tensor([1.0, 0.0]))
    noise_preds = prior.predict_noise(x_t, t, [text, turned, replace(text, camera=None)])
    assert (noise_preds[0] - noise_preds[1]).abs().max() > 1e-3 and (noise_preds[0] - noise_preds[2]).abs().max() > 1e-3
    assert prior.camera_conditioned and isinstance(prior, MultiViewPrior) and views_per_group(prior) == 4


def test_pose_matches_the_renderer_in_blender_axes() -> None:
    azimuth, elevation = torch.tensor([0.0, 0.7, -2.0, 3.0]), torch.tensor([0.0, 0.4, -0.3, 1.2])
    c2w = look_at_origin(azimuth, elevation, 8, distance=1.0).c2w
    turn = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    pose = camera_to_pose(camera_features(torch.stack([azimuth, elevation], -1)))
    torch.testing.assert_close(pose.unflatten(1, (4, 4)), turn @ c2w, atol=1e-6, rtol=0)


def test_batches_split_between_groups(prior: DiffusersPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    x_t, t, text = noise(8), torch.full((8,), 0.5), posed(prior, 2)
    expected = prior.predict_noise(x_t, t, [text])
    calls, noise_pred = list[int](), type(prior.adapter).forward

    def counted(self: object, question: object) -> Tensor:
        calls.append(len(question.x_t))  # type: ignore[attr-defined]
        return noise_pred(self, question)  # type: ignore[arg-type]

    monkeypatch.setattr(type(prior.adapter), "forward", counted)
    monkeypatch.setattr(prior, "max_batch", 3)
    torch.testing.assert_close(prior.predict_noise(x_t, t, [text]), expected, atol=1e-5, rtol=1e-4)
    assert calls == [4, 4]
    with pytest.raises(ValueError, match="6 views; this model sees 4 of one object at once"):
        prior.predict_noise(x_t[:6], t[:6], [text.select(torch.arange(6))])


# --- what it is told ---


@pytest.mark.parametrize("direction", ["auto", "text", "none"])
def test_camera_is_passed_for_every_condition(direction: str, prior: DiffusersPrior) -> None:
    prompt = Prompt(TEXT, negative="a horse", view_conditioning=direction)  # type: ignore[arg-type]
    expected = prompt.conditions_for(prior, *ANGLES.T)
    for condition in (expected.text, expected.uncond, expected.negative, expected.text_with_camera):
        assert condition.camera is not None
        torch.testing.assert_close(condition.camera, ANGLES)


def test_critic_trains_on_whole_groups(prior: DiffusersPrior) -> None:
    x_t, t, text = noise(8), torch.full((8,), 0.5), posed(prior, 2)
    before = prior.predict_noise(x_t, t, [text])
    critic = CriticConfig(rank=2, camera_dropout=0.5).build(prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic.predict_noise(x_t, t, [text]), before)
    for _ in range(3):
        critic.train_step(x_t, text)
    assert (critic.predict_noise(x_t, t, [text]) - before).abs().max() > 1e-4
    assert torch.equal(prior.predict_noise(x_t, t, [text]), before)


# --- pictures ---


def test_image_prompt_adds_a_view_and_tokens(image_prompt_prior: ImagePromptDiffusersPrior) -> None:
    x_t, t, text = noise(8), torch.tensor([0.3, 0.8]).repeat_interleave(4), posed(image_prompt_prior, 2)
    rgb = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    image = image_prompt_prior.encode_image_prompt(rgb)
    assert isinstance(image_prompt_prior, ImagePromptPrior) and image.shape == (1, IMAGE_TOKENS + 8, 32)
    shown = image[:, IMAGE_TOKENS:].reshape(1, 4, 8, 8)
    groups = []
    for first in (0, 4):
        rows = slice(first, first + 4)
        pose = torch.cat([camera_to_pose(camera_features(ANGLES)), torch.zeros(1, 16)])
        tokens, time = text.text_embeds[:1].expand(5, -1, -1), t[first].expand(5) * 999
        picture = image[:, :IMAGE_TOKENS].expand(5, -1, -1)
        groups.append(
            MultiViewReference(image_prompt=True)(torch.cat([x_t[rows], shown]), time, tokens, pose, 5, picture)[:4]
        )
    calls = replace(text, image_embeds=image.expand(8, -1, -1))
    noise_preds = image_prompt_prior.predict_noise(x_t, t, [calls, text])
    torch.testing.assert_close(noise_preds[0], torch.cat(groups), atol=1e-4, rtol=1e-4)
    assert (noise_preds[0] - noise_preds[1]).abs().max() > 1e-3


def test_null_image_tokens_are_zero(image_prompt_prior: ImagePromptDiffusersPrior) -> None:
    blank = replace(
        posed(image_prompt_prior), image_embeds=image_prompt_prior._image_encoder.null_tokens().expand(4, -1, -1)
    )
    x_t, t = noise(4), torch.full((4,), 0.5)
    torch.testing.assert_close(
        image_prompt_prior.predict_noise(x_t, t, [blank]),
        image_prompt_prior.predict_noise(x_t, t, [posed(image_prompt_prior)]),
    )
    assert not image_prompt_prior._image_encoder.null_tokens()[:, IMAGE_TOKENS:].any()


def test_resampler_depends_on_its_input() -> None:
    made, tokens = reader(), torch.randn(1, 5, 24)
    again = Resampler.from_state_dict(made.state_dict())
    torch.testing.assert_close(again(tokens), made(tokens))
    torch.testing.assert_close(made(tokens[:, [3, 1, 0, 4, 2]]), made(tokens), atol=1e-5, rtol=1e-4)
    assert (made(tokens) - made(0 * tokens)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="layers that read a picture do not fit"):
        Resampler.from_state_dict({name: value for name, value in made.state_dict().items() if "to_kv" not in name})


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"camera_dim": 12}, "is told 12 numbers of a camera; expected the 16 of a pose"),
        ({"model_channels": None}, "lacks model_channels"),
        ({"num_res_blocks": [1, 2]}, r"has \[1, 2\] blocks"),
        ({"channel_mult": [1, 4]}, "does not fit its configuration"),
        ({"ip_dim": 3}, "disagree about pictures"),
    ],
)
def test_rejects_other_architectures(change: dict[str, object], told: str, tmp_path: Path) -> None:
    folder = make_folder(MultiViewReference(), tmp_path / "mv")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=told) as refused:
        load_diffusers_prior(folder, CPU, PriorOptions(image_size=SIZE))
    assert "\n" not in str(refused.value)


def test_camera_layers_are_frozen(prior: DiffusersPrior) -> None:
    assert isinstance(prior.adapter.network, nn.Module)
    assert not any(parameter.requires_grad for parameter in prior.adapter.network.parameters())


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
def test_rejects_encoders_with_missing_tensors(part: str, tmp_path: Path) -> None:
    folder = make_folder(MultiViewReference(image_prompt=True), tmp_path / "mv")
    file = folder / part / "model.safetensors"
    tensors = load_file(file)
    name = tensors.popitem()[0]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part}/model\.safetensors lacks 1 of its tensors, such as ") as refused:
        load_diffusers_prior(folder, CPU, PriorOptions(image_size=SIZE))
    assert str(refused.value).endswith(name)
