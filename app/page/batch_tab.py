"""The tab for many prompts: pasted or as a table, made one after another onto one sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app import batch
from app.actions import Actions
from app.forms.fields import Choice, choice_args
from app.page.components import PRIVATE, QUICK, ConfigPickers, component, error_result, one_line, owner, status_html


class BatchTab:
    """Builds the tab where it is made."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

        def look(name: str) -> dict[str, Any]:
            try:
                return actions.batch(str(name))
            except ValueError as error:
                return error_result(error)

        look.__name__ = "batch"
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=4):
                self.prompts = gr.Textbox(
                    label="Prompts, one a line",
                    placeholder="a teddy bear\na blue teapot\na snowman",
                    lines=8,
                    max_lines=20,
                    max_length=batch.MAX_BYTES,
                    elem_id="batch-prompts",
                )
                self.table = gr.File(
                    label="Or a CSV with a column prompt",
                    file_types=[".csv", ".tsv", ".txt"],
                    height=150,
                    elem_id="batch-table",
                )
                self.pickers = ConfigPickers("batch")
                self.submit_button = gr.Button("Make them all", variant="primary", size="lg", elem_id="batch")
                self.message = gr.HTML("", elem_classes="estimate", elem_id="batch-said")
            with gr.Column(scale=7):
                self.sheet = component("batch", [look], {}, "")
        inputs = [self.prompts, self.table, *self.pickers.inputs]
        self.submit_button.click(self._start, inputs, [self.sheet, self.message], trigger_mode="once", **PRIVATE)

    def listen(self, tabs: gr.Tabs, card: gr.HTML) -> None:
        """Ties a picture to the tab that shows one run."""

        def show(event: gr.EventData) -> tuple[Any, str]:
            data = event._data if isinstance(event._data, dict) else {}
            return gr.Tabs(selected="generate"), str(data.get("id", ""))[:200]

        self.sheet.open(show, None, [tabs, card], **QUICK)

    def _start(self, request: gr.Request, prompts: str, table: str | None, *values: Any) -> tuple[Any, str]:
        *picked, changed = values
        try:
            choice = self.pickers.choice(tuple(picked))
            sent = submit_batch(self.actions, prompts or "", table, choice, changed or {}, owner(request))
        except (ValueError, ImportError, OSError) as error:
            return gr.skip(), status_html(one_line(error), error=True)
        summary = f"{len(sent.ids)} in the queue." if sent.ids else "None was taken."
        return sent.name if sent.ids else gr.skip(), status_html(
            " ".join([summary, *sent.problems[:8]]), error=bool(sent.problems)
        )


def submit_batch(
    actions: Actions, prompts: str, table: str | None, choice: Choice, changed: dict[str, object], owner_id: str
) -> batch.SubmittedBatch:
    """Puts many prompts into the queue.

    Args:
        table: a file that the server has taken in, or None for `prompts`.

    Raises:
        ValueError: there are none, or none that can be read.
        OSError: the file can not be read.
    """
    flags = choice_args(choice, changed)
    if table is not None:
        file = Path(table)
        if file.stat().st_size > batch.MAX_BYTES:
            raise ValueError(f"the table has more than {batch.MAX_BYTES // 1024} KB, the most that is taken")
        found = batch.from_csv(file.read_bytes(), flags, actions.prompt_check(choice))
    else:
        found = batch.from_lines(prompts, flags, actions.prompt_check(choice))
    return batch.submit(actions.jobs, found, owner_id)
