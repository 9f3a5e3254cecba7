"""The commands of `sds3d` about runs, one function each: arguments in, exit code out."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

from configs.registry import objective_name
from configs.run import RunConfig
from guidance.priors.base import Prior
from guidance.priors.mini.prior import MiniPrior
from renderers import kernels
from sds3d.cli import arguments as flags
from sds3d.cli.arguments import add_strict, add_trust, add_verbosity_flags, console_of, parser
from sds3d.console import Console, format_duration, one_line
from sds3d.models.loading import load_prior
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.finalize import finalize
from sds3d.training.loop import StopSignal, device_of, handle_signals, load_init_mesh, load_source, resumed, train
from sds3d.training.trainer import NonFinitePrior, Trainer, TrainingFailed

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def generate(words: list[str]) -> int:
    """`sds3d generate PROMPT`: a new run, to its finished asset."""
    return launch(flags.generate(words))


def batch(words: list[str]) -> int:
    """`sds3d batch FILE`: an asset for every line of a file."""
    from sds3d.cli.batch import batch as run

    return run(words)


def edit(words: list[str]) -> int:
    """`sds3d edit RUN PROMPT`: a new run that starts from a finished one."""
    return launch(flags.edit(words, lambda folder, trust: RunDirectory.open(folder, trust).config()))


def refine(words: list[str]) -> int:
    """`sds3d refine RUN`: the mesh of a finished run, trained on as a mesh."""
    return launch(flags.refine(words, lambda folder, trust: RunDirectory.open(folder, trust).config()))


def texture(words: list[str]) -> int:
    """`sds3d texture MODEL PROMPT`: somebody's mesh, painted by a prompt."""
    return launch(flags.texture(words))


def launch(args: flags.GenerateArgs) -> int:
    """A new run, to its finished asset."""
    console, config = args.console, args.config
    replace(config, debias_model="").build_prompt()  # What can not be read is refused before the weights are opened.
    prior = load_prior(config.prior, device_of(config), config.prior_options)
    _warn_about_prompt(prior, config, console)
    source = load_source(config, console, args.trust)
    run = Trainer(config, prior, device_of(config), source, load_init_mesh(config, console))
    for view, text in run.prompt.view_texts.items():
        console.log(f"{view} views are asked for: {text}")
    record = RunDirectory.new(args.out or free_folder(config.prompt), config)
    console.log(
        f'"{config.prompt}" into {record.folder}, {config.steps} steps; previews in {record.folder / "previews"}'
    )
    return _train_and_finalize(run, record, console)


def resume(words: list[str]) -> int:
    """`sds3d resume RUN`: goes on where a run was stopped, or longer than it was asked for."""
    p = parser("sds3d resume", "Goes on with a run at its newest checkpoint, to its finished asset.")
    p.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    p.add_argument("--steps", type=int, metavar="N", help="last step, in place of the one in run.yaml")
    add_strict(p)
    add_trust(p)
    add_verbosity_flags(p)
    given = p.parse_args(words)
    console, record = console_of(given), RunDirectory.open(given.run, given.trust)
    config = record.config()
    if given.steps is not None:
        config = replace(config, steps=given.steps)
    prior = load_prior(config.prior, device_of(config), config.prior_options)
    _warn_about_prompt(prior, config, console)
    run = resumed(record, config, prior, console, given.strict)
    if run.step > config.steps:
        raise ValueError(f"the run has done {run.step} steps already; give --steps {run.step} or more")
    if given.steps is not None:
        record.write_config(config)
    record.truncate_metrics(run.step)
    console.log(f"going on at step {run.step} of {config.steps}")
    return _train_and_finalize(run, record, console)


def export(words: list[str]) -> int:
    """`sds3d export RUN`: a run as a file that another program opens."""
    from sds3d.cli.file_commands import export as run

    return run(words)


def check(words: list[str]) -> int:
    """`sds3d check FILE`: what a file holds, and what is wrong with it."""
    from sds3d.cli.file_commands import check as run

    return run(words)


def reproduce(words: list[str]) -> int:
    """`sds3d reproduce FILE`: the run that a file came from, once more."""
    from sds3d.cli.file_commands import reproduce as run

    return run(words)


def compare(words: list[str]) -> int:
    """`sds3d compare PROMPT`: objectives side by side."""
    from sds3d.comparison.compare import compare as run

    return run(words)


def objectives(words: list[str]) -> int:
    """`sds3d objectives`: what there is to choose from."""
    from sds3d.cli.objectives import objectives as show

    return show(words)


def doctor(words: list[str]) -> int:
    """`sds3d doctor`: what is usable here."""
    from sds3d.diagnostics.doctor import doctor as examine

    p = parser("sds3d doctor", "Says what is usable on this machine, and how to get the rest.")
    p.add_argument("--json", action="store_true", help="as JSON")
    more = "also draw small scenes and hold them against slower code, with times; ten seconds for each device"
    p.add_argument("--selftest", action="store_true", help=more)
    asked = p.parse_args(words)
    return examine(asked.json, asked.selftest)


def plan(words: list[str]) -> int:
    """`sds3d plan PROMPT`: what a run will cost, measured."""
    from sds3d.cli.plan import plan as measure

    return measure(words)


def models(words: list[str]) -> int:
    """`sds3d models ...`: models of others."""
    from sds3d.cli.models import main

    return main(words)


def prior(words: list[str]) -> int:
    """`sds3d prior ...`: the embedded prior."""
    from sds3d.cli.prior import main

    return main(words)


def _warn_about_prompt(prior: Prior, config: RunConfig, console: Console) -> None:
    """Tells which words will be passed over. Raises ValueError where the prompt names nothing that the prior knows."""
    if remark := prior.validate_prompt(config.prompt):
        console.log(remark)
    if isinstance(prior, MiniPrior) and (unknown := prior.vocabulary.unknown_words(config.negative_prompt)):
        console.log(f"the embedded prior does not know, and passes over in the negative prompt: {', '.join(unknown)}")
    if config.negative_prompt and not config.objective.uses_negative_prompt:
        name = objective_name(config.objective)
        console.log(f"{name}, with these values, does not ask about the negative prompt, which changes nothing")


def _train_and_finalize(run: Trainer, record: RunDirectory, console: Console) -> int:
    """Optimises and finishes, whether to the last step, until Ctrl-C, or until the scene goes wrong."""
    if run.device.type == "cpu" and kernels.library() is None:
        console.log(kernels.why_missing())
    began, stop = time.monotonic(), StopSignal()
    try:
        with handle_signals(stop):
            seconds = train(run, record, console, stop)
            if stop.requested:
                return _stopped(run, record, console, seconds)
            asset = finalize(run.result, record, console, seconds)
    except OSError as error:
        hint = f"make room on the disk if it is full, then go on with: sds3d resume {record.folder}"
        raise OSError(f"{one_line(error)}; checkpoints are kept; {hint}") from None
    except TrainingFailed as trouble:
        hint = (
            ""
            if isinstance(trouble, NonFinitePrior)
            else "; another --seed or a lower --objective.guidance-scale often helps"
        )
        raise ValueError(f"{trouble}{hint}; what there is of the run is in {record.folder}") from None
    console.log(f"{asset} after {format_duration(time.monotonic() - began)}", asset=str(asset))
    return 0


def _stopped(run: Trainer, record: RunDirectory, console: Console, seconds: float) -> int:
    """After Ctrl-C, with the checkpoint on the disk: exports what there is and says how to go on."""
    console.log(f"stopping at step {run.step}; exporting what there is (Ctrl-C again to leave at once)")
    try:
        asset = finalize(run.result, record, console, seconds)
        console.log(str(asset), asset=str(asset))
    except ValueError as nothing:
        console.log(f"no asset yet: {nothing}")
    finally:
        console.log(f"go on with: sds3d resume {record.folder}")
    return INTERRUPTED


def free_folder(prompt: str) -> Path:
    """runs/ and the prompt as a short safe name, with a number where it is taken."""
    name = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "run"
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
