"""`sds3d prior ...`: what the embedded prior knows, how it draws, and how it is made."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from configs.registry import unknown_name_message
from sds3d.cli.arguments import parser
from sds3d.console import Console
from sds3d.models.loading import MINI, load_mini, mini_vocabulary

_WEIGHTS_AT = "folder of a prior or of a training; by default the shipped one"


def main(words: list[str]) -> int:
    """Runs one of the commands below."""
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:12}{(known.__doc__ or '').splitlines()[0]}" for name, known in COMMANDS.items()]
        Console().log("usage: sds3d prior COMMAND ...\n\n" + "\n".join(lines))
        return 0 if words else 2
    if words[0] not in COMMANDS:
        raise ValueError(unknown_name_message("command", f"prior {words[0]}", list(COMMANDS)))
    return COMMANDS[words[0]](words[1:])


def _words(words: list[str]) -> int:
    """Lists the objects, colours and materials it knows."""
    p = parser("sds3d prior words", "Lists what the embedded prior knows.")
    p.add_argument("--json", action="store_true", help="as JSON")
    given, known = p.parse_args(words), mini_vocabulary()
    if given.json:
        objects = {name: list(others) for name, others in known.objects.items()}
        row = {"objects": objects, "colours": known.colors, "materials": known.materials}
        Console().log(json.dumps(row, indent=1))
        return 0
    rows = [name + (f" ({', '.join(others)})" if others else "") for name, others in sorted(known.objects.items())]
    Console().log(
        f"{len(known.objects)} objects:\n  " + "\n  ".join(rows) + f"\n{len(known.colors)} colours: "
        f"{', '.join(known.colors)}\nmaterials: {', '.join(known.materials)}"
    )
    return 0


def _sample(words: list[str]) -> int:
    """Draws texts from eight sides, on one sheet."""
    import torch

    from sds3d.atomic_files import write_bytes
    from sds3d.formats.png import png
    from sds3d.mini_training.sample_grid import picture, views

    p = parser("sds3d prior sample", "Draws each text from eight sides, one row a text.")
    p.add_argument("texts", nargs="+", metavar="TEXT")
    p.add_argument("--out", type=Path, default=Path("samples.png"), metavar="FILE")
    given = _drawing(p, words, ".png")
    prior = load_mini(given.prior, torch.device("cpu"))
    for text in given.texts:
        if remark := prior.validate_prompt(text):
            Console().log(remark)
    rows = views(prior, given.texts, scale=given.scale, steps=given.steps, seed=given.seed)
    write_bytes(given.out, png(picture(rows)))
    Console().log(str(given.out))
    return 0


def _evaluate(words: list[str]) -> int:
    """Has the judge mark samples of every name."""
    import torch

    from sds3d.atomic_files import write_bytes
    from sds3d.evaluation.judge.network import Judge
    from sds3d.mini_training.evaluate import evaluate

    p = parser("sds3d prior evaluate", "Draws every name from eight sides and has the judge mark the pictures.")
    p.add_argument("names", nargs="*", metavar="NAME", help="names of objects; by default all")
    p.add_argument("--out", type=Path, metavar="FILE", help="JSON file for all marks")
    p.add_argument(
        "--against",
        type=Path,
        metavar="FURNITURE",
        help="compare with true pictures of the models in this folder, by detail, instead of asking the judge",
    )
    given = _drawing(p, words, ".json")
    prior = load_mini(given.prior, torch.device("cpu"))
    names = given.names or list(prior.vocabulary.objects)
    if given.against is not None:
        from sds3d.mini3d_training.detail_metrics import measure

        kept = measure(prior, given.against, names, scale=given.scale, steps=given.steps, seed=given.seed).plain()
        if given.out:
            write_bytes(given.out, (json.dumps(kept, indent=1) + "\n").encode())
        Console().log(json.dumps(kept))
        return 0
    marks = evaluate(prior, Judge.load(), names, Console().log, scale=given.scale, steps=given.steps, seed=given.seed)
    if given.out:
        write_bytes(given.out, (json.dumps(marks.plain(), indent=1) + "\n").encode())
    best = marks.overall
    Console().log(
        f"{len(names)} names: R@1 {best.recall_at_1:.3f}, R@5 {best.recall_at_5:.3f}, "
        f"median azimuth error {best.median_azimuth_error_degrees:.1f} degrees"
    )
    return 0


def _drawing(p: argparse.ArgumentParser, words: list[str], suffix: str) -> argparse.Namespace:
    """The arguments of a command that draws samples. Raises ValueError for what no sample can be drawn with."""
    p.add_argument("--scale", type=float, default=2.0, help="classifier-free guidance, -100 to 100 (default: 2)")
    p.add_argument("--steps", type=int, default=20, help="DDIM steps, 1 to 1000 (default: 20)")
    p.add_argument("--seed", type=int, default=0, help="decides every random draw, from 0 (default: 0)")
    p.add_argument("--prior", default=MINI, help=_WEIGHTS_AT)
    given = p.parse_args(words)
    for name, least, most in (("scale", -100, 100), ("steps", 1, 1000), ("seed", 0, 2**32 - 1)):
        if not least <= getattr(given, name) <= most:
            raise ValueError(f"{name} is {getattr(given, name)}; expected {least} to {most}")
    if given.out is not None and given.out.suffix.lower() != suffix:
        raise ValueError(f"--out is {given.out}; expected the name of a file that ends in {suffix}")
    return given


def _card(words: list[str]) -> int:
    """Shows the shipped prior's model card."""
    from guidance.priors.mini.prior import FOLDER

    parser("sds3d prior card", "Shows the model card of the shipped prior.").parse_args(words)
    Console().log((FOLDER / "README.md").read_text(encoding="utf-8").rstrip())
    return 0


def _corpus(words: list[str]) -> int:
    """Draws the pictures to learn from."""
    from sds3d.mini_training.corpus import Corpus, draw

    p = parser(
        "sds3d prior corpus", "Draws the chosen models of Debian's package sweethome3d-furniture from all sides."
    )
    p.add_argument("furniture", type=Path, help="folder the package was unpacked in (dpkg -x)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--views", type=int, default=Corpus.views, help="pictures of each object for the prior")
    given = p.parse_args(words)
    entries = draw(given.furniture, given.out, Corpus(views=given.views), Console().log)
    Console().log(f"{len(entries)} objects in {given.out}")
    return 0


def _train(words: list[str]) -> int:
    """Trains, or goes on training, the prior."""
    from sds3d.mini_training.train import train
    from sds3d.mini_training.train_state import TrainConfig

    p = parser("sds3d prior train", "Trains the prior on a corpus; goes on where a training in OUT stands.")
    p.add_argument("corpus", type=Path)
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--minutes", type=float, default=TrainConfig.minutes, help="stop after this long, to go on later")
    p.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    p.add_argument(
        "--stage", type=int, default=TrainConfig.stage, help="objects of this wave and those before (see objects.csv)"
    )
    p.add_argument("--sketch-images", type=int, default=TrainConfig.sketch_images, help="for the sketch alone, first")
    p.add_argument("--num-images", type=int, default=TrainConfig.num_images, help="for the denoiser, after that")
    p.add_argument(
        "--lr-decay-images",
        type=int,
        default=TrainConfig.lr_decay_images,
        help="of these, the last over which the rate falls",
    )
    p.add_argument("--lr", type=float, default=TrainConfig.lr, help="learning rate")
    p.add_argument(
        "--sheet-minutes", type=float, default=TrainConfig.sheet_minutes, help="minutes between two sheets of samples"
    )
    p.add_argument("--start-from", type=Path, metavar="PRIOR", help="weights of a shipped prior to start from")
    given = p.parse_args(words)
    knobs = TrainConfig(**{name: getattr(given, name) for name in vars(given)})
    train(knobs, Console().log)
    return 0


def _judge(words: list[str]) -> int:
    """Trains the judge."""
    from sds3d.mini_training.judge.training import JudgeTraining, train

    p = parser("sds3d prior judge", "Trains the judge on the part of a corpus that the prior never sees.")
    p.add_argument("corpus", type=Path)
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--minutes", type=float, default=JudgeTraining.minutes)
    given = p.parse_args(words)
    marks = train(JudgeTraining(given.corpus, given.out, given.minutes), Console().log)
    Console().log(json.dumps(marks))
    return 0


def _fronts(words: list[str]) -> int:
    """Measures which objects have a front the judge can tell, and how well fronts are counted."""
    from sds3d.atomic_files import write_bytes
    from sds3d.evaluation.judge.fronts import FILE
    from sds3d.evaluation.judge.network import Judge
    from sds3d.mini_training.judge.front_benchmark import measure

    p = parser("sds3d prior fronts", "Shows the judge every object of a corpus from around, the real and glued ones.")
    p.add_argument("corpus", type=Path)
    p.add_argument("--to", type=Path, default=FILE, metavar="FILE", help=f"JSON file (default: {FILE})")
    given = p.parse_args(words)
    measured = measure(given.corpus, Judge.load(), Console().log)
    write_bytes(given.to, (json.dumps(measured) + "\n").encode())
    Console().log(f"{given.to}: {json.dumps(measured['rates'])}")
    return 0


def _ship(words: list[str]) -> int:
    """Writes a training's weights, card and credits as a prior that runs can open."""
    from sds3d.mini_training.release import release

    p = parser("sds3d prior ship", "Writes the averaged weights of a training in the layout that runs open.")
    p.add_argument("training", type=Path)
    p.add_argument("corpus", type=Path)
    p.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    given = p.parse_args(words)
    marks = release(given.training, given.corpus, given.to, Console().log)
    Console().log(f"{given.to}: R@1 {marks.recall_at_1:.3f}, azimuth {marks.median_azimuth_error_degrees:.1f} degrees")
    return 0


def _fit_splats(words: list[str]) -> int:
    """Fits the corpus' models by splats, for the prior that knows them in three dimensions."""
    from sds3d.mini3d_training.splat_fitting import Fit, fit_all

    p = parser("sds3d prior fit-splats", "Fits the chosen models by splats; goes on where OUT stands.")
    p.add_argument("furniture", type=Path, help="folder the package was unpacked in (dpkg -x)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--count", type=int, default=Fit.count, help=f"splats of a model (default: {Fit.count})")
    p.add_argument("--steps", type=int, default=Fit.steps, help=f"steps of Adam (default: {Fit.steps})")
    p.add_argument("--size", type=int, default=Fit.size, help=f"pixels along a side (default: {Fit.size})")
    given = p.parse_args(words)
    fit_all(given.furniture, given.out, Fit(given.size, given.count, given.steps), Console().log)
    return 0


def _pack_splats(words: list[str]) -> int:
    """Rounds fitted splats and writes them as a prior that runs can open."""
    from sds3d.mini3d_training.packing import Pack, pack

    p = parser("sds3d prior pack-splats", "Writes what fit-splats fitted as a prior that runs can open.")
    p.add_argument("furniture", type=Path, help="folder the package was unpacked in (dpkg -x)")
    p.add_argument("fits", type=Path, help="folder that fit-splats filled")
    p.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    given = p.parse_args(words)
    prior = pack(given.furniture, given.fits, given.to, Pack(), Console().log)
    Console().log(f"{given.to}: {len(prior.packed.infos)} models")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "words": _words,
    "sample": _sample,
    "evaluate": _evaluate,
    "card": _card,
    "corpus": _corpus,
    "train": _train,
    "judge": _judge,
    "fronts": _fronts,
    "ship": _ship,
    "fit-splats": _fit_splats,
    "pack-splats": _pack_splats,
}
"""Every command, in the order of the help."""
