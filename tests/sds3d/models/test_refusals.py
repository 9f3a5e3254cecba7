"""What does not open, and how that is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guidance.priors.diffusers.options import PriorOptions
from sds3d.models.loading import load_prior
from tests.support.guidance.tiny_models import build, vae
from tests.support.sds3d.model_runs import CPU, SMALL, Folder, lora_of, one_line


def test_folders_that_are_no_model(tmp_path: Path, copy: Path) -> None:
    assert "model_index.json is missing" in one_line(str(tmp_path / "copy" / "unet"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "dreamshaper.safetensors").write_bytes(b"")
    assert "dreamshaper.safetensors is a file of weights; expected a whole pipeline" in one_line(str(tmp_path / "one"))
    assert f"did you mean {copy}?" in one_line(str(tmp_path))
    assert "is a file; expected the folder" in one_line(str(copy / "model_index.json"))
    assert "did you mean sd-1.5?" in one_line("sd-1.4")


def test_another_class_of_model(copy: Path) -> None:
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableVideoDiffusionPipeline"))
    assert "holds a StableVideoDiffusionPipeline; read are: StableDiffusionPipeline" in one_line(str(copy))
    index.write_text("{")
    assert "model_index.json is damaged" in one_line(str(copy))


def test_parts_that_are_missing(copy: Path) -> None:
    (copy / "vae" / "config.json").rename(copy / "vae" / "else.json")
    assert "config.json is missing" in one_line(str(copy))
    shutil.rmtree(copy / "vae")
    assert "the folder vae is missing" in one_line(str(copy))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt"])
def test_files_that_could_run_code_are_not_read(name: str, copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / name)
    assert f"unet has {name} alone; only safetensors files are read" in one_line(str(copy))


def test_weights_that_were_cut_short(copy: Path) -> None:
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "diffusion_pytorch_model.safetensors is damaged: it has" in one_line(str(copy))
    file.write_bytes(b"<html>not found</html>")
    assert "is damaged or no safetensors file" in one_line(str(copy))


def test_weights_of_another_shape(copy: Path) -> None:
    config = copy / "unet" / "config.json"
    row = json.loads(config.read_text())
    config.write_text(json.dumps(row | {"block_out_channels": [8, 24]}))
    assert f"{copy} does not open: " in one_line(str(copy))


def test_a_scheduler_of_another_kind(folder: Folder, tmp_path: Path) -> None:
    for kind, other, told in (("sd", "sd3", "one with betas"), ("sd3", "sd", "a flow-matching model has")):
        mixed = Path(shutil.copytree(folder(kind), tmp_path / kind))
        shutil.rmtree(mixed / "scheduler")
        shutil.copytree(folder(other) / "scheduler", mixed / "scheduler")
        entry = json.loads((folder(other) / "model_index.json").read_text())["scheduler"]
        row = json.loads((mixed / "model_index.json").read_text())
        (mixed / "model_index.json").write_text(json.dumps(row | {"scheduler": entry}))
        assert told in one_line(str(mixed))


def test_a_scheduler_of_another_file(folder: Folder, copy: Path) -> None:
    shutil.copy(folder("sana") / "scheduler" / "scheduler_config.json", copy / "scheduler")
    told = "its scheduler is a DDIMScheduler, and scheduler_config.json was written by a FlowMatchEulerDiscrete"
    assert told in one_line(str(copy))


@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize(
    ("kind", "part"), [("sd", "text_encoder"), ("sana", "text_encoder"), ("flux", "text_encoder_2")]
)
def test_a_text_encoder_of_another_width(kind: str, part: str, frugal: bool, folder: Folder, tmp_path: Path) -> None:
    mixed = Path(shutil.copytree(folder(kind), tmp_path / kind))
    encoder = getattr(build(kind), part)
    config = type(encoder.config).from_dict(encoder.config.to_dict() | {"hidden_size": 48, "d_model": 48})
    shutil.rmtree(mixed / part)
    type(encoder)(config).save_pretrained(mixed / part)
    told = "its text encoder says 48 numbers for a token, and its network takes 32"
    assert told in one_line(str(mixed), PriorOptions(image_size=16, low_memory=frugal))


def test_an_autoencoder_of_another_kind(folder: Folder, tmp_path: Path) -> None:
    for kind, other, told in (
        ("sd", "sana", "has a AutoencoderDC for an autoencoder; a StableDiffusionPipeline has one of AutoencoderKL"),
        ("sana", "sd", "has a AutoencoderKL for an autoencoder; a SanaPipeline has one of AutoencoderDC"),
        ("sdxl", "wide", "its autoencoder says 6 numbers, and its network takes 4"),
    ):
        mixed = Path(shutil.copytree(folder(kind), tmp_path / kind))
        shutil.rmtree(mixed / "vae")
        vae(6).save_pretrained(mixed / "vae") if other == "wide" else shutil.copytree(
            folder(other) / "vae", mixed / "vae"
        )
        row = json.loads((mixed / "model_index.json").read_text())
        entry = json.loads((mixed / "vae" / "config.json").read_text())["_class_name"]
        (mixed / "model_index.json").write_text(json.dumps(row | {"vae": ["diffusers", entry]}))
        assert told in one_line(str(mixed))


def test_weights_that_lack_a_tensor(copy: Path) -> None:
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.bias"]
    save_file(tensors, file)
    assert "unet is not complete: its files lack 1 of its tensors, such as conv_in.bias" in one_line(str(copy))


def without(file: Path, name: str) -> None:
    """Takes a tensor out of a file."""
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize(
    ("kind", "part", "name"),
    [
        ("sd", "text_encoder", "encoder.layers.0.layer_norm1.weight"),
        ("sdxl", "text_encoder_2", "text_projection.weight"),
        ("sana", "text_encoder", "layers.0.mlp.gate_proj.weight"),
        ("flux", "text_encoder_2", "encoder.block.0.layer.0.SelfAttention.o.weight"),
    ],
)
def test_a_text_encoder_that_lacks_a_tensor(
    kind: str, part: str, name: str, frugal: bool, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library would go on with random numbers."""
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path / "cache"))
    spoilt = Path(shutil.copytree(folder(kind), tmp_path / kind))
    (file,) = (spoilt / part).glob("*.safetensors")
    without(file, name)
    with pytest.raises(ValueError) as refused:
        prior = load_prior(str(spoilt), CPU, PriorOptions(image_size=16, low_memory=frugal))
        assert frugal, "or it is there from the start"
        prior.encode_prompt(["a cat"])
    assert str(refused.value) == f"{file} lacks 1 of its tensors, such as {name}"


def test_shards_that_lack_a_tensor(copy: Path) -> None:
    part = copy / "text_encoder"
    shutil.rmtree(part)
    build("sd").text_encoder.save_pretrained(part, max_shard_size="20KB")
    files = sorted(part.glob("*-of-*.safetensors"))
    load_prior(str(copy), CPU, SMALL)
    name, index = next(iter(load_file(files[0]))), part / "model.safetensors.index.json"
    without(files[0], name)
    row = json.loads(index.read_text())
    index.write_text(json.dumps(row | {"weight_map": {n: f for n, f in row["weight_map"].items() if n != name}}))
    told = f"{part} is not complete: its {len(files)} files lack 1 of its tensors, such as {name}"
    assert one_line(str(copy)) == told


def test_a_tensor_that_is_made_of_another_is_not_missed(folder: Folder, tmp_path: Path) -> None:
    """T5 has its words under two names, of which one is enough; CLIP was once kept with another prefix and a buffer."""
    spoilt = Path(shutil.copytree(folder("flux"), tmp_path / "flux"))
    t5, clip = (spoilt / f"text_encoder{end}" / "model.safetensors" for end in ("_2", ""))
    tokens = load_prior(str(spoilt), CPU, SMALL).encode_prompt(["a cat"]).text_embeds
    tensors = load_file(t5)
    save_file(tensors | {"encoder.embed_tokens.weight": tensors.pop("shared.weight")}, t5, {"format": "pt"})
    old = {f"text_model.{name}": value for name, value in load_file(clip).items()}
    save_file(old | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, clip, {"format": "pt"})
    assert torch.equal(load_prior(str(spoilt), CPU, SMALL).encode_prompt(["a cat"]).text_embeds, tokens)


def test_a_scheduler_that_can_be_of_either_kind(folder: Folder, tmp_path: Path) -> None:
    for kind, flag, told in (("sana-solver", False, "with use_flow_sigmas"), ("sd", True, "one with betas")):
        mixed = Path(shutil.copytree(folder(kind), tmp_path / kind))
        row = json.loads((folder("sana-solver") / "scheduler" / "scheduler_config.json").read_text())
        config = row | {"use_flow_sigmas": flag}
        (mixed / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        index = json.loads((mixed / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
        (mixed / "model_index.json").write_text(json.dumps(index))
        assert f"its scheduler is a DPMSolverMultistepScheduler; a {'model' if flag else 'flow'}" in one_line(
            str(mixed)
        )
        assert told in one_line(str(mixed))


def test_the_fast_sana_is_another_model(folder: Folder) -> None:
    assert "its network is told its guidance, as Sana Sprint's is" in one_line(str(folder("sana-sprint")))


def test_an_autoencoder_of_other_latents(folder: Folder) -> None:
    line = one_line(str(folder("sana")), PriorOptions(vae=str(folder("sd") / "vae")))
    assert "has latents of 4 channels at 1/2 of the image's size; this model takes 8 channels at 1/2" in line
    assert "holds a UNet2DConditionModel; expected" in one_line(
        str(folder("sd")), PriorOptions(vae=str(folder("sd") / "unet"))
    )


def test_additions_that_do_not_fit(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    assert "style.safetensors is missing" in one_line(str(folder("sd")), PriorOptions(lora=str(file)))
    lora_of("sdxl", file)
    assert "does not fit this model" in one_line(str(folder("sd")), PriorOptions(lora=str(file)))
    assert "it adds to none of its layers" in one_line(str(folder("sana")), PriorOptions(lora=str(file)))
    assert "models of its kind take no LoRA" in one_line(str(folder("pixart")), PriorOptions(lora=str(file)))
    assert "models of its kind learn no words" in one_line(
        str(folder("sana")), PriorOptions(textual_inversion=str(file))
    )
    assert "has no autoencoder; leave vae" in one_line(str(folder("if")), PriorOptions(vae=str(tmp_path)))
    assert "expected a folder with config.json" in one_line(str(folder("sd")), PriorOptions(vae=str(tmp_path)))
    assert "the prior mini takes nothing on top; lora" in one_line("mini", PriorOptions(lora=str(file)))
    assert "takes multiples of 4 pixels" in one_line(str(folder("flux")), PriorOptions(image_size=18))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lora": "style.bin"}, "lora is style.bin; only .safetensors files"),
        ({"textual_inversion": "word.pt"}, "textual_inversion is word.pt; only .safetensors files"),
        ({"image_size": 5000}, "image_size is 5000; expected up to 4096"),
        ({"image_size": -8}, "image_size is -8"),
        ({"embedded_guidance": float("nan")}, "embedded_guidance is nan"),
        ({"lora_scale": 99.0}, "lora_scale is 99.0; expected -10 to 10"),
        ({"max_batch": -1}, "max_batch is -1; expected 1 to 1024"),
    ],
)
def test_choices_out_of_range(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PriorOptions(**given)
