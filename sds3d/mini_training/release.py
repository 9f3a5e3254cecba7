"""From a training to the folder that is shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary
from sds3d.evaluation.judge.network import Judge
from sds3d.mini_training import model_card
from sds3d.mini_training.corpus import read_entries
from sds3d.mini_training.evaluate import Scores, evaluate
from sds3d.models.mini_checkpoint import trained


def release(training: Path, corpus: Path, target: Path, progress: Callable[[str], None]) -> Scores:
    """Writes the averaged weights of a training with only the names they were taught, has them marked by the shipped
    judge, and puts card, credits and marks beside them.

    Raises:
        FileNotFoundError: no checkpoint, corpus or judge.
    """
    numbers = json.loads((training / "state.json").read_text()) if (training / "state.json").exists() else {}
    prior, entries = trained(training), read_entries(corpus)
    taught = [entry.name for entry in entries if entry.wave <= numbers["stage"]]
    whole = prior.vocabulary
    # The network keeps its words; the names that are offered are those it has seen.
    vocabulary = Vocabulary({name: whole.objects[name] for name in taught}, whole.colors, whole.materials, whole.words)
    prior.vocabulary = vocabulary
    prior.save(target)
    marks = evaluate(MiniPrior.load(target), Judge.load(), taught, progress)
    text = model_card.card(entries, taught, numbers["sketch_images_seen"], numbers["samples"], marks)
    model_card.write(target, entries, text, marks)
    return marks.overall
