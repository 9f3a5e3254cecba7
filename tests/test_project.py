"""The house stands: what is shipped, what an import costs, who may know whom, and how large a room may grow."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from renderers import cameras

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "configs", "guidance", "renderers", "sds3d")
MAX_LINES = 400
MAX_MODULES = 16
"""Modules in a folder."""
NAMELESS = {"utils", "util", "misc", "common", "types", "helpers"}
PRINTERS = {"sds3d/__main__.py", "sds3d/console.py"}
"""Where the command line speaks; everything else raises, logs or returns."""
HEAVY = {
    *("diffusers", "transformers", "accelerate", "peft", "gradio", "ray"),
    *("gsplat", "nerfacc", "pytorch3d", "moderngl", "tinyobjloader"),
    *("trimesh", "scipy", "skimage", "xatlas", "fast_simplification", "imageio", "imageio_ffmpeg", "PIL", "tyro"),
    "pxr",
}
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.so", "*.cpp", "*.h")


def every_source() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- what is shipped ---


def package_files() -> set[str]:
    """Files of the packages that a wheel should hold, as paths from the root."""
    listed = set()
    for package in PACKAGES:
        for folder, _, names in os.walk(ROOT / package):
            if Path(folder).name != "__pycache__":
                shipped = set(names) - NOT_SHIPPED(folder, names)
                listed |= {relative(Path(folder) / name) for name in shipped}
    return listed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy so that nothing is left behind in the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copyfile(path, tree / path.name)
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(tree),
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> set[str]:
    """Names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_five_packages_and_nothing_else(shipped: set[str]) -> None:
    tops = {name.split("/")[0] for name in shipped}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert len(tops) == len(PACKAGES) + 1


def test_the_wheel_suits_every_python_3(wheel: Path) -> None:
    assert wheel.name.split("-")[2:4] == ["py3", "none"]


def test_the_wheel_lacks_no_file_of_a_package(shipped: set[str]) -> None:
    assert package_files() <= shipped
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped


def test_the_wheel_holds_no_tests_and_no_sources_of_kernels(shipped: set[str]) -> None:
    assert not [name for name in shipped if "test" in Path(name).parts[0] or Path(name).suffix in (".cpp", ".h")]


def test_the_wheel_holds_the_kernels_where_a_compiler_is_found(shipped: set[str]) -> None:
    if not (shutil.which("cmake") and (shutil.which("c++") or shutil.which("g++"))):
        pytest.skip("no cmake or no C++ compiler here")
    assert "renderers/libsds3d_baseline.so" in shipped


def test_the_wheel_holds_the_licence(shipped: set[str]) -> None:
    assert [name for name in shipped if name.endswith("dist-info/licenses/LICENSE")]


# --- what an import costs ---


def imported_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after running `code`."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_imports_are_cheap() -> None:
    modules = [".".join(path.with_suffix("").relative_to(ROOT).parts) for path in every_source()]
    names = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    # The rooms of the page are opened by `sds3d app` alone.
    names = [name for name in names if not name.startswith("app.page.")]
    assert "renderers.scene" in names
    assert not imported_by("import " + ", ".join(names)) & HEAVY


def test_a_dear_import_would_be_noticed() -> None:
    assert imported_by("import scipy, renderers.scene") & HEAVY == {"scipy"}


# --- who may know whom ---


def test_an_import_between_guidance_and_renderers_is_noticed(tmp_path: Path) -> None:
    """`make test` runs lint-imports on the tree; here, that its contracts can break."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / "guidance" / "bridge.py").write_text("import diffusers\n\nimport renderers.scene\n")
    code = """
import sys
# An editable install answers for our packages wherever we stand; here the copy has to.
sys.meta_path = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable_")]
sys.path.insert(0, "")
from importlinter.cli import lint_imports_command
lint_imports_command()
"""
    command = [sys.executable, "-c", code, "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "guidance.bridge -> renderers.scene" in done.stdout
    assert "guidance.bridge -> diffusers" in done.stdout


def test_a_wrong_shape_is_refused_while_tests_run() -> None:
    angles = torch.zeros(2)
    assert len(cameras.look_at_origin(angles, angles, 8, distance=3)) == 2  # an int passes for a float
    with pytest.raises(TypeError, match="Type-check error"):
        cameras.look_at_origin(angles, torch.zeros(2, 1), 8)


# --- how large a room may grow ---


@pytest.mark.parametrize("path", every_source(), ids=relative)
def test_every_file_is_readable_at_a_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < MAX_LINES
    assert path.stem not in NAMELESS
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    if relative(path) not in PRINTERS:
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "print" not in {function.id for function in called if isinstance(function, ast.Name)}


@pytest.mark.parametrize("package", [*PACKAGES, "tests", "benchmarks"])
def test_no_folder_holds_too_many_modules(package: str) -> None:
    folders = [ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())]
    crowded = {relative(folder): count for folder in folders if (count := len(list(folder.glob("*.py")))) > MAX_MODULES}
    assert not crowded
