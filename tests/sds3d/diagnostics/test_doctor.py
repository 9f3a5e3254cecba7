"""The doctor names what is usable, and never fails itself."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import guidance
from renderers import gpu_kernels, kernels
from sds3d.diagnostics import doctor

ROOT = Path(__file__).parents[3]
NETWORK_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "https_proxy", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that does not forbid the network."""
    for variable in NETWORK_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on this machine that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_report_covers_every_part_once() -> None:
    names = [finding.name for finding in doctor.report()]
    assert len(names) == len(set(names))
    expected = "python torch libraries kernels disk memory cuda gsplat nerfacc pytorch3d diffusers gradio hub"
    assert {*expected.split(), "embedded prior"} <= set(names)


def test_report_imports_no_heavy_library() -> None:
    heavy = [extra.distribution for extra in doctor.EXTRAS] + ["trimesh", "scipy", "skimage", "imageio"]
    code = "import sys; from sds3d.diagnostics import doctor; doctor.report(); "
    code += f"print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("states", [["ok"], ["ok", "absent"], ["fault", "ok"], ["absent", "fault"]])
def test_exit_code_is_zero_without_faults(
    states: list[doctor.State], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [doctor.Finding(f"part {i}", state, "detail", "mend it") for i, state in enumerate(states)]
    monkeypatch.setattr(doctor, "report", lambda: findings)
    sound = "fault" not in states
    assert doctor.doctor(json=True) == (0 if sound else 1)
    answer = json.loads(capsys.readouterr().out)
    assert answer["usable"] is sound
    assert [doctor.Finding(**plain) for plain in answer["findings"]] == findings


def test_table_names_faults_and_remedies() -> None:
    table = doctor.as_table([doctor.Finding("torch", "ok", "2.13"), doctor.Finding("prior", "fault", "no", "do this")])
    assert "get it: do this" in table
    assert "not usable here yet: mend prior" in table
    good, bad, remedy = table.splitlines()[:3]
    assert good.index("ok") == bad.index("fault")
    assert good.index("2.13") == bad.index("no") == remedy.index("get it")


@pytest.mark.parametrize("extra", doctor.EXTRAS, ids=lambda extra: extra.distribution)
def test_a_missing_extra_comes_with_its_pip_command(extra: doctor.Extra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda distribution: None)
    finding = doctor.extra_finding(extra, cuda=True)
    words = shlex.split(finding.remedy)
    assert finding.state == "absent"
    assert words[:5] == [sys.executable, "-m", "pip", "install", "torch==" + torch.__version__.split("+")[0]]
    assert extra.distribution in words[-1]


def test_extras_ask_for_what_the_packaging_asks_for() -> None:
    packaging = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{extra.requirement}"' in packaging for extra in doctor.EXTRAS if extra.requirement)


def test_cuda_libraries_are_idle_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda distribution: "1.5.3")
    gsplat = doctor.EXTRAS[0]
    assert doctor.extra_finding(gsplat, cuda=False).state == "absent"


def test_cuda_libraries_are_tried_where_there_is_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Being installed is not enough: from the package index they come as sources."""
    gsplat = doctor.EXTRAS[0]
    monkeypatch.setattr(doctor, "installed_version", lambda distribution: "1.5.3")
    monkeypatch.setattr(gpu_kernels, "find_spec", lambda name: None if name.endswith(".csrc") else object())
    for compiled, state in ((object(), "ok"), (None, "absent")):
        backend = SimpleNamespace(_C=compiled)
        monkeypatch.setattr(gpu_kernels, "import_module", lambda name, backend=backend: backend)
        finding = doctor.extra_finding(gsplat, cuda=True)
        assert finding.state == state
    assert "nvcc" in finding.detail and "--renderer torch" in finding.remedy


def test_a_missing_needed_library_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "needed_libraries", lambda: ["numpy>=1.26", "surely-not-installed<9,>=2"])
    finding = doctor.libraries_finding()
    assert (finding.state, finding.detail) == ("fault", "missing: surely-not-installed")
    assert shlex.split(finding.remedy)[-1] == "surely-not-installed<9,>=2"


def test_missing_kernels_are_explained_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "why_missing", lambda: "no file libsds3d_baseline.so")
    finding = doctor.kernels_finding()
    assert finding.state == "absent"
    assert "no file libsds3d_baseline.so" in finding.detail
    assert "pip install" in finding.remedy


def test_a_misspelt_choice_of_kernels_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", "avx1024")
    finding = doctor.kernels_finding()
    assert finding.state == "fault"
    assert "avx1024" in finding.detail


def test_the_embedded_prior_is_found_or_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guidance, "__path__", [str(tmp_path)])
    assert doctor.prior_finding().state == "fault"
    weights = tmp_path / "mini" / "unet" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(3 * 2**20))
    finding = doctor.prior_finding()
    assert (finding.state, finding.detail) == ("ok", f"3.0 MB in {tmp_path / 'mini'}")


def test_cuda_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(name="Card", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert doctor.cuda_finding() == doctor.Finding("cuda", "ok", "Card, 24.0 GB; Card, 24.0 GB")


def test_little_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    disk, memory = doctor.room_findings(tmp_path)
    assert (disk.name, disk.state, memory.name) == ("disk", "absent", "memory")
    assert "--out" in disk.remedy


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_means_no_connection_is_tried(variable: str, online: pytest.MonkeyPatch) -> None:
    online.setattr(doctor, "connects", lambda host, port, timeout: pytest.fail("it tried"))
    online.setenv(variable, "1")
    finding = doctor.hub_finding()
    assert finding.state == "absent"
    assert variable in finding.detail


def test_the_hub_is_tried_otherwise(online: pytest.MonkeyPatch, listener: socket.socket) -> None:
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    online.setenv("HF_ENDPOINT", address)
    assert doctor.hub_finding(timeout=400).state == "ok"
    listener.close()
    assert doctor.hub_finding(timeout=400).state == "absent"


def test_a_hanging_name_look_up_is_given_up(online: pytest.MonkeyPatch) -> None:
    given_up, heard = threading.Event(), threading.Event()

    def hang(address: tuple[str, int], timeout: float) -> socket.socket:
        given_up.wait(400)
        heard.set()
        raise OSError

    online.setattr(socket, "create_connection", hang)
    assert doctor.hub_finding(timeout=0.05).state == "absent"
    assert not heard.is_set(), "it did not wait for the end of the look-up"
    given_up.set()
