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

from app.jobs.progress import read_tail
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


def server_process(runs: Path) -> subprocess.Popen[bytes]:
    """A server in a process of its own, with one job that has taken steps and one that waits."""
    root = Path(__file__).parents[3]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(runs), *STUB_COMMAND], cwd=root)
    # At its second step a job has its number, its start and a checkpoint on the disk.
    wait_until(
        lambda: len(read_tail(runs / "slow-cat" / "metrics.jsonl")) >= 2 and (runs / ".jobs" / "slow-dog.json").exists()
    )
    return server


def test_jobs_survive_a_killed_server(runs: Path) -> None:
    server = server_process(runs)
    with pytest.raises(ValueError, match="another server has"):
        Jobs(runs, command=STUB_COMMAND)
    server.send_signal(signal.SIGKILL)
    server.wait()

    jobs = Jobs(runs, command=STUB_COMMAND)
    assert jobs.get("slow-cat").state == "running", "it lives on, and is known again"
    assert jobs.get("slow-dog").state == "waiting"
    before = jobs.progress("slow-cat").step
    wait_until(lambda: jobs.progress("slow-cat").step > before)
    assert started_commands(jobs, "slow-cat") == ["generate"], "it was not begun twice"
    jobs.cancel("slow-cat")
    assert wait_until_over(jobs, "slow-cat").state == "stopped"
    assert jobs.progress("slow-cat").asset is not None, "it still heeds"
    wait_for_steps(jobs, "slow-dog")
    cancel_all(jobs)


def test_interrupted_run_can_be_resumed(runs: Path) -> None:
    server = server_process(runs)
    pid = int((runs / ".jobs" / "slow-cat.pid").read_text())
    server.send_signal(signal.SIGKILL)
    server.wait()
    os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}/stat").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())

    jobs = Jobs(runs, command=STUB_COMMAND)
    assert jobs.get("slow-cat").state == "interrupted" and jobs.progress("slow-cat").resumable
    jobs.cancel("slow-dog", kill=True)
    jobs.resume("slow-cat", "ann")
    assert wait_until_over(jobs, "slow-cat").state == "done"
    assert started_commands(jobs, "slow-cat") == ["generate", "resume"]
    cancel_all(jobs)


def test_close_keeps_jobs_running(runs: Path) -> None:
    jobs = Jobs(runs, command=STUB_COMMAND)
    job = jobs.submit("generate", ("slow cat",), "ann")
    wait_for_steps(jobs, job.id)
    jobs.close()
    again = Jobs(runs, command=STUB_COMMAND)
    assert again.get(job.id).state == "running"
    assert started_commands(again, job.id) == ["generate"]
    cancel_all(again)


def test_crash_before_process_start_requeues_the_job(runs: Path) -> None:
    """The job is on the disk as running, but its process was never made."""
    jobs = Jobs(runs, max_parallel=0, command=STUB_COMMAND)
    job = jobs.submit("generate", ("quick cat",), "ann")
    jobs.store.write(replace(job, state="running", started_at=time.time()))
    jobs.close()
    again = Jobs(runs, command=STUB_COMMAND)
    assert wait_until_over(again, job.id).state == "done"
    assert started_commands(again, job.id) == ["generate"]
    again.close()


def test_reused_pid_is_not_mistaken_for_the_job(runs: Path) -> None:
    jobs = Jobs(runs, max_parallel=0, command=STUB_COMMAND)
    job = jobs.submit("generate", ("quick cat",), "ann")
    process = jobs.store.process(job.id)
    bystander = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    process.log.write_text("")
    process.pid_file.write_text(str(bystander.pid))
    jobs.store.write(replace(job, state="running", started_at=time.time()))
    jobs.close()

    again = Jobs(runs, max_parallel=0, command=STUB_COMMAND)
    assert again.get(job.id).state == "interrupted"
    assert process.pid() is None and not process.terminate() and not process.terminate(kill=True)
    assert bystander.poll() is None, "a bystander is left alone"
    bystander.kill()
    bystander.wait()
    again.close()


def test_terminates_only_the_process_writing_the_log(runs: Path) -> None:
    """The log is locked, by what a job left behind, but its number is another's by now."""
    jobs = Jobs(runs, max_parallel=0, command=STUB_COMMAND)
    process = jobs.store.process(jobs.submit("generate", ("quick cat",), "ann").id)
    bystander = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    with process.log.open("ab") as left_behind:
        fcntl.flock(left_behind, fcntl.LOCK_EX)
        for number in (str(bystander.pid), "999999999", "", "x", "-1", "0"):
            process.pid_file.write_text(number)
            assert process.alive() and process.pid() is None and not process.terminate(kill=True)
    assert not process.alive() and bystander.poll() is None
    bystander.kill()
    bystander.wait()
    jobs.close()


def test_damaged_job_file_is_skipped(runs: Path) -> None:
    jobs = Jobs(runs, command=STUB_COMMAND)
    first, second = (wait_until_over(jobs, jobs.submit("generate", ("quick cat",), "ann").id) for _ in range(2))
    jobs.close()
    for broken in (b"", b"{", b"[]", b'{"id": 3}', b'{"id": "quick-cat", "command": "rm", "made": 0}'):
        (runs / ".jobs" / f"{first.id}.json").write_bytes(broken)
        again = Jobs(runs, command=STUB_COMMAND)
        assert {job.id: job.state for job in again.list()} == {first.id: "done", second.id: "done"}
        again.close()
