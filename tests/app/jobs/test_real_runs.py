"""The queue with the command line itself, on the exact prior of flat pictures and on a few splats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.progress import sample_metrics
from app.jobs.queue import Jobs
from tests.support.app.polling import cancel_all, wait_for_steps, wait_until, wait_until_over

TOY = ("a red disc", "--prior", "toy", "--scene", "image", "--offline")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    opened = Jobs(tmp_path / "runs")
    yield opened
    cancel_all(opened)


def test_cancel_and_resume_a_real_run(jobs: Jobs) -> None:
    job = jobs.submit("generate", (*TOY, "--steps", "100000"), "ann")
    wait_for_steps(jobs, job.id)
    jobs.cancel(job.id)
    assert wait_until_over(jobs, job.id).state == "stopped", jobs.get(job.id).reason
    progress = jobs.progress(job.id)
    assert progress.asset is not None and progress.asset.name == "picture.png" and progress.resumable
    assert 0 < progress.step < progress.steps == 100_000
    assert [row["step"] for row in sample_metrics(jobs.store.folder(job.id))][-1] == progress.step

    jobs.resume(job.id, "ann", steps=progress.step + 3)
    assert wait_until_over(jobs, job.id).state == "done", jobs.get(job.id).reason
    assert jobs.progress(job.id).step == progress.step + 3


def test_real_error_message_is_shown(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("a green elephant", *TOY[1:]), "ann")
    assert wait_until_over(jobs, job.id).state == "failed"
    assert "a green elephant" in jobs.get(job.id).reason and not jobs.get(job.id).reason.startswith("sds3d:")


@pytest.mark.slow
def test_cancelled_splat_run_exports_a_mesh(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("a cat", "--steps", "5000", "--mesh-extraction.faces", "500"), "ann")
    wait_until(lambda: jobs.progress(job.id).step >= 60 or jobs.get(job.id).is_over)
    assert jobs.progress(job.id).previews
    jobs.cancel(job.id)
    assert wait_until_over(jobs, job.id).state == "stopped", jobs.get(job.id).reason
    progress = jobs.progress(job.id)
    assert progress.asset is not None and progress.asset.name == "asset.glb"
    assert {"splats.ply", "turntable.mp4"} <= {file.name for file in progress.files}


@pytest.mark.slow
def test_real_run_survives_its_server(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.submit("generate", (*TOY, "--steps", "100000"), "ann")
    wait_for_steps(jobs, job.id)
    pid = jobs.store.process(job.id).pid()
    jobs.close()
    again = Jobs(tmp_path / "runs")
    assert again.get(job.id).state == "running" and again.store.process(job.id).pid() == pid
    again.cancel(job.id)
    assert wait_until_over(again, job.id).state == "stopped" and again.progress(job.id).asset is not None
    again.close()
