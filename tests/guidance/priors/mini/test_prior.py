"""The embedded prior: its door, its files, its pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guidance.priors.base import Condition, Prior, generator
from guidance.priors.mini.prior import EmbeddedPrior
from guidance.priors.sampling import sample


@pytest.fixture(scope="module")
def folder(prior: EmbeddedPrior, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prior")
    prior.save(path)
    return path


def asked(prior: EmbeddedPrior, texts: list[str]) -> tuple[Tensor, Tensor, Condition]:
    """Noised latents, times and a condition with a camera."""
    count, chance = len(texts), generator(7)
    x_t = torch.randn(count, 12, 4, 4, generator=chance)
    camera = torch.rand(count, 2, generator=chance)
    return x_t, torch.linspace(0.1, 0.9, count), replace(prior.read(texts), camera=camera)


# --- the door ---


def test_it_is_a_prior(prior: EmbeddedPrior) -> None:
    assert isinstance(prior, Prior)
    assert prior.sees_camera and prior.picture_size == 24


def test_conditions_are_answered_together_as_one_by_one(prior: EmbeddedPrior) -> None:
    x_t, t, text = asked(prior, ["a red horse", "armchair", "bus"])
    conditions = [text, prior.read([""] * 3), replace(text, camera=None)]
    together = prior.predict(x_t, t, conditions)
    assert together.shape == (3, *x_t.shape) and together.dtype == torch.float32
    apart = torch.cat([prior.predict(x_t, t, [condition]) for condition in conditions])
    torch.testing.assert_close(together, apart, rtol=0, atol=2e-2)  # bfloat16, where the processor has it
    assert not torch.allclose(together[0], together[1], atol=2e-2)
    assert not torch.allclose(together[0], together[2], atol=2e-2)


def test_answers_are_repeatable(prior: EmbeddedPrior) -> None:
    x_t, t, text = asked(prior, ["a horse", "bus"])
    assert torch.equal(prior.predict(x_t, t, [text]), prior.predict(x_t, t, [text]))


def test_texts_are_read_with_their_words_alone(prior: EmbeddedPrior) -> None:
    read = prior.read(["a red dragon horse", "", "red blue grey wooden teddy bear horse"])
    assert read.mask.sum(-1).tolist() == [2, 0, prior.network.config.words]
    assert read.camera is None and len(read) == 3


def test_unknown_words_are_remarked_upon_and_unknown_things_refused(prior: EmbeddedPrior) -> None:
    assert prior.check("a red teddy bear") is None
    remark = prior.check("a red teddy bear with a sword")
    assert remark is not None
    assert "knows 6 objects and 3 colours" in remark and remark.endswith("passed over: sword")
    assert "of teddy bear and horse expect one" in str(prior.check("a horse and a teddy bear"))
    with pytest.raises(ValueError, match="unknown: hrse; nearest: horse"):
        prior.check("a hrse")
    with pytest.raises(ValueError, match=r"unknown: dragon; for example: .+"):
        prior.check("a dragon")
    for text in ("red", "\N{TEDDY BEAR}", "...", "the"):
        with pytest.raises(ValueError, match="the prompt names none of the objects; for example: "):
            prior.check(text)


# --- files ---


def test_files_give_back_the_prior_in_half_precision(prior: EmbeddedPrior, folder: Path) -> None:
    again = EmbeddedPrior.load(folder)
    assert again.network.config == prior.network.config
    assert again.vocabulary == prior.vocabulary == EmbeddedPrior.vocabulary_of(folder)
    for (name, before), after in zip(prior.network.named_parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-6, msg=name)
        assert after.dtype == torch.float32
    pictures = torch.rand(2, 3, 24, 24, generator=generator(1))
    assert torch.equal(again.encode(pictures), prior.encode(pictures))
    x_t, t, text = asked(prior, ["a red horse", "bus"])
    torch.testing.assert_close(again.predict(x_t, t, [text]), prior.predict(x_t, t, [text]), rtol=0, atol=3e-2)


def test_saving_what_was_loaded_changes_no_byte(folder: Path, tmp_path: Path) -> None:
    EmbeddedPrior.load(folder).save(tmp_path)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_the_folder_says_what_diffusers_would_want_to_know(folder: Path) -> None:
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["beta_schedule"] == "scaled_linear"
    assert set(json.loads((folder / "model_index.json").read_text())) == {
        *("_class_name", "scheduler", "unet", "vae", "tokenizer")
    }


PARTS = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/vocabulary.json",
)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    (copy / part).unlink()
    with pytest.raises(FileNotFoundError, match=f"no embedded prior: {part} is missing"):
        EmbeddedPrior.load(copy)


@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_part_is_named(copy: Path, part: str) -> None:
    whole = (copy / part).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\x00" * len(whole), b"{}"):
        (copy / part).write_bytes(content)
        with pytest.raises(ValueError, match=f"{Path(part).name} is damaged"):
            EmbeddedPrior.load(copy)


def test_another_kind_of_model_is_refused(copy: Path) -> None:
    (copy / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="holds a StableDiffusionPipeline, expected EmbeddedPrior"):
        EmbeddedPrior.load(copy)


def test_weights_of_another_size_are_refused(copy: Path) -> None:
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"vocabulary": config["vocabulary"] + 1}))
    with pytest.raises(ValueError, match=r"does not fit its configuration: 1 .* for word_embedding\.weight"):
        EmbeddedPrior.load(copy)


# --- pictures ---


def test_samples_depend_on_noise_text_and_camera_alone(prior: EmbeddedPrior) -> None:
    noise, _, text = asked(prior, ["a red horse", "bus"])
    empty = prior.read([""] * 2)
    first, second = (sample(prior, noise, text, empty, 2.0, 3) for _ in range(2))
    assert first.shape == (2, 3, 24, 24)
    assert torch.equal(first, second)
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    assert not torch.allclose(first, sample(prior, noise, replace(text, camera=None), empty, 2.0, 3), atol=1e-3)
    assert not torch.allclose(first, sample(prior, noise.flip(0), text, empty, 2.0, 3), atol=1e-3)


def test_no_steps_are_refused(prior: EmbeddedPrior) -> None:
    noise, _, text = asked(prior, ["bus"])
    with pytest.raises(ValueError, match="steps is 0; sampling takes at least 1"):
        sample(prior, noise, text, text, 2.0, 0)
