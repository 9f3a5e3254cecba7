"""A comparison as one HTML page: no scripts, styles or fonts from elsewhere, only the pictures and films beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from sds3d.atomic_files import write_bytes
from sds3d.comparison.sheet import FRONT, POSTER_SIZE, SHEET
from sds3d.comparison.statistics import METRICS, Metric, MetricStats, Row, best
from sds3d.console import format_duration

PAGE = "index.html"
_STYLE = Path(__file__).with_name("compare_page.css")
_PLOTTED = ("probability", "saturation", "contrast", "sharpness", "seconds_per_step", "answers_per_step")
"""Measures that are drawn as dots."""
_COLUMNS = 3
"""Films in a row of an objective, at most."""
_SCRIPT = """
const films = document.querySelectorAll("video"), button = document.getElementById("films"), seen = new Set();
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const turn = film => playing && seen.has(film) ? film.play().catch(() => {}) : film.pause();
const set = value => {
  playing = value;
  button.textContent = playing ? "Pause the films" : "Play the films";
  films.forEach(turn);
};
const watch = new IntersectionObserver(changes => changes.forEach(({target, isIntersecting}) => {
  seen[isIntersecting ? "add" : "delete"](target);
  turn(target);
}), {threshold: 0.3});
films.forEach(film => { film.controls = false; watch.observe(film); });
button.addEventListener("click", () => set(!playing));
button.hidden = films.length === 0;
set(playing);
"""
"""Films play while they are on the screen, until someone pauses them, and not by themselves for those who asked for
less motion. Without scripts each has its own controls."""

Found = dict[str, dict[str, MetricStats]]


def write_page(out: Path, prompt: str, told: str, rows: Sequence[Row], found: Found) -> None:
    """The page of the runs in `out`, in the order given. Raises OSError where the disk refuses."""
    write_bytes(out / PAGE, page(prompt, told, rows, found).encode())


def page(prompt: str, told: str, rows: Sequence[Row], found: Found) -> str:
    """The page as text. `told` says in words what the runs have in common."""
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(prompt)}: objectives compared</title>",
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>",
        "</head>",
        "<body>",
        *_header(prompt, told, found),
        "<main>",
        "<section><h2>How they stand</h2>",
        *_summary(found),
        "</section>",
        *_plots(found),
        '<section><div class="head"><h2>Assets</h2>',
        '<button id="films" type="button" hidden>Pause the films</button></div>',
        f'<div class="objectives" style="--columns: {min(_seeds(found), _COLUMNS)}">',
        *[line for name in found for line in _gallery(prompt, [row for row in rows if row["objective"] == name])],
        "</div></section>",
        "<section><h2>All at once</h2>",
        f'<img class="sheet" src="{SHEET}" alt="Sheet of all assets, a row for each objective">',
        *_every_run(rows),
        "</section>",
        *_meanings(),
        "</main>",
        f"<script>{_SCRIPT}</script>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def _header(prompt: str, told: str, found: Found) -> list[str]:
    seeds = _seeds(found)
    return [
        "<header>",
        f"<h1>{escape(prompt)}</h1>",
        f'<p class="soft">{len(found)} objectives, {seeds} {"seed" if seeds == 1 else "seeds"} each. '
        f"{escape(told)}.</p>",
        "</header>",
    ]


def _seeds(found: Found) -> int:
    return max(len(row["steps"].values) for row in found.values())


def _summary(found: Found) -> list[str]:
    """The table of means and spreads."""
    winners = {measure.key: best(measure, found) for measure in METRICS}
    lines = [
        '<div class="scroll" role="region" aria-label="Table of means" tabindex="0"><table>',
        "<caption>Mean over seeds, with the standard deviation below it. Shaded: the best mean, where one can be "
        "better than another. A dash: not measured, see below.</caption>",
        '<thead><tr><th scope="col">objective</th>',
        *(f'<th scope="col" title="{escape(m.meaning)}">{escape(m.title)}</th>' for m in METRICS),
        "</tr></thead><tbody>",
    ]
    for name, row in found.items():
        cells = [_cell(measure, row[measure.key], name in winners[measure.key]) for measure in METRICS]
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return [*lines, "</tbody></table></div>"]


def _cell(measure: Metric, standing: MetricStats, wins: bool) -> str:
    spread = f'<span class="spread">±{measure.told(standing.spread)}</span>' if standing.spread is not None else ""
    kind = ' class="best"' if wins else ""
    return f"<td{kind}>{measure.told(standing.mean)}{spread}</td>"


def _plots(found: Found) -> list[str]:
    """Every run as a dot, every mean as a bar; the table holds the same numbers for those who can not see them."""
    drawn = [line for measure in METRICS if measure.key in _PLOTTED for line in _plot(measure, found)]
    if not drawn:
        return []
    head = '<p class="soft">A dot is a run, a bar the mean of its objective.</p>'
    return ["<section><h2>Run by run</h2>", head, '<div class="plots" aria-hidden="true">', *drawn, "</div></section>"]


def _plot(measure: Metric, found: Found) -> list[str]:
    """One measure; nothing where all its values are alike."""
    values = [value for row in found.values() for value in row[measure.key].values]
    if not values or measure.told(min(values)) == measure.told(max(values)):
        return []
    low, high = min(values), max(values)

    def left(value: float) -> str:
        return f'style="left:{100 * (value - low) / (high - low):.1f}%"'

    lines = [f'<div class="plot"><h3>{escape(measure.title)}</h3>']
    for name, row in found.items():
        standing = row[measure.key]
        dots = "".join(f"<i {left(value)}></i>" for value in standing.values)
        mean = "" if standing.mean is None else f"<b {left(standing.mean)}></b>"
        lines.append(f'<div class="row"><span>{escape(name)}</span><span class="track">{dots}{mean}</span></div>')
    ends = f"<span>{measure.told(low)}</span><span>{measure.told(high)}</span>"
    return [*lines, f'<div class="ends">{ends}</div></div>']


def _gallery(prompt: str, rows: Sequence[Row]) -> list[str]:
    """The films of one objective."""
    figures = [line for row in rows for line in _figure(prompt, row)]
    head = f"<article><h3>{escape(rows[0]['objective'])}</h3>"
    return [head, '<div class="assets">', *figures, "</div></article>"]


def _figure(prompt: str, row: Row) -> list[str]:
    """A film with its figures, or what went wrong."""
    name = f"{row['objective']}, seed {row['seed']}"
    facts = [f"seed {row['seed']}", f"{row['steps']} steps in {format_duration(row['seconds'])}"]
    if row["judge"]:
        fronts = row["judge"]["janus"]["fronts"]
        told = "" if fronts is None else f", {fronts} front{'' if fronts == 1 else 's'}"
        facts.insert(1, f"{row['judge']['recognised']}/{row['judge']['views']} recognised{told}")
    caption = f"<figcaption>{'<br>'.join(escape(fact) for fact in facts)}</figcaption>"
    if row["trouble"]:
        return ["<figure>", f'<div class="none">{escape(row["trouble"])}</div>', caption, "</figure>"]
    folder = quote(row["folder"])
    label = escape(f"Turntable of {prompt} by {name}")
    film = (
        f'<video src="{folder}/turntable.mp4" poster="{folder}/{FRONT}" width="{POSTER_SIZE}" height="{POSTER_SIZE}" '
        f'muted loop playsinline controls preload="none" aria-label="{label}"></video>'
    )
    return ["<figure>", film, caption, "</figure>"]


def _every_run(rows: Sequence[Row]) -> list[str]:
    """The numbers of each run."""
    shown = [measure for measure in METRICS if measure.key not in ("variance", "janus")]
    lines = [
        "<details><summary>The numbers of every run</summary>",
        '<div class="scroll" role="region" aria-label="Table of all runs" tabindex="0"><table>',
        "<caption>One row for each run; all of it and more is in results.json.</caption>",
        '<thead><tr><th scope="col">run</th>',
        *(f'<th scope="col">{escape(measure.title)}</th>' for measure in shown),
        "</tr></thead><tbody>",
    ]
    for row in rows:
        cells = "".join(f"<td>{measure.told(measure.read(row))}</td>" for measure in shown)
        lines.append(f'<tr><th scope="row">{escape(row["objective"])}, seed {row["seed"]}</th>{cells}</tr>')
    return [*lines, "</tbody></table></div></details>"]


def _meanings() -> list[str]:
    rows = [f"<dt>{escape(measure.title)}</dt><dd>{escape(measure.meaning)}</dd>" for measure in METRICS]
    return ['<section><h2>What is measured</h2><div class="why"><dl>', *rows, "</dl></div></section>"]
