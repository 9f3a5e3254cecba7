"""The queue after the server went: jobs that lived on are known again, and nothing is lost or begun twice."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.jobs.progress import tail
from app.jobs.queue import Jobs
from tests.support.app.polling import STUB, over, starts, stepping, swept, until


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


SERVER = """
import sys, time
from pathlib import Path
from app.jobs.queue import Jobs
jobs = Jobs(Path(sys.argv[1]), command=sys.argv[2:])
for prompt in ("slow cat", "slow dog"):
    jobs.submit("generate", (prompt,), "ann")
while True:
    time.sleep(1)
"""


def a_server(runs: Path) -> subprocess.Popen[bytes]:
    """A server in a process of its own, with one job that has taken steps and one that waits."""
    root = Path(__file__).parents[3]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(runs), *STUB], cwd=root)
    # At its second step a job has its number, its start and a checkpoint on the disk.
    until(lambda: len(tail(runs / "slow-cat" / "metrics.jsonl")) >= 2 and (runs / ".jobs" / "slow-dog.json").exists())
    return server


def test_nothing_is_lost_when_the_server_is_killed(runs: Path) -> None:
    server = a_server(runs)
    with pytest.raises(ValueError, match="another server has"):
        Jobs(runs, command=STUB)
    server.send_signal(signal.SIGKILL)
    server.wait()

    jobs = Jobs(runs, command=STUB)
    assert jobs.get("slow-cat").state == "running", "it lives on, and is known again"
    assert jobs.get("slow-dog").state == "waiting"
    before = jobs.progress("slow-cat").step
    until(lambda: jobs.progress("slow-cat").step > before)
    assert starts(jobs, "slow-cat") == ["generate"], "it was not begun twice"
    jobs.cancel("slow-cat")
    assert over(jobs, "slow-cat").state == "stopped"
    assert jobs.progress("slow-cat").asset is not None, "it still heeds"
    stepping(jobs, "slow-dog")
    swept(jobs)


def test_a_run_that_died_with_the_server_can_go_on(runs: Path) -> None:
    server = a_server(runs)
    pid = int((runs / ".jobs" / "slow-cat.pid").read_text())
    server.send_signal(signal.SIGKILL)
    server.wait()
    os.killpg(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/stat").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())

    jobs = Jobs(runs, command=STUB)
    assert jobs.get("slow-cat").state == "interrupted" and jobs.progress("slow-cat").resumable
    jobs.cancel("slow-dog", at_once=True)
    jobs.resume("slow-cat", "ann")
    assert over(jobs, "slow-cat").state == "done"
    assert starts(jobs, "slow-cat") == ["generate", "resume"]
    swept(jobs)


def test_closing_leaves_jobs_going(runs: Path) -> None:
    jobs = Jobs(runs, command=STUB)
    job = jobs.submit("generate", ("slow cat",), "ann")
    stepping(jobs, job.id)
    jobs.close()
    again = Jobs(runs, command=STUB)
    assert again.get(job.id).state == "running"
    assert starts(again, job.id) == ["generate"]
    swept(again)


def test_a_server_that_dies_before_the_start_loses_nothing(runs: Path) -> None:
    """The job is on the disk as running, but its process was never made."""
    jobs = Jobs(runs, at_once=0, command=STUB)
    job = jobs.submit("generate", ("quick cat",), "ann")
    jobs.store.write(replace(job, state="running", began=time.time()))
    jobs.close()
    again = Jobs(runs, command=STUB)
    assert over(again, job.id).state == "done"
    assert starts(again, job.id) == ["generate"]
    again.close()


def test_a_job_whose_number_another_process_has_is_over(runs: Path) -> None:
    jobs = Jobs(runs, at_once=0, command=STUB)
    job = jobs.submit("generate", ("quick cat",), "ann")
    process = jobs.store.process(job.id)
    bystander = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    process.log.write_text("")
    process.number.write_text(str(bystander.pid))
    jobs.store.write(replace(job, state="running", began=time.time()))
    jobs.close()

    again = Jobs(runs, at_once=0, command=STUB)
    assert again.get(job.id).state == "interrupted"
    assert process.pid() is None and not process.end() and not process.end(at_once=True)
    assert bystander.poll() is None, "a bystander is left alone"
    bystander.kill()
    bystander.wait()
    again.close()


def test_only_who_writes_into_the_log_is_ended(runs: Path) -> None:
    """The log is locked, by what a job left behind, but its number is another's by now."""
    jobs = Jobs(runs, at_once=0, command=STUB)
    process = jobs.store.process(jobs.submit("generate", ("quick cat",), "ann").id)
    bystander = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    with process.log.open("ab") as left_behind:
        fcntl.flock(left_behind, fcntl.LOCK_EX)
        for number in (str(bystander.pid), "999999999", "", "x", "-1", "0"):
            process.number.write_text(number)
            assert process.alive() and process.pid() is None and not process.end(at_once=True)
    assert not process.alive() and bystander.poll() is None
    bystander.kill()
    bystander.wait()
    jobs.close()


def test_a_damaged_record_takes_nothing_else_along(runs: Path) -> None:
    jobs = Jobs(runs, command=STUB)
    first, second = (over(jobs, jobs.submit("generate", ("quick cat",), "ann").id) for _ in range(2))
    jobs.close()
    for broken in (b"", b"{", b"[]", b'{"id": 3}', b'{"id": "quick-cat", "command": "rm", "made": 0}'):
        (runs / ".jobs" / f"{first.id}.json").write_bytes(broken)
        again = Jobs(runs, command=STUB)
        assert {job.id: job.state for job in again.list()} == {first.id: "done", second.id: "done"}
        again.close()
