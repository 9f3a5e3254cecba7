"""The same actions for programs: named endpoints, described in docs/page.md."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import gradio as gr

from app import batch
from app.actions import Actions
from app.forms.api_schema import (
    BatchRequest,
    CompareRequest,
    EstimateRequest,
    ExportRequest,
    FormRequest,
    RunRequest,
    SearchRequest,
    validated,
)
from app.forms.fields import Choice
from app.forms.form import Form, default_fields, parse_float, parse_int
from app.page.batch_tab import submit_batch
from app.page.components import one_line, owner

_log = logging.getLogger(__name__)


def register(actions: Actions) -> None:
    """Declares the endpoints on the page that is being made."""
    for kind in (_WriteEndpoints, _ReadEndpoints):
        made = kind(actions)
        for name in kind.NAMES:
            gr.api(getattr(made, name), api_name=name, concurrency_limit=4)


class _Endpoints:
    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def _form(self, form: object) -> Form:
        """A form from what a program sends. Raises ValueError."""
        values = validated(FormRequest, form)
        choice = Choice(**{name: values[name] for name in Choice.__dataclass_fields__ if values.get(name)})
        minutes = values["minutes"]
        return Form(
            values["prompt"],
            choice,
            values["negative_prompt"] or "",
            parse_int("seed", values["seed"] or 0),
            None if minutes in (None, "") else parse_float("time budget", minutes),
            values["values"] or {},
        )

    def _run(self, run: object) -> str:
        """The id of a run. Raises ValueError."""
        return str(validated(RunRequest, {"run": run})["run"])


class _WriteEndpoints(_Endpoints):
    """Endpoints that put something into the queue."""

    NAMES = ("generate", "estimate", "compare", "batch", "texture", "refine", "edit", "resume", "cancel", "delete")

    def generate(self, form: Any, request: gr.Request) -> str:
        """A prompt to a finished asset; returns the run's id."""
        with _one_line_errors():
            return self.actions.generate(self._form(form), owner(request))

    def estimate(self, form: Any, measure: Any = False) -> str:
        """How long such a run takes, in words; `measure` takes a few steps of it where that is not known."""
        with _one_line_errors():
            checked = validated(EstimateRequest, {"measure": measure})
            return self.actions.estimate(self._form(form), checked["measure"])

    def compare(
        self, prompt: Any, objectives: Any, request: gr.Request, seeds: Any = 1, minutes: Any = 2.0
    ) -> str:  # fmt: skip
        """Objectives side by side on one prompt; returns the run's id."""
        with _one_line_errors():
            sent = {"prompt": prompt, "objectives": objectives, "seeds": seeds, "minutes": minutes}
            prompt, objectives, seeds, minutes = validated(CompareRequest, sent).values()
            return self.actions.compare(
                prompt, objectives, seeds, parse_float("time", minutes), Choice(), owner(request)
            )

    def batch(self, prompts: Any, request: gr.Request, form: Any = None) -> Any:
        """Prompts, one a line; returns the ids of the runs, and one line for each prompt that was not taken."""
        with _one_line_errors():
            prompts = validated(BatchRequest, {"prompts": prompts})["prompts"]
            parsed = self._form(form or {})
            sent: batch.SubmittedBatch = submit_batch(
                self.actions, prompts, None, parsed.choice, dict(parsed.overrides), owner(request)
            )
            return {"batch": sent.name, "runs": list(sent.ids), "problems": list(sent.problems)}

    def texture(self, model: Any, form: Any, request: gr.Request) -> str:
        """An uploaded GLB or OBJ painted by a prompt; returns the run's id."""
        with _one_line_errors():
            path = _uploaded_path(model)
            upload = self.actions.uploads.add(path, path.name, self.actions.uploads_in_use(), owner(request))
            return self.actions.texture(upload.id, self._form(form), owner(request))

    def refine(self, run: Any, request: gr.Request, form: Any = None) -> str:
        """The mesh of a finished run made better; returns the new run's id."""
        with _one_line_errors():
            return self.actions.refine(self._run(run), self._form(form or {}), owner(request))

    def edit(self, run: Any, form: Any, request: gr.Request) -> str:
        """A finished run changed to what the prompt says; returns the new run's id."""
        with _one_line_errors():
            return self.actions.edit(self._run(run), self._form(form), owner(request))

    def resume(self, run: Any, request: gr.Request) -> str:
        """Goes on with a run that was stopped or interrupted."""
        with _one_line_errors():
            return self.actions.jobs.resume(self._run(run), owner(request)).id

    def cancel(self, run: Any) -> str:
        """Stops a run; it exports what there is."""
        with _one_line_errors():
            id = self._run(run)
            self.actions.jobs.cancel(id)
            return id

    def delete(self, run: Any) -> str:
        """Deletes a run that is over, with all its files."""
        with _one_line_errors():
            id = self._run(run)
            self.actions.jobs.delete(id)
            return id


class _ReadEndpoints(_Endpoints):
    """Endpoints that only look, or fetch a file."""

    NAMES = ("status", "runs", "fields", "exports", "export")

    def status(self, run: Any) -> Any:
        """Where a run stands: state, line, share, figures, previews."""
        with _one_line_errors():
            return self.actions.card(self._run(run))

    def runs(self, search: Any = "", page: Any = 0) -> Any:
        """All runs whose prompt has these words, the newest first, a page at a time."""
        with _one_line_errors():
            return self.actions.runs(*validated(SearchRequest, {"search": search, "page": page}).values())

    def fields(self, form: Any = None) -> Any:
        """The advanced fields that go with a choice of preset, prior, objective, scene and times."""
        with _one_line_errors():
            return default_fields(self._form(form or {}).choice)

    def exports(self, run: Any) -> Any:
        """The files that may be had of a run."""
        with _one_line_errors():
            return self.actions.export_rows(self._run(run))

    def export(self, run: Any, name: Any) -> Any:
        """Makes a file for a target, such as `blender`, checks it, and sends it."""
        with _one_line_errors():
            row = self.actions.export(*validated(ExportRequest, {"run": run, "name": name}).values())
            path = row.pop("path")
            return {**row, "file": {"path": path, "meta": {"_type": "gradio.FileData"}} if path else None}


class _one_line_errors:
    """Turns every error into one line for the client; those that are not expected are logged with their place."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, KeyboardInterrupt | GeneratorExit):
            return
        if isinstance(error, ValueError | ImportError | OSError):
            raise gr.Error(one_line(error), print_exception=False) from None
        _log.error("unexpected error in an endpoint", exc_info=error)
        raise gr.Error(f"internal error ({type(error).__name__}); see the log of the server", print_exception=False)


def _uploaded_path(file: object) -> Path:
    """Where the server put an upload; any other path is refused. Raises ValueError."""
    served = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    path = Path(str(file.get("path", "") if isinstance(file, dict) else "")).resolve()
    if not (path.is_relative_to(served) and path.is_file()):
        raise ValueError("the model is no uploaded file; send it by gradio_client.handle_file")
    return path
