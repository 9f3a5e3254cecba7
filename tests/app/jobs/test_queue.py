"""The queue: in their turn, within limits, and stopped with what they have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs import process
from app.jobs.job import Full, Job, Unknown
from app.jobs.queue import Jobs
from tests.support.app.polling import STUB, over, starts, stepping, swept, until


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def jobs(runs: Path) -> Iterator[Jobs]:
    opened = Jobs(runs, command=STUB)
    yield opened
    swept(opened)


# --- a run and its end ---


def test_a_run_ends_in_an_asset(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("quick cat", "--seed", "3"), "ann")
    assert (job.id, job.prompt, job.owner, job.state) == ("quick-cat", "quick cat", "ann", "waiting")
    assert over(jobs, job.id).state == "done"
    progress = jobs.progress(job.id)
    assert (progress.step, progress.steps, progress.share) == (3, 3, 1.0)
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
def test_a_run_that_fails_says_why_and_harms_no_other(jobs: Jobs, prompt: str, state: str, words: str) -> None:
    bad, good = jobs.submit("generate", (prompt,), "ann"), jobs.submit("generate", ("quick cat",), "ann")
    ended = over(jobs, bad.id)
    assert ended.state == state and words in ended.reason and "\n" not in ended.reason
    assert over(jobs, good.id).state == "done"


def test_what_cannot_be_started_fails_with_a_reason(runs: Path) -> None:
    jobs = Jobs(runs, command=("/no/such/program",))
    assert over(jobs, jobs.submit("generate", ("quick",), "ann").id).state in ("failed", "interrupted")
    swept(jobs)


def test_a_run_starts_from_another_by_its_id(jobs: Jobs) -> None:
    first = jobs.submit("generate", ("quick cat",), "ann")
    over(jobs, first.id)
    second = jobs.submit("edit", (first.id, "quick dog"), "ann")
    assert second.prompt == "quick dog"
    # The stub takes the folder that stands in place of the id for its prompt.
    until(lambda: jobs.get(second.id).state != "waiting")
    over_or_going = jobs.store.process(second.id).log
    until(lambda: str(jobs.store.folder(first.id)) in over_or_going.read_text())
    with pytest.raises(Unknown):
        jobs.submit("edit", ("../elsewhere", "quick dog"), "ann")


def test_nothing_but_commands_that_make_runs_is_taken(jobs: Jobs) -> None:
    for command in ("export", "doctor", "prior", "--help", ""):
        with pytest.raises(ValueError, match="there is no command"):
            jobs.submit(command, ("quick",), "ann")
    assert jobs.list() == []


def test_a_full_disk_holds_the_queue_up_and_no_longer(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes neither the start nor the end of a run for a while, and then again."""
    write, refused = jobs.store.write, []

    def full(job: Job) -> None:
        if job.state != "waiting" and refused.count(job.state) < 2:
            refused.append(job.state)
            raise OSError(28, "No space left on device")
        write(job)

    monkeypatch.setattr(jobs.store, "write", full)
    job = jobs.submit("generate", ("quick cat",), "ann")
    assert over(jobs, job.id).state == "done"
    assert refused == ["running", "running", "done", "done"] and starts(jobs, job.id) == ["generate"]


# --- turns and limits ---


def test_runs_take_turns_in_the_order_they_were_asked_for(jobs: Jobs) -> None:
    ids = [jobs.submit("generate", ("slow cat",), owner).id for owner in ("ann", "bob", "cas")]
    until(lambda: jobs.get(ids[0]).state == "running")
    assert [jobs.get(id).state for id in ids] == ["running", "waiting", "waiting"]
    assert [jobs.progress(id).place for id in ids] == [0, 1, 2]
    jobs.cancel(ids[0])
    until(lambda: jobs.get(ids[1]).state == "running")
    assert jobs.get(ids[0]).over
    assert [jobs.progress(id).place for id in ids] == [0, 0, 1]


def test_as_many_run_as_were_allowed(runs: Path) -> None:
    jobs = Jobs(runs, at_once=2, command=STUB)
    ids = [jobs.submit("generate", ("slow cat",), "ann").id for _ in range(3)]
    until(lambda: [jobs.get(id).state for id in ids] == ["running", "running", "waiting"])
    swept(jobs)


def test_an_owner_has_a_share_and_the_queue_an_end(runs: Path) -> None:
    jobs = Jobs(runs, waiting=3, each=2, command=STUB)
    first = jobs.submit("generate", ("slow cat",), "ann")
    until(lambda: jobs.get(first.id).state == "running")
    second = jobs.submit("generate", ("slow cat",), "ann")
    with pytest.raises(Full, match="2 is the most"):
        jobs.submit("generate", ("slow cat",), "ann")
    for owner in ("bob", "cas"):
        jobs.submit("generate", ("slow cat",), owner)
    with pytest.raises(Full, match="3 runs are waiting"):
        jobs.submit("generate", ("slow cat",), "dan")
    assert len(jobs.list()) == 4, "what was refused leaves nothing"
    jobs.cancel(second.id)
    jobs.submit("generate", ("slow cat",), "ann")
    swept(jobs)


def test_twenty_people_at_once_are_served_or_told_to_wait(runs: Path) -> None:
    jobs = Jobs(runs, at_once=2, waiting=10, each=2, command=STUB)
    told: list[str] = []
    ids: list[str] = []

    def visit(number: int) -> None:
        for _ in range(3):
            try:
                ids.append(jobs.submit("generate", ("quick cat",), f"visitor {number}").id)
            except Full as full:
                told.append(str(full))

    people = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(ids) + len(told) == 60 and len(ids) == len({*ids}) and len(ids) >= 10
    assert all("2 is the most" in line or "10 runs are waiting" in line for line in told)
    for id in ids:
        assert over(jobs, id).state == "done"
        assert starts(jobs, id) == ["generate"]
    jobs.close()


def test_the_same_prompt_gets_a_folder_of_its_own_each_time(jobs: Jobs) -> None:
    ids = [jobs.submit("generate", ("bad cat",), owner).id for owner in ("ann", "bob", "cas")]
    assert ids == ["bad-cat", "bad-cat-2", "bad-cat-3"]


# --- stopping ---


def test_a_run_that_is_stopped_keeps_what_it_has(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("slow cat",), "ann")
    stepping(jobs, job.id)
    jobs.cancel(job.id)
    jobs.cancel(job.id)  # a second click asks for nothing more
    assert over(jobs, job.id).state == "stopped"
    progress = jobs.progress(job.id)
    assert progress.asset is not None and progress.asset.read_text().startswith("asset of step")
    assert progress.resumable and 0 < progress.share < 1


def test_a_run_that_waits_is_taken_from_the_queue(jobs: Jobs) -> None:
    first, second = (jobs.submit("generate", ("slow cat",), "ann") for _ in range(2))
    until(lambda: jobs.get(first.id).state == "running")
    jobs.cancel(second.id)
    assert jobs.get(second.id).state == "stopped"
    jobs.cancel(first.id, at_once=True)
    over(jobs, first.id)
    assert starts(jobs, second.id) == []


def test_stopping_what_is_over_changes_nothing(jobs: Jobs) -> None:
    job = over(jobs, jobs.submit("generate", ("quick cat",), "ann").id)
    jobs.cancel(job.id)
    assert jobs.get(job.id) == job


def test_a_run_that_does_not_listen_is_ended_at_once(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("stubborn cat",), "ann")
    stepping(jobs, job.id)
    jobs.cancel(job.id)
    assert jobs.get(job.id).stopping and not jobs.get(job.id).over
    jobs.cancel(job.id, at_once=True)
    assert over(jobs, job.id).state == "stopped"


def test_a_run_that_has_only_just_begun_hears_of_its_end_too(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is kept waiting until it can be told."""
    gate = tmp_path / "gate"
    monkeypatch.setattr(process, "_BEGIN", f"until [ -e '{gate}' ]; do sleep 0.02; done; {process._BEGIN}")
    job = jobs.submit("generate", ("slow cat",), "ann")
    until(lambda: jobs.get(job.id).state == "running")
    jobs.cancel(job.id)
    jobs.cancel(job.id)
    assert jobs.get(job.id).stopping and not jobs.get(job.id).over
    gate.touch()
    assert over(jobs, job.id).state == "stopped"
    assert starts(jobs, job.id) in ([], ["generate"]) and jobs.progress(job.id).step < 6000


# --- going on ---


def test_a_run_goes_on_where_it_was_stopped(jobs: Jobs) -> None:
    job = jobs.submit("generate", ("slow cat",), "ann")
    stepping(jobs, job.id)
    jobs.cancel(job.id)
    over(jobs, job.id)
    assert jobs.resume(job.id, "bob").state == "waiting"
    assert over(jobs, job.id).state == "done"
    assert starts(jobs, job.id) == ["generate", "resume"]
    assert jobs.get(job.id).owner == "bob"


def test_a_run_that_never_began_begins_when_it_is_taken_up(jobs: Jobs) -> None:
    first = jobs.submit("generate", ("slow cat",), "ann")
    second = jobs.submit("generate", ("quick cat",), "ann")
    jobs.cancel(second.id)
    jobs.cancel(first.id, at_once=True)
    jobs.resume(second.id, "ann")
    assert over(jobs, second.id).state == "done"
    assert starts(jobs, second.id) == ["generate"]


def test_what_goes_on_or_is_done_is_not_taken_up(jobs: Jobs) -> None:
    first, second = jobs.submit("generate", ("quick cat",), "ann"), jobs.submit("generate", ("slow cat",), "ann")
    over(jobs, first.id)
    with pytest.raises(ValueError, match="is done; give more steps"):
        jobs.resume(first.id, "ann")
    with pytest.raises(ValueError, match="already"):
        jobs.resume(second.id, "ann")
    jobs.resume(first.id, "ann", steps=5)
    jobs.cancel(second.id, at_once=True)
    assert over(jobs, first.id).state == "done"
    assert starts(jobs, first.id) == ["generate", "resume"]


def test_a_run_is_made_again_with_changes(jobs: Jobs) -> None:
    first = jobs.submit("generate", ("quick cat", "--seed", "1", "--steps", "9"), "ann")
    second = jobs.again(first.id, "bob", {"seed": "2", "prompt": "quick dog", "views": "2"})
    assert second.words == ("quick dog", "--steps", "9", "--seed", "2", "--views", "2")
    assert second.id == "quick-dog"


# --- deleting and finding ---


def test_a_run_is_deleted_whole_and_only_when_it_is_over(jobs: Jobs, runs: Path) -> None:
    first, second = jobs.submit("generate", ("quick cat",), "ann"), jobs.submit("generate", ("slow cat",), "ann")
    over(jobs, first.id)
    stepping(jobs, second.id)
    with pytest.raises(ValueError, match="cancel it first"):
        jobs.delete(second.id)
    jobs.delete(first.id)
    with pytest.raises(Unknown):
        jobs.get(first.id)
    assert [job.id for job in jobs.list()] == [second.id]
    assert not [path for path in runs.rglob("*") if first.id in path.name or path.name.startswith("gone-")]


def test_runs_are_found_by_words_of_their_prompt(jobs: Jobs) -> None:
    for prompt in ("bad red cat", "bad blue cat", "bad dog"):
        jobs.submit("generate", (prompt,), prompt)
    assert [job.prompt for job in jobs.search("CAT bad")] == ["bad blue cat", "bad red cat"]
    assert len(jobs.search("")) == 3
