"""`sds3d prior ...` on a prior of the tests; what needs the shipped weights is in test_shipped.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sds3d.__main__ import main
from sds3d.evaluation.judge.network import Judge, JudgeNetwork
from sds3d.models.loading import load_prior
from tests.support.sds3d.command_line import Captured, refused


def test_samples_become_a_sheet(prior_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    from PIL import Image

    sheet = tmp_path / "new" / "sheet.png"
    flags = ["--steps", "2", "--out", str(sheet), "--prior", str(prior_folder)]
    assert main(["prior", "sample", "a horse", "a red mug with wings", *flags]) == 0
    told = capsys.readouterr().out
    assert "passed over: wings" in told and told.endswith(f"{sheet}\n")
    with Image.open(sheet) as picture:
        assert picture.size == (8 * 24, 2 * 24)


def test_evaluation_writes_its_marks(
    prior_folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(JudgeNetwork(3), ["teddy bear", "horse", "mug"])
    monkeypatch.setattr(Judge, "load", lambda: judge)
    flags = ["--steps", "1", "--prior", str(prior_folder), "--out", str(tmp_path / "marks.json")]
    assert main(["prior", "evaluate", "horse", *flags]) == 0
    assert "1 names: R@1" in capsys.readouterr().out
    row = json.loads((tmp_path / "marks.json").read_text())
    assert set(row) == {"overall", "names", "azimuths", "scale", "steps", "candidates"} and row["candidates"] == 3
    assert "the judge does not know dragon" in refused(["prior", "evaluate", "dragon", *flags], capsys)


def test_mistakes_end_in_one_line(prior_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    prior = ["--prior", str(prior_folder)]
    assert "unknown: dragon" in refused(["prior", "sample", "a dragon", *prior], capsys)
    assert "steps is 0" in refused(["prior", "sample", "a horse", "--steps", "0", *prior], capsys)
    assert "model_index.json is missing" in refused(["prior", "sample", "a horse", "--prior", str(tmp_path)], capsys)
    assert "unknown prior 'minni'; did you mean mini?" in refused(
        ["prior", "sample", "a horse", "--prior", "minni"], capsys
    )
    assert "required: TEXT" in refused(["prior", "sample"], capsys)
    assert "no *.sh3f file under" in refused(
        ["prior", "corpus", str(tmp_path), "--out", str(tmp_path / "corpus")], capsys
    )
    assert "no corpus in" in refused(["prior", "train", str(tmp_path), "--out", str(tmp_path / "training")], capsys)
    assert "no corpus in" in refused(["prior", "judge", str(tmp_path), "--out", str(tmp_path / "judge")], capsys)
    assert "no checkpoint in" in refused(["prior", "ship", *[str(tmp_path)] * 2, "--to", str(tmp_path / "to")], capsys)
    assert list(tmp_path.iterdir()) == []


def test_priors_are_opened_by_folder(prior_folder: Path) -> None:
    assert load_prior(str(prior_folder), torch.device("cpu")).image_size == 24


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--scale nan", "scale is nan; expected -100 to 100"),
        ("--scale inf", "scale is inf; expected -100 to 100"),
        ("--scale much", "invalid float value: 'much'"),
        ("--seed -1", "seed is -1; expected 0 to 4294967295"),
        ("--seed 4294967296", "seed is 4294967296; expected 0"),
        ("--steps 0", "steps is 0; expected 1 to 1000"),
        ("--steps 1000000", "steps is 1000000; expected 1 to 1000"),
        ("--out samples.txt", "--out is samples.txt; expected the name of a file that ends in"),
        ("--out folder", "--out is folder; expected the name of a file that ends in"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_samples_that_can_not_be_drawn(
    command: str, flag: str, told: str, prior_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "load", lambda: pytest.fail("opened before the flags were read"))
    line = refused(["prior", command, "horse", *flag.split(), "--prior", str(prior_folder)], capsys)
    assert told in line
