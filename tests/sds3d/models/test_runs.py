"""Runs on models of every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from configs.serialization import dump, load
from guidance.priors.diffusers.options import Extras
from renderers.images.scene import Picture
from sds3d.models.loading import open_prior
from sds3d.training.trainer import Run
from tests.support.guidance.tiny_models import KINDS
from tests.support.sds3d.model_runs import CPU, SMALL, Captured, Folder, asked, source


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
def test_every_objective_that_fits_runs_on_every_family(kind: str, folder: Folder) -> None:
    prior = open_prior(str(folder(kind)), CPU, SMALL)
    for name, rule in OBJECTIVES.items():
        config = asked(folder(kind), kind, name, steps=1)
        flow, distilled = kind in ("sd3", "flux", "sana"), kind == "flux"
        if (flow or not rule.needs_flow) and not (distilled and rule.needs_contrast):
            (step,) = Run(config, prior, CPU, source(config)).steps()
            assert step.gradient > 0, name
        else:
            with pytest.raises(ValueError, match=r"needs a flow-matching prior|guidance in its weights"):
                Run(config, prior, CPU, source(config))


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


def test_a_network_that_answers_nothing_is_noticed(copy: Path, tmp_path: Path, capsys: Captured) -> None:
    from sds3d.__main__ import main

    (file,) = (copy / "unet").glob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] * float("nan")}, file, {"format": "pt"})
    run = tmp_path / "run"
    flags = f"--steps 6 --views 2 --device cpu --scene.count 60 --prior {copy} --out {run}"
    assert main(["generate", "a teddy bear", *flags.split()]) == 2
    told = capsys.readouterr().err
    assert "step 6: " in told and "answers with no number (NaN) any more" in told and "--seed" not in told


def test_what_is_on_top_is_written_down() -> None:
    config = RunConfig("a cat", prior="sd-1.5", extras=Extras(lora="style.safetensors", size=256), scene=Picture())
    assert load(dump(config)) == config


def test_a_distilled_model_is_not_guided_again(folder: Folder) -> None:
    config = RunConfig("a teddy bear", prior=str(folder("flux")), extras=SMALL)
    prior = open_prior(config.prior, CPU, config.extras)
    with pytest.raises(ValueError, match=r"guidance in its weights, and sds guides with scale 7.5; give --objective"):
        Run(config, prior, CPU)
    told = {
        "csd": "csd is made of what a text changes",
        "nfsd": "nfsd is made of what",
        "pg-sb": r"pg-sb guides with lowest 2.0; give --objective.lowest 1",
        "sdi": r"sdi guides with inversion scale -7.5; give --objective.inversion-scale 1",
    }
    for name, line in told.items():
        rule = OBJECTIVES[name]()
        rule = replace(rule, scale=1.0) if name == "sdi" else rule  # type: ignore[call-arg]
        with pytest.raises(ValueError, match=f"guidance in its weights, and {line}"):
            Run(replace(config, objective=rule), prior, CPU)
