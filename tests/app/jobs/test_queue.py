"""The queue: in their turn, within limits, and stopped with what they have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs import process
from app.jobs.job import Job, LimitReached, NotFound
from app.jobs.queue import Jobs
from tests.support.app.polling import (
    STUB_COMMAND,
    cancel_all,
    started_commands,
    wait_for_steps,
    wait_until,
    wait_until_over,
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def jobs(runs: Path) -> Iterator[Jobs]:
    opened = Jobs(runs, command=STUB_COMMAND)
    yield opened
    cancel_all(opened)


# --- a run and its end ---


def test_run_finishes_with_an_asset(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("quick cat", "--seed", "3"), "ann")
    assert (job.id, job.prompt, job.owner, job.state) == ("quick-cat", "quick cat", "ann", "waiting")
    assert wait_until_over(jobs, job.id).state == "done"
    progress = jobs.progress(job.id)
    assert (progress.step, progress.steps, progress.fraction) == (3, 3, 1.0)
    assert progress.asset is not None and progress.asset.read_text() == "asset of step 3"
    assert not progress.resumable


@pytest.mark.parametrize(
    ("prompt", "state", "words"),
    [
        ("bad words", "failed", "the prior knows none of these words"),
        ("broken thing", "failed", "a thing that should not be"),
        ("killed thing", "interrupted", "its process ended before it was done"),
    ],
)
def test_failed_run_reports_its_reason(jobs: Jobs, prompt: str, state: str, words: str) -> None:
    bad, good = jobs.submit("generate", (prompt,), "ann"), jobs.submit("generate", ("quick cat",), "ann")
    ended = wait_until_over(jobs, bad.id)
    assert ended.state == state and words in ended.reason and "\n" not in ended.reason
    assert wait_until_over(jobs, good.id).state == "done"


def test_start_failure_is_reported(runs: Path) -> None:
    jobs = Jobs(runs, command=("/no/such/program",))
    assert wait_until_over(jobs, jobs.submit("generate", ("quick",), "ann").id).state in ("failed", "interrupted")
    cancel_all(jobs)


def test_edit_starts_from_another_run(jobs: Jobs) -> None:
    first = jobs.submit("generate", ("quick cat",), "ann")
    wait_until_over(jobs, first.id)
    second = jobs.submit("edit", (first.id, "quick dog"), "ann")
    assert second.prompt == "quick dog"
    # The stub takes the folder that stands in place of the id for its prompt.
    wait_until(lambda: jobs.get(second.id).state != "waiting")
    over_or_going = jobs.store.process(second.id).log
    wait_until(lambda: str(jobs.store.folder(first.id)) in over_or_going.read_text())
    with pytest.raises(NotFound):
        jobs.submit("edit", ("../elsewhere", "quick dog"), "ann")


def test_rejects_other_commands(jobs: Jobs) -> None:
    for command in ("export", "doctor", "prior", "--help", ""):
        with pytest.raises(ValueError, match="there is no command"):
            jobs.submit(command, ("quick",), "ann")
    assert jobs.list() == []


def test_full_disk_rejects_jobs(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes neither the start nor the end of a run for a while, and then again."""
    write, refused = jobs.store.write, []

    def full(job: Job) -> None:
        if job.state != "waiting" and refused.count(job.state) < 2:
            refused.append(job.state)
            raise OSError(28, "No space left on device")
        write(job)

    monkeypatch.setattr(jobs.store, "write", full)
    job = jobs.submit("generate", ("quick cat",), "ann")
    assert wait_until_over(jobs, job.id).state == "done"
    assert refused == ["running", "running", "done", "done"] and started_commands(jobs, job.id) == ["generate"]


# --- turns and limits ---


def test_queue_is_first_in_first_out(jobs: Jobs) -> None:
    ids = [jobs.submit("generate", ("slow cat",), owner).id for owner in ("ann", "bob", "cas")]
    wait_until(lambda: jobs.get(ids[0]).state == "running")
    assert [jobs.get(id).state for id in ids] == ["running", "waiting", "waiting"]
    assert [jobs.progress(id).queue_position for id in ids] == [0, 1, 2]
    jobs.cancel(ids[0])
    wait_until(lambda: jobs.get(ids[1]).state == "running")
    assert jobs.get(ids[0]).is_over
    assert [jobs.progress(id).queue_position for id in ids] == [0, 0, 1]


def test_max_parallel(runs: Path) -> None:
    jobs = Jobs(runs, max_parallel=2, command=STUB_COMMAND)
    ids = [jobs.submit("generate", ("slow cat",), "ann").id for _ in range(3)]
    wait_until(lambda: [jobs.get(id).state for id in ids] == ["running", "running", "waiting"])
    cancel_all(jobs)


def test_max_per_owner_and_max_queued(runs: Path) -> None:
    jobs = Jobs(runs, max_queued=3, max_per_owner=2, command=STUB_COMMAND)
    first = jobs.submit("generate", ("slow cat",), "ann")
    wait_until(lambda: jobs.get(first.id).state == "running")
    second = jobs.submit("generate", ("slow cat",), "ann")
    with pytest.raises(LimitReached, match="2 is the most"):
        jobs.submit("generate", ("slow cat",), "ann")
    for owner in ("bob", "cas"):
        jobs.submit("generate", ("slow cat",), owner)
    with pytest.raises(LimitReached, match="3 runs are waiting"):
        jobs.submit("generate", ("slow cat",), "dan")
    assert len(jobs.list()) == 4, "what was refused leaves nothing"
    jobs.cancel(second.id)
    jobs.submit("generate", ("slow cat",), "ann")
    cancel_all(jobs)


def test_twenty_concurrent_owners(runs: Path) -> None:
    jobs = Jobs(runs, max_parallel=2, max_queued=10, max_per_owner=2, command=STUB_COMMAND)
    result: list[str] = []
    ids: list[str] = []

    def visit(number: int) -> None:
        for _ in range(3):
            try:
                ids.append(jobs.submit("generate", ("quick cat",), f"visitor {number}").id)
            except LimitReached as full:
                result.append(str(full))

    people = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(ids) + len(result) == 60 and len(ids) == len({*ids}) and len(ids) >= 10
    assert all("2 is the most" in line or "10 runs are waiting" in line for line in result)
    for id in ids:
        assert wait_until_over(jobs, id).state == "done"
        assert started_commands(jobs, id) == ["generate"]
    jobs.close()


def test_same_prompt_gets_unique_folders(jobs: Jobs) -> None:
    ids = [jobs.submit("generate", ("bad cat",), owner).id for owner in ("ann", "bob", "cas")]
    assert ids == ["bad-cat", "bad-cat-2", "bad-cat-3"]


# --- stopping ---


def test_cancelled_run_keeps_its_results(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("slow cat",), "ann")
    wait_for_steps(jobs, job.id)
    jobs.cancel(job.id)
    jobs.cancel(job.id)  # a second click asks for nothing more
    assert wait_until_over(jobs, job.id).state == "stopped"
    progress = jobs.progress(job.id)
    assert progress.asset is not None and progress.asset.read_text().startswith("asset of step")
    assert progress.resumable and 0 < progress.fraction < 1


def test_cancel_removes_a_queued_run(jobs: Jobs) -> None:
    first, second = (jobs.submit("generate", ("slow cat",), "ann") for _ in range(2))
    wait_until(lambda: jobs.get(first.id).state == "running")
    jobs.cancel(second.id)
    assert jobs.get(second.id).state == "stopped"
    jobs.cancel(first.id, kill=True)
    wait_until_over(jobs, first.id)
    assert started_commands(jobs, second.id) == []


def test_cancel_of_a_finished_run_is_a_no_op(jobs: Jobs) -> None:
    job = wait_until_over(jobs, jobs.submit("generate", ("quick cat",), "ann").id)
    jobs.cancel(job.id)
    assert jobs.get(job.id) == job


def test_kill_ends_an_unresponsive_run(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("stubborn cat",), "ann")
    wait_for_steps(jobs, job.id)
    jobs.cancel(job.id)
    assert jobs.get(job.id).stopping and not jobs.get(job.id).is_over
    jobs.cancel(job.id, kill=True)
    assert wait_until_over(jobs, job.id).state == "stopped"


def test_cancel_right_after_start(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is kept waiting until it can be told."""
    gate = tmp_path / "gate"
    monkeypatch.setattr(
        process, "_LAUNCH_SCRIPT", f"until [ -e '{gate}' ]; do sleep 0.02; done; {process._LAUNCH_SCRIPT}"
    )
    job = jobs.submit("generate", ("slow cat",), "ann")
    wait_until(lambda: jobs.get(job.id).state == "running")
    jobs.cancel(job.id)
    jobs.cancel(job.id)
    assert jobs.get(job.id).stopping and not jobs.get(job.id).is_over
    gate.touch()
    assert wait_until_over(jobs, job.id).state == "stopped"
    assert started_commands(jobs, job.id) in ([], ["generate"]) and jobs.progress(job.id).step < 6000


# --- going on ---


def test_resume_continues_from_the_checkpoint(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("slow cat",), "ann")
    wait_for_steps(jobs, job.id)
    jobs.cancel(job.id)
    wait_until_over(jobs, job.id)
    assert jobs.resume(job.id, "bob").state == "waiting"
    assert wait_until_over(jobs, job.id).state == "done"
    assert started_commands(jobs, job.id) == ["generate", "resume"]
    assert jobs.get(job.id).owner == "bob"


def test_resume_without_checkpoint_starts_over(jobs: Jobs) -> None:
    first = jobs.submit("generate", ("slow cat",), "ann")
    second = jobs.submit("generate", ("quick cat",), "ann")
    jobs.cancel(second.id)
    jobs.cancel(first.id, kill=True)
    jobs.resume(second.id, "ann")
    assert wait_until_over(jobs, second.id).state == "done"
    assert started_commands(jobs, second.id) == ["generate"]


def test_rejects_resume_of_active_or_finished_runs(jobs: Jobs) -> None:
    first, second = jobs.submit("generate", ("quick cat",), "ann"), jobs.submit("generate", ("slow cat",), "ann")
    wait_until_over(jobs, first.id)
    with pytest.raises(ValueError, match="is done; give more steps"):
        jobs.resume(first.id, "ann")
    with pytest.raises(ValueError, match="already"):
        jobs.resume(second.id, "ann")
    jobs.resume(first.id, "ann", steps=5)
    jobs.cancel(second.id, kill=True)
    assert wait_until_over(jobs, first.id).state == "done"
    assert started_commands(jobs, first.id) == ["generate", "resume"]


def test_clone_with_overrides(jobs: Jobs) -> None:
    first = jobs.submit("generate", ("quick cat", "--seed", "1", "--steps", "9"), "ann")
    second = jobs.clone(first.id, "bob", {"seed": "2", "prompt": "quick dog", "batch_size": "2"})
    assert second.args == ("quick dog", "--steps", "9", "--seed", "2", "--batch-size", "2")
    assert second.id == "quick-dog"


# --- deleting and finding ---


def test_delete_requires_a_finished_run(jobs: Jobs, runs: Path) -> None:
    first, second = jobs.submit("generate", ("quick cat",), "ann"), jobs.submit("generate", ("slow cat",), "ann")
    wait_until_over(jobs, first.id)
    wait_for_steps(jobs, second.id)
    with pytest.raises(ValueError, match="cancel it first"):
        jobs.delete(second.id)
    jobs.delete(first.id)
    with pytest.raises(NotFound):
        jobs.get(first.id)
    assert [job.id for job in jobs.list()] == [second.id]
    assert not [path for path in runs.rglob("*") if first.id in path.name or path.name.startswith("gone-")]


def test_search_matches_prompt_words(jobs: Jobs) -> None:
    for prompt in ("bad red cat", "bad blue cat", "bad dog"):
        jobs.submit("generate", (prompt,), prompt)
    assert [job.prompt for job in jobs.search("CAT bad")] == ["bad blue cat", "bad red cat"]
    assert len(jobs.search("")) == 3
