"""The command line: every mistake ends in one line, and help is help."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds3d.__main__ import COMMANDS, main
from sds3d.runs.run_directory import RunDirectory
from tests.support.sds3d.command_line import Captured, refused


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("", "the prompt is empty"),
        ("  \n ", "the prompt is empty"),
        ("bear " * 2048, "has 10240 characters; at most 1000 are read"),
        ("\N{TEDDY BEAR}", "the prompt names none of the objects; for example: teddy bear, horse, mug"),
        ("a dragon", "unknown: dragon; for example:"),
        ("a hrose", "unknown: hrose; nearest: horse"),
        ("a b\udce4r", "no UTF-8 text"),
    ],
    ids=["empty", "blank", "10 kB", "emoji", "dragon", "slip", "bytes"],
)
def test_prompts_that_can_not_be_made(
    prompt: str, told: str, small: list[str], tmp_path: Path, capsys: Captured
) -> None:
    line = refused(["generate", prompt, *small, "--out", str(tmp_path / "run")], capsys)
    assert told in line and len(line) < 400
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--preset draftt", "unknown preset 'draftt'; did you mean draft?"),
        ("--preset", "argument --preset: expected one argument"),
        ("--objective sdss", "unknown objective 'sdss'; did you mean sds?"),
        ("--objective nowhere_at_all:X", "there is no module nowhere_at_all; expected an objective as module:Class"),
        ("--objective guidance.objectives.differences.sds:VSD", "guidance.objectives.differences.sds has no VSD"),
        ("--prior mimi", "unknown prior 'mimi'; did you mean mini?"),
        ("--steps 0", "steps is 0; a run takes at least 1"),
        ("--steps -3", "a run takes at least 1"),
        ("--steps 1e9", "--steps is '1e9'; expected a whole number"),
        ("--steps 1000000000", "at most 1000000 are taken"),
        ("--steps many", "--steps is 'many'; expected a whole number"),
        ("--batch-size 100000", "expected 1 to 64 pictures"),
        ("--seed -1", "seed is -1"),
        ("--device gpu", "expected auto, cpu or cuda"),
        ("--scene.init-count 1000000000000", "1 <= init_count <= cap_max"),
        ("--scene.cap-max 1000000000000", "at most 5000000 splats"),
        ("--scene.means-lr 0", "means_lr is 0.0"),
        ("--cameras.fov-y 500", "expected degrees between 0 and 180"),
        ("--timesteps.start-range 0.9 0.1", "expected 0 <= low <= high <= 1"),
        ("--timesteps.start-range 0.9", "--timesteps.start-range needs 2 values"),
        ("--objective.guidance-scale nan", "scale is nan"),
        ("--objective.weighting sdz", "invalid choice 'sdz'"),
        ("--faces 3", "faces is 3"),
        ("--faces many", "invalid int value: 'many'"),
        ("--stepz 3", "Unrecognized options: --stepz, 3; did you mean --steps?"),
        ("teddy bear", "a prompt of several words needs quotes"),
    ],
    ids=lambda text: text if text.startswith("-") or text == "teddy bear" else "",
)
def test_flags_that_do_not_fit(words: str, told: str, tmp_path: Path, capsys: Captured) -> None:
    line = refused(["generate", "a bear", *words.split(), "--out", str(tmp_path / "run")], capsys)
    assert told in line and len(line) < 400
    assert not (tmp_path / "run").exists()


def test_out_folders_that_can_not_be_written(
    finished: Path, small: list[str], tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "file").write_text("mine")
    for folder, told in (
        (finished, "already holds a run"),
        (tmp_path, "already holds something else"),
        (tmp_path / "file", "already holds something else"),
        (tmp_path / "file" / "run", "can not be made"),
        (Path("/proc/nowhere/run"), "can not be made"),
    ):
        line = refused(["generate", "a red mug", *small, "--out", str(folder)], capsys)
        assert told in line and str(folder) in line and "another --out" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_commands_without_a_run_say_so(tmp_path: Path, capsys: Captured) -> None:
    for command in ("resume", "export"):
        assert "is not the folder of a run" in refused([command, str(tmp_path)], capsys)
        assert "required: RUN" in refused([command], capsys)


def test_mistakes_in_resume_and_export(copy: Path, capsys: Captured) -> None:
    assert "the run has done 3 steps already; give --steps 3 or more" in refused(
        ["resume", str(copy), "--steps", "2"], capsys
    )
    assert "a run takes at least 1" in refused(["resume", str(copy), "--steps", "0"], capsys)
    assert "invalid choice: 'fbx'" in refused(["export", str(copy), "--format", "fbx"], capsys)
    assert "faces is 1" in refused(["export", str(copy), "--faces", "1"], capsys)
    assert "size_m is -1" in refused(["export", str(copy), "--size-m", "-1"], capsys)
    (copy / "run.yaml").write_text((copy / "run.yaml").read_text().replace("views:", "viewz:"))
    assert "unknown key 'viewz'; did you mean views?" in refused(["resume", str(copy)], capsys)
    (copy / "run.yaml").write_bytes(b"\xff\xfe\x00")
    refused(["resume", str(copy)], capsys)


def test_a_run_whose_prior_is_gone_says_so(copy: Path, capsys: Captured) -> None:
    text = (copy / "run.yaml").read_text()
    prior = RunDirectory.open(copy).config().prior
    (copy / "run.yaml").write_text(text.replace(prior, "/nowhere/prior"))
    assert "unknown prior '/nowhere/prior'" in refused(["resume", str(copy)], capsys)


def test_unknown_commands_come_with_the_nearest(capsys: Captured) -> None:
    assert "unknown command 'genrate'; did you mean generate?" in refused(["genrate"], capsys)
    assert "unknown command 'prior wrds'; did you mean words?" in refused(["prior", "wrds"], capsys)
    assert "the prompt is missing" in refused(["generate"], capsys)


def test_help_is_help(capsys: Captured) -> None:
    assert main([]) == 2 and main(["--help"]) == 0 and main(["prior", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)
    for words in (["generate", "--help"], ["resume", "--help"], ["export", "-h"], ["prior", "train", "--help"]):
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert leaving.value.code == 0
        assert "usage: sds3d" in capsys.readouterr().out


def test_the_help_of_generate_names_presets_and_objectives(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    told = capsys.readouterr().out
    assert (
        "--preset" in told and "draft" in told and "--objective.guidance-scale" in told and "--scene.init-count" in told
    )


def test_the_version_is_told(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_command_of_another_package_is_found_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    heard: list[list[str]] = []

    class Point:
        name = "knit"

        def load(self) -> object:
            return lambda words: heard.append(words) or 7

    monkeypatch.setattr("sds3d.__main__.entry_points", lambda group: [Point()])
    assert main(["knit", "a", "--b"]) == 7
    assert heard == [["a", "--b"]]
    assert main(["--help"]) == 0
    assert "knit" in capsys.readouterr().out
    assert main(["knot"]) == 2
    assert "did you mean knit" in capsys.readouterr().err
