"""Pipelines of the real classes with random weights, a few hundred kilobytes each."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.guidance.tiny_sana import sana

KINDS = ("sd", "sd-v", "sdxl", "if", "sd3", "flux", "pixart", "sana")
ATTENTION = {"attention_head_dim": 2, "cross_attention_dim": 32}
UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
TEXT = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}


def build(kind: str) -> Any:
    """A pipeline of one of `KINDS`, frozen, in memory."""
    with torch.random.fork_rng():
        torch.manual_seed(sum(kind.encode()))
        pipe = _MAKERS[kind]()
        for module in pipe.components.values():
            if isinstance(module, nn.Module):
                _randomize_zeros(module)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def clip_tokenizer(length: int = 77) -> Any:
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list(",.-")
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=length)


@cache
def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list(",.-")
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=77)


def clip(projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(**TEXT, vocab_size=64, projection_dim=32, bos_token_id=58, eos_token_id=59, pad_token_id=59)
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=64, **sizes))


def clip_vision(projection: bool = False) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=16)
    made = CLIPVisionModelWithProjection(config) if projection else CLIPVisionModel(config)
    _randomize_zeros(made)
    return made


def vae(channels: int = 4, shift: float | None = None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=0.18215 if shift is None else 1.5,
        shift_factor=shift,
        use_quant_conv=shift is None,
        use_post_quant_conv=shift is None,
    )


def _sd(prediction: str) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=UNet2DConditionModel(**UNET, **ATTENTION, in_channels=4, out_channels=4),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        **UNET,
        attention_head_dim=(2, 4),
        cross_attention_dim=64,
        in_channels=4,
        out_channels=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip(projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
        ),
        add_watermarker=False,
    )


def _deepfloyd() -> Any:
    from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        in_channels=3,
        out_channels=6,
        cross_attention_dim=16,
        encoder_hid_dim=32,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        attention_head_dim=2,
        norm_num_groups=4,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="positional",
        act_fn="gelu",
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, sample_max_value=1.5
    )
    return IFPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def _sd3(third: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=24,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4, shift=0.06),
        text_encoder=clip(projection=True),
        text_encoder_2=clip(projection=True),
        text_encoder_3=t5() if third else None,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer() if third else None,
    )


def _flux(guidance_embeds: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(4, shift=0.06),
        text_encoder=clip(),
        text_encoder_2=t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
    )


def _pixart(with_sizes: bool = True) -> Any:
    from diffusers import DDIMScheduler, PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=128 if with_sizes else 16,  # By which its pipeline knows whether to tell sizes.
        patch_size=2,
        num_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
        caption_channels=32,
        norm_num_groups=4,
        use_additional_conditions=with_sizes,
    )
    scheduler = DDIMScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False, set_alpha_to_one=False
    )
    kind = PixArtAlphaPipeline if with_sizes else PixArtSigmaPipeline
    return kind(tokenizer=t5_tokenizer(), text_encoder=t5(), vae=vae(), transformer=transformer, scheduler=scheduler)


@torch.no_grad()
def _randomize_zeros(module: nn.Module) -> None:
    """No layer stays at a zero that training would start from: answers have to depend on everything."""
    module.eval().requires_grad_(False)
    for parameter in module.parameters():
        if not parameter.any() or parameter.std() < 0.01:
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


_MAKERS = {
    "sd": lambda: _sd("epsilon"),
    "sd-v": lambda: _sd("v_prediction"),
    "sdxl": _sdxl,
    "if": _deepfloyd,
    "sd3": _sd3,
    "sd3-two": lambda: _sd3(third=False),
    "flux": _flux,
    "pixart": _pixart,
    "pixart-sigma": lambda: _pixart(with_sizes=False),
    "sana": sana,
    "sana-solver": lambda: sana(solver=True),
    "sana-sprint": lambda: sana(guided=True),
    "flux-fast": lambda: _flux(guidance_embeds=False),
}
