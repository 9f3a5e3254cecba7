"""The tab where objectives stand side by side on one prompt."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.actions import Actions
from app.forms.fields import Choice, objectives, priors
from app.forms.form import PROMPT, number
from app.page.components import PRIVATE, live, one_line, owner, said
from configs.presets import PRESETS

FIRST = ("sds", "csd", "ism")
"""Chosen when the tab is opened."""


class CompareTab:
    """Builds the tab where it is made."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=4):
                self.prompt = gr.Textbox(
                    label="What to make", placeholder="a hamburger", max_length=PROMPT, elem_id="compare-prompt"
                )
                self.objectives = gr.Dropdown(
                    objectives(), value=list(FIRST), multiselect=True, label="Objectives", elem_id="compare-objectives"
                )
                with gr.Row():
                    self.seeds = gr.Number(1, label="Seeds of each", precision=0, minimum=1, elem_id="compare-seeds")
                    self.minutes = gr.Textbox(
                        "2", label="Minutes for each run", max_length=8, elem_id="compare-minutes"
                    )
                self.preset = gr.Radio(list(PRESETS), value=next(iter(PRESETS)), label="Preset")
                self.prior = gr.Dropdown(priors(), value="mini", label="Prior")
                self.go = gr.Button("Compare", variant="primary", size="lg", elem_id="compare")
                self.said = gr.HTML("", elem_classes="estimate", elem_id="compare-said")
            with gr.Column(scale=7):
                self.card = live(actions, "compare")
        inputs = [self.prompt, self.objectives, self.seeds, self.minutes, self.preset, self.prior]
        gr.on([self.go.click], self._start, inputs, [self.card, self.said], trigger_mode="once", **PRIVATE)

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
            id = self.actions.compare(prompt, names, seeds, number("time", minutes), choice, owner(request))
        except (ValueError, ImportError) as error:
            return gr.skip(), said(one_line(error), bad=True)
        runs = len(names) * int(seeds)
        return id, said(f"{runs} runs of {minutes} min each, one after another.")
