"""Makes the twelve assets that README shows, and the figures it quotes.

    python benchmarks/gallery.py [--out runs/gallery] [--preset draft] [--seed 0]

Every prompt is one `sds3d generate` in a process of its own. Finished ones are kept when the command is run again.
Writes docs/gallery.png (three views of each exported mesh) and docs/gallery.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PROMPTS = (
    "a teddy bear",
    "a snowman",
    "a hamburger",
    "a fire hydrant",
    "a cat",
    "a birthday cake",
    "a beetle car",
    "a vase",
    "a red armchair",
    "a blue teapot",
    "a green toaster",
    "a yellow mug",
)
"""Eight names and four with a colour."""
SIZE = 192
SHOWN = (0, 1, 3)
"""Views of contact.png that are shown: the front, and two from the side and behind."""
DOCS = Path(__file__).parent.parent / "docs"


def make(prompt: str, folder: Path, *flags: str) -> float:
    """Runs `sds3d generate` unless its result is there; returns the seconds it took."""
    clock = folder / "wall_seconds.txt"
    if not clock.exists():
        began = time.monotonic()
        command = [sys.executable, "-m", "sds3d", "generate", prompt, *flags, "--out", str(folder), "--quiet"]
        subprocess.run(command, check=True)
        clock.write_text(f"{time.monotonic() - began:.1f}\n")
    return float(clock.read_text())


def tile(folder: Path, prompt: str) -> Image.Image:
    """A prompt and its asset from three sides."""
    sheet = Image.open(folder / "contact.png").convert("RGB")
    side = sheet.width // 4
    picture = Image.new("RGB", (len(SHOWN) * SIZE, SIZE + 18), "white")
    for place, view in enumerate(SHOWN):
        left, top = view % 4 * side, view // 4 * side
        picture.paste(sheet.crop((left, top, left + side, top + side)).resize((SIZE, SIZE)), (place * SIZE, 18))
    ImageDraw.Draw(picture).text((6, 3), prompt, fill=(60, 60, 60))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tiles, rows = [], []
    for prompt in PROMPTS:
        folder = given.out / prompt.replace(" ", "-")
        seconds = make(prompt, folder, "--preset", given.preset, "--seed", str(given.seed))
        report = json.loads((folder / "report.json").read_text())
        judged = report["judge"]
        rows.append(
            {
                "prompt": prompt,
                "recognised_views": judged["recognised"],
                "views": judged["views"],
                "iou": report["mesh_against_scene"]["iou"],
                "psnr": report["mesh_against_scene"]["psnr"],
                "seconds": seconds,
                "peak_memory_mb": report["peak_memory_mb"],
            }
        )
        tiles.append(np.asarray(tile(folder, prompt)))
        sys.stdout.write(f"{rows[-1]}\n")
    columns = 2
    sheet = np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])
    Image.fromarray(sheet).save(DOCS / "gallery.png", optimize=True)
    summary = {
        "preset": given.preset,
        "seed": given.seed,
        "recognised_prompts": sum(row["recognised_views"] >= 5 for row in rows),
        "mean_iou": round(statistics.mean(row["iou"] for row in rows), 4),
        "mean_psnr": round(statistics.mean(row["psnr"] for row in rows), 2),
        "median_seconds": statistics.median(row["seconds"] for row in rows),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
        "assets": rows,
    }
    (DOCS / "gallery.json").write_text(json.dumps(summary, indent=1) + "\n")
    sys.stdout.write(json.dumps({key: value for key, value in summary.items() if key != "assets"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
