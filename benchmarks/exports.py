"""How long one export takes, and how alike its mesh and its scene look.

    python benchmarks/exports.py [RUN ...] [--repeats 3] [--texture 1024] [-- --refine-texture 80]

Runs are folders of finished runs, by default those of runs/gallery. Each export is one `sds3d export` in a process of
its own: start, mesh, likeness, writing and reading back. What stands after -- goes to that command. Times mean
something on an idle machine only. Exit code 1 where the median export takes more than the bar of 20 s.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR = 20.0
"""Seconds of the clock, on two cores."""


def once(run: Path, words: list[str]) -> dict[str, float]:
    """One export: seconds of the clock and of the processor, megabytes, faces, and the likeness."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sds3d", "export", str(run), "--to", f"{folder}/a.glb", "--json", *words]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout.splitlines()[-1])
    spent = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    row = {"clock": took, "processor": spent, "megabytes": told["bytes"] / 1e6, "faces": told["faces"]}
    return row | told["mesh_against_scene"]


def main() -> int:
    words = sys.argv[1:]
    extra = words[words.index("--") + 1 :] if "--" in words else []
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--texture", type=int, default=1024)
    given = p.parse_args(words[: words.index("--")] if "--" in words else words)
    runs = given.runs or sorted(path.parent for path in Path("runs/gallery").glob("*/run.yaml"))
    clocks = []
    print("| asset | faces | IoU | PSNR, dB | colour difference | MB | seconds, clock | seconds, processor |")
    print("|---|---|---|---|---|---|---|---|")
    for run in runs:
        rows = [once(run, ["--texture", str(given.texture), *extra]) for _ in range(given.repeats)]
        clock, spent = (statistics.median(row[name] for row in rows) for name in ("clock", "processor"))
        clocks.append(clock)
        one = rows[0]
        print(
            f"| {run.name} | {one['faces']:.0f} | {one['iou']:.3f} | {one['psnr']:.1f} "
            f"| {one['colour_difference']:.1f} | {one['megabytes']:.1f} | {clock:.1f} | {spent:.1f} |",
            flush=True,
        )
    median = statistics.median(clocks)
    print(f"median {median:.1f} s, slowest {max(clocks):.1f} s; bar {BAR:.0f} s")
    return 0 if median <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
