"""Sana with random weights: a language model, an autoencoder of many channels, attention of linear cost."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def gemma_tokenizer() -> Any:
    from transformers import GemmaTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list(",.-")
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters]
    return GemmaTokenizer(vocab={word: n for n, word in enumerate(words)}, add_bos_token=True)


def gemma() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    return Gemma2Model(
        Gemma2Config(
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=64,
        )
    )


def deep_vae() -> Any:
    from diffusers import AutoencoderDC

    blocks, scales = ("ResBlock", "EfficientViTBlock"), ((), (5,))
    sizes: dict[str, Any] = {
        f"{way}_{name}": value
        for way in ("encoder", "decoder")
        for name, value in {
            "block_types": blocks,
            "block_out_channels": (8, 16),
            "layers_per_block": (1, 1),
            "qkv_multiscales": scales,
        }.items()
    }
    return AutoencoderDC(**sizes, latent_channels=8, attention_head_dim=4, scaling_factor=0.41407)


def sana(solver: bool = False, guided: bool = False) -> Any:
    """With Euler's scheduler, or with the solver that its public models come with."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        SanaPipeline,
        SanaTransformer2DModel,
    )

    transformer = SanaTransformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        cross_attention_head_dim=4,
        num_cross_attention_heads=4,
        cross_attention_dim=16,
        caption_channels=32,
        guidance_embeds=guided,
        qk_norm="rms_norm_across_heads" if solver else None,
    )
    scheduler = (
        DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
        if solver
        else FlowMatchEulerDiscreteScheduler(shift=3.0)
    )
    return SanaPipeline(
        tokenizer=gemma_tokenizer(), text_encoder=gemma(), vae=deep_vae(), transformer=transformer, scheduler=scheduler
    )
