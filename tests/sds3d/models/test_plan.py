"""What a run will cost, before it is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from guidance.priors.diffusers.options import PriorOptions
from tests.support.sds3d.model_runs import Captured, Folder


def test_a_plan_measures_the_run_itself(folder: Folder, tmp_path: Path, capsys: Captured) -> None:
    from sds3d.__main__ import main

    flags = (
        f"--prior {folder('sd')} --device cpu --batch-size 2 --prior-options.image-size 16 --scene.init-count 60 --json"
    )
    assert main(["plan", "a teddy bear", *flags.split()]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    facts = rows[-1]
    assert facts["fits"] and 0 < facts["prior_seconds"] <= facts["step_seconds"] and facts["peak_mb"] > 10
    assert facts["run_seconds"] == pytest.approx(600 * facts["step_seconds"], rel=0.9)
    assert not list(tmp_path.iterdir())


def test_a_plan_that_does_not_fit_proposes_less(
    folder: Folder, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sds3d.__main__ import main
    from sds3d.cli import plan

    flags = [
        "plan",
        "a cat",
        *f"--prior {folder('sd')} --device cpu --batch-size 2 --prior-options.image-size 16".split(),
    ]
    monkeypatch.setattr(plan, "measured", lambda *_: plan.Cost(1.0, 0.5, 7900, 8000))
    assert main(flags) == 1
    told = "--prior-options.low-memory frees the text encoders and has one picture at a time in the autoencoder; "
    told += "--prior-options.max-batch 1"
    assert told in capsys.readouterr().out

    def out_of_memory(*_: object) -> plan.Cost:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(plan, "measured", out_of_memory)
    assert main([*flags, "--prior-options.low-memory", "--prior-options.max-batch", "1", "--batch-size", "1"]) == 1
    assert "it does not fit: the memory of cpu ran out; --prior sd-1.5" in capsys.readouterr().out


@pytest.mark.parametrize(("gigabytes", "rows", "frugal"), [(6, 1, True), (8, 2, True), (12, 4, True), (48, 0, False)])
def test_the_memory_of_a_gpu_as_a_flag(gigabytes: int, rows: int, frugal: bool) -> None:
    from sds3d.cli.arguments import generate

    given = generate(["a cat", "--vram", str(gigabytes), "--prior", "sd-1.5", "--offline"]).config.prior_options
    assert given == PriorOptions(max_batch=rows, low_memory=frugal, offline=True)
    with pytest.raises(ValueError, match="vram is 0; expected the gigabytes"):
        generate(["a cat", "--vram", "0"])
