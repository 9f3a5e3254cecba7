"""The tab where one prompt becomes one asset."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.actions import Actions
from app.forms.fields import base_config
from app.forms.form import MAX_PROMPT_CHARS, Form, default_fields, parse_float, prompt_warning
from app.page.components import (
    PRIVATE,
    QUICK,
    ConfigPickers,
    ResultPanel,
    component,
    one_line,
    owner,
    run_card,
    status_html,
)
from configs.registry import objective_name, scene_name
from sds3d.models.loading import is_mini

EXAMPLES = (
    *("a teddy bear", "a hamburger", "a snowman", "a blue teapot", "a red armchair"),
    *("a beetle car", "a birthday cake", "a wooden boat", "a green toaster", "a cat"),
)


class GenerateTab:
    """Builds the tab where it is made; `card` shows the run, `inputs` are the form."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=5):
                self._form()
            with gr.Column(scale=6):
                self.card = run_card(actions, "generate")
                self.finished = ResultPanel(actions, self.card, "generate")
        self._listen()

    def _form(self) -> None:
        self.prompt = gr.Textbox(
            label="What to make",
            placeholder="a teddy bear",
            max_length=MAX_PROMPT_CHARS,
            lines=1,
            max_lines=3,
            submit_btn=False,
            elem_id="prompt",
        )
        self.examples = component("chips", [], {"names": list(EXAMPLES)})
        self.submit_button = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
        self.message = gr.HTML("", elem_id="said", elem_classes="estimate")
        self.estimate = gr.HTML("", elem_id="estimate", elem_classes="estimate")
        self.pickers = ConfigPickers("generate")
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", info="Another seed, another asset", precision=0, elem_id="seed")
            self.minutes = gr.Textbox(
                "", label="Time budget, minutes", info="Steps are chosen to fit", max_length=8, elem_id="minutes"
            )
        self.negative = gr.Textbox(
            label="Negative prompt",
            placeholder="what it should not look like",
            max_length=MAX_PROMPT_CHARS,
            elem_id="negative",
        )
        self.measure = gr.Button("Measure a few steps first", size="sm", elem_id="measure")

    @property
    def inputs(self) -> list[Any]:
        """The form, in the order that `form` takes."""
        return [self.prompt, self.negative, self.seed, self.minutes, *self.pickers.inputs]

    def form(self, values: tuple[Any, ...]) -> Form:
        """The form from its values. Raises ValueError."""
        prompt, negative, seed, minutes, *picked, changed = values
        changed = changed if isinstance(changed, dict) else {}
        choice = self.pickers.choice(tuple(picked))
        budget = parse_float("time budget", minutes) if str(minutes or "").strip() else None
        return Form(str(prompt or ""), choice, str(negative or ""), seed or 0, budget, changed)

    @staticmethod
    def values_for(form: Form) -> tuple[Any, ...]:
        """Values for prompt, negative, seed and what is picked, to show a form again."""
        choice, preset = form.choice, base_config(form.choice)
        objective, scene = objective_name(preset.objective), scene_name(preset.scene)
        picked = (choice.preset, choice.prior, objective, scene, choice.timesteps)
        return (
            form.prompt,
            form.negative,
            form.seed,
            *picked,
            gr.HTML(groups=default_fields(choice), value=dict(form.overrides)),
        )

    def first_estimate(self) -> str:
        """The estimate for the form as it is when the page opens."""
        return self._estimate_html(("", "", 0, "", *(box.value for box in self.pickers.boxes), {}), measure=False)

    def _listen(self) -> None:
        start = [self.submit_button.click, self.prompt.submit]
        gr.on(start, self._start, self.inputs, [self.card, self.message], trigger_mode="once", **PRIVATE)
        self.examples.picked(self._use_example, None, [self.prompt], **QUICK)
        again = [box.input for box in self.pickers.boxes]
        again += [self.minutes.change, self.pickers.advanced.change]
        gr.on(again, self._estimate, self.inputs, [self.estimate], trigger_mode="always_last", **QUICK)
        self.prompt.change(self._warn, self.inputs, [self.message], trigger_mode="always_last", **QUICK)
        self.measure.click(
            self._measure, self.inputs, [self.estimate], api_visibility="private", show_progress="minimal"
        )

    def _use_example(self, event: gr.EventData) -> str:
        return str(event._data.get("text", ""))[:MAX_PROMPT_CHARS] if isinstance(event._data, dict) else ""

    def _start(self, request: gr.Request, *values: Any) -> tuple[Any, str]:
        try:
            form = self.form(values)
            id = self.actions.generate(form, owner(request))
            warning = prompt_warning(form.prompt) if is_mini(form.choice.prior) else ""
        except (ValueError, ImportError) as error:
            return gr.skip(), status_html(one_line(error), error=True)
        return id, status_html(warning)

    def _warn(self, *values: Any) -> str:
        """Words that the prior passes over, told while one writes."""
        try:
            form = self.form(values)
            return status_html(prompt_warning(form.prompt) if form.prompt and is_mini(form.choice.prior) else "")
        except ValueError:
            return ""

    def _estimate(self, *values: Any) -> str:
        return self._estimate_html(values, measure=False)

    def _measure(self, *values: Any) -> str:
        return self._estimate_html(values, measure=True)

    def _estimate_html(self, values: tuple[Any, ...], measure: bool) -> str:
        try:
            prompt, *rest = values
            return status_html(self.actions.estimate(self.form((prompt or "a cat", *rest)), measure))
        except (ValueError, ImportError) as error:
            return status_html(one_line(error), error=True)
