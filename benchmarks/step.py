"""What a step of a draft costs beside the prior's own passes.

    python benchmarks/step.py [--steps 40]

Both are timed in turn in one process, on the same latents: a whole step of the loop, and nothing but the noise answers
it asks for. Prints the median ratio and the medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from configs.presets import preset
from guidance.priors.base import make_rng
from sds3d.models.loading import MINI, load_prior
from sds3d.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--prior", default=MINI)
    given = parser.parse_args()
    device = torch.device("cpu")
    prior = load_prior(given.prior, device)
    config = preset("draft").run("a teddy bear")
    run = Trainer(config, prior, device)
    views, size = config.batch_size, prior.image_size
    x = prior.encode(torch.rand(views, 3, size, size, generator=make_rng(1)))
    angles = torch.rand(views, generator=make_rng(2))
    wanted = run.prompt.conditions_for(prior, angles, angles)
    t = torch.full((views,), 0.5)
    steps = run.steps()
    whole, alone = [], []
    for number in range(given.steps + 5):
        began = time.perf_counter()
        next(steps)
        between = time.perf_counter()
        with torch.no_grad():
            prior.predict_noise(x, t, [wanted.uncond, wanted.text])
        if number >= 5:  # the first few warm up
            whole.append(between - began)
            alone.append(time.perf_counter() - between)
    ratio = statistics.median(w / a for w, a in zip(whole, alone, strict=True))
    sys.stdout.write(
        f"step / prior passes: {ratio:.2f}  (step {1e3 * statistics.median(whole):.1f} ms, "
        f"passes {1e3 * statistics.median(alone):.1f} ms, {torch.get_num_threads()} threads, {given.steps} steps)\n"
    )


if __name__ == "__main__":
    main()
