"""Makes the twelve assets of the gallery as splats and as a NeRF, and sets them side by side.

    python benchmarks/scenes.py [--steps 200] [--at-once 2] [--out runs/scenes]

Every asset is one `sds3d generate` of the preset draft in a process of one thread. Finished ones are kept when the
command is run again. Writes docs/scenes.md, .json and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from gallery import DOCS, PROMPTS, make
from PIL import Image, ImageDraw

from sds3d.evaluation.scene_evaluation import RECOGNISED
from sds3d.runs.provenance import versions

SCENES = ("splats", "nerf")
SIDE = 128
SHOWN = (0, 1, 3)
"""Views of contact.png that are shown: the front, and two from the side and behind."""


def made(prompt: str, scene: str, given: argparse.Namespace) -> dict[str, Any]:
    """One asset, from its report."""
    folder = given.out / scene / prompt.replace(" ", "-")
    seconds = make(prompt, folder, "--scene", scene, "--steps", str(given.steps))
    report = json.loads((folder / "report.json").read_text())
    return {
        "prompt": prompt,
        "scene": scene,
        "recognised_views": report["judge"]["recognised"],
        "probability": report["judge"]["probability"],
        "iou": report["mesh_against_scene"]["iou"],
        "psnr": report["mesh_against_scene"]["psnr"],
        "optimisation_seconds": report["seconds"]["optimisation"],
        "seconds": seconds,
        "peak_memory_mb": report["peak_memory_mb"],
    }


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the assets of one scene are together."""
    return {
        "assets": len(rows),
        "recognised": sum(row["recognised_views"] >= RECOGNISED for row in rows),
        "views_of_8": round(statistics.mean(row["recognised_views"] for row in rows), 2),
        "probability": round(statistics.mean(row["probability"] for row in rows), 3),
        "mean_iou": round(statistics.mean(row["iou"] for row in rows), 4),
        "mean_psnr": round(statistics.mean(row["psnr"] for row in rows), 2),
        "median_optimisation_seconds": statistics.median(row["optimisation_seconds"] for row in rows),
        "median_seconds": statistics.median(row["seconds"] for row in rows),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
    }


def told(data: dict[str, Any]) -> str:
    """The page docs/scenes.md."""
    lines = [
        "# Splats and NeRF, side by side",
        "",
        f"The prompts of the gallery, {data['steps']} steps of 4 views with the preset `draft`, seed 0, "
        f"{data['at_once']} runs at a time with one thread each. Views are those of the exported mesh that the judge "
        "takes for what was asked; IoU and PSNR are of mesh against scene. Written by `python benchmarks/scenes.py`; "
        "all numbers are in [scenes.json](scenes.json).",
        "",
        "![Each prompt as splats and as NeRF](scenes.png)",
        "",
        "| scene | recognised | views of 8 | probability | IoU | PSNR, dB | optimisation, s | in all, s | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for scene, row in data["scenes"].items():
        lines.append(
            f"| {scene} | {row['recognised']} of {row['assets']} | {row['views_of_8']:.1f} | {row['probability']:.2f} "
            f"| {row['mean_iou']:.3f} | {row['mean_psnr']:.1f} | {row['median_optimisation_seconds']:.0f} "
            f"| {row['median_seconds']:.0f} | {row['peak_memory_mb']:.0f} |"
        )
    return "\n".join([*lines, "", "Seconds are medians, memory is the most of any run.", ""])


def picture(out: Path) -> Image.Image:
    """A row for each prompt: its splats from three sides, then its NeRF."""
    left, top, wide = 110, 18, len(SHOWN) * SIDE
    sheet = Image.new("RGB", (left + len(SCENES) * (wide + 8), top + SIDE * len(PROMPTS)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, scene in enumerate(SCENES):
        draw.text((left + column * (wide + 8) + 6, 4), scene, fill="black")
    for (line, prompt), (column, scene) in product(enumerate(PROMPTS), enumerate(SCENES)):
        draw.text((4, top + line * SIDE + SIDE // 2), prompt, fill="black")
        with Image.open(out / scene / prompt.replace(" ", "-") / "contact.png") as contact:
            side = contact.width // 4
            for place, view in enumerate(SHOWN):
                corner = (view % 4 * side, view // 4 * side)
                tile = contact.convert("RGB").crop((*corner, corner[0] + side, corner[1] + side)).resize((SIDE, SIDE))
                sheet.paste(tile, (left + column * (wide + 8) + place * SIDE, top + line * SIDE))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=2)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with ThreadPoolExecutor(given.at_once) as pool:
        rows = list(pool.map(lambda pair: made(*pair, given), product(PROMPTS, SCENES)))
    scenes = {scene: summed([row for row in rows if row["scene"] == scene]) for scene in SCENES}
    about = {"steps": given.steps, "at_once": given.at_once, "versions": versions()}
    data = {**about, "scenes": scenes, "assets": rows}
    (given.docs / "scenes.json").write_text(json.dumps(data, indent=1) + "\n")
    (given.docs / "scenes.md").write_text(told(data))
    picture(given.out).save(given.docs / "scenes.png", optimize=True)


if __name__ == "__main__":
    main()
