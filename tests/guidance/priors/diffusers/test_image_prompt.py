"""Pictures that show what is wanted: IP-Adapters on Stable Diffusion, and how a picture is made ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from guidance.critics.lora import CriticConfig
from guidance.priors.base import Condition, ImagePromptPrior, add_noise, predict_x0
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.diffusers.loading import load_diffusers_prior
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import DiffusersPrior, ImagePromptDiffusersPrior
from guidance.priors.diffusers.prompts.image_prompt import center_crop_resize, clip_preprocess
from tests.support.guidance.tiny_models import build, clip_vision
from tests.support.guidance.tiny_pipelines import CPU, SIZE, STEPS, TEXT, LoadPipeline

RGB = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(4))


def save_adapter(kind: str, folder: Path, patch_tokens: bool = False) -> Path:
    """An IP-Adapter with random weights for a tiny pipeline, beside its image encoder."""
    rng, unet = torch.Generator().manual_seed(2), build(kind).unet
    width = unet.config.cross_attention_dim

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng) / shape[-1] ** 0.5

    tensors = {"image_proj.norm.weight": 1 + 0.1 * draw(width), "image_proj.norm.bias": draw(width)}
    if patch_tokens:
        rest = {"proj.0": (24, 24), "proj.2": (width, 24)}
        tensors = {f"image_proj.{name}.weight": draw(*shape) for name, shape in rest.items()}
        tensors |= {f"image_proj.{name}.bias": draw(shape[0]) for name, shape in rest.items()}
        tensors |= {"image_proj.proj.3.weight": 1 + 0.1 * draw(width), "image_proj.proj.3.bias": draw(width)}
    else:
        tensors |= {"image_proj.proj.weight": draw(4 * width, 16), "image_proj.proj.bias": draw(4 * width)}
    names = [name for name in unet.attn_processors if "attn2" in name]
    for number, name in enumerate(names):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for way in ("k", "v"):
            tensors[f"ip_adapter.{2 * number + 1}.to_{way}_ip.weight"] = draw(layer.to_k.out_features, width)
    folder.mkdir()
    save_file(tensors, folder / "sight.safetensors")
    clip_vision(projection=True).save_pretrained(folder / "image_encoder")
    return folder / "sight.safetensors"


def load_with_adapter(opened: LoadPipeline, kind: str, file: Path) -> ImagePromptDiffusersPrior:
    prior = load_diffusers_prior(opened(kind).folder, CPU, PriorOptions(image_size=SIZE, ip_adapter=str(file)))
    assert isinstance(prior, ImagePromptDiffusersPrior) and isinstance(prior, ImagePromptPrior)
    return prior


def condition_with_image(prior: DiffusersPrior, image: Tensor | None, count: int = 1) -> Condition:
    text = prior.encode_prompt([TEXT] * count)
    return text if image is None else replace(text, image_embeds=image.expand(count, -1, -1))


@pytest.mark.parametrize(("kind", "fine"), [("sd", False), ("sd", True), ("sdxl", False)])
@torch.no_grad()
def test_ip_adapter_matches_the_pipeline(kind: str, fine: bool, load_pipeline: LoadPipeline, tmp_path: Path) -> None:
    file, it = save_adapter(kind, tmp_path / "adapter", fine), load_pipeline(kind)
    prior, pipe = load_with_adapter(load_pipeline, kind, file), build(kind)
    pipe.load_ip_adapter(str(file.parent), subfolder="", weight_name=file.name)
    image, blank = prior.encode_image_prompt(RGB), prior._image_encoder.null_tokens()
    shown = torch.cat([blank, image])[:, None] if fine else torch.cat([blank, image])
    noise = it.latents()
    theirs = pipe(
        TEXT,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        latents=noise.clone(),
        ip_adapter_image_embeds=[shown],
        output_type="pt",
    ).images
    x_t, x = noise, noise
    pipe.scheduler.set_timesteps(STEPS)
    for step in pipe.scheduler.timesteps.tolist():
        now = torch.tensor([step / 999])
        noise_preds = prior.predict_noise(x_t, now, [prior.encode_prompt([""]), condition_with_image(prior, image)])
        noise_pred = classifier_free_guidance(noise_preds[0], noise_preds[1], 5.0)
        x = predict_x0(x_t, noise_pred, *prior.alpha_sigma(now))
        x_t = add_noise(x, noise_pred, *prior.alpha_sigma(torch.tensor([max(step - 1000 // STEPS, 0) / 999])))
    torch.testing.assert_close(prior.decode(x_t).clamp(0, 1), theirs, atol=2e-5, rtol=0)


def test_image_prompt_changes_the_output_and_none_is_null(load_pipeline: LoadPipeline, tmp_path: Path) -> None:
    prior = load_with_adapter(load_pipeline, "sd", save_adapter("sd", tmp_path / "adapter"))
    x_t, t = load_pipeline("sd").latents(2), torch.tensor([0.3, 0.8])
    image, blank = prior.encode_image_prompt(RGB), prior._image_encoder.null_tokens()
    noise_preds = prior.predict_noise(
        x_t,
        t,
        [
            condition_with_image(prior, image, 2),
            condition_with_image(prior, blank, 2),
            condition_with_image(prior, None, 2),
        ],
    )
    assert (noise_preds[0] - noise_preds[1]).abs().max() > 1e-4
    torch.testing.assert_close(noise_preds[1], noise_preds[2])
    critic = CriticConfig(rank=1).build(prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        critic.predict_noise(x_t, t, [condition_with_image(prior, image, 2)])[0], noise_preds[0], atol=1e-5, rtol=1e-4
    )


def test_ip_adapter_scale_zero_has_no_effect(load_pipeline: LoadPipeline, tmp_path: Path) -> None:
    file = save_adapter("sd", tmp_path / "adapter")
    it = load_pipeline("sd")
    prior = load_diffusers_prior(
        it.folder, CPU, PriorOptions(image_size=SIZE, ip_adapter=str(file), ip_adapter_scale=0.0)
    )
    assert isinstance(prior, ImagePromptDiffusersPrior)
    x_t, t = it.latents(), torch.tensor([0.4])
    ours = prior.predict_noise(x_t, t, [condition_with_image(prior, prior.encode_image_prompt(RGB))])
    torch.testing.assert_close(
        ours, it.prior.predict_noise(x_t, t, [it.prior.encode_prompt([TEXT])]), atol=1e-5, rtol=1e-4
    )


def test_center_crop_matches_clip_preprocessing() -> None:
    encoder = clip_vision()
    wide = torch.cat([torch.zeros(1, 3, 32, 8), RGB[..., :32, :30], torch.ones(1, 3, 32, 10)], -1)
    square = center_crop_resize(wide, 32)
    torch.testing.assert_close(square, wide[..., 8:40])
    assert clip_preprocess(wide, encoder).shape == (1, 3, 32, 32)
    torch.testing.assert_close(center_crop_resize(RGB, 30)[..., :, :], RGB[..., 5:35, :])


@pytest.mark.parametrize(
    ("break_it", "says"), [("encoder", "the folder image_encoder is missing"), ("kind", "does not fit")]
)
def test_rejects_incompatible_adapters(break_it: str, says: str, load_pipeline: LoadPipeline, tmp_path: Path) -> None:
    file = save_adapter("sdxl" if break_it == "kind" else "sd", tmp_path / "adapter")
    if break_it == "encoder":
        (file.parent / "image_encoder").rename(file.parent / "else")
    with pytest.raises(ValueError, match=says) as refused:
        load_diffusers_prior(load_pipeline("sd").folder, CPU, PriorOptions(image_size=SIZE, ip_adapter=str(file)))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="models of its kind take no IP-Adapter"):
        load_diffusers_prior(load_pipeline("if").folder, CPU, PriorOptions(image_size=SIZE, ip_adapter=str(file)))


def test_rejects_adapters_with_incomplete_encoder(load_pipeline: LoadPipeline, tmp_path: Path) -> None:
    file = save_adapter("sd", tmp_path / "adapter")
    weights = tmp_path / "adapter" / "image_encoder" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["visual_projection.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"model\.safetensors lacks 1 of its tensors, such as visual_projection\.weight$"
    ):
        load_with_adapter(load_pipeline, "sd", file)
