"""The tab with every run: look for one, open it, make it again with changes, go on with it, delete it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.actions import Actions
from app.page.compare_tab import CompareTab
from app.page.components import QUICK, component, error_result, one_line, resume_function, run_action
from app.page.generate_tab import GenerateTab


class GalleryTab:
    """Builds the tab where it is made."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

        def runs(query: dict[str, Any]) -> dict[str, Any]:
            try:
                return actions.runs(str(query.get("text", ""))[:200], int(query.get("page", 0)))
            except (ValueError, TypeError, AttributeError) as error:
                return error_result(error)

        def remove(id: str) -> dict[str, Any]:
            return run_action(lambda: actions.jobs.delete(str(id)))

        self.run_list = component("gallery", [runs, resume_function(actions), remove], {}, 0)

    def listen(self, tabs: gr.Tabs, generating: GenerateTab, comparing: CompareTab, tab: gr.Tab) -> None:
        """Ties the buttons to the other tabs."""
        visit_count = gr.State(0)

        def again(count: int) -> tuple[int, int]:
            return count + 1, count + 1

        tab.select(again, [visit_count], [visit_count, self.run_list], **QUICK)
        self.run_list.open(self._open, None, [tabs, generating.card, comparing.card], **QUICK)
        form = [generating.prompt, generating.negative, generating.seed, *generating.pickers.inputs]
        self.run_list.again(self._refill_form, None, [tabs, generating.pickers.accordion, *form], **QUICK)

    def _open(self, event: gr.EventData) -> tuple[Any, Any, Any]:
        id = _id(event)
        try:
            compares = self.actions.jobs.get(id).command == "compare"
        except ValueError:
            return gr.skip(), gr.skip(), gr.skip()
        if compares:
            return gr.Tabs(selected="compare"), gr.skip(), id
        return gr.Tabs(selected="generate"), id, gr.skip()

    def _refill_form(self, event: gr.EventData) -> tuple[Any, ...]:
        try:
            form = self.actions.form_for(_id(event))
        except (ValueError, ImportError) as error:
            raise gr.Error(one_line(error)) from None
        return gr.Tabs(selected="generate"), gr.Accordion(open=True), *GenerateTab.values_for(form)


def _id(event: gr.EventData) -> str:
    return str(event._data.get("id", ""))[:200] if isinstance(event._data, dict) else ""
