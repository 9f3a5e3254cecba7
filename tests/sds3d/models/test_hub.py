"""The hub: what is fetched, from where, whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guidance.priors.diffusers.options import PriorOptions
from sds3d.models import download as download_module
from sds3d.models.download import download, select_files
from sds3d.models.loading import folder_of
from sds3d.models.registry import MODELS
from tests.support.sds3d.model_runs import SMALL, Folder, one_line

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
    full, half = select_files(REPOSITORY, False), select_files(REPOSITORY, True)
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
        select_files([name for name in REPOSITORY if not name.startswith("unet/") or "safetensors" not in name], False)
    with pytest.raises(ValueError, match=r"no model_index.json"):
        select_files(["style.safetensors"], False)


def test_one_kind_of_half_precision_is_fetched() -> None:
    brain = [name.replace("fp16", "bf16") for name in REPOSITORY if "fp16" in name]
    alone = [name for name in REPOSITORY if "fp16" not in name] + brain
    assert sum("bf16" in name for name in select_files(alone, True)) == 3 == len(brain)
    assert not any("bf16" in name for name in [*select_files(alone, False), *select_files(REPOSITORY + brain, True)])


def test_what_sees_pictures_is_fetched_where_it_is_needed() -> None:
    sight = ["image_encoder/config.json", "image_encoder/model.safetensors"]
    assert not any("image_encoder" in name for name in select_files([*REPOSITORY, *sight], False))
    found = select_files([*REPOSITORY, *sight, "unet/mv_unet.py"], False)
    assert set(sight) <= {*found} and not any(name.endswith(".py") for name in found)


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
    first, second, third = MODELS["sd-1.5"].sources
    broken: dict[str, Exception] = {first: GatedRepoError("401"), f"{second}!": ConnectionError("reset")}
    hub = Hub(tmp_path, {second: folder("sd"), third: folder("sd")}, broken)
    monkeypatch.setattr(download_module, "_hub", lambda: hub)
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
    monkeypatch.setattr(download_module, "_hub", lambda: hub)
    with pytest.raises(OSError, match=r"is not on this disk, and nothing is fetched offline; a local folder works"):
        download("owner/name", PriorOptions(offline=True))
    assert hub.asked == []


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
