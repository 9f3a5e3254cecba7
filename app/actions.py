"""What the page and its API can do, as plain values in and out: no widget, and no path from a visitor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from app.exports import Exports
from app.forms.estimate import Estimate, from_history, measure_run
from app.forms.fields import Choice
from app.forms.form import (
    Form,
    flag_values,
    form_from_run,
    parse_args,
    parse_config,
    parse_int,
    parse_line,
    prompt_warning,
)
from app.jobs.queue import Jobs
from app.presenters import gallery_item, run_card
from app.uploads.uploads import Uploads
from sds3d.cli import arguments
from sds3d.models.loading import is_mini

PAGE_SIZE = 24
"""Runs on one page of the gallery."""


class Actions:
    """The page's verbs. Errors are ValueError with one line for people."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.exports = Exports(jobs.store)
        self.uploads = Uploads(jobs.store)

    def generate(self, form: Form, owner: str) -> str:
        """Puts a run into the queue; returns its id. Raises ValueError."""
        return self.jobs.submit("generate", self.args_with_budget(form), owner).id

    def args_with_budget(self, form: Form) -> list[str]:
        """The words of a form, its steps chosen by the time budget where there is one. Raises ValueError."""
        args = form.args()
        if form.minutes is None:
            return args
        if not 0 < form.minutes <= 24 * 60:
            raise ValueError(f"the time budget is {form.minutes:g} minutes; expected above 0, up to {24 * 60}")
        if "--steps" in args:
            raise ValueError("steps and a time budget were both given; clear one of them")
        estimate = self.cached_estimate(form) or measure_run(args)
        return [*args, "--steps", str(estimate.steps_within(form.minutes))]

    def estimate(self, form: Form, measure: bool = False) -> str:
        """How long a run will take, in words. Raises ValueError."""
        config = form.config()
        found = self.cached_estimate(form) or (measure_run(form.args()) if measure else None)
        if found is None:
            return "No run like this was made here yet; the first steps will tell how long it takes."
        return found.describe(found.steps_within(form.minutes) if form.minutes else config.steps)

    def cached_estimate(self, form: Form) -> Estimate | None:
        """What finished runs tell of one like it. Raises ValueError."""
        folders = [self.jobs.store.runs / job.id for job in self.jobs.list() if job.state == "done"]
        return from_history(form.config(), folders)

    def compare(
        self, prompt: str, objectives: list[str], seeds: int, minutes: float, choice: Choice, owner: str
    ) -> str:
        """Puts a comparison into the queue; returns its id. Raises ValueError."""
        prompt = parse_line("prompt", prompt)
        Form(prompt, choice).args()
        if not objectives or not all(isinstance(name, str) for name in objectives):
            raise ValueError("no objective is named; choose at least one")
        for name in objectives:
            replace(choice, objective=name)
        if not (1 <= parse_int("seeds", seeds) <= 10 and len(objectives) * int(seeds) <= 60):
            raise ValueError(f"{len(objectives)} objectives with {seeds} seeds; expected 1 to 10 seeds, up to 60 runs")
        if not 0 < minutes <= 120:
            raise ValueError(f"minutes is {minutes:g}; expected above 0, up to 120 a run")
        args = [prompt, "--objectives", ",".join(objectives), "--seeds", str(int(seeds)), "--minutes", f"{minutes:g}"]
        args += ["--preset", choice.preset, "--prior", choice.prior]
        return self.jobs.submit("compare", args, owner).id

    def texture(self, upload: str, form: Form, owner: str) -> str:
        """Puts a run into the queue that paints an uploaded model; returns its id. Raises ValueError."""
        return self.jobs.submit("texture", [upload, *_args_without(form, "scene", "timesteps")], owner).id

    def refine(self, id: str, form: Form, owner: str) -> str:
        """Puts a run into the queue that makes the mesh of another better; the prompt stays. Raises ValueError."""
        if not (self.jobs.store.folder(id) / "asset.glb").is_file():
            raise ValueError(f"{id} has no mesh yet; refine a finished run")
        args = _args_without(replace(form, prompt=self.jobs.get(id).prompt), "scene", "timesteps")
        return self.jobs.submit("refine", [id, *args[1:]], owner).id

    def edit(self, id: str, form: Form, owner: str) -> str:
        """Puts a run into the queue that changes another to what a prompt says; returns its id.

        Prior and scene are those of the other. Where no objective is chosen, DDS keeps what the prompt does not change.
        Raises ValueError.
        """
        if not self.editable(id):
            raise ValueError(f"{id} has nothing to start from; edit a finished run")
        prior = self.form_for(id).choice.prior
        choice = replace(form.choice, prior=prior, objective=form.choice.objective or arguments.EDITS)
        args = _args_without(replace(form, choice=choice), "scene", "timesteps", "prior")
        return self.jobs.submit("edit", [id, *args], owner).id

    def editable(self, id: str) -> bool:
        """Whether a run is over and has a scene to start from. Raises ValueError where there is none."""
        job, folder = self.jobs.get(id), self.jobs.store.folder(id)
        return job.is_over and job.command != "compare" and any(folder.glob("checkpoints/*.safetensors"))

    def card(self, id: str) -> dict[str, Any]:
        """One run as its card shows it. Raises ValueError."""
        job, folder = self.jobs.get(id), self.jobs.store.folder(id)
        return run_card(job, self.jobs.progress(id), folder)

    def runs(self, text: str = "", page: int = 0) -> dict[str, Any]:
        """One page of the gallery, and how many runs there are in all. Raises ValueError."""
        found = self.jobs.search(parse_line("search", text)) if text.strip() else self.jobs.list()
        page = max(0, min(parse_int("page", page), (len(found) - 1) // PAGE_SIZE))
        visible = found[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        rows = [gallery_item(job, self.jobs.store.runs / job.id) for job in visible]
        return {"runs": rows, "total": len(found), "page": page, "pages": max(1, -(-len(found) // PAGE_SIZE))}

    def batch(self, name: str) -> dict[str, Any]:
        """The runs of a batch in the order of its prompts. Raises ValueError where there is no such batch."""
        jobs = sorted(
            (job for job in self.jobs.list() if job.batch and job.batch == name), key=lambda job: job.created_at
        )
        if not jobs:
            raise ValueError("this batch is gone")
        done = sum(job.is_over for job in jobs)
        rows = [gallery_item(job, self.jobs.store.runs / job.id) for job in jobs]
        return {"runs": rows, "over": done == len(jobs), "line": f"{done} of {len(jobs)} made."}

    def prompt_check(self, choice: Choice) -> Callable[[Sequence[str]], object]:
        """What a batch asks about the words of each of its runs: raises ValueError where they do not fit."""

        def check(args: Sequence[str]) -> None:
            if parse_config(args).prior == choice.prior and is_mini(choice.prior):
                prompt_warning(args[0])

        return check

    def uploads_in_use(self) -> set[str]:
        """Uploads that runs wait for or may be made again from."""
        return {job.args[0] for job in self.jobs.list() if job.command == "texture" and job.args and not job.is_over}

    def form_for(self, id: str) -> Form:
        """The form that a run was made with, to change it. Raises ValueError for what no form can say."""
        job, folder = self.jobs.get(id), self.jobs.store.folder(id)
        return parse_args(job.args) if job.command == "generate" and job.args else form_from_run(folder)

    def export_rows(self, id: str) -> list[dict[str, Any]]:
        """The files that may be had of a run. Raises ValueError."""
        return [self._row(id, asdict(row)) for row in self.exports.rows(id)]

    def export(self, id: str, name: str) -> dict[str, Any]:
        """Makes one of them, and checks it. Raises ValueError."""
        return self._row(id, asdict(self.exports.make(id, name)))

    def _row(self, id: str, row: dict[str, Any]) -> dict[str, Any]:
        path = str(self.jobs.file(id, row["file"])) if row["file"] else ""
        return {**row, "path": path, "problems": list(row["problems"])}


def _args_without(form: Form, *excluded: str) -> list[str]:
    """The words of `generate`, without the flags that another command chooses itself. Raises as `Form.words`."""
    args = form.args()
    result: list[str] = [args[0]]
    for name, value in flag_values(args[1:]):
        if name.partition(".")[0] not in excluded:
            result += [f"--{name}={value}"] if name == "negative-prompt" else [f"--{name}", *value.split()]
    return result
