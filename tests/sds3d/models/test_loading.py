"""What opens, and with what on top."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import FamilyPrior
from sds3d.models.loading import open_prior
from tests.support.guidance.tiny_models import build
from tests.support.sds3d.model_runs import CPU, SMALL, Folder, lora_of


@pytest.mark.parametrize(("mark", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_weights_alone_open_in_full_on_a_cpu(mark: str, kind: torch.dtype, copy: Path) -> None:
    whole = open_prior(str(copy), CPU, SMALL)
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (copy / part).glob("*.safetensors")
        save_file({k: v.to(kind) for k, v in load_file(file).items()}, file.with_suffix(f".{mark}.safetensors"))
        file.unlink()
    halved = open_prior(str(copy), CPU, SMALL)
    assert isinstance(halved, FamilyPrior) and isinstance(whole, FamilyPrior) and halved.dtype == torch.float32
    x_t, t = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    answers = [prior.predict(x_t, t, [prior.read(["a cat"])]) for prior in (halved, whole)]
    torch.testing.assert_close(*answers, atol=5e-3 if mark == "fp16" else 4e-2, rtol=1e-2)


def test_shards_in_half_precision_beside_others_open(copy: Path) -> None:
    from transformers import CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(copy / "text_encoder").half()
    shutil.rmtree(copy / "text_encoder")
    encoder.save_pretrained(copy / "text_encoder", variant="fp16", max_shard_size="20KB")
    names = sorted(path.name for path in (copy / "text_encoder").iterdir())
    assert names[1].startswith("model.fp16-00001-of-") and names[-1] == "model.safetensors.index.fp16.json"
    assert open_prior(str(copy), CPU, SMALL).read(["a cat"]).tokens.dtype == torch.float32
    (copy / "text_encoder" / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"{names[1]} is missing"):
        open_prior(str(copy), CPU, SMALL)


def test_shards_open_and_a_missing_one_is_named(copy: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(copy / "unet")
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet", max_shard_size="40KB")
    shards = sorted((copy / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    open_prior(str(copy), CPU, SMALL)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"of {len(shards)} shards {shards[1].name} is missing"):
        open_prior(str(copy), CPU, SMALL)


def test_low_rank_additions_are_merged_as_the_pipeline_has_them(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    lora_of("sd", file)
    pipe = build("sd")
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    prior = open_prior(str(folder("sd")), CPU, Extras(size=16, lora=str(file)))
    assert isinstance(prior, FamilyPrior)
    x_t, text = torch.randn(1, 4, 8, 8), prior.read(["a cat"])
    theirs = pipe.unet(x_t, torch.tensor([500.0]), text.tokens).sample
    ours = prior.predict(x_t, torch.tensor([500 / 999]), [text])[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    plain = build("sd").unet(x_t, torch.tensor([500.0]), text.tokens).sample
    assert (ours - plain).abs().max() > 1e-3
    assert not any("lora" in name for name, _ in prior.asking.network.named_modules())
    none = open_prior(str(folder("sd")), CPU, Extras(size=16, lora=str(file), lora_scale=0.0))
    torch.testing.assert_close(none.predict(x_t, torch.tensor([500 / 999]), [text])[0], plain, atol=1e-5, rtol=1e-4)


def test_low_rank_additions_to_a_transformer_are_merged(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    lora_of("sana", file)
    pipe = build("sana")
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    prior = open_prior(str(folder("sana")), CPU, Extras(size=16, lora=str(file)))
    x_t, t, text = torch.randn(1, 8, 8, 8), torch.tensor([0.5]), prior.read(["a cat"])
    alpha, sigma = prior.levels(t)
    theirs = pipe.transformer(x_t, text.tokens, sigma * 1000, encoder_attention_mask=text.mask.float()).sample
    torch.testing.assert_close(prior.predict(x_t, t, [text])[0], x_t + alpha * theirs, atol=1e-5, rtol=1e-4)
    plain = open_prior(str(folder("sana")), CPU, SMALL)
    assert (plain.predict(x_t, t, [text])[0] - x_t - alpha * theirs).abs().max() > 1e-3


def test_a_learnt_word_is_read(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "gizmo.safetensors"
    save_file({"emb_params": torch.randn(3, 32)}, file)
    plain = open_prior(str(folder("sd")), CPU, SMALL)
    taught = open_prior(str(folder("sd")), CPU, Extras(size=16, words=str(file)))
    assert not torch.allclose(taught.read(["a <gizmo>"]).tokens, plain.read(["a <gizmo>"]).tokens)
    torch.testing.assert_close(taught.read(["a cat"]).tokens, plain.read(["a cat"]).tokens)


def test_a_learnt_word_is_read_by_both_encoders(folder: Folder, tmp_path: Path) -> None:
    """Of Stable Diffusion XL, from a file with a word for each."""
    file = tmp_path / "gizmo.safetensors"
    plain = open_prior(str(folder("sdxl")), CPU, SMALL).read(["a <gizmo>"]).tokens
    save_file({"clip_l": torch.randn(2, 32), "clip_g": torch.randn(2, 32)}, file)
    taught = open_prior(str(folder("sdxl")), CPU, Extras(size=16, words=str(file))).read(["a <gizmo>"]).tokens
    first, second = (taught - plain).abs().split(32, -1)
    assert first.max() > 1e-3 and second.max() > 1e-3


def test_another_autoencoder_takes_the_place(folder: Folder, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    sizes: dict[str, Any] = {f"{way}_block_out_channels": (8, 8) for way in ("encoder", "decoder")}
    AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(tmp_path / "vae")
    prior = open_prior(str(folder("sd")), CPU, Extras(size=16, vae=str(tmp_path / "vae")))
    assert isinstance(prior, FamilyPrior) and prior.codec.said == "latents"  # type: ignore[attr-defined]
    assert prior.encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 8, 8)
