"""The page: its tabs, and what happens when it is opened."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.actions import Actions
from app.page.api import register
from app.page.batch_tab import BatchTab
from app.page.compare_tab import CompareTab
from app.page.components import QUICK, owner
from app.page.gallery_tab import GalleryTab
from app.page.generate_tab import GenerateTab
from app.page.texture_tab import TextureTab

DAY = 86_400
HEADER = '<div class="mast"><h1>sds3d</h1><p>Text to 3D by score distillation, on this machine.</p></div>'


def page(actions: Actions) -> gr.Blocks:
    """All of it, not served yet."""
    with gr.Blocks(title="sds3d", analytics_enabled=False, delete_cache=(3600, DAY)) as blocks:
        gr.HTML(HEADER, apply_default_css=False)
        with gr.Tabs() as tabs:
            with gr.Tab("Generate", id="generate"):
                generate_tab = GenerateTab(actions)
            with gr.Tab("Compare", id="compare"):
                compare_tab = CompareTab(actions)
            with gr.Tab("Gallery", id="gallery") as gallery:
                gallery_tab = GalleryTab(actions)
            with gr.Tab("Batch", id="batch"):
                batch = BatchTab(actions)
            with gr.Tab("Texture, refine, edit", id="texture") as texture:
                texture_tab = TextureTab(actions)
        gallery_tab.listen(tabs, generate_tab, compare_tab, gallery)
        batch.listen(tabs, generate_tab.card)
        texture.select(texture_tab.update_choices, None, [texture_tab.run, texture_tab.source], **QUICK)
        register(actions)

        def attach(request: gr.Request) -> tuple[Any, ...]:
            id, name = initial_run(actions, request), latest_batch(actions, request)
            if id and _is_comparison(actions, id):
                return gr.Tabs(selected="compare"), "", id, name, generate_tab.first_estimate()
            return gr.skip(), id, "", name, generate_tab.first_estimate()

        opened = [tabs, generate_tab.card, compare_tab.card, batch.sheet, generate_tab.estimate]
        blocks.load(attach, None, opened, **QUICK)
    blocks.queue(max_size=40, default_concurrency_limit=4)
    return blocks


def initial_run(actions: Actions, request: gr.Request) -> str:
    """The run that a new tab shows: the one in its address, else the newest of its owner that goes on, else none."""
    id = str(dict(request.query_params).get("run", ""))[:200]
    if id:
        return id
    mine = (job.id for job in actions.jobs.list() if not job.is_over and job.owner == owner(request) and not job.batch)
    return next(mine, "")


def latest_batch(actions: Actions, request: gr.Request) -> str:
    """The newest batch of a visitor that goes on; empty where there is none."""
    mine = (job.batch for job in actions.jobs.list() if job.batch and not job.is_over and job.owner == owner(request))
    return next(mine, "")


def _is_comparison(actions: Actions, id: str) -> bool:
    try:
        return actions.jobs.get(id).command == "compare"
    except ValueError:
        return False
