"""The embedded prior: its door, its files, its pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guidance.priors.base import Condition, Prior, make_rng
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.sampling import sample_ddim


@pytest.fixture(scope="module")
def folder(prior: MiniPrior, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prior")
    prior.save(path)
    return path


def noised_inputs(prior: MiniPrior, texts: list[str]) -> tuple[Tensor, Tensor, Condition]:
    """Noised latents, times and a condition with a camera."""
    count, rng = len(texts), make_rng(7)
    x_t = torch.randn(count, 12, 4, 4, generator=rng)
    camera = torch.rand(count, 2, generator=rng)
    return x_t, torch.linspace(0.1, 0.9, count), replace(prior.encode_prompt(texts), camera=camera)


# --- the door ---


def test_implements_prior(prior: MiniPrior) -> None:
    assert isinstance(prior, Prior)
    assert prior.camera_conditioned and prior.image_size == 24


def test_batched_conditions_equal_single_ones(prior: MiniPrior) -> None:
    x_t, t, text = noised_inputs(prior, ["a red horse", "armchair", "bus"])
    conditions = [text, prior.encode_prompt([""] * 3), replace(text, camera=None)]
    together = prior.predict_noise(x_t, t, conditions)
    assert together.shape == (3, *x_t.shape) and together.dtype == torch.float32
    difference = torch.cat([prior.predict_noise(x_t, t, [condition]) for condition in conditions])
    torch.testing.assert_close(together, difference, rtol=0, atol=2e-2)  # bfloat16, where the processor has it
    assert not torch.allclose(together[0], together[1], atol=2e-2)
    assert not torch.allclose(together[0], together[2], atol=2e-2)


def test_predict_noise_is_deterministic(prior: MiniPrior) -> None:
    x_t, t, text = noised_inputs(prior, ["a horse", "bus"])
    assert torch.equal(prior.predict_noise(x_t, t, [text]), prior.predict_noise(x_t, t, [text]))


def test_encode_prompt_masks_padding(prior: MiniPrior) -> None:
    read = prior.encode_prompt(["a red dragon horse", "", "red blue grey wooden teddy bear horse"])
    assert read.attention_mask.sum(-1).tolist() == [2, 0, prior.network.config.words]
    assert read.camera is None and len(read) == 3


def test_validate_prompt_warns_of_words_and_rejects_unknown_objects(prior: MiniPrior) -> None:
    assert prior.validate_prompt("a red teddy bear") is None
    warning = prior.validate_prompt("a red teddy bear with a sword")
    assert warning is not None
    assert "knows 6 objects and 3 colours" in warning and warning.endswith("passed over: sword")
    assert "of teddy bear and horse expect one" in str(prior.validate_prompt("a horse and a teddy bear"))
    with pytest.raises(ValueError, match="unknown: hrse; nearest: horse"):
        prior.validate_prompt("a hrse")
    with pytest.raises(ValueError, match=r"unknown: dragon; for example: .+"):
        prior.validate_prompt("a dragon")
    for text in ("red", "\N{TEDDY BEAR}", "...", "the"):
        with pytest.raises(ValueError, match="the prompt names none of the objects; for example: "):
            prior.validate_prompt(text)


# --- files ---


def test_save_and_load_round_trip(prior: MiniPrior, folder: Path) -> None:
    again = MiniPrior.load(folder)
    assert again.network.config == prior.network.config
    assert again.vocabulary == prior.vocabulary == MiniPrior.vocabulary_of(folder)
    for (name, before), after in zip(prior.network.named_parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-6, msg=name)
        assert after.dtype == torch.float32
    images = torch.rand(2, 3, 24, 24, generator=make_rng(1))
    assert torch.equal(again.encode(images), prior.encode(images))
    x_t, t, text = noised_inputs(prior, ["a red horse", "bus"])
    torch.testing.assert_close(
        again.predict_noise(x_t, t, [text]), prior.predict_noise(x_t, t, [text]), rtol=0, atol=3e-2
    )


def test_saving_a_loaded_prior_is_byte_identical(folder: Path, tmp_path: Path) -> None:
    MiniPrior.load(folder).save(tmp_path)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_folder_has_the_diffusers_layout(folder: Path) -> None:
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
def test_missing_file_is_named(copy: Path, part: str) -> None:
    (copy / part).unlink()
    with pytest.raises(FileNotFoundError, match=f"no embedded prior: {part} is missing"):
        MiniPrior.load(copy)


@pytest.mark.parametrize("part", PARTS)
def test_damaged_file_is_named(copy: Path, part: str) -> None:
    whole = (copy / part).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\x00" * len(whole), b"{}"):
        (copy / part).write_bytes(content)
        with pytest.raises(ValueError, match=f"{Path(part).name} is damaged"):
            MiniPrior.load(copy)


def test_rejects_another_model_class(copy: Path) -> None:
    (copy / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="holds a StableDiffusionPipeline, expected MiniPrior"):
        MiniPrior.load(copy)


def test_rejects_weights_of_another_size(copy: Path) -> None:
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"vocabulary": config["vocabulary"] + 1}))
    with pytest.raises(ValueError, match=r"does not fit its configuration: 1 .* for word_embedding\.weight"):
        MiniPrior.load(copy)


# --- pictures ---


def test_ddim_samples_are_deterministic(prior: MiniPrior) -> None:
    noise, _, text = noised_inputs(prior, ["a red horse", "bus"])
    uncond = prior.encode_prompt([""] * 2)
    first, second = (sample_ddim(prior, noise, text, uncond, 2.0, 3) for _ in range(2))
    assert first.shape == (2, 3, 24, 24)
    assert torch.equal(first, second)
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    assert not torch.allclose(first, sample_ddim(prior, noise, replace(text, camera=None), uncond, 2.0, 3), atol=1e-3)
    assert not torch.allclose(first, sample_ddim(prior, noise.flip(0), text, uncond, 2.0, 3), atol=1e-3)


def test_rejects_zero_sampling_steps(prior: MiniPrior) -> None:
    noise, _, text = noised_inputs(prior, ["bus"])
    with pytest.raises(ValueError, match="steps is 0; sampling takes at least 1"):
        sample_ddim(prior, noise, text, text, 2.0, 0)
