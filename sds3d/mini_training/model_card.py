"""The model card of the embedded prior and the credits of the models it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

from sds3d.mini_training.corpus import Entry
from sds3d.mini_training.evaluate import Evaluation

SOURCE = "the Debian package sweethome3d-furniture 1.8"


def notice(entries: list[Entry]) -> str:
    """Title, creator and licence of every model, by object."""
    lines = [
        "The embedded prior and its judge were trained on pictures of these 3D models,",
        f"as packaged in {SOURCE}. The models themselves are not part of sds3d.",
        "CC0 1.0: https://creativecommons.org/publicdomain/zero/1.0/",
        "CC BY 3.0: https://creativecommons.org/licenses/by/3.0/",
        "",
    ]
    lines += [f'{entry.name}: "{entry.title}" by {entry.creator}, {entry.licence}' for entry in entries]
    return "\n".join(lines) + "\n"


def card(entries: list[Entry], trained: list[str], sketched: int, samples: int, evaluation: Evaluation | None) -> str:
    """The card, in the form model hubs use.

    Args:
        trained: names of the objects the weights have seen.
        sketched: pictures the sketch has seen alone.
        samples: pictures the denoiser has seen.
    """
    known = [entry for entry in entries if entry.name in trained]
    free = sum(entry.licence.startswith("CC0") for entry in known)
    marks = ""
    if evaluation is not None:
        every = evaluation.overall
        marks = (
            "## Marks\n\n"
            f"Samples of {len(evaluation.names)} names from {evaluation.azimuths} sides ({evaluation.steps} DDIM "
            f"steps, guidance {evaluation.scale:g}), judged among {evaluation.candidates} names by a network trained "
            "on other cameras, lights and backgrounds:\n\n"
            "| R@1 | R@5 | median azimuth error |\n|---|---|---|\n"
            f"| {every.recall_at_1:.1%} | {every.recall_at_5:.1%} "
            f"| {every.median_azimuth_error_degrees:.1f} degrees |\n\n"
            "Marks of every name are in `marks.json`.\n\n"
        )
    header = {"license": "apache-2.0", "pipeline_tag": "text-to-image", "tags": ["score-distillation", "text-to-3d"]}
    top = "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items())
    return (
        f"---\n{top}\n---\n\n"
        "# mini, the embedded prior of sds3d\n\n"
        f"A small diffusion model of 96 x 96 pictures of {len(known)} kinds of objects on plain backgrounds, "
        "conditioned on text and on the camera's azimuth and elevation. It predicts velocity under Stable Diffusion's "
        "scaled-linear schedule. Text, camera, or both can be left out.\n\n"
        f"Trained from scratch on pictures of {len(known)} models of {SOURCE} ({free} under CC0, "
        f"{len(known) - free} under CC BY 3.0; credits in `NOTICE`): {sketched} pictures for the sketch alone, then "
        f"{samples} pictures for the denoiser, with the sketch learning on beside it.\n\n"
        "It draws these objects in the shapes of these models and nothing else; there are no people in it.\n\n"
        f"{marks}## Objects\n\n{', '.join(sorted(trained))}\n"
    )


def write(folder: Path, entries: list[Entry], text: str, evaluation: Evaluation | None) -> None:
    """Puts the card, NOTICE and marks.json beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "NOTICE").write_text(notice(entries), encoding="utf-8")
    if evaluation is not None:
        (folder / "marks.json").write_text(json.dumps(evaluation.plain(), indent=1) + "\n", encoding="utf-8")
