"""Texts as models of others read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guidance.conditioning.prompt import Prompt
from guidance.priors.diffusers.loading import open_family
from guidance.priors.diffusers.options import Extras
from tests.support.guidance.tiny_models import KINDS
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, Open, Opened


def test_a_text_is_read_once(one: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    first = one.prior.read([TEXT, ""])
    monkeypatch.setattr(one.prior.reader, "_way", lambda pipe, text: pytest.fail("read again"))
    again = one.prior.read([TEXT, ""])
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.mask, again.mask)
    assert bool(first.mask.all()) == (one.kind not in ("pixart", "sana"))  # Others see padding too.


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


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("sd", 77), ("sdxl", 77), ("if", 77), ("sd3", 256), ("sd3-two", 77), ("pixart", 120), ("sana", 299)],
)
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


def test_what_is_passed_over_is_not_heard(opened: Open) -> None:
    """To the token: the last that Sana reads behind its instruction changes the answer, and the one behind it not."""
    prior = opened("sana").prior
    full, fuller, more = (prior.read(["a" * 297 + end]).tokens for end in ("", "b", "bc"))
    assert (full - fuller).abs().max() > 1e-3 and torch.equal(fuller, more)
    left = 298 - len(", overhead view")
    assert prior.check("a" * left) is None and prior.check("a" * (left + 1)) is not None


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
