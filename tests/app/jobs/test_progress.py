"""How far a run is, from files that may end in the middle of a word."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.job import Job
from app.jobs.job_status import IDLE_TIMEOUT_S, ExternalRuns, is_busy, mark_ended
from app.jobs.progress import TAIL_BYTES, error_line, last_line, progress_of, read_tail, sample_metrics
from app.jobs.store import Store
from configs.run import RunConfig
from configs.serialization import from_yaml, read_fields, to_yaml

JOB = Job("a-cat", "generate", ("a cat",), state="running")


def metrics_row(step: int) -> str:
    return json.dumps({"step": step, "gradient": step / 8, "seconds": 0.5, "scene": f"{step} splats", "memory_mb": 9})


def write_run(folder: Path, steps: int, done: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(f"prompt: a cat\nsteps: {steps}\n")
    (folder / "metrics.jsonl").write_text("".join(metrics_row(step) + "\n" for step in range(1, done + 1)))


@given(st.integers(1, 30), st.integers(0, 200), st.binary(max_size=20))
def test_partial_last_line_is_skipped(tmp_path: Path, done: int, cut: int, noise: bytes) -> None:
    """However a file of steps is cut short, the figures are those of a whole line in it."""
    write_run(tmp_path, 100, done)
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    saved = whole[: max(0, len(whole) - cut)]
    complete = len([line for line in saved.split(b"\n") if line and line + b"\n" in whole])
    file.write_bytes(saved + noise.replace(b"{", b"").replace(b"\n", b""))
    progress = progress_of(JOB, tmp_path, tmp_path / "none.log")
    assert complete - 1 <= progress.step <= complete
    if progress.step:
        assert (progress.scene, progress.grad_rms) == (f"{progress.step} splats", progress.step / 8)
        assert progress.seconds_left == pytest.approx(0.5 * (100 - progress.step))


@given(st.binary(max_size=400))
def test_reader_survives_any_bytes(tmp_path: Path, content: bytes) -> None:
    for name in ("metrics.jsonl", "report.json", "run.yaml", "job.log", "results.json"):
        (tmp_path / name).write_bytes(content)
    for command in ("generate", "compare"):
        progress_of(Job("x", command, state="failed"), tmp_path, tmp_path / "job.log")
    assert len(sample_metrics(tmp_path)) <= 201
    assert "\n" not in error_line(tmp_path / "job.log") + last_line(tmp_path / "job.log")


@pytest.mark.parametrize(
    "row", ['{"step": NaN}', '{"step": "x", "seconds": null}', '{"step": true}', '{"step": -1}', "[]"]
)
def test_non_finite_numbers_are_ignored(tmp_path: Path, row: str) -> None:
    write_run(tmp_path, 10, 0)
    (tmp_path / "metrics.jsonl").write_text(row + "\n")
    assert progress_of(JOB, tmp_path, tmp_path / "none.log").step == 0


def test_reads_only_the_tail_of_long_files(tmp_path: Path) -> None:
    write_run(tmp_path, 50_000, 20_000)
    assert sum(len(json.dumps(row)) for row in read_tail(tmp_path / "metrics.jsonl")) < TAIL_BYTES
    assert progress_of(JOB, tmp_path, tmp_path / "none.log").step == 20_000
    steps = [row["step"] for row in sample_metrics(tmp_path, 50)]
    assert steps == sorted({*steps}) and (steps[0], steps[-1]) == (1, 20_000)
    gaps = [b - a for a, b in pairwise(steps)]
    assert len(steps) >= 45 and max(gaps) < 3 * 20_000 / 50


def test_sample_metrics_returns_all_rows_of_short_runs(tmp_path: Path) -> None:
    write_run(tmp_path, 10, 10)
    assert [row["step"] for row in sample_metrics(tmp_path)] == list(range(1, 11))


def test_fronts_come_from_report_or_last_metrics(tmp_path: Path) -> None:
    write_run(tmp_path, 400, 0)
    rows = [{"step": 200, "fronts": 2}, {"step": 201}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert progress_of(JOB, tmp_path, tmp_path / "none.log").fronts == 2
    (tmp_path / "report.json").write_text(json.dumps({"steps": 400, "judge": {"janus": {"fronts": 1}}}))
    assert progress_of(JOB, tmp_path, tmp_path / "none.log").fronts == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("step 1\nsds3d: no such word\n", "no such word"),
        ("sds3d: no such word", "no such word"),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'a'\n", "it broke down: KeyError: 'a'"),
        ("step 1/600 2:00 left\n", ""),
        ("", ""),
    ],
)
def test_failure_reason_is_the_last_error_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "job.log").write_text(text)
    assert error_line(tmp_path / "job.log") == reason


def write_comparison(folder: Path, done: int, line: dict[str, object]) -> tuple[float, float | None]:
    """(share, seconds left) of four runs, so many of them done, and with that last line."""
    job = Job("x", "compare", ("a cat", "--objectives=sds,csd", "--seeds", "2", "--minutes", "2"), state="running")
    for seed, objective in [(seed, name) for seed in (0, 1) for name in ("sds", "csd")][:done]:
        result = {"objective": objective, "seed": seed, "seconds": 130.0}
        run = folder / "runs" / f"{objective}-seed-{seed}"
        run.mkdir(parents=True, exist_ok=True)
        (run / "result.json").write_text(json.dumps(result))
    (folder / "job.log").write_text('{"message": "four to do"}\n' + json.dumps(line) + "\n")
    progress = progress_of(job, folder, folder / "job.log")
    assert (progress.step, progress.steps, progress.last_line) == (done, 4, "four to do")
    return progress.fraction, progress.seconds_left


def test_comparison_progress_counts_each_run_once(tmp_path: Path) -> None:
    line = {"objective": "csd", "seed": 0, "step": 9, "share": 0.5, "left_seconds": 60.0}
    last = {**line, "share": 1.0, "left_seconds": 0.0}
    assert write_comparison(tmp_path, 0, {}) == (0.0, None)
    assert write_comparison(tmp_path, 1, line) == (0.375, 60 + 2 * 120)
    assert write_comparison(tmp_path, 1, last) == (0.5, 2 * 130), "being measured"
    assert write_comparison(tmp_path, 2, last) == (0.5, 2 * 130), "and written down"


# --- how runs ended ---


def test_stale_report_does_not_mean_done(tmp_path: Path) -> None:
    write_run(tmp_path, 10, 10)
    report = tmp_path / "report.json"
    report.write_text('{"steps": 10}')
    old = report.stat().st_mtime_ns
    log = tmp_path / "none.log"
    assert mark_ended(JOB, tmp_path, log).state == "done"
    resumed = Job("a-cat", "generate", report_mtime_before=old, state="running")
    assert mark_ended(resumed, tmp_path, log).state == "interrupted"
    report.write_text('{"steps": 4}')
    os.utime(report, ns=(old + 10**9, old + 10**9))
    assert mark_ended(resumed, tmp_path, log).state == "stopped"


def test_external_run_state_from_its_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, done in (("whole", 10), ("short", 4), ("cut", 4), ("going", 4)):
        write_run(tmp_path / name, 10, done)
        if name in ("whole", "short"):
            (tmp_path / name / "report.json").write_text(json.dumps({"steps": done}))
        if name != "going":
            for file in (tmp_path / name).iterdir():
                os.utime(file, (time.time() - 2 * IDLE_TIMEOUT_S,) * 2)
    (tmp_path / "no run").mkdir()
    outside = ExternalRuns(store)
    states = {job.id: job.state for job in outside.jobs(set())}
    assert states == {"whole": "done", "short": "stopped", "cut": "interrupted", "going": "running"}
    assert all(job.external and job.prompt == "a cat" for job in outside.jobs(set()))
    assert [job.id for job in outside.jobs({"whole", "cut", "going"})] == ["short"]
    (tmp_path / "going" / "report.json").write_text('{"steps": 10}')
    assert outside.job("going").state == "done"
    store.close()


def test_is_busy_while_files_are_written(tmp_path: Path) -> None:
    write_run(tmp_path, 10, 4)
    now = time.time()
    assert is_busy(tmp_path, now - 60) and not is_busy(tmp_path, now)
    for file in tmp_path.iterdir():
        os.utime(file, (now - 2 * IDLE_TIMEOUT_S,) * 2)
    assert not is_busy(tmp_path, 0.0)


# --- a glance at what was asked ---


@given(st.text(min_size=1, max_size=200).filter(str.strip), st.integers(1, 1000))
def test_read_fields_equals_full_parsing(tmp_path: Path, prompt: str, steps: int) -> None:
    text = to_yaml(RunConfig(prompt, steps=steps))
    (tmp_path / "run.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_fields(tmp_path / "run.yaml", ("prompt", "steps", "no such name"))
    assert found == {"prompt": from_yaml(text).prompt, "steps": steps}


def test_read_fields_of_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_fields(tmp_path / "none.yaml", ("prompt",)) == {}
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe")
    assert read_fields(tmp_path / "run.yaml", ("prompt",)) == {}
    (tmp_path / "run.yaml").write_text("prompt: [\n")
    assert read_fields(tmp_path / "run.yaml", ("prompt",)) == {}
