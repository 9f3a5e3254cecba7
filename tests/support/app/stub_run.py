"""Stands in for `sds3d` in tests of the queue: takes steps in no time, heeds SIGTERM, leaves what a run leaves.

What it does is told by its prompt: `quick` takes 3 steps, `slow` goes on for minutes, `stubborn` likewise but passes
over SIGTERM, `bad` refuses, `broken` ends in a traceback, `killed` is gone without a word.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    command, *words = sys.argv[1:]
    stop = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    if command == "resume":
        folder = Path(words[0])
        prompt = (folder / "run.yaml").read_text().splitlines()[0].removeprefix("prompt: ")
    else:
        folder, prompt = Path(words[words.index("--out") + 1]), words[0]
        if any(folder.iterdir()):
            sys.stderr.write(f"sds3d: {folder} already holds a run\n")
            return 2
    if prompt.startswith("bad"):
        sys.stderr.write("some words before\nsds3d: the prior knows none of these words; it knows cat\n")
        return 2
    if prompt.startswith("broken"):
        raise RuntimeError("a thing that should not be")
    steps = 3 if prompt.startswith("quick") or command == "resume" else 6000
    (folder / "run.yaml").write_text(f"prompt: {prompt}\nsteps: {steps}\n")
    (folder / "checkpoints").mkdir(exist_ok=True)
    print(f'"{prompt}" into {folder}, pid {os.getpid()}', flush=True)
    with (folder / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()} {command}\n")
    done = 0
    for step in range(1, steps + 1):
        row = {"step": step, "gradient": 0.5, "seconds": 0.1, "scene": f"{step} splats", "memory_mb": 10}
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        (folder / "checkpoints" / "step-1.safetensors").write_text("")
        done = step
        if prompt.startswith("killed") and step == 2 and command != "resume":
            os.kill(os.getpid(), signal.SIGKILL)
        if stop and not prompt.startswith("stubborn"):
            print(f"stopping at step {step}; exporting what there is", flush=True)
            break
        if steps > 3:
            time.sleep(0.1)
    (folder / "asset.glb").write_text(f"asset of step {done}")
    (folder / "report.json").write_text(json.dumps({"prompt": prompt, "steps": done}))
    return 130 if stop else 0


sys.exit(main())
