"""The tab where objectives stand side by side on one prompt."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.actions import Actions
from app.forms.fields import Choice, objective_choices, prior_choices
from app.forms.form import MAX_PROMPT_CHARS, parse_float
from app.page.components import PRIVATE, one_line, owner, run_card, status_html
from configs.presets import PRESETS

DEFAULT_OBJECTIVES = ("sds", "csd", "ism")
"""Chosen when the tab is opened."""


class CompareTab:
    """Builds the tab where it is made."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=4):
                self.prompt = gr.Textbox(
                    label="What to make",
                    placeholder="a hamburger",
                    max_length=MAX_PROMPT_CHARS,
                    elem_id="compare-prompt",
                )
                self.objectives = gr.Dropdown(
                    objective_choices(),
                    value=list(DEFAULT_OBJECTIVES),
                    multiselect=True,
                    label="Objectives",
                    elem_id="compare-objectives",
                )
                with gr.Row():
                    self.seeds = gr.Number(1, label="Seeds of each", precision=0, minimum=1, elem_id="compare-seeds")
                    self.minutes = gr.Textbox(
                        "2", label="Minutes for each run", max_length=8, elem_id="compare-minutes"
                    )
                self.preset = gr.Radio(list(PRESETS), value=next(iter(PRESETS)), label="Preset")
                self.prior = gr.Dropdown(prior_choices(), value="mini", label="Prior")
                self.submit_button = gr.Button("Compare", variant="primary", size="lg", elem_id="compare")
                self.message = gr.HTML("", elem_classes="estimate", elem_id="compare-said")
            with gr.Column(scale=7):
                self.card = run_card(actions, "compare")
        inputs = [self.prompt, self.objectives, self.seeds, self.minutes, self.preset, self.prior]
        gr.on(
            [self.submit_button.click], self._start, inputs, [self.card, self.message], trigger_mode="once", **PRIVATE
        )

    def _start(
        self,
        request: gr.Request,
        prompt: str,
        names: list[str],
        seeds: int,
        minutes: str,
        preset: str,
        prior: str,
    ) -> tuple[Any, str]:
        try:
            choice = Choice(str(preset), str(prior))
            id = self.actions.compare(prompt, names, seeds, parse_float("time", minutes), choice, owner(request))
        except (ValueError, ImportError) as error:
            return gr.skip(), status_html(one_line(error), error=True)
        runs = len(names) * int(seeds)
        return id, status_html(f"{runs} runs of {minutes} min each, one after another.")
