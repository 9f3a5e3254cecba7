"""What opens, and with what on top."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import DiffusersPrior
from sds3d.models.loading import load_prior
from tests.support.guidance.tiny_models import build
from tests.support.sds3d.model_runs import CPU, SMALL, Folder, lora_of


@pytest.mark.parametrize(("mark", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_weights_alone_open_in_full_on_a_cpu(mark: str, kind: torch.dtype, copy: Path) -> None:
    whole = load_prior(str(copy), CPU, SMALL)
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (copy / part).glob("*.safetensors")
        save_file({k: v.to(kind) for k, v in load_file(file).items()}, file.with_suffix(f".{mark}.safetensors"))
        file.unlink()
    halved = load_prior(str(copy), CPU, SMALL)
    assert isinstance(halved, DiffusersPrior) and isinstance(whole, DiffusersPrior) and halved.dtype == torch.float32
    x_t, t = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    answers = [prior.predict_noise(x_t, t, [prior.encode_prompt(["a cat"])]) for prior in (halved, whole)]
    torch.testing.assert_close(*answers, atol=5e-3 if mark == "fp16" else 4e-2, rtol=1e-2)


def test_shards_in_half_precision_beside_others_open(copy: Path) -> None:
    from transformers import CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(copy / "text_encoder").half()
    shutil.rmtree(copy / "text_encoder")
    encoder.save_pretrained(copy / "text_encoder", variant="fp16", max_shard_size="20KB")
    names = sorted(path.name for path in (copy / "text_encoder").iterdir())
    assert names[1].startswith("model.fp16-00001-of-") and names[-1] == "model.safetensors.index.fp16.json"
    assert load_prior(str(copy), CPU, SMALL).encode_prompt(["a cat"]).text_embeds.dtype == torch.float32
    (copy / "text_encoder" / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"{names[1]} is missing"):
        load_prior(str(copy), CPU, SMALL)


def test_shards_open_and_a_missing_one_is_named(copy: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(copy / "unet")
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet", max_shard_size="40KB")
    shards = sorted((copy / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    load_prior(str(copy), CPU, SMALL)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"of {len(shards)} shards {shards[1].name} is missing"):
        load_prior(str(copy), CPU, SMALL)


def test_low_rank_additions_are_merged_as_the_pipeline_has_them(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    lora_of("sd", file)
    pipe = build("sd")
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    prior = load_prior(str(folder("sd")), CPU, PriorOptions(image_size=16, lora=str(file)))
    assert isinstance(prior, DiffusersPrior)
    x_t, text = torch.randn(1, 4, 8, 8), prior.encode_prompt(["a cat"])
    theirs = pipe.unet(x_t, torch.tensor([500.0]), text.text_embeds).sample
    ours = prior.predict_noise(x_t, torch.tensor([500 / 999]), [text])[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    plain = build("sd").unet(x_t, torch.tensor([500.0]), text.text_embeds).sample
    assert (ours - plain).abs().max() > 1e-3
    assert not any("lora" in name for name, _ in prior.adapter.network.named_modules())
    none = load_prior(str(folder("sd")), CPU, PriorOptions(image_size=16, lora=str(file), lora_scale=0.0))
    torch.testing.assert_close(
        none.predict_noise(x_t, torch.tensor([500 / 999]), [text])[0], plain, atol=1e-5, rtol=1e-4
    )


def test_low_rank_additions_to_a_transformer_are_merged(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    lora_of("sana", file)
    pipe = build("sana")
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    prior = load_prior(str(folder("sana")), CPU, PriorOptions(image_size=16, lora=str(file)))
    x_t, t, text = torch.randn(1, 8, 8, 8), torch.tensor([0.5]), prior.encode_prompt(["a cat"])
    alpha, sigma = prior.alpha_sigma(t)
    theirs = pipe.transformer(
        x_t, text.text_embeds, sigma * 1000, encoder_attention_mask=text.attention_mask.float()
    ).sample
    torch.testing.assert_close(prior.predict_noise(x_t, t, [text])[0], x_t + alpha * theirs, atol=1e-5, rtol=1e-4)
    plain = load_prior(str(folder("sana")), CPU, SMALL)
    assert (plain.predict_noise(x_t, t, [text])[0] - x_t - alpha * theirs).abs().max() > 1e-3


def test_a_learnt_word_is_read(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "gizmo.safetensors"
    save_file({"emb_params": torch.randn(3, 32)}, file)
    plain = load_prior(str(folder("sd")), CPU, SMALL)
    taught = load_prior(str(folder("sd")), CPU, PriorOptions(image_size=16, textual_inversion=str(file)))
    assert not torch.allclose(
        taught.encode_prompt(["a <gizmo>"]).text_embeds, plain.encode_prompt(["a <gizmo>"]).text_embeds
    )
    torch.testing.assert_close(taught.encode_prompt(["a cat"]).text_embeds, plain.encode_prompt(["a cat"]).text_embeds)


def test_a_learnt_word_is_read_by_both_encoders(folder: Folder, tmp_path: Path) -> None:
    """Of Stable Diffusion XL, from a file with a word for each."""
    file = tmp_path / "gizmo.safetensors"
    plain = load_prior(str(folder("sdxl")), CPU, SMALL).encode_prompt(["a <gizmo>"]).text_embeds
    save_file({"clip_l": torch.randn(2, 32), "clip_g": torch.randn(2, 32)}, file)
    taught = (
        load_prior(str(folder("sdxl")), CPU, PriorOptions(image_size=16, textual_inversion=str(file)))
        .encode_prompt(["a <gizmo>"])
        .text_embeds
    )
    first, second = (taught - plain).abs().split(32, -1)
    assert first.max() > 1e-3 and second.max() > 1e-3


def test_another_autoencoder_takes_the_place(folder: Folder, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    sizes: dict[str, Any] = {f"{way}_block_out_channels": (8, 8) for way in ("encoder", "decoder")}
    AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(tmp_path / "vae")
    prior = load_prior(str(folder("sd")), CPU, PriorOptions(image_size=16, vae=str(tmp_path / "vae")))
    assert isinstance(prior, DiffusersPrior) and prior.codec.latent_attr == "latents"  # type: ignore[attr-defined]
    assert prior.encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 8, 8)
