"""How the page looks: theme, style sheet, and the texts of its small scripts."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Quiet greys, one accent, fonts of the visitor's own system."""
    result = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        font=_SANS,
        font_mono=_MONO,
        radius_size=gr.themes.sizes.radius_md,
    )
    light_and_dark = {
        "body_background_fill": "#f6f5f2",
        "block_background_fill": "#ffffff",
        "block_border_color": "#e3e1db",
        "border_color_primary": "#d8d5cd",
        "body_text_color": "#22211f",
        "body_text_color_subdued": "#66635c",
        "block_label_text_color": "#55524b",
        "block_title_text_color": "#3a3833",
        "input_background_fill": "#fbfaf8",
        "button_primary_background_fill": "#1f6f68",
        "button_primary_background_fill_hover": "#185a54",
        "button_primary_text_color": "#ffffff",
        "color_accent": "#1f6f68",
        "color_accent_soft": "#e2efed",
        "link_text_color": "#1f6f68",
        "link_text_color_hover": "#185a54",
        "slider_color": "#1f6f68",
        "button_secondary_background_fill": "transparent",
        "button_secondary_background_fill_hover": "#f0eeea",
        "button_secondary_border_color": "#d8d5cd",
        "button_secondary_text_color": "#22211f",
        "checkbox_label_background_fill": "#fbfaf8",
        "checkbox_label_background_fill_hover": "#f0eeea",
        "checkbox_label_background_fill_selected": "#e2efed",
        "checkbox_label_border_color": "#d8d5cd",
        "checkbox_background_color_selected": "#1f6f68",
        "checkbox_border_color_selected": "#1f6f68",
    }
    dark = {
        "body_background_fill": "#151515",
        "block_background_fill": "#1e1e1d",
        "block_border_color": "#31302e",
        "border_color_primary": "#3b3a37",
        "body_text_color": "#e9e7e2",
        "body_text_color_subdued": "#a5a198",
        "block_label_text_color": "#b5b1a8",
        "block_title_text_color": "#cfccc4",
        "input_background_fill": "#191918",
        "button_primary_background_fill": "#58b3a8",
        "button_primary_background_fill_hover": "#74c4ba",
        "button_primary_text_color": "#0e1a19",
        "color_accent_soft": "#213432",
        "link_text_color": "#7cc8bf",
        "link_text_color_hover": "#9ad8d0",
        "slider_color": "#58b3a8",
        "button_secondary_background_fill": "transparent",
        "button_secondary_background_fill_hover": "#282826",
        "button_secondary_border_color": "#3b3a37",
        "button_secondary_text_color": "#e9e7e2",
        "checkbox_label_background_fill": "#191918",
        "checkbox_label_background_fill_hover": "#282826",
        "checkbox_label_background_fill_selected": "#213432",
        "checkbox_label_border_color": "#3b3a37",
        "checkbox_background_color_selected": "#58b3a8",
        "checkbox_border_color_selected": "#58b3a8",
    }
    result.set(**light_and_dark, **{f"{name}_dark": value for name, value in dark.items()})
    result.set(block_shadow="none", block_shadow_dark="none", block_radius="10px", button_large_radius="8px")
    result.set(block_border_width="1px", block_label_background_fill="transparent", input_radius="7px")
    result.set(button_border_width="1px", button_border_width_dark="1px", checkbox_label_border_width="1px")
    result.set(block_label_background_fill_dark="transparent", button_small_radius="7px", layout_gap="14px")
    return result


def head() -> str:
    """Rules for what stands around the page, where gradio lets no style sheet reach."""
    narrow = ".gradio-container{padding:0 10px 40px!important}.gradio-container>.main{padding:8px 0!important}"
    return f"<style>@media(max-width:640px){{{narrow}}}</style>"


def styles() -> str:
    """The style sheet."""
    return read_text("page.css")


def read_text(name: str) -> str:
    """A file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def read_script(name: str) -> str:
    """A script of a component, with what all of them share before it."""
    run_list = read_text("shelf.js") if name in ("gallery.js", "batch.js") else ""
    return read_text("shared.js") + run_list + read_text(name)
