"""Models as people have them: pipelines for other tasks, other layouts, additions of which only a part fits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from guidance.priors.diffusers.inspection import CORE_PIPELINES, PIPELINE_NETWORKS
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prompts.encoding import unsupported_markup
from sds3d.models.loading import folder_of, load_prior
from tests.support.guidance.tiny_models import build
from tests.support.sds3d.model_runs import CPU, SMALL, Folder, lora_of, one_line


def changed(file: Path, **values: object) -> None:
    """Other values in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_cores_are_pipelines_that_diffusers_has() -> None:
    known = [name for name in CORE_PIPELINES if hasattr(diffusers, name)]
    assert len(known) >= 25 and set(CORE_PIPELINES.values()) <= {*PIPELINE_NETWORKS}
    # PAG and ControlNet of the flow models have no image-to-image form; a name that does not exist does no harm.
    assert {"StableDiffusionImg2ImgPipeline", "StableDiffusionXLControlNetPipeline", "StableDiffusionPAGPipeline"} <= {
        *known
    }


@pytest.mark.parametrize("task", ["Img2Img", "Inpaint", "PAG"])
def test_a_pipeline_for_another_task_opens_as_its_core(task: str, copy: Path) -> None:
    plain = load_prior(str(copy), CPU, SMALL)
    changed(copy / "model_index.json", _class_name=f"StableDiffusion{task}Pipeline")
    other = load_prior(str(copy), CPU, SMALL)
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4])
    assert torch.equal(*(prior.predict_noise(x, t, [prior.encode_prompt(["a cat"])]) for prior in (plain, other)))


def test_a_controlnet_beside_the_core_is_left_out(copy: Path) -> None:
    (copy / "controlnet").mkdir()
    index = {"_class_name": "StableDiffusionControlNetPipeline", "controlnet": ["diffusers", "ControlNetModel"]}
    changed(copy / "model_index.json", **index)
    load_prior(str(copy), CPU, SMALL)


def test_a_network_for_inpainting_is_refused_by_its_channels(copy: Path) -> None:
    config, file = copy / "unet" / "config.json", copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    old = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.zeros(old.shape[0], 9, *old.shape[2:])
    save_file(weights, file)
    changed(config, in_channels=9)
    assert "its network takes 9" in one_line(str(copy))


@pytest.mark.parametrize(("size", "latents"), [([8, 8], 8), (8, 8), (None, 64)])
def test_a_size_that_is_a_list_or_missing(size: object, latents: int, copy: Path) -> None:
    changed(copy / "unet" / "config.json", sample_size=size)
    prior = load_prior(str(copy), CPU, PriorOptions())
    assert prior.encode(torch.zeros(1, 3, prior.image_size, prior.image_size)).shape[-1] == latents


def test_a_size_that_is_no_square_asks_for_one(copy: Path) -> None:
    changed(copy / "unet" / "config.json", sample_size=[8, 12])
    assert "choose --prior-options.image-size" in one_line(str(copy), PriorOptions())


MEANS, STDS = [-1.6, 1.1, 2.3, -0.4], [8.5, 5.4, 7.1, 5.2]


def whitened(folder: Path, target: Path, **values: object) -> Path:
    """A copy of a model whose autoencoder has a mean and a spread for each channel."""
    copy = Path(shutil.copytree(folder, target))
    changed(copy / "vae" / "config.json", **({"latents_mean": MEANS, "latents_std": STDS} | values))
    return copy


def test_latents_with_a_mean_and_a_spread_are_decoded_as_diffusers_does(folder: Folder, tmp_path: Path) -> None:
    """The pipelines of Stable Diffusion XL go by them: latents * std / scaling_factor + mean; no others do."""
    copy = whitened(folder("sdxl"), tmp_path / "copy")
    prior = load_prior(str(copy), CPU, SMALL)
    rgb = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    latents = prior.encode(rgb)
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(copy, local_files_only=True)
    mean, std = (torch.tensor(values).view(1, 4, 1, 1) for values in (MEANS, STDS))
    own = pipe.vae.decode(latents * std / pipe.vae.config.scaling_factor + mean).sample
    torch.testing.assert_close(prior.decode(latents), (own + 1) / 2, atol=1e-5, rtol=1e-4)
    plain = load_prior(str(folder("sdxl")), CPU, SMALL)
    torch.testing.assert_close(prior.decode(latents), plain.decode(plain.encode(rgb)), atol=1e-4, rtol=1e-3)
    assert torch.equal(
        load_prior(str(whitened(folder("sd"), tmp_path / "sd")), CPU, SMALL).encode(rgb),
        load_prior(str(folder("sd")), CPU, SMALL).encode(rgb),
    )


@pytest.mark.parametrize(
    "values",
    [{"latents_std": [0.0, 1, 1, 1]}, {"latents_std": None}, {"latents_mean": [1.0]}, {"latents_mean": "none"}],
)
def test_means_and_spreads_that_are_none(values: dict[str, object], folder: Folder, tmp_path: Path) -> None:
    assert "its autoencoder's latents_" in one_line(str(whitened(folder("sdxl"), tmp_path / "copy", **values)))


@pytest.mark.parametrize("size", [0, -8, 1e30, True, {"height": 8}, "8"])
def test_sizes_that_are_none(size: object, copy: Path) -> None:
    changed(copy / "unet" / "config.json", sample_size=size)
    assert "\n" not in one_line(str(copy), PriorOptions())


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae", "scheduler", "unet"])
def test_parts_that_a_model_cannot_do_without(part: str, copy: Path) -> None:
    changed(copy / "model_index.json", **{part: [None, None]})
    assert f"names no {part}" in one_line(str(copy))


@pytest.mark.parametrize("name", [["StableDiffusionPipeline"], {}, None, 3])
def test_a_class_that_is_no_name(name: object, copy: Path) -> None:
    changed(copy / "model_index.json", _class_name=name)
    assert "_class_name is" in one_line(str(copy))


def test_a_ref_that_leads_out_of_the_cache_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    (cache / "snapshots" / "aaa").mkdir(parents=True)
    (cache / "refs").mkdir()
    for content in (f"../../../{folder('sd')}".encode(), b"\xff\xfe", b""):
        (cache / "refs" / "main").write_bytes(content)
        assert folder_of(str(cache), PriorOptions()) == cache / "snapshots" / "aaa"


def test_a_byte_order_mark_is_named(copy: Path) -> None:
    file = copy / "model_index.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert f"{file} begins with a byte order mark" in one_line(str(copy))


def test_a_folder_of_the_hubs_cache_is_its_newest_snapshot(folder: Folder, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    for name in ("aaa", "bbb"):
        (cache / "snapshots" / name).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("aaa\n")
    assert folder_of(str(cache), PriorOptions()) == cache / "snapshots" / "aaa"
    (cache / "refs" / "main").unlink()
    assert folder_of(str(cache), PriorOptions()).parent == cache / "snapshots"
    assert folder_of(str(folder("sd")), PriorOptions()) == folder("sd")


def test_a_checkpoint_of_one_file_says_how_to_make_a_folder_of_it(tmp_path: Path) -> None:
    file = tmp_path / "dreamshaper.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, file)
    for name in (str(file), str(tmp_path)):
        assert f"from_single_file({str(file)!r}).save_pretrained" in one_line(name)
    file.rename(tmp_path / "dreamshaper.ckpt")
    assert "only safetensors files are read" in one_line(str(tmp_path / "dreamshaper.ckpt"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("https://huggingface.co/owner/name", "give the name alone, --prior owner/name"),
        ("https://huggingface.co/owner/name/tree/main", "sds3d models fetch owner/name"),
        ("huggingface.co/owner/name", "--prior owner/name"),
        ("https://huggingface.co/datasets/owner/name", "download the model and give its folder"),
        ("file:///tmp/model", "--prior /tmp/model"),
        ("https://civitai.com/models/1", "download the model and give its folder"),
        ("C:\\models\\sd", "is a path of Windows"),
        ("\\\\server\\models", "is a path of Windows"),
    ],
)
def test_names_that_are_no_folder_here(name: str, line: str) -> None:
    assert line in one_line(name)


def test_additions_of_another_kind_are_named(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    for part, kind in (("hada_w1_a", "LoHa"), ("lokr_w1", "LoKr")):
        save_file({f"lora_unet_down_blocks_0.{part}": torch.zeros(2, 2)}, file)
        assert f"it is a {kind}, which is not read" in one_line(
            str(folder("sd")), PriorOptions(image_size=16, lora=str(file))
        )


def test_an_addition_that_fits_in_part_says_how_much_of_it(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    lora_of("sd", file)
    whole = load_prior(str(folder("sd")), CPU, PriorOptions(image_size=16, lora=str(file)))
    assert whole.validate_prompt("a cat") is None
    weights = load_file(file)
    count = sum("lora_A" in name or "lora_down" in name or ".lora.down" in name for name in weights)
    name = next(name for name in weights if "lora_A" in name)
    other = name.replace(name.split(".")[-3], "not_there")
    for letter in "AB":
        weights[other.replace("lora_A", f"lora_{letter}")] = weights[name.replace("lora_A", f"lora_{letter}")].clone()
    save_file(weights, file)
    part = load_prior(str(folder("sd")), CPU, PriorOptions(image_size=16, lora=str(file)))
    assert f"style.safetensors: {count} of its {count + 1} layers fit this model" in (
        part.validate_prompt("a cat") or ""
    )


def test_words_for_two_encoders_are_refused_without_their_numbers(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file({"clip_l": torch.randn(1, 32), "clip_g": torch.randn(1, 32)}, file)
    line = one_line(str(folder("sd")), PriorOptions(image_size=16, textual_inversion=str(file)))
    assert "two encoders of Stable Diffusion XL" in line and "tensor(" not in line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a cat", None),
        ("a cat (sitting), 4:3", None),
        ("a (masterpiece:1.2) cat", "(masterpiece:1.2)"),
        ("a cat <lora:style:0.8>", "--prior-options.lora"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5]"),
    ],
)
def test_markup_of_other_programs_is_told(text: str, found: str | None) -> None:
    assert unsupported_markup(text) is None if found is None else found in (unsupported_markup(text) or "")


def test_markup_is_told_with_a_model(folder: Folder) -> None:
    prior = load_prior(str(folder("sd")), CPU, SMALL)
    assert "markup is read as plain words: (masterpiece:1.2)" in (
        prior.validate_prompt("(masterpiece:1.2) a cat") or ""
    )
    assert build("sd") is not None
