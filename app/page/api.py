"""The same actions for programs: named endpoints, described in docs/page.md."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from app import batch
from app.actions import Actions
from app.fields import Choice
from app.form import Form, defaults, number, whole
from app.page.batch_tab import start
from app.page.parts import one_line, owner


def offer(actions: Actions) -> None:
    """Declares the endpoints on the page that is being made."""
    for kind in (_Making, _Watching):
        made = kind(actions)
        for name in kind.NAMES:
            gr.api(getattr(made, name), api_name=name, concurrency_limit=4)


class _Endpoints:
    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def _form(self, asked: dict[str, Any]) -> Form:
        """A form from what a program sends. Raises ValueError for names that no form has."""
        known = {"prompt", "negative", "seed", "minutes", "values", *Choice.__dataclass_fields__}
        for name in asked:
            if name not in known:
                raise ValueError(f"{str(name)[:80]!r} is not taken; expected {', '.join(sorted(known))}")
        values = asked.get("values") or {}
        if not isinstance(values, dict):
            raise ValueError("values is no object of names and values")
        choice = Choice(**{name: str(asked[name]) for name in Choice.__dataclass_fields__ if asked.get(name)})
        minutes = asked.get("minutes")
        return Form(
            str(asked.get("prompt", "")),
            choice,
            str(asked.get("negative") or ""),
            whole("seed", asked.get("seed") or 0),
            None if minutes in (None, "") else number("time budget", minutes),
            values,
        )


class _Making(_Endpoints):
    """Endpoints that put something into the queue."""

    NAMES = ("generate", "estimate", "compare", "batch", "texture", "refine", "edit", "resume", "cancel", "delete")

    def generate(self, asked: dict, request: gr.Request) -> str:  # type: ignore[type-arg]
        """A prompt to a finished asset; returns the run's id."""
        with _plain():
            return self.actions.generate(self._form(asked), owner(request))

    def estimate(self, asked: dict, measure: bool = False) -> str:  # type: ignore[type-arg]
        """How long such a run takes, in words; `measure` takes a few steps of it where that is not known."""
        with _plain():
            return self.actions.estimate(self._form(asked), measure)

    def compare(
        self, prompt: str, objectives: list, request: gr.Request, seeds: int = 1, minutes: float = 2.0  # type: ignore[type-arg]
    ) -> str:  # fmt: skip
        """Objectives side by side on one prompt; returns the run's id."""
        with _plain():
            return self.actions.compare(prompt, objectives, seeds, number("time", minutes), Choice(), owner(request))

    def batch(self, prompts: str, request: gr.Request, asked: dict | None = None) -> dict:  # type: ignore[type-arg]
        """Prompts, one a line; returns the ids of the runs, and one line for each prompt that was not taken."""
        with _plain():
            form = self._form({"prompt": "-", **(asked or {})})
            sent: batch.Sent = start(self.actions, prompts, None, form.choice, dict(form.changed), owner(request))
            return {"batch": sent.name, "runs": list(sent.ids), "wrong": list(sent.wrong)}

    def texture(self, model: dict, asked: dict, request: gr.Request) -> str:  # type: ignore[type-arg]
        """An uploaded GLB or OBJ painted by a prompt; returns the run's id."""
        with _plain():
            path = _uploaded(model)
            taken = self.actions.uploads.take(path, path.name, self.actions.in_use())
            return self.actions.texture(taken.id, self._form(asked), owner(request))

    def refine(self, run: str, request: gr.Request, asked: dict | None = None) -> str:  # type: ignore[type-arg]
        """The mesh of a finished run made better; returns the new run's id."""
        with _plain():
            return self.actions.refine(run, self._form(asked or {}), owner(request))

    def edit(self, run: str, asked: dict, request: gr.Request) -> str:  # type: ignore[type-arg]
        """A finished run changed to what the prompt says; returns the new run's id."""
        with _plain():
            return self.actions.edit(run, self._form(asked), owner(request))

    def resume(self, run: str, request: gr.Request) -> str:
        """Goes on with a run that was stopped or interrupted."""
        with _plain():
            return self.actions.jobs.resume(run, owner(request)).id

    def cancel(self, run: str) -> str:
        """Stops a run; it exports what there is."""
        with _plain():
            self.actions.jobs.cancel(run)
            return run

    def delete(self, run: str) -> str:
        """Deletes a run that is over, with all its files."""
        with _plain():
            self.actions.jobs.delete(run)
            return run


class _Watching(_Endpoints):
    """Endpoints that only look, or fetch a file."""

    NAMES = ("status", "runs", "fields", "exports", "export")

    def status(self, run: str) -> dict:  # type: ignore[type-arg]
        """Where a run stands: state, line, share, figures, previews."""
        with _plain():
            return self.actions.look(run)

    def runs(self, search: str = "", page: int = 0) -> dict:  # type: ignore[type-arg]
        """All runs whose prompt has these words, the newest first, a page at a time."""
        with _plain():
            return self.actions.runs(search, page)

    def fields(self, asked: dict | None = None) -> list:  # type: ignore[type-arg]
        """The advanced fields that go with a choice of preset, prior, objective, scene and times."""
        with _plain():
            return defaults(self._form(asked or {}).choice)

    def exports(self, run: str) -> list:  # type: ignore[type-arg]
        """The files that may be had of a run."""
        with _plain():
            return self.actions.exported(run)

    def export(self, run: str, name: str) -> dict:  # type: ignore[type-arg]
        """Makes a file for a target, such as `blender`, checks it, and sends it."""
        with _plain():
            row = self.actions.export(run, name)
            path = row.pop("path")
            return {**row, "file": {"path": path, "meta": {"_type": "gradio.FileData"}} if path else None}


class _plain:
    """Turns an error of ours into one line that the client is told."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | ImportError | OSError | KeyError | TypeError):
            raise gr.Error(one_line(error), print_exception=False) from None


def _uploaded(file: dict[str, Any]) -> Path:
    """Where the server put an upload; any other path is refused. Raises ValueError."""
    served = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    path = Path(str(file.get("path", "") if isinstance(file, dict) else "")).resolve()
    if not (path.is_relative_to(served) and path.is_file()):
        raise ValueError("the model is no uploaded file; send it by gradio_client.handle_file")
    return path
