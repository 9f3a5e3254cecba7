"""The tab that begins with an asset: a mesh painted by a prompt, the mesh of a run made better, a run changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.actions import Actions
from app.forms.form import MAX_PROMPT_CHARS, Form
from app.jobs.job import Job
from app.page.components import PRIVATE, QUICK, ConfigPickers, ResultPanel, one_line, owner, run_card, status_html

FIXED_GROUPS = ("Scene", "Noise times")
"""Groups of fields that these commands choose themselves."""
MAX_OFFERED = 60
"""Runs that are offered."""
KEEP_UNCHANGED = "keeps what the prompt does not change"
BY_OBJECTIVE = "freely, by the objective below"


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
                self.pickers = ConfigPickers("texture", ("preset", "prior", "objective"), FIXED_GROUPS)
                self.seed = gr.Number(0, label="Seed", precision=0)
            with gr.Column(scale=6):
                self.card = run_card(actions, "texture")
                self.finished = ResultPanel(actions, self.card, "texture")
        more = [self.seed, *self.pickers.inputs]
        both = [self.card, self.paint_message]
        self.file.upload(self._upload, [self.file], [self.upload, self.upload_message], **PRIVATE)
        self.file.clear(lambda: ("", ""), None, [self.upload, self.upload_message], **QUICK)
        gr.on([self.paint.click], self._paint, [self.upload, self.prompt, *more], both, trigger_mode="once", **PRIVATE)
        gr.on(
            [self.refine.click],
            self._refine,
            [self.run, *more],
            [self.card, self.refine_message],
            trigger_mode="once",
            **PRIVATE,
        )
        gr.on(
            [self.edit.click],
            self._edit,
            [self.source, self.edit_prompt, self.edit_mode, *more],
            [self.card, self.edit_message],
            trigger_mode="once",
            **PRIVATE,
        )

    def _painting(self) -> None:
        self.file = gr.File(label="Model, GLB or OBJ", file_types=[".glb", ".obj"], height=130, elem_id="model")
        self.upload = gr.State("")
        self.upload_message = gr.HTML("", elem_classes="estimate", elem_id="model-about")
        self.prompt = gr.Textbox(
            label="What it should look like",
            placeholder="a red armchair",
            max_length=MAX_PROMPT_CHARS,
            elem_id="texture-prompt",
        )
        self.paint = gr.Button("Paint", variant="primary", size="lg", elem_id="paint")
        self.paint_message = gr.HTML("", elem_classes="estimate", elem_id="texture-said")

    def _refining(self) -> None:
        self.run = gr.Dropdown([], label="Run", elem_id="refine-run", allow_custom_value=False)
        self.refine = gr.Button("Refine", variant="primary", size="lg", elem_id="refine")
        self.refine_message = gr.HTML("", elem_classes="estimate")

    def _editing(self) -> None:
        self.source = gr.Dropdown([], label="Run", elem_id="edit-run", allow_custom_value=False)
        self.edit_prompt = gr.Textbox(
            label="What it should become",
            placeholder="a blue armchair",
            max_length=MAX_PROMPT_CHARS,
            elem_id="edit-prompt",
        )
        self.edit_mode = gr.Radio(
            [KEEP_UNCHANGED, BY_OBJECTIVE], value=KEEP_UNCHANGED, label="Changes", info="The prior is that of the run"
        )
        self.edit = gr.Button("Edit", variant="primary", size="lg", elem_id="edit")
        self.edit_message = gr.HTML("", elem_classes="estimate", elem_id="edit-said")

    def update_choices(self) -> tuple[Any, Any]:
        """The runs that can be refined and those that can be edited, the newest first."""
        runs, actions = self.actions.jobs.store.runs, self.actions
        return (
            self._run_choices(lambda job: job.is_over and (runs / job.id / "asset.glb").is_file()),
            self._run_choices(lambda job: actions.editable(job.id)),
        )

    def _run_choices(self, fits: Callable[[Job], bool]) -> Any:
        found = [job for job in self.actions.jobs.list() if fits(job)]
        return gr.Dropdown(choices=[(f"{job.prompt or job.id} ({job.id})", job.id) for job in found[:MAX_OFFERED]])

    def _upload(self, request: gr.Request, path: str | None) -> tuple[str, str]:
        if path is None:
            return "", ""
        try:
            found = self.actions.uploads.add(Path(path), Path(path).name, self.actions.uploads_in_use(), owner(request))
        except (ValueError, OSError) as error:
            return "", status_html(one_line(error), error=True)
        return found.id, status_html(" ".join([found.describe() + ".", *found.remarks]))

    def _form(self, prompt: str, values: tuple[Any, ...]) -> Form:
        seed, *picked, changed = values
        return Form(prompt, self.pickers.choice(tuple(picked)), "", seed or 0, None, changed or {})

    def _paint(self, request: gr.Request, upload: str, prompt: str, *values: Any) -> tuple[Any, str]:
        try:
            if not upload:
                raise ValueError("there is no model yet; upload a GLB or OBJ")
            return self.actions.texture(upload, self._form(prompt, values), owner(request)), ""
        except (ValueError, ImportError) as error:
            return gr.skip(), status_html(one_line(error), error=True)

    def _refine(self, request: gr.Request, run: str | None, *values: Any) -> tuple[Any, str]:
        try:
            if not run:
                raise ValueError("choose a finished run first")
            return self.actions.refine(run, self._form("", values), owner(request)), ""
        except (ValueError, ImportError) as error:
            return gr.skip(), status_html(one_line(error), error=True)

    def _edit(
        self, request: gr.Request, source: str | None, prompt: str, edit_mode: str, *values: Any
    ) -> tuple[Any, str]:
        try:
            if not source:
                raise ValueError("choose a finished run first")
            form = self._form(prompt, values)
            if edit_mode == KEEP_UNCHANGED:
                others = {name: value for name, value in form.overrides.items() if not name.startswith("objective.")}
                form = replace(form, choice=replace(form.choice, objective=""), overrides=others)
            return self.actions.edit(source, form, owner(request)), ""
        except (ValueError, ImportError) as error:
            return gr.skip(), status_html(one_line(error), error=True)
