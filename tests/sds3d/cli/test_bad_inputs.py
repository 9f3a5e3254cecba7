"""Several hundred bad inputs over all commands: each ends in one line, with an exit code that is not 0, in seconds.

The tables below are made to grow: add a value, a flag, a path or a command line, and every combination is tried.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sds3d.__main__ import main
from tests.support.sds3d.command_line import Captured

SECONDS = 20.0
"""That any of them may take."""
FLAGS = (
    *("--steps", "--seed", "--batch-size", "--faces", "--vram", "--particles", "--num-chunks", "--perp-neg"),
    *(
        "--scene.init-count",
        "--scene.init-opacity",
        "--mesh-extraction.texture-size",
        "--cameras.fov-y",
        "--objective.guidance-scale",
        "--prior-options.max-batch",
    ),
    *("--timesteps.start-range", "--clipping.value", "--region"),
)
"""Flags of `generate` that take numbers."""
VALUES = (
    "abc",
    "nan",
    "-1e99",
    "1e400",
    "",
    "--help-me",
    "0x1p99",
    "1,5",
    "99999999999999999999999",
    "\N{SNOWMAN}",
    "1 2 3 4 5",
)
"""Values that no flag of numbers takes."""
COMMAND_LINES = """
generate
generate "" --steps 5
generate "a cat" "and a dog"
generate a cat
generate "a cat" --prompt "a dog"
generate "a cat" --help-me
generate "a cat" --scene cube
generate "a cat" --scene
generate "a cat" --objective
generate "a cat" --objective sds,vsd
generate "a cat" --objective ../sds
generate "a cat" --objective :
generate "a cat" --objective os:system
generate "a cat" --objective os
generate "a cat" --timesteps never
generate "a cat" --preset ""
generate "a cat" --prior ""
generate "a cat" --prior /nowhere/at/all
generate "a cat" --prior C:\\\\models
generate "a cat" --prior https://huggingface.co/a/b
generate "a cat" --prior a/b/c
generate "a cat" --device cuda:99
generate "a cat" --device tpu
generate "a cat" --init-mesh nope.glb
generate "a cat" --image-prompt nope.png
generate "a cat" --source-run nope
generate "a cat" --region "a mug"
generate "a cat" --region "a mug@1,2"
generate "a cat" --negative-prompt
generate "a cat" --scene.no-such-thing 3
generate "a cat" --view-conditioning sideways
generate "a cat" --critic.rank 0
edit
edit nowhere
edit nowhere "a cat"
refine
refine nowhere
texture
texture nope.glb
texture nope.glb "a cat"
resume
resume nowhere
resume nowhere --steps x
resume nowhere nowhere
export
export nowhere
export nowhere --format doc
export nowhere --target emacs
export nowhere --faces x
export nowhere --up x
export nowhere --unit yards
export nowhere --size-m 1e300
export nowhere --size-m -1
export nowhere --size-m nan
export nowhere --lods 0
export nowhere --lods 99
export nowhere --texture -5
export nowhere --sh-degree 9
export nowhere --format stl --normal-map
export nowhere --format mp4 --lods 3
export nowhere --format splat --up z
export nowhere --format glb --up z
export nowhere --format 3mf --up y
export nowhere --quad --lods 3
export nowhere --refine-texture -1
check
check nope.glb
check nope.xyz
check a b
reproduce
reproduce nope.glb
compare
compare "a cat" --objectives
compare "a cat" --objectives sds,nothing
compare "a cat" --seeds 0
compare "a cat" --seeds x
compare "a cat" --minutes 0
compare "a cat" --minutes nan
compare "a cat" --minutes -1
objectives nothing
objectives --csv
doctor now
plan
plan ""
plan "a cat" --steps 0
models
models nothing
models show
models show nothing
models fetch
models fetch ///
models verify
models verify nowhere
prior nothing
prior train
prior train nowhere
prior sample
prior sample dragon --prior nowhere
prior corpus nowhere
prior evaluate --prior nowhere
prior ship
batch
batch nope.txt
batch nope.txt --at-once 0
app --port 0
app --port 99999999
app --port x
app --host 999.1.1.1
app --host ""
app --at-once 0
app --at-once -1
app --waiting 0
app --each 0
app --auth me
app --auth :x
app --auth-file nope
app --share
app runs
nothing
generat
--nothing
-x
"""
FILE_COMMANDS = {
    "check": ("check", "{}"),
    "texture": ("texture", "{}", "a red teddy bear"),
    "reproduce": ("reproduce", "{}"),
    "export": ("export", "{}"),
    "resume": ("resume", "{}"),
    "refine": ("refine", "{}"),
    "edit": ("edit", "{}", "a horse"),
    "batch": ("batch", "{}"),
    "models verify": ("models", "verify", "{}"),
}
"""Commands that take a path."""


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def _text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>\n")


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _nothing(path: Path) -> None:
    return None


def _fifo(path: Path) -> None:
    path.symlink_to("/dev/null")


PATHS: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("none.glb", _nothing),
    ("empty.glb", _empty),
    ("garbage.glb", _garbage),
    ("garbage.gltf", _garbage),
    ("garbage.obj", _garbage),
    ("garbage.ply", _garbage),
    ("garbage.stl", _garbage),
    ("garbage.3mf", _garbage),
    ("garbage.splat", _garbage),
    ("garbage.spz", _garbage),
    ("garbage.usdz", _garbage),
    ("text.glb", _text),
    ("text.gltf", _text),
    ("text.ply", _text),
    ("text.xyz", _text),
    ("folder.glb", _folder),
    ("loop.glb", _loop),
    ("null.glb", _fifo),
    ("x" * 300 + ".glb", _nothing),
    ("new\nline.glb", _nothing),
    ("snow\N{SNOWMAN}man.glb", _garbage),
)
"""Names of files, and what makes them."""


def one_line(words: list[str], captured: Captured) -> str:
    """What a command says that is given something wrong; nothing on its output but reports of `check`."""
    began = time.monotonic()
    try:
        code = main(words)
    except SystemExit as leaving:
        pytest.fail(f"{words} left by SystemExit({leaving.code!r})")
    took = time.monotonic() - began
    out, err = captured.readouterr()
    assert code not in (0, None), f"{words} is taken in silence: {out[:300]}"
    assert took < SECONDS, f"{words} took {took:.0f} s"
    assert "Traceback" not in out + err, (words, out, err)
    if words[0] == "check" and code == 1:
        return str(out)
    assert err.startswith("sds3d: ") and err.count("\n") == 1, (words, out, err)
    line = err.removeprefix("sds3d: ").strip()
    assert len(line) > 8 and "Errno" not in line and "RunConfig" not in line, (words, line)
    return str(line)


@pytest.fixture
def occupied(small: list[str], tmp_path: Path) -> list[str]:
    """Flags of a small run into a folder that is taken: what is accepted by mistake ends there."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    return [*small, "--out", str(tmp_path / "taken")]


def flag_cases() -> Iterator[tuple[str, str]]:
    for flag in FLAGS:
        for value in VALUES:
            yield flag, value


@pytest.mark.parametrize(("flag", "value"), list(flag_cases()))
def test_flags_with_values_that_do_not_fit(flag: str, value: str, occupied: list[str], capsys: Captured) -> None:
    line = one_line(["generate", "a red teddy bear", *occupied, f"{flag}={value}"], capsys)
    assert "already holds" not in line, f"{flag}={value} is taken in silence"


@pytest.mark.parametrize("words", [line for line in COMMAND_LINES.splitlines() if line.strip()])
def test_command_lines_that_do_not_fit(
    words: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert one_line(shlex.split(words), capsys)


@pytest.mark.parametrize(("name", "make"), PATHS, ids=[name[:30] for name, _ in PATHS])
@pytest.mark.parametrize("command", FILE_COMMANDS)
def test_paths_that_do_not_fit(
    command: str,
    name: str,
    make: Callable[[Path], None],
    small: list[str],
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        make(Path(name))
    except OSError:
        pytest.skip("this file system has no such name")
    words = [word.format(name) for word in FILE_COMMANDS[command]]
    assert one_line(words, capsys)


def test_there_are_many() -> None:
    lines = [line for line in COMMAND_LINES.splitlines() if line.strip()]
    assert len(list(flag_cases())) + len(lines) + len(PATHS) * len(FILE_COMMANDS) >= 250
    assert os.linesep == "\n"
