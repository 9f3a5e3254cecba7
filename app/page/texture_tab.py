"""The tab that begins with an asset: a mesh painted by a prompt, the mesh of a run made better, a run changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.actions import Actions
from app.forms.form import PROMPT, Form
from app.jobs.job import Job
from app.page.components import PRIVATE, QUICK, Finished, Pickers, live, one_line, owner, said

OWN = ("Scene", "Noise times")
"""Groups of fields that these commands choose themselves."""
NEWEST = 60
"""Runs that are offered."""
KEEPING = "keeps what the prompt does not change"
FREE = "freely, by the objective below"


class TextureTab:
    """Builds the tab where it is made."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=5):
                with gr.Tabs():
                    with gr.Tab("Paint a model"):
                        self._painting()
                    with gr.Tab("Refine a run"):
                        self._refining()
                    with gr.Tab("Edit a run"):
                        self._editing()
                self.pickers = Pickers("texture", ("preset", "prior", "objective"), OWN)
                self.seed = gr.Number(0, label="Seed", precision=0)
            with gr.Column(scale=6):
                self.card = live(actions, "texture")
                self.finished = Finished(actions, self.card, "texture")
        more = [self.seed, *self.pickers.inputs]
        both = [self.card, self.said]
        self.file.upload(self._take, [self.file], [self.upload, self.about], **PRIVATE)
        self.file.clear(lambda: ("", ""), None, [self.upload, self.about], **QUICK)
        gr.on([self.paint.click], self._paint, [self.upload, self.prompt, *more], both, trigger_mode="once", **PRIVATE)
        gr.on(
            [self.refine.click],
            self._refine,
            [self.run, *more],
            [self.card, self.heard],
            trigger_mode="once",
            **PRIVATE,
        )
        gr.on(
            [self.edit.click],
            self._edit,
            [self.source, self.change, self.how, *more],
            [self.card, self.answer],
            trigger_mode="once",
            **PRIVATE,
        )

    def _painting(self) -> None:
        self.file = gr.File(label="Model, GLB or OBJ", file_types=[".glb", ".obj"], height=130, elem_id="model")
        self.upload = gr.State("")
        self.about = gr.HTML("", elem_classes="estimate", elem_id="model-about")
        self.prompt = gr.Textbox(
            label="What it should look like", placeholder="a red armchair", max_length=PROMPT, elem_id="texture-prompt"
        )
        self.paint = gr.Button("Paint", variant="primary", size="lg", elem_id="paint")
        self.said = gr.HTML("", elem_classes="estimate", elem_id="texture-said")

    def _refining(self) -> None:
        self.run = gr.Dropdown([], label="Run", elem_id="refine-run", allow_custom_value=False)
        self.refine = gr.Button("Refine", variant="primary", size="lg", elem_id="refine")
        self.heard = gr.HTML("", elem_classes="estimate")

    def _editing(self) -> None:
        self.source = gr.Dropdown([], label="Run", elem_id="edit-run", allow_custom_value=False)
        self.change = gr.Textbox(
            label="What it should become", placeholder="a blue armchair", max_length=PROMPT, elem_id="edit-prompt"
        )
        self.how = gr.Radio([KEEPING, FREE], value=KEEPING, label="Changes", info="The prior is that of the run")
        self.edit = gr.Button("Edit", variant="primary", size="lg", elem_id="edit")
        self.answer = gr.HTML("", elem_classes="estimate", elem_id="edit-said")

    def offer(self) -> tuple[Any, Any]:
        """The runs that can be refined and those that can be edited, the newest first."""
        runs, actions = self.actions.jobs.store.runs, self.actions
        return (
            self._offered(lambda job: job.over and (runs / job.id / "asset.glb").is_file()),
            self._offered(lambda job: actions.editable(job.id)),
        )

    def _offered(self, fits: Callable[[Job], bool]) -> Any:
        found = [job for job in self.actions.jobs.list() if fits(job)]
        return gr.Dropdown(choices=[(f"{job.prompt or job.id} ({job.id})", job.id) for job in found[:NEWEST]])

    def _take(self, request: gr.Request, path: str | None) -> tuple[str, str]:
        if path is None:
            return "", ""
        try:
            found = self.actions.uploads.take(Path(path), Path(path).name, self.actions.in_use(), owner(request))
        except (ValueError, OSError) as error:
            return "", said(one_line(error), bad=True)
        return found.id, said(" ".join([found.told() + ".", *found.remarks]))

    def _form(self, prompt: str, values: tuple[Any, ...]) -> Form:
        seed, *picked, changed = values
        return Form(prompt, self.pickers.choice(tuple(picked)), "", seed or 0, None, changed or {})

    def _paint(self, request: gr.Request, upload: str, prompt: str, *values: Any) -> tuple[Any, str]:
        try:
            if not upload:
                raise ValueError("there is no model yet; upload a GLB or OBJ")
            return self.actions.texture(upload, self._form(prompt, values), owner(request)), ""
        except (ValueError, ImportError) as error:
            return gr.skip(), said(one_line(error), bad=True)

    def _refine(self, request: gr.Request, run: str | None, *values: Any) -> tuple[Any, str]:
        try:
            if not run:
                raise ValueError("choose a finished run first")
            return self.actions.refine(run, self._form("", values), owner(request)), ""
        except (ValueError, ImportError) as error:
            return gr.skip(), said(one_line(error), bad=True)

    def _edit(self, request: gr.Request, source: str | None, prompt: str, how: str, *values: Any) -> tuple[Any, str]:
        try:
            if not source:
                raise ValueError("choose a finished run first")
            form = self._form(prompt, values)
            if how == KEEPING:
                others = {name: value for name, value in form.changed.items() if not name.startswith("objective.")}
                form = replace(form, choice=replace(form.choice, objective=""), changed=others)
            return self.actions.edit(source, form, owner(request)), ""
        except (ValueError, ImportError) as error:
            return gr.skip(), said(one_line(error), bad=True)
