"""Pictures that show what is wanted: IP-Adapters on Stable Diffusion, and how a picture is made ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from guidance.critics.lora import LoRA
from guidance.objectives.base import guided
from guidance.priors.base import Condition, Seeing, cleaned, noised
from guidance.priors.diffusers.loading import open_family
from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import FamilyPrior, SeeingPrior
from guidance.priors.diffusers.prompts.image_prompt import clip_picture, squared
from tests.support.guidance.tiny_models import build, clip_vision
from tests.support.guidance.tiny_pipelines import CPU, SIZE, STEPS, TEXT, Open

RGB = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(4))


def adapter(kind: str, folder: Path, fine: bool = False) -> Path:
    """An IP-Adapter with random weights for a tiny pipeline, beside its image encoder."""
    chance, unet = torch.Generator().manual_seed(2), build(kind).unet
    width = unet.config.cross_attention_dim

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance) / shape[-1] ** 0.5

    tensors = {"image_proj.norm.weight": 1 + 0.1 * draw(width), "image_proj.norm.bias": draw(width)}
    if fine:
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


def opened_with(opened: Open, kind: str, file: Path) -> SeeingPrior:
    prior = open_family(opened(kind).folder, CPU, Extras(size=SIZE, adapter=str(file)))
    assert isinstance(prior, SeeingPrior) and isinstance(prior, Seeing)
    return prior


def told(prior: FamilyPrior, image: Tensor | None, count: int = 1) -> Condition:
    text = prior.read([TEXT] * count)
    return text if image is None else replace(text, image=image.expand(count, -1, -1))


@pytest.mark.parametrize(("kind", "fine"), [("sd", False), ("sd", True), ("sdxl", False)])
@torch.no_grad()
def test_the_adapted_pipeline_draws_the_same_picture(kind: str, fine: bool, opened: Open, tmp_path: Path) -> None:
    file, it = adapter(kind, tmp_path / "adapter", fine), opened(kind)
    prior, pipe = opened_with(opened, kind, file), build(kind)
    pipe.load_ip_adapter(str(file.parent), subfolder="", weight_name=file.name)
    image, blank = prior.look(RGB), prior._looker.blank()
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
        answers = prior.predict(x_t, now, [prior.read([""]), told(prior, image)])
        answer = guided(answers[0], answers[1], 5.0)
        x = cleaned(x_t, answer, *prior.levels(now))
        x_t = noised(x, answer, *prior.levels(torch.tensor([max(step - 1000 // STEPS, 0) / 999])))
    torch.testing.assert_close(prior.decode(x_t).clamp(0, 1), theirs, atol=2e-5, rtol=0)


def test_the_picture_is_seen_and_no_picture_is_as_blank(opened: Open, tmp_path: Path) -> None:
    prior = opened_with(opened, "sd", adapter("sd", tmp_path / "adapter"))
    x_t, t = opened("sd").latents(2), torch.tensor([0.3, 0.8])
    image, blank = prior.look(RGB), prior._looker.blank()
    answers = prior.predict(x_t, t, [told(prior, image, 2), told(prior, blank, 2), told(prior, None, 2)])
    assert (answers[0] - answers[1]).abs().max() > 1e-4
    torch.testing.assert_close(answers[1], answers[2])
    critic = LoRA(rank=1).build(prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic.predict(x_t, t, [told(prior, image, 2)])[0], answers[0], atol=1e-5, rtol=1e-4)


def test_an_adapter_of_no_weight_is_not_there(opened: Open, tmp_path: Path) -> None:
    file = adapter("sd", tmp_path / "adapter")
    it = opened("sd")
    prior = open_family(it.folder, CPU, Extras(size=SIZE, adapter=str(file), adapter_scale=0.0))
    assert isinstance(prior, SeeingPrior)
    x_t, t = it.latents(), torch.tensor([0.4])
    ours = prior.predict(x_t, t, [told(prior, prior.look(RGB))])
    torch.testing.assert_close(ours, it.prior.predict(x_t, t, [it.prior.read([TEXT])]), atol=1e-5, rtol=1e-4)


def test_the_middle_square_is_what_clip_sees() -> None:
    encoder = clip_vision()
    wide = torch.cat([torch.zeros(1, 3, 32, 8), RGB[..., :32, :30], torch.ones(1, 3, 32, 10)], -1)
    square = squared(wide, 32)
    torch.testing.assert_close(square, wide[..., 8:40])
    assert clip_picture(wide, encoder).shape == (1, 3, 32, 32)
    torch.testing.assert_close(squared(RGB, 30)[..., :, :], RGB[..., 5:35, :])


@pytest.mark.parametrize(
    ("break_it", "says"), [("encoder", "the folder image_encoder is missing"), ("kind", "does not fit")]
)
def test_adapters_that_do_not_fit(break_it: str, says: str, opened: Open, tmp_path: Path) -> None:
    file = adapter("sdxl" if break_it == "kind" else "sd", tmp_path / "adapter")
    if break_it == "encoder":
        (file.parent / "image_encoder").rename(file.parent / "else")
    with pytest.raises(ValueError, match=says) as refused:
        open_family(opened("sd").folder, CPU, Extras(size=SIZE, adapter=str(file)))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="models of its kind take no IP-Adapter"):
        open_family(opened("if").folder, CPU, Extras(size=SIZE, adapter=str(file)))


def test_an_adapter_whose_encoder_lacks_a_tensor(opened: Open, tmp_path: Path) -> None:
    file = adapter("sd", tmp_path / "adapter")
    weights = tmp_path / "adapter" / "image_encoder" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["visual_projection.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"model\.safetensors lacks 1 of its tensors, such as visual_projection\.weight$"
    ):
        opened_with(opened, "sd", file)
