"""The page: its tabs, and what happens when it is opened."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.actions import Actions
from app.page.api import offer
from app.page.batch_tab import BatchTab
from app.page.compare_tab import CompareTab
from app.page.components import QUICK, owner
from app.page.gallery_tab import GalleryTab
from app.page.generate_tab import GenerateTab
from app.page.texture_tab import TextureTab

DAY = 86_400
MAST = '<div class="mast"><h1>sds3d</h1><p>Text to 3D by score distillation, on this machine.</p></div>'


def page(actions: Actions) -> gr.Blocks:
    """All of it, not served yet."""
    with gr.Blocks(title="sds3d", analytics_enabled=False, delete_cache=(3600, DAY)) as made:
        gr.HTML(MAST, apply_default_css=False)
        with gr.Tabs() as tabs:
            with gr.Tab("Generate", id="generate"):
                generating = GenerateTab(actions)
            with gr.Tab("Compare", id="compare"):
                comparing = CompareTab(actions)
            with gr.Tab("Gallery", id="gallery") as gallery:
                shelf = GalleryTab(actions)
            with gr.Tab("Batch", id="batch"):
                batch = BatchTab(actions)
            with gr.Tab("Texture, refine, edit", id="texture") as texture:
                painting = TextureTab(actions)
        shelf.listen(tabs, generating, comparing, gallery)
        batch.listen(tabs, generating.card)
        texture.select(painting.offer, None, [painting.run, painting.source], **QUICK)
        offer(actions)

        def attach(request: gr.Request) -> tuple[Any, ...]:
            id, name = asked_for(actions, request), latest_batch(actions, request)
            if id and _compares(actions, id):
                return gr.Tabs(selected="compare"), "", id, name, generating.first_estimate()
            return gr.skip(), id, "", name, generating.first_estimate()

        opened = [tabs, generating.card, comparing.card, batch.sheet, generating.estimate]
        made.load(attach, None, opened, **QUICK)
    made.queue(max_size=40, default_concurrency_limit=4)
    return made


def asked_for(actions: Actions, request: gr.Request) -> str:
    """The run that a new tab shows: the one in its address, else the newest of its owner that goes on, else none."""
    id = str(dict(request.query_params).get("run", ""))[:200]
    if id:
        return id
    mine = (job.id for job in actions.jobs.list() if not job.over and job.owner == owner(request) and not job.batch)
    return next(mine, "")


def latest_batch(actions: Actions, request: gr.Request) -> str:
    """The newest batch of a visitor that goes on; empty where there is none."""
    mine = (job.batch for job in actions.jobs.list() if job.batch and not job.over and job.owner == owner(request))
    return next(mine, "")


def _compares(actions: Actions, id: str) -> bool:
    try:
        return actions.jobs.get(id).command == "compare"
    except ValueError:
        return False
