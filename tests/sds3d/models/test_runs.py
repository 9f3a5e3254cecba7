"""Runs on models of every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from configs.serialization import from_yaml, to_yaml
from guidance.priors.diffusers.options import PriorOptions
from renderers.images.scene import ImageConfig
from sds3d.models.loading import load_prior
from sds3d.training.trainer import Trainer
from tests.support.guidance.tiny_models import KINDS
from tests.support.sds3d.model_runs import CPU, SMALL, Captured, Folder, asked, source


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_moves_a_scene(kind: str, folder: Folder) -> None:
    config = asked(folder(kind), kind)
    run = Trainer(config, load_prior(config.prior, CPU, config.prior_options), CPU)
    before = {name: value.clone() for name, value in run.scene.training_state().items()}
    steps = list(run.steps())
    assert len(steps) == 2 and all(step.grad_rms > 0 for step in steps)
    assert any(not torch.equal(value, before[name]) for name, value in run.scene.training_state().items())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_runs_on_a_network_of_others(name: str, folder: Folder) -> None:
    kind = "sd3" if OBJECTIVES[name].needs_flow_prior else "sd"
    config = asked(folder(kind), kind, name, steps=1)
    prior = load_prior(config.prior, CPU, config.prior_options)
    run = Trainer(config, prior, CPU, source(config))
    (step,) = run.steps()
    assert step.grad_rms >= 0 and all(value.isfinite().all() for value in run.scene.training_state().values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_that_fits_runs_on_every_family(kind: str, folder: Folder) -> None:
    prior = load_prior(str(folder(kind)), CPU, SMALL)
    for name, rule in OBJECTIVES.items():
        config = asked(folder(kind), kind, name, steps=1)
        flow, distilled = kind in ("sd3", "flux", "sana"), kind == "flux"
        if (flow or not rule.needs_flow_prior) and not (distilled and rule.needs_undistilled_prior):
            (step,) = Trainer(config, prior, CPU, source(config)).steps()
            assert step.grad_rms > 0, name
        else:
            with pytest.raises(ValueError, match=r"needs a flow-matching prior|guidance in its weights"):
                Trainer(config, prior, CPU, source(config))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_from_the_command_line(kind: str, folder: Folder, tmp_path: Path) -> None:
    from sds3d.__main__ import main

    flags = f"--steps 20 --batch-size 2 --device cpu --prior-options.image-size 16 --prior {folder(kind)}"
    flags += f" --out {tmp_path / 'run'}"
    flags += " --scene.init-count 400 --scene.cap-max 600 --scene.init-opacity 0.9 --objective sds --faces 500 --quiet"
    scale = ["--objective.guidance-scale", "1"] if kind == "flux" else []
    assert main(["generate", "a teddy bear", *flags.split(), *scale]) == 0
    assert (tmp_path / "run" / "asset.glb").is_file()


def test_a_run_with_a_critic_goes_on_where_it_stopped(folder: Folder) -> None:
    config = asked(folder("sd"), "sd", "vsd")
    prior = load_prior(config.prior, CPU, config.prior_options)
    whole, first, second = (Trainer(config, prior, CPU) for _ in range(3))
    list(whole.steps())
    next(first.steps())
    second.load_training_state(first.training_state())
    list(second.steps())
    assert all(
        torch.equal(second.scene.training_state()[name], value) for name, value in whole.scene.training_state().items()
    )


def test_a_network_that_answers_nothing_is_noticed(copy: Path, tmp_path: Path, capsys: Captured) -> None:
    from sds3d.__main__ import main

    (file,) = (copy / "unet").glob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] * float("nan")}, file, {"format": "pt"})
    run = tmp_path / "run"
    flags = f"--steps 6 --batch-size 2 --device cpu --scene.init-count 60 --prior {copy} --out {run}"
    assert main(["generate", "a teddy bear", *flags.split()]) == 2
    told = capsys.readouterr().err
    assert "step 6: " in told and "answers with no number (NaN) any more" in told and "--seed" not in told


def test_what_is_on_top_is_written_down() -> None:
    config = RunConfig(
        "a cat",
        prior="sd-1.5",
        prior_options=PriorOptions(lora="style.safetensors", image_size=256),
        scene=ImageConfig(),
    )
    assert from_yaml(to_yaml(config)) == config


def test_a_distilled_model_is_not_guided_again(folder: Folder) -> None:
    config = RunConfig("a teddy bear", prior=str(folder("flux")), prior_options=SMALL)
    prior = load_prior(config.prior, CPU, config.prior_options)
    with pytest.raises(
        ValueError, match=r"guidance in its weights, and sds guides with guidance_scale 7.5; give --objective"
    ):
        Trainer(config, prior, CPU)
    told = {
        "csd": "csd is made of what a text changes",
        "nfsd": "nfsd is made of what",
        "pg-sb": r"pg-sb guides with guidance_scale_min 2.0; give --objective.guidance-scale-min 1",
        "sdi": r"sdi guides with inversion_guidance_scale -7.5; give --objective.inversion-guidance-scale 1",
    }
    for name, line in told.items():
        rule = OBJECTIVES[name]()
        rule = replace(rule, guidance_scale=1.0) if name == "sdi" else rule  # type: ignore[call-arg]
        with pytest.raises(ValueError, match=f"guidance in its weights, and {line}"):
            Trainer(replace(config, objective=rule), prior, CPU)
