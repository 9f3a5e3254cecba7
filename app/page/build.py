"""The page: its tabs, and what happens when it is opened."""

from __future__ import annotations

import gradio as gr

from app.actions import Actions
from app.page.generate_tab import GenerateTab
from app.page.parts import QUICK, owner

DAY = 86_400
MAST = '<div class="mast"><h1>sds3d</h1><p>Text to 3D by score distillation, on this machine.</p></div>'


def page(actions: Actions) -> gr.Blocks:
    """All of it, not served yet."""
    with gr.Blocks(title="sds3d", analytics_enabled=False, delete_cache=(3600, DAY)) as made:
        gr.HTML(MAST, apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Generate", id="generate"):
                generating = GenerateTab(actions)

        def attach(request: gr.Request) -> tuple[str, str]:
            return asked_for(actions, request), generating.first_estimate()

        made.load(attach, None, [generating.card, generating.estimate], **QUICK)
    made.queue(max_size=40, default_concurrency_limit=4)
    return made


def asked_for(actions: Actions, request: gr.Request) -> str:
    """The run that a new tab shows: the one in its address, else the newest of its owner that goes on, else none."""
    id = str(dict(request.query_params).get("run", ""))[:200]
    if id:
        return id
    mine = (job.id for job in actions.jobs.list() if not job.over and job.owner == owner(request))
    return next(mine, "")
