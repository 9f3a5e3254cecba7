"""Models of others by name and folder: what opens, what is refused and how, and runs on every family."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.catalog import OBJECTIVES
from configs.files import dump, load
from configs.run import Part, RunConfig
from guidance.critic import LoRA
from guidance.families.extras import Extras
from guidance.families.prior import FamilyPrior
from renderers.picture import Picture
from renderers.splats import Splats
from sds3d import fetch
from sds3d.distill import Result, Run
from sds3d.fetch import chosen, fetched
from sds3d.models import BOOK
from sds3d.priors import folder_of, open_prior
from tests.tiny_models import KINDS, build

CPU = torch.device("cpu")
SMALL = Extras(size=16)
FLOWS = ("sd3", "flux")
Folder = Callable[[str], Path]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a tiny pipeline of a kind."""
    root, known = tmp_path_factory.mktemp("tiny"), set[str]()

    def of(kind: str) -> Path:
        if kind not in known:
            build(kind).save_pretrained(root / kind)
            known.add(kind)
        return root / kind

    return of


@pytest.fixture
def copy(folder: Folder, tmp_path: Path) -> Path:
    """A folder of Stable Diffusion to damage."""
    return Path(shutil.copytree(folder("sd"), tmp_path / "copy"))


# --- runs ---


def asked(folder: Path, kind: str, objective: str = "sds", steps: int = 2) -> RunConfig:
    rule = OBJECTIVES[objective]()
    if kind == "flux":
        rule = type(rule)(scale=1.0)  # type: ignore[call-arg]
    parts = (Part("a mug"), Part("a horse", (0.0, 0.5, 0.0))) if rule.needs_regions else ()
    return RunConfig(
        "a teddy bear",
        prior=str(folder),
        extras=SMALL,
        objective=rule,
        scene=Splats(count=60, max_count=80),
        critic=LoRA(rank=1, samples=2, stages=1, stage_steps=1),
        parts=parts,
        source="before" if rule.needs_source else "",
        steps=steps,
        views=2,
        device="cpu",
    )


def source(config: RunConfig) -> Result | None:
    if not config.source:
        return None
    scene = config.scene.build(CPU, torch.Generator().manual_seed(0))
    return Result(scene, replace(config, prompt="a horse", source=""), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_moves_a_scene(kind: str, folder: Folder) -> None:
    config = asked(folder(kind), kind)
    run = Run(config, open_prior(config.prior, CPU, config.extras), CPU)
    before = {name: value.clone() for name, value in run.scene.state().items()}
    steps = list(run.steps())
    assert len(steps) == 2 and all(step.gradient > 0 for step in steps)
    assert any(not torch.equal(value, before[name]) for name, value in run.scene.state().items())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_runs_on_a_network_of_others(name: str, folder: Folder) -> None:
    kind = "sd3" if OBJECTIVES[name].needs_flow else "sd"
    config = asked(folder(kind), kind, name, steps=1)
    prior = open_prior(config.prior, CPU, config.extras)
    run = Run(config, prior, CPU, source(config))
    (step,) = run.steps()
    assert step.gradient >= 0 and all(value.isfinite().all() for value in run.scene.state().values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_from_the_command_line(kind: str, folder: Folder, tmp_path: Path) -> None:
    from sds3d.__main__ import main

    flags = f"--steps 20 --views 2 --device cpu --extras.size 16 --prior {folder(kind)} --out {tmp_path / 'run'}"
    flags += " --scene.count 400 --scene.max-count 600 --scene.opacity 0.9 --objective sds --faces 500 --quiet"
    scale = ["--objective.scale", "1"] if kind == "flux" else []
    assert main(["generate", "a teddy bear", *flags.split(), *scale]) == 0
    assert (tmp_path / "run" / "asset.glb").is_file()


def test_a_run_with_a_critic_goes_on_where_it_stopped(folder: Folder) -> None:
    config = asked(folder("sd"), "sd", "vsd")
    prior = open_prior(config.prior, CPU, config.extras)
    whole, first, second = (Run(config, prior, CPU) for _ in range(3))
    list(whole.steps())
    next(first.steps())
    second.restore(first.state())
    list(second.steps())
    assert all(torch.equal(second.scene.state()[name], value) for name, value in whole.scene.state().items())


def test_what_is_on_top_is_written_down() -> None:
    config = RunConfig("a cat", prior="sd-1.5", extras=Extras(lora="style.safetensors", size=256), scene=Picture())
    assert load(dump(config)) == config


def test_a_distilled_model_is_not_guided_again(folder: Folder) -> None:
    config = RunConfig("a teddy bear", prior=str(folder("flux")), extras=SMALL)
    prior = open_prior(config.prior, CPU, config.extras)
    with pytest.raises(ValueError, match=r"guidance in its weights, and sds guides with scale 7.5; give --objective"):
        Run(config, prior, CPU)


# --- what it will cost ---


def test_a_plan_measures_the_run_itself(folder: Folder, tmp_path: Path, capsys: Captured) -> None:
    from sds3d.__main__ import main

    flags = f"--prior {folder('sd')} --device cpu --views 2 --extras.size 16 --scene.count 60 --json"
    assert main(["plan", "a teddy bear", *flags.split()]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    facts = rows[-1]
    assert facts["fits"] and 0 < facts["prior_seconds"] <= facts["step_seconds"] and facts["peak_mb"] > 10
    assert facts["run_seconds"] == pytest.approx(600 * facts["step_seconds"], rel=0.9)
    assert not list(tmp_path.iterdir())


def test_a_plan_that_does_not_fit_proposes_less(
    folder: Folder, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sds3d import plan
    from sds3d.__main__ import main

    flags = ["plan", "a cat", *f"--prior {folder('sd')} --device cpu --views 2 --extras.size 16".split()]
    monkeypatch.setattr(plan, "measured", lambda *_: plan.Cost(1.0, 0.5, 7900, 8000))
    assert main(flags) == 1
    assert "--extras.frugal frees the text encoders; --extras.rows 1" in capsys.readouterr().out

    def out_of_memory(*_: object) -> plan.Cost:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(plan, "measured", out_of_memory)
    assert main([*flags, "--extras.frugal", "--extras.rows", "1", "--views", "1"]) == 1
    assert "it does not fit: the memory of cpu ran out; --prior sd-1.5" in capsys.readouterr().out


@pytest.mark.parametrize(("gigabytes", "rows", "frugal"), [(6, 1, True), (8, 2, True), (12, 4, True), (48, 0, False)])
def test_the_memory_of_a_gpu_as_a_flag(gigabytes: int, rows: int, frugal: bool) -> None:
    from sds3d.arguments import generate

    given = generate(["a cat", "--vram", str(gigabytes), "--prior", "sd-1.5", "--offline"]).run.extras
    assert given == Extras(rows=rows, frugal=frugal, offline=True)
    with pytest.raises(ValueError, match="vram is 0; expected the gigabytes"):
        generate(["a cat", "--vram", "0"])


# --- what opens ---


def test_half_precision_weights_alone_open_in_full_on_a_cpu(copy: Path) -> None:
    whole = open_prior(str(copy), CPU, SMALL)
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (copy / part).glob("*.safetensors")
        save_file({k: v.half() for k, v in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
        file.unlink()
    halved = open_prior(str(copy), CPU, SMALL)
    assert isinstance(halved, FamilyPrior) and isinstance(whole, FamilyPrior) and halved.dtype == torch.float32
    x_t, t = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    answers = [prior.predict(x_t, t, [prior.read(["a cat"])]) for prior in (halved, whole)]
    torch.testing.assert_close(*answers, atol=5e-3, rtol=1e-2)


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


def lora_of(kind: str, file: Path) -> None:
    """Random additions to every attention of a family's UNet, in the layout of diffusers."""
    tensors, rng = {}, torch.Generator().manual_seed(1)
    for name, layer in build(kind).unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            for letter, shape in (("A", (2, layer.in_features)), ("B", (layer.out_features, 2))):
                tensors[f"unet.{name}.lora_{letter}.weight"] = torch.randn(shape, generator=rng)
    save_file(tensors, file)


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


def test_a_learnt_word_is_read(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "gizmo.safetensors"
    save_file({"emb_params": torch.randn(3, 32)}, file)
    plain = open_prior(str(folder("sd")), CPU, SMALL)
    taught = open_prior(str(folder("sd")), CPU, Extras(size=16, words=str(file)))
    assert not torch.allclose(taught.read(["a <gizmo>"]).tokens, plain.read(["a <gizmo>"]).tokens)
    torch.testing.assert_close(taught.read(["a cat"]).tokens, plain.read(["a cat"]).tokens)


def test_another_autoencoder_takes_the_place(folder: Folder, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    sizes: dict[str, Any] = {f"{way}_block_out_channels": (8, 8) for way in ("encoder", "decoder")}
    AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(tmp_path / "vae")
    prior = open_prior(str(folder("sd")), CPU, Extras(size=16, vae=str(tmp_path / "vae")))
    assert isinstance(prior, FamilyPrior) and prior.codec.tiny  # type: ignore[attr-defined]
    assert prior.encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 8, 8)


# --- what is refused ---


def one_line(name: str, extras: Extras = SMALL) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        open_prior(name, CPU, extras)
    line = str(refused.value)
    assert "\n" not in line
    return line


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


def test_additions_that_do_not_fit(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    assert "style.safetensors is missing" in one_line(str(folder("sd")), Extras(lora=str(file)))
    lora_of("sdxl", file)
    assert "does not fit this model" in one_line(str(folder("sd")), Extras(lora=str(file)))
    assert "expected a folder with config.json" in one_line(str(folder("sd")), Extras(vae=str(tmp_path)))
    assert "the prior mini takes nothing on top; lora" in one_line("mini", Extras(lora=str(file)))
    assert "takes multiples of 4 pixels" in one_line(str(folder("flux")), Extras(size=18))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lora": "style.bin"}, "lora is style.bin; only .safetensors files"),
        ({"words": "word.pt"}, "words is word.pt; only .safetensors files"),
        ({"size": 5000}, "size is 5000; expected up to 4096"),
        ({"size": -8}, "size is -8"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"lora_scale": 99.0}, "lora_scale is 99.0; expected -10 to 10"),
        ({"rows": -1}, "rows is -1; expected 1 to 1024"),
    ],
)
def test_choices_out_of_range(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Extras(**given)


# --- the hub ---

REPOSITORY = [
    *(
        "model_index.json",
        "README.md",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "scheduler/scheduler_config.json",
    ),
    *("tokenizer/vocab.json", "tokenizer/merges.txt", "safety_checker/model.safetensors", "safety_checker/config.json"),
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
    *(f"{part}/model.{end}" for part in ("unet", "vae", "text_encoder") for end in ("safetensors", "bin")),
    *(f"{part}/model.fp16.safetensors" for part in ("unet", "vae", "text_encoder")),
    *("unet/diffusion_pytorch_model.non_ema.safetensors", "unet/openvino_model.xml"),
]


def test_only_what_is_needed_is_fetched() -> None:
    full, half = chosen(REPOSITORY, False), chosen(REPOSITORY, True)
    assert {name for name in full if "safetensors" in name} == {
        f"{part}/model.safetensors" for part in ("unet", "vae", "text_encoder")
    }
    assert {name for name in half if "safetensors" in name} == {
        f"{part}/model.fp16.safetensors" for part in ("unet", "vae", "text_encoder")
    }
    for names in (full, half):
        assert {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt"} <= set(names)
        assert not any(name.endswith((".bin", ".ckpt", ".xml", ".md")) or "safety" in name for name in names)
    with pytest.raises(ValueError, match=r"unet has no .safetensors"):
        chosen([name for name in REPOSITORY if not name.startswith("unet/") or "safetensors" not in name], False)
    with pytest.raises(ValueError, match=r"no model_index.json"):
        chosen(["style.safetensors"], False)


class GatedRepoError(OSError):
    """By its name what the hub's client raises."""


class Hub:
    """Stands in for the hub's client: repositories, and what fails."""

    def __init__(self, cache: Path, has: dict[str, Path], broken: dict[str, Exception]) -> None:
        import huggingface_hub.errors

        self.has, self.broken, self.asked = has, broken, list[str]()
        self.constants, self.errors = SimpleNamespace(HF_HUB_CACHE=str(cache)), huggingface_hub.errors

    def HfApi(self) -> Hub:
        return self

    def model_info(self, source: str, revision: str | None = None) -> Any:
        self.asked.append(source)
        if source in self.broken:
            raise self.broken[source]
        names = [p.relative_to(self.has[source]).as_posix() for p in self.has[source].rglob("*") if p.is_file()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(
        self, source: str, revision: str | None = None, allow_patterns: Any = None, local_files_only: bool = False
    ) -> str:
        if local_files_only:
            raise OSError("not here")
        blobs = Path(self.constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / "abc.incomplete").write_bytes(b"half")
        if f"{source}!" in self.broken:
            raise self.broken[f"{source}!"]
        return str(self.has[source])


def test_the_next_source_is_asked_where_one_fails(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = BOOK["sd-1.5"].sources
    broken: dict[str, Exception] = {first: GatedRepoError("401"), f"{second}!": ConnectionError("reset")}
    hub = Hub(tmp_path, {second: folder("sd"), third: folder("sd")}, broken)
    monkeypatch.setattr(fetch, "_hub", lambda: hub)
    assert folder_of("sd-1.5", SMALL) == folder("sd") and hub.asked == [first, second, third]
    assert not list(tmp_path.rglob("*.incomplete"))  # Nothing half-downloaded stays.

    hub.broken[third] = ConnectionError("no route")
    line = one_line("sd-1.5")
    assert (
        f"{first}: gated: accept its licence" in line
        and f"{third}: no answer from the hub (ConnectionError: no route)" in line
    )
    assert "--prior mini" in line and not list(tmp_path.rglob("*.incomplete"))


def test_nothing_is_asked_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = Hub(tmp_path, {}, {})
    monkeypatch.setattr(fetch, "_hub", lambda: hub)
    with pytest.raises(OSError, match=r"is not on this disk, and nothing is fetched offline; a local folder works"):
        fetched("owner/name", Extras(offline=True))
    assert hub.asked == []


# --- the command ---


def test_the_book_is_told(capsys: Captured, folder: Folder, copy: Path) -> None:
    from sds3d.__main__ import main

    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in BOOK)
    for name, model in BOOK.items():
        assert main(["models", "show", name]) == 0
        told = capsys.readouterr().out
        assert model.licence in told and all(source in told for source in model.sources)
    assert main(["models", "verify", str(copy)]) == 0
    assert capsys.readouterr().out.count("whole") == 3
    (copy / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert main(["models", "verify", str(copy)]) == 2
    assert main(["models", "show", "sd1.5"]) == 2
    assert "did you mean sd-1.5?" in capsys.readouterr().err


# --- the hub's own client ---

SERVER = """
import hashlib, http.server, json, os, subprocess, sys, threading
from pathlib import Path

root, cut = Path(sys.argv[1]), sys.argv[2] == "cut"
files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Hub(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, whole):
        name = self.path.split("/resolve/")[-1].partition("/")[2].split("?")[0]
        headers = {}
        if "/tree/" in self.path:
            rows = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files.items()]
            body = json.dumps(rows).encode()
        elif self.path.startswith("/api/models/a/b"):
            body = json.dumps({"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": n} for n in files]}).encode()
        elif name in files:
            body = files[name]
            headers = {"ETag": '"' + hashlib.sha256(body).hexdigest() + '"', "X-Repo-Commit": "0" * 40}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if whole:
            self.wfile.write(body[:1000] if cut and name.startswith("unet/diff") else body)
            self.close_connection = True


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
known = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
command = [sys.executable, "-m", "sds3d", "models"]
for words in (["fetch", "a/b"], ["verify", "a/b"]):
    done = subprocess.run([*command, *words], env={**os.environ, **known}, capture_output=True, text=True)
    print(done.returncode, done.stdout, done.stderr.splitlines()[-1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "cut"])
def test_the_client_of_the_hub_fetches_all_or_nothing(how: str, folder: Folder, tmp_path: Path) -> None:
    """Against a hub on this machine, whose connection breaks in the middle of a file, or does not."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(folder("sd")), how],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not list(tmp_path.rglob("*.incomplete"))
    if how == "whole":
        assert done.stdout.count("whole, SHA-256 as on the hub") == 3 and "2 " not in done.stdout.split()
    else:
        assert "a/b could not be fetched (a/b: no answer from the hub" in done.stdout
        assert "a/b is not on this disk, and nothing is fetched offline" in done.stdout
