"""Pieces that several tabs are made of: components with a script of their own, and who is asking."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.actions import Actions
from app.forms.fields import (
    Choice,
    objective_choices,
    preset_choices,
    prior_choices,
    scene_names,
    timestep_sampler_choices,
)
from app.forms.form import default_fields
from app.page.theme import read_script, read_text
from configs.presets import PRESETS

ServerFunction = Callable[..., dict[str, Any]]
"""A function that a component's script asks: plain values in and out, errors as {"error": one line}."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""How the page listens to its own components: not as a part of the API."""
QUICK: dict[str, Any] = {**PRIVATE, "queue": False}


def owner(request: Any) -> str:
    """Whose share of the queue something takes: the user who signed in, or the machine that asks.

    `request` is gradio's, or the plainer one inside it, which knows no user: where there is one account, it is his.
    """
    accounts = getattr(getattr(request, "app", None), "auth", None)
    user = getattr(request, "username", None) or (next(iter(accounts)) if accounts else None)
    client = getattr(request, "client", None)
    return str(user or (client.host if client else "unknown"))


def error_result(error: Exception) -> dict[str, Any]:
    """An error for a script."""
    return {"error": one_line(error)}


def run_action(act: Callable[[], object]) -> dict[str, Any]:
    """What a script hears of something that was to be done: nothing, or why it was not."""
    try:
        act()
    except ValueError as error:
        return error_result(error)
    return {}


def resume_function(actions: Actions) -> ServerFunction:
    """The function by which scripts go on with a run."""

    def resume(id: str, request: Any) -> dict[str, Any]:
        return run_action(lambda: actions.jobs.resume(str(id), owner(request)))

    # Gradio goes by this, though what it hands to functions of scripts is the request inside one.
    resume.__annotations__["request"] = gr.Request
    return resume


def one_line(error: Exception) -> str:
    """An error in one line without the advice for a command line."""
    return " ".join(str(error).split()).partition(" (see sds3d")[0]


def status_html(text_line: str, error: bool = False) -> str:
    """One line under a form, as HTML."""
    role = "alert" if error else "status"
    return f'<p class="{"bad" if error else ""}" role="{role}">{html.escape(text_line)}</p>' if text_line else ""


def component(name: str, functions: list[ServerFunction], properties: dict[str, Any], value: Any = None) -> gr.HTML:
    """A component made of NAME.html and NAME.js.

    Args:
        functions: what its script may ask the server, by their names.
        properties: further properties that the script reads.
    """
    return gr.HTML(
        value,
        html_template=read_text(f"{name}.html"),
        js_on_load=read_script(f"{name}.js"),
        apply_default_css=False,
        server_functions=functions,
        elem_id=f"{name}-{properties.pop('place')}" if "place" in properties else name,
        **properties,
    )


def run_card(actions: Actions, tab_name: str) -> gr.HTML:
    """The card of one run; its value is the run's id."""

    def look(id: str) -> dict[str, Any]:
        try:
            return actions.card(str(id))
        except ValueError as error:
            return error_result(error)

    def cancel(id: str) -> dict[str, Any]:
        return run_action(lambda: actions.jobs.cancel(str(id)))

    def whole(id: str) -> dict[str, Any]:
        try:
            return {"html": actions.jobs.file(str(id), "index.html").read_text(encoding="utf-8")}
        except (ValueError, OSError) as error:
            return error_result(error)

    return component("live", [look, cancel, resume_function(actions), whole], {"place": tab_name}, "")


def export_list(actions: Actions, tab_name: str) -> gr.HTML:
    """What may be had of a finished run; its value is the run's id."""

    def exported(id: str) -> dict[str, Any]:
        try:
            return {"rows": actions.export_rows(str(id))}
        except ValueError as error:
            return error_result(error)

    def export(request: dict[str, str]) -> dict[str, Any]:
        try:
            return actions.export(str(request["id"]), str(request["name"]))
        except (ValueError, KeyError, TypeError) as error:
            return error_result(error)

    return component("files", [exported, export], {"place": tab_name}, "")


class ResultPanel:
    """What a finished run shows: the asset in 3D and its files."""

    def __init__(self, actions: Actions, card: gr.HTML, tab_name: str) -> None:
        self._actions = actions
        self.viewer = component("viewer", [], {"place": tab_name}, {})
        self.files = export_list(actions, tab_name)
        card.finished(self._show, [card], [self.viewer, self.files], **QUICK)

    def _show(self, id: str) -> tuple[dict[str, str], str]:
        """The files of the viewer, and the run whose files are listed; nothing of either while it goes on."""
        try:
            over = bool(id) and self._actions.jobs.get(id).is_over
        except ValueError:
            over = False
        if not over:
            return {}, ""
        found = {kind: self._path(id, name) for kind, name in (("mesh", "asset.glb"), ("splats", "splats.ply"))}
        return found, id

    def _path(self, id: str, name: str) -> str:
        try:
            return str(self._actions.jobs.file(id, name))
        except ValueError:
            return ""


class ConfigPickers:
    """Preset, prior, objective, scene, noise times, and the advanced fields that go with them."""

    def __init__(
        self,
        tab_name: str,
        only: tuple[str, ...] = ("preset", "prior", "objective", "scene", "timesteps"),
        without: tuple[str, ...] = (),
    ) -> None:
        """`without` names groups of fields that are left out, by how their titles begin."""
        first = next(iter(PRESETS))
        builders: dict[str, Callable[[], Any]] = {
            "preset": lambda: gr.Radio(
                list(PRESETS), value=first, label="Preset", info="; ".join(text for text, _ in preset_choices())
            ),
            "prior": lambda: gr.Dropdown(prior_choices(), value="mini", label="Prior"),
            "objective": lambda: gr.Dropdown(objective_choices(), value=PRESETS[first].objective, label="Objective"),
            "scene": lambda: gr.Dropdown(scene_names(), value="splats", label="Scene", filterable=False),
            "timesteps": lambda: gr.Dropdown(
                [("as the objective has them", ""), *timestep_sampler_choices()], value="", label="Noise times"
            ),
        }
        self.only, self._without = only, without
        self.boxes = []
        if "preset" in only:
            self.boxes.append(builders["preset"]())
        with gr.Accordion("Prior, objective, scene", open=False, elem_id=f"choices-{tab_name}") as self.accordion:
            self.boxes += [builders[name]() for name in only if name != "preset"]
            self.advanced = component(
                "fields", [], {"place": tab_name, "groups": self.field_groups(self._choice())}, {}
            )
        for box in self.boxes:
            box.input(self._update_groups, self.boxes, [self.advanced], trigger_mode="always_last", **QUICK)

    @property
    def inputs(self) -> list[Any]:
        """What an event takes to know the choice: the boxes and the advanced fields."""
        return [*self.boxes, self.advanced]

    def choice(self, values: tuple[Any, ...]) -> Choice:
        """The choice from the values of the boxes. Raises ValueError."""
        return self._choice(*values)

    def field_groups(self, choice: Choice) -> list[dict[str, Any]]:
        """The advanced fields of a choice. Raises ValueError, ImportError."""
        return [group for group in default_fields(choice) if not group["title"].startswith(self._without or ("-",))]

    def _choice(self, *values: Any) -> Choice:
        return Choice(**{name: str(value or "") for name, value in zip(self.only, values, strict=False)})

    def _update_groups(self, *values: Any) -> Any:
        try:
            return gr.HTML(groups=self.field_groups(self._choice(*values)))
        except (ValueError, ImportError) as error:
            raise gr.Error(one_line(error)) from None
