"""What a job of the page is, and what is told of one that goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

State = Literal["waiting", "running", "done", "stopped", "failed", "interrupted"]
"""`stopped` by its owner, with what there was kept; `failed` with a reason; `interrupted` by the end of its process."""
ACTIVE_STATES: tuple[State, ...] = ("waiting", "running")
"""States of jobs that are not over."""
RESUMABLE_STATES: tuple[State, ...] = ("stopped", "failed", "interrupted")
"""States of jobs that can be taken up again."""
COMMANDS = ("generate", "edit", "refine", "texture", "compare")
"""Commands of `sds3d` that make a run."""
LEADING_ARGS = {"generate": 0, "compare": 0, "edit": 1, "refine": 1, "texture": 1}
"""Words before their prompt: the id of a run, or the name of an uploaded file."""
PROMPT_ARGS = {"generate": 1, "compare": 1, "edit": 1, "refine": 0, "texture": 1}
"""Prompts that they take."""


class LimitReached(ValueError):
    """The queue, one owner's share of it, or the disk is full; its text is one line for people."""


class NotFound(ValueError):
    """No run, or no file of one, has that name; its text is one line for people."""


@dataclass(frozen=True)
class Job:
    """One run of the store: made by the page, or by the command line in the same folder of runs."""

    id: str
    """Name of its folder under the folder of runs."""
    command: str
    """One of `COMMANDS`."""
    args: tuple[str, ...] = ()
    """What stands after the command, without `--out`; empty for runs of the command line."""
    owner: str = ""
    """Whose share of the queue it takes; empty for runs of the command line."""
    created_at: float = 0.0
    """When it was asked for, in seconds since 1970; `asked`, `began` and `ended` likewise."""
    state: State = "waiting"
    reason: str = ""
    """One line: why it failed, or what `interrupted` means here."""
    prompt: str = ""
    batch: str = ""
    """What it was put into the queue with; empty for a run of its own."""
    queued_at: float = 0.0
    """When it was last put into the queue: jobs are taken in this order."""
    started_at: float | None = None
    ended_at: float | None = None
    stopping: bool = False
    """It was cancelled; while it runs, it is exporting what it has."""
    last_step: int | None = None
    """A step to go on to, in place of the one in run.yaml."""
    report_mtime_before: int = 0
    """Age of the report that was there before it began (ns since 1970): only a newer one is its own."""
    external: bool = False
    """Made by the command line: it can be looked at, taken up again and deleted, but not cancelled."""

    @property
    def is_over(self) -> bool:
        return self.state not in ACTIVE_STATES

    def to_json(self) -> bytes:
        """As JSON."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @staticmethod
    def from_json(content: bytes) -> Job:
        """What `dump` wrote. Raises ValueError for anything else."""
        data = json.loads(content)
        if not isinstance(data, dict):
            raise ValueError("a job is no JSON object")
        known = {f.name for f in fields(Job)}
        values: dict[str, Any] = {name: value for name, value in data.items() if name in known}
        try:
            job = Job(**{**values, "args": tuple(map(str, values.get("args", ())))})
        except TypeError as error:
            raise ValueError(f"a job lacks what it should have: {error}") from None
        if job.state not in get_args(State) or job.command not in COMMANDS or not isinstance(job.id, str):
            raise ValueError(f"no such job: {job.id!r}, {job.command!r}, {job.state!r}")
        return job


@dataclass(frozen=True)
class Progress:
    """How far a run is; None for what is not known (yet)."""

    step: int = 0
    steps: int = 0
    """Last step; 0 while it is not known."""
    fraction: float = 0.0
    """Of all that is to do, 0 to 1."""
    seconds_left: float | None = None
    """Of optimisation; the mesh takes some more after it."""
    seconds_per_step: float | None = None
    grad_rms: float | None = None
    """Root mean square that the last step asked for."""
    scene: str = ""
    """Its size in words, such as "7884 splats"."""
    memory_mb: float | None = None
    fronts: int | None = None
    """How many fronts the judge finds in the asset, or so far in the scene; more than one is the Janus defect."""
    queue_position: int = 0
    """In the queue, from 1; 0 for what does not wait."""
    last_line: str = ""
    """The last plain line that the run said."""
    previews: tuple[Path, ...] = ()
    """Pictures of steps, the earliest first."""
    asset: Path | None = None
    """asset.glb, or picture.png for a flat scene."""
    files: tuple[Path, ...] = ()
    """All finished files that a user may want, the asset first."""
    resumable: bool = False
    """It is over, short of its end, and has a checkpoint to go on from."""
    report: dict[str, Any] = field(default_factory=dict)
    """report.json of a run, results.json of a comparison; empty before."""
