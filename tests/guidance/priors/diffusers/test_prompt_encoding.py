"""Texts as models of others read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guidance.conditioning.prompt import Prompt
from guidance.priors.diffusers.loading import load_diffusers_prior
from guidance.priors.diffusers.options import PriorOptions
from tests.support.guidance.tiny_models import KINDS
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, LoadedPipeline, LoadPipeline


def test_prompts_are_encoded_once(pipeline: LoadedPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pipeline.prior.encode_prompt([TEXT, ""])
    monkeypatch.setattr(pipeline.prior.prompt_encoder, "_encode_fn", lambda pipe, text: pytest.fail("read again"))
    again = pipeline.prior.encode_prompt([TEXT, ""])
    assert torch.equal(first.text_embeds, again.text_embeds) and torch.equal(first.attention_mask, again.attention_mask)
    assert bool(first.attention_mask.all()) == (pipeline.kind not in ("pixart", "sana"))  # Others see padding too.


def test_pooled_embeds_survive_select_and_view_labels(load_pipeline: LoadPipeline) -> None:
    prior = load_pipeline("sdxl").prior
    both = prior.encode_prompt([TEXT, "a horse"])
    assert both.pooled_embeds is not None
    row = both.select(torch.tensor([1]))
    assert row.pooled_embeds is not None and torch.equal(row.pooled_embeds, both.pooled_embeds[1:])
    expected = Prompt(TEXT, perp_neg=1.0).conditions_for(prior, torch.tensor([0.0, 1.0]), torch.zeros(2))
    assert expected.text.pooled_embeds is not None
    torch.testing.assert_close(
        expected.text.pooled_embeds[:1], prior.encode_prompt([f"{TEXT}, front view"]).pooled_embeds
    )


def test_uncond_is_zeros_when_forced(load_pipeline: LoadPipeline) -> None:
    read = load_pipeline("sdxl").prior.encode_prompt([""])
    assert read.pooled_embeds is not None and not read.text_embeds.any() and not read.pooled_embeds.any()


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("sd", 77), ("sdxl", 77), ("if", 77), ("sd3", 256), ("sd3-two", 77), ("pixart", 120), ("sana", 299)],
)
def test_truncated_text_is_reported(kind: str, limit: int, load_pipeline: LoadPipeline) -> None:
    prior = load_pipeline(kind).prior
    assert prior.validate_prompt(TEXT) is None
    result = prior.validate_prompt("a " * 300 + "unicorn")
    assert (
        result is not None
        and f"reads {limit} tokens, words for the view" in result
        and result.count("\n") == 0
        and len(result) < 160
    )


def test_truncated_text_has_no_effect(load_pipeline: LoadPipeline) -> None:
    """To the token: the last that Sana reads behind its instruction changes the answer, and the one behind it not."""
    prior = load_pipeline("sana").prior
    full, fuller, more = (prior.encode_prompt(["a" * 297 + end]).text_embeds for end in ("", "b", "bc"))
    assert (full - fuller).abs().max() > 1e-3 and torch.equal(fuller, more)
    left = 298 - len(", overhead view")
    assert prior.validate_prompt("a" * left) is None and prior.validate_prompt("a" * (left + 1)) is not None


def test_view_label_counts_towards_the_token_limit(
    load_pipeline: LoadPipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    prior = load_pipeline("sd").prior
    full = "a " * 74 + "b"  # With both ends 77 tokens of one letter.
    result = prior.validate_prompt(full)
    assert result is not None and "overhead" in result.replace(" ", "")
    capfd.readouterr()
    prior.encode_prompt([full + ", back view"])
    assert capfd.readouterr().err == ""  # Said once, by `check`, and not by every library again.


@pytest.mark.parametrize("kind", [*KINDS, "sd3-two", "flux-fast"])
def test_text_encoders_are_freed_after_encoding(
    kind: str, load_pipeline: LoadPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path / "cache"))
    it = load_pipeline(kind)
    for again in (False, True):
        frugal = load_diffusers_prior(it.folder, CPU, PriorOptions(image_size=SIZE, low_memory=True))
        assert frugal.prompt_encoder._pipe.text_encoder is None
        if again:  # What was read before is on the disk.
            monkeypatch.setattr(frugal.prompt_encoder, "_load_pipeline", lambda: pytest.fail("opened again"))
        torch.testing.assert_close(
            frugal.encode_prompt([TEXT, ""]).text_embeds, it.prior.encode_prompt([TEXT, ""]).text_embeds
        )
        assert frugal.prompt_encoder._pipe.text_encoder is None
        assert frugal.validate_prompt(TEXT) is None and len(list((tmp_path / "cache" / "texts").iterdir())) == 2
        x_t, t = it.latents(), torch.tensor([0.4])
        ours, theirs = (p.predict_noise(x_t, t, [p.encode_prompt([TEXT])]) for p in (frugal, it.prior))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
