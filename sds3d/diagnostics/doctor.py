"""What is usable on this machine, and the command that gets the rest.

Heavy libraries are looked up by their installed metadata and never imported, so this answers in the time that torch
takes to load; but where there is a GPU, what draws on it is loaded, and compiled where that is still to be done.
"""

from __future__ import annotations

import importlib.metadata
import json as json_text
import os
import platform
import re
import shlex
import shutil
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch

State = Literal["ok", "absent", "fault"]
"""ok: usable. absent: optional and not usable here. fault: without it nothing can be generated on the CPU."""

OLDEST_PYTHON = (3, 10)
ROOM_FOR_A_RUN = 2 * 2**30
"""Bytes of disk and of memory below which a run is likely to fail: a draft peaks at 2.5 GB of memory."""
HUB_TIMEOUT = 2.0
"""Seconds that looking for the hub may take."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    """The command or step that makes it usable; empty where there is none or none is needed."""


@dataclass(frozen=True)
class Extra:
    """A library that is not needed, and what it is for."""

    distribution: str
    requirement: str
    purpose: str
    needs_cuda: bool = False
    source: str = ""
    """Arguments for pip where no index serves a build that works."""


EXTRAS = (
    Extra("gsplat", "gsplat>=1.5", "splats on an NVIDIA GPU", needs_cuda=True),
    Extra("nerfacc", "nerfacc>=0.5.3", "radiance fields on an NVIDIA GPU", needs_cuda=True),
    Extra(
        "pytorch3d",
        "",
        "meshes through PyTorch3D (our own kernel does without)",
        source="--no-build-isolation git+https://github.com/facebookresearch/pytorch3d.git",
    ),
    Extra("diffusers", "diffusers>=0.31", "Stable Diffusion and its like"),
    Extra("transformers", "transformers>=4.45", "the text encoders of those"),
    Extra("peft", "peft>=0.13", "trainable critics: VSD and its kin, with any prior"),
    Extra("gradio", "gradio>=6", "the web page"),
)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, without importing it; None where it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_command(arguments: list[str]) -> str:
    """The command that installs `arguments` into this environment and keeps its torch."""
    torch_pin = "torch==" + torch.__version__.split("+")[0]
    return shlex.join([sys.executable, "-m", "pip", "install", torch_pin, *arguments])


def gigabytes(count: int) -> str:
    """Bytes as text."""
    return f"{count / 2**30:.1f} GB"


def python_finding() -> Finding:
    version = platform.python_version()
    where = f"{version} on {platform.system()} {platform.machine()}"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("python", "ok", where)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", "fault", where, f"install Python {oldest} or newer and make the environment anew")


def torch_finding() -> Finding:
    cores = os.cpu_count() or 1
    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads on {cores} cores")


def needed_libraries() -> list[str]:
    """The requirements of sds3d itself, without those of its extras; empty where it was never installed."""
    try:
        requirements = importlib.metadata.requires("sds3d") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [requirement for requirement in requirements if "extra ==" not in requirement]


def libraries_finding() -> Finding:
    requirements = needed_libraries()
    if not requirements:
        remedy = shlex.join([sys.executable, "-m", "pip", "install", "-c", "constraints.txt", "-e", "."])
        return Finding("libraries", "absent", "sds3d runs from its sources and was not installed", remedy)
    named = {requirement: re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in requirements}
    missing = [requirement for requirement, name in named.items() if installed_version(name) is None]
    if missing:
        detail = "missing: " + ", ".join(named[requirement] for requirement in missing)
        return Finding("libraries", "fault", detail, pip_command(missing))
    return Finding("libraries", "ok", f"all {len(requirements)} that sds3d needs are installed")


def kernels_finding() -> Finding:
    from renderers import kernels

    try:
        library = kernels.library()
    except ValueError as error:
        return Finding("kernels", "fault", str(error), "unset SDS3D_KERNELS")
    if library is not None:
        return Finding("kernels", "ok", f"{Path(library._name).stem.removeprefix('libsds3d_')}, compiled C++")
    checkout = Path(kernels.__file__).parents[1]
    again = [sys.executable, "-m", "pip", "install", "--no-deps", "--force-reinstall", "-e", str(checkout)]
    remedy = "install g++ or clang, then: " + shlex.join(again)
    if not (checkout / "pyproject.toml").exists():
        remedy = "install g++ or clang, then sds3d again from its sources"
    return Finding("kernels", "absent", kernels.why_missing(), remedy)


def prior_finding() -> Finding:
    import guidance

    for package in guidance.__path__:
        folder = Path(package) / "mini"
        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        if size:
            return Finding("embedded prior", "ok", f"{size / 2**20:.1f} MB in {folder}")
    detail = "guidance/priors/mini/weights holds no weights, so nothing can be generated without a model from a hub"
    return Finding("embedded prior", "fault", detail, "install from a complete checkout, or: sds3d prior train")


def cuda_finding() -> Finding:
    if torch.cuda.is_available():
        devices = []
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(f"{properties.name}, {gigabytes(properties.total_memory)}")
        return Finding("cuda", "ok", "; ".join(devices))
    driver = Path("/proc/driver/nvidia/version").exists()
    if torch.version.cuda is None:
        detail = "this torch is a CPU build; everything runs on the CPU"
        remedy = f"{sys.executable} -m pip install --force-reinstall torch (a CUDA build: see pytorch.org)"
        return Finding("cuda", "absent", detail, remedy if driver else "")
    detail = f"torch is built for CUDA {torch.version.cuda} but sees no device; everything runs on the CPU"
    return Finding("cuda", "absent", detail, "check that nvidia-smi lists the device" if driver else "")


def extra_finding(extra: Extra, cuda: bool) -> Finding:
    version = installed_version(extra.distribution)
    if version is None:
        remedy = pip_command(shlex.split(extra.source) if extra.source else [extra.requirement])
        return Finding(extra.distribution, "absent", f"for {extra.purpose}", remedy)
    if extra.needs_cuda and not cuda:
        return Finding(extra.distribution, "absent", f"{version}, idle without CUDA: our own kernels do its work")
    if extra.needs_cuda:
        from renderers import gpu_kernels

        try:
            gpu_kernels.make_ready(extra.distribution, _write_stderr)
        except ImportError as error:
            why, _, remedy = str(error).partition("; ")
            return Finding(extra.distribution, "absent", f"{version}, {why}", remedy)
        return Finding(extra.distribution, "ok", f"{version}, compiled, {extra.purpose}")
    return Finding(extra.distribution, "ok", f"{version}, {extra.purpose}")


def _write_stderr(line: str) -> None:
    """Writes a line beside the report, which goes to the standard output."""
    sys.stderr.write(f"{line}\n")


def connects(host: str, port: int, timeout: float) -> bool:
    """Whether a TCP connection opens within `timeout` seconds, name look-up included. Raises nothing."""
    reached = threading.Event()

    def attempt() -> None:
        try:
            with socket.create_connection((host, port), timeout=timeout):
                reached.set()
        except OSError:
            pass

    # A name look-up cannot be timed out, so it is left behind in a daemon thread.
    worker = threading.Thread(target=attempt, daemon=True)
    worker.start()
    worker.join(timeout)
    return reached.is_set()


def hub_finding(timeout: float = HUB_TIMEOUT) -> Finding:
    """Whether models can be fetched; `timeout` in seconds."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return Finding("hub", "absent", f"offline, as {variable} asks; the embedded prior needs no hub")
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host = address.hostname or str(address.geturl())
    if "https" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return Finding("hub", "ok", f"{host} through a proxy (not tried)")
    if connects(host, address.port or (80 if address.scheme == "http" else 443), timeout):
        return Finding("hub", "ok", f"{host} answers")
    return Finding("hub", "absent", f"{host} does not answer; the embedded prior needs no hub")


def free_memory() -> int | None:
    """Bytes of memory that a new process may take, or None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def room_findings(folder: Path) -> Iterator[Finding]:
    """Free disk under `folder`, and free memory."""
    disk = shutil.disk_usage(folder).free
    enough = disk >= ROOM_FOR_A_RUN
    advice = "" if enough else f"free {gigabytes(ROOM_FOR_A_RUN - disk)}, or give a folder elsewhere with --out"
    yield Finding("disk", "ok" if enough else "absent", f"{gigabytes(disk)} free in {folder.resolve()}", advice)
    memory = free_memory()
    if memory is None:
        yield Finding("memory", "ok", "this system does not say how much is free")
        return
    enough = memory >= ROOM_FOR_A_RUN
    advice = "" if enough else "close other programs, or use the draft preset"
    yield Finding("memory", "ok" if enough else "absent", f"{gigabytes(memory)} free", advice)


def report() -> list[Finding]:
    """Everything that was looked at, the needed things first. Takes up to `HUB_TIMEOUT` seconds."""
    cuda = cuda_finding()
    return [
        python_finding(),
        torch_finding(),
        libraries_finding(),
        kernels_finding(),
        prior_finding(),
        *room_findings(Path.cwd()),
        cuda,
        *(extra_finding(extra, cuda.state == "ok") for extra in EXTRAS),
        hub_finding(),
    ]


def usable(findings: list[Finding]) -> bool:
    """Whether something can be generated on the CPU."""
    return all(finding.state != "fault" for finding in findings)


def as_json(findings: list[Finding]) -> str:
    """The findings for scripts."""
    plain = {"usable": usable(findings), "findings": [asdict(finding) for finding in findings]}
    return json_text.dumps(plain, indent=2)


def as_table(findings: list[Finding]) -> str:
    """The findings for people: name, state and detail, each remedy on a line of its own, and the verdict."""
    name_width = max(len(finding.name) for finding in findings)
    state_width = max(len(finding.state) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.name:<{name_width}}  {finding.state:<{state_width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<{name_width + state_width + 4}}get it: {finding.remedy}")
    faults = [finding.name for finding in findings if finding.state == "fault"]
    verdict = f"not usable here yet: mend {', '.join(faults)}" if faults else "usable here on the CPU"
    return "\n".join([*lines, "", f"sds3d is {verdict}."])


def tried() -> Iterator[Finding]:
    """What `sds3d.diagnostics.selftest` finds on the CPU, and on CUDA where there is one; about ten seconds each."""
    from sds3d.diagnostics.selftest import lines

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        remedy = "" if device == "cuda" else "SDS3D_KERNELS=torch draws without kernels, slower"
        for name, good, detail in lines(torch.device(device)):
            failed: State = "fault" if device == "cpu" else "absent"
            yield Finding(name, "ok", detail) if good else Finding(name, failed, detail, remedy or "use --device cpu")


def doctor(json: bool, selftest: bool = False) -> int:
    """Writes the report to standard output and returns the exit code: 0 where the CPU path is usable, else 1.

    With `selftest` it also draws small scenes, and 1 means as well that something is drawn wrongly.
    """
    findings = report()
    if selftest:
        findings += tried()
    sys.stdout.write((as_json(findings) if json else as_table(findings)) + "\n")
    failed = selftest and any(finding.name.endswith(" on cuda") and finding.state != "ok" for finding in findings)
    return 0 if usable(findings) and not failed else 1
