"""The page and its endpoints, served without a browser."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.__main__ import main
from app.actions import Actions
from app.guard import Guard
from app.jobs.queue import Jobs
from tests.support.app.polling import STUB_COMMAND, TIMEOUT_S, cancel_all, wait_until_over

os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
gradio = pytest.importorskip("gradio", reason='gradio is missing (pip install "sds3d[app]")')
ENDPOINTS = {
    *("batch", "cancel", "compare", "delete", "estimate", "export", "exports", "fields", "generate"),
    *("edit", "refine", "resume", "runs", "status", "texture"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jobs, Any]]:
    """(the runs, a client of the page's API)."""
    from gradio_client import Client

    from app.page.build import page
    from app.page.theme import styles, theme

    folder = tmp_path_factory.mktemp("page")
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "served")
    jobs = Jobs(folder / "runs", command=STUB_COMMAND)
    made = page(Actions(jobs))
    from starlette.middleware import Middleware

    _, address, _ = made.launch(
        app_kwargs={"middleware": [Middleware(Guard)]},
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        theme=theme(),
        css=styles(),
        allowed_paths=[str(jobs.store.runs)],
        blocked_paths=[str(jobs.store.jobs_dir)],
        enable_monitoring=False,
        run_history=False,
        _frontend=False,
    )
    result: dict[str, Any] = {"verbose": False, "analytics_enabled": False, "download_files": str(folder / "fetched")}
    yield jobs, Client(address, httpx_kwargs={"timeout": TIMEOUT_S}, **result)
    made.close(verbose=False)
    cancel_all(jobs)
    if before is None:
        del os.environ["GRADIO_TEMP_DIR"]
    else:
        os.environ["GRADIO_TEMP_DIR"] = before


def test_endpoints_match_the_docs(served: tuple[Jobs, Any]) -> None:
    result = served[1].view_api(return_format="dict")
    assert {name.strip("/") for name in result["named_endpoints"]} == ENDPOINTS
    text = (Path(__file__).parents[3] / "docs" / "page.md").read_text()
    assert all(f"`{name}`" in text for name in ENDPOINTS)


def test_generate_status_and_delete(served: tuple[Jobs, Any]) -> None:
    jobs, client = served
    id = client.predict({"prompt": "a cat", "seed": 3, "values": {"steps": 20}}, api_name="/generate")
    assert jobs.get(id).args[0] == "a cat" and {"--seed", "3", "--steps", "20"} <= {*jobs.get(id).args}
    client.predict(id, api_name="/cancel")
    wait_until_over(jobs, id)
    result = client.predict(id, api_name="/status")
    assert result["state"] == "stopped" and result["prompt"] == "a cat"
    assert [run["id"] for run in client.predict("cat", 0, api_name="/runs")["runs"]] == [id]
    client.predict(id, api_name="/delete")
    assert jobs.list() == []


def test_errors_are_one_line(served: tuple[Jobs, Any]) -> None:
    client = served[1]
    for calls, words in (
        ({"prompt": "a tedy baer"}, "nearest: "),
        ({"prompt": "a cat", "objective": "sdss"}, "did you mean sds"),
        ({"prompt": "a cat", "image": "/etc/passwd"}, "is not taken"),
        ({"prompt": "a cat", "values": {"source": "/etc"}}, "unknown field"),
        ({"prompt": "a cat", "seed": "x"}, "expected a number"),
        ({"prompt": ["a cat"]}, "prompt is .*expected text"),
        ({"prompt": None}, "prompt is None; expected text"),
        ({"prompt": "--help"}, "does not begin with a dash"),
        ({"prompt": "a cat", "values": {"steps": "--help"}}, "steps is '--help'"),
        ({"prompt": "a cat", "values": {"objective.guidance_scale": 1e300}}, "scale is 1e"),
        ({"prompt": "a cat", "prior": "sd-1.5"}, "sd-1.5 is not on this machine"),
    ):
        with pytest.raises(Exception, match=words) as refused:
            client.predict(calls, api_name="/generate")
        assert "\n" not in str(refused.value)
    with pytest.raises(Exception, match="there is no run"):
        client.predict("../..", api_name="/status")
    with pytest.raises(Exception, match="no uploaded file"):
        client.predict({"path": "/etc/passwd"}, {"prompt": "a cat"}, api_name="/texture")


HOSTILE: tuple[object, ...] = (
    *(
        "--help",
        "-h",
        "--version",
        "@/etc/passwd",
        "a cat\n--help",
        "a\0cat",
        "\x1b[31m",
        "\u202ecat",
        "${HOME}",
        "`id`",
    ),
    *("../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/", "evil:Class", "os:system", "~root"),
    *("<script>alert(1)</script>", "'; DROP TABLE runs; --", "{{7*7}}", "%s%n", "NaN", "1e400", "-1", " ", "x" * 5000),
    *(None, True, 0, -1, 2**70, 1e300, [], ["a cat"], [["a"]], {}, {"prompt": "a cat"}, {"kind": "evil:X"}, [None]),
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
)
"""What may stand in any place of any request."""


def test_hostile_values_give_one_line_errors(served: tuple[Jobs, Any]) -> None:
    """Each value in each place of each endpoint; nothing ends the server, no answer is empty or a traceback."""
    import httpx

    jobs, client = served
    arity = {
        name: len(row["parameters"]) for name, row in client.view_api(return_format="dict")["named_endpoints"].items()
    }
    assert len(HOSTILE) >= 40
    with httpx.Client(timeout=TIMEOUT_S) as http:
        for name, count in arity.items():
            for value in HOSTILE:
                # An estimate may take some steps where it is told to, which takes time and no parsing.
                sent = [value, False][:count] if name == "/estimate" else [value] * count
                answer = http.post(client.src_prefixed + "run" + name, json={"data": sent})
                assert answer.status_code in (200, 422, 500), (name, value, answer.text)
                if answer.status_code != 200:
                    line = answer.json().get("error") or answer.json().get("detail")
                    assert line and "\n" not in str(line) and "Traceback" not in str(line), (name, value, answer.text)
                    assert "internal error" not in str(line), (name, value, line)
    assert client.predict("", 0, api_name="/runs")["page"] == 0
    for job in [job for job in jobs.list() if not job.is_over]:
        jobs.cancel(job.id, kill=True)
    for job in jobs.list():
        jobs.delete(wait_until_over(jobs, job.id).id)


def test_unknown_endpoint_is_404(served: tuple[Jobs, Any]) -> None:
    import httpx

    for path in ("run/nosuch", "call/nosuch", "api/nosuch", "call/v2/nosuch"):
        assert httpx.post(served[1].src_prefixed + path, json={"data": []}, timeout=TIMEOUT_S).status_code == 404


def test_rejects_foreign_hosts_and_origins(served: tuple[Jobs, Any]) -> None:
    import httpx

    root, prefixed = served[1].src.rstrip("/"), served[1].src_prefixed
    for url in (root + "/", root + "/config", prefixed + "info", prefixed + "file=/etc/passwd", prefixed + "upload"):
        answer = httpx.get(url, headers={"Host": "evil.example", "Origin": "http://evil.example"}, timeout=TIMEOUT_S)
        assert answer.status_code == 421 and "--allow-host" in answer.text
    for path in ("upload", "run/cancel", "queue/join", "cancel", "reset", "component_server"):
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            assert httpx.post(prefixed + path, headers=headers, json={}, timeout=TIMEOUT_S).status_code == 403


def test_fields_endpoint(served: tuple[Jobs, Any]) -> None:
    result = served[1].predict({"objective": "csd"}, api_name="/fields")
    assert any(group["title"] == "Objective: csd" for group in result) and json.dumps(result)


def test_batch_endpoint_reports_each_rejection(served: tuple[Jobs, Any]) -> None:
    jobs, client = served
    result = client.predict("a cat\nsomething unheard of\na dog", {"values": {"steps": 5}}, api_name="/batch")
    assert len(result["runs"]) == 2 and len(result["problems"]) == 1 and "row 2" in result["problems"][0]
    assert all("--steps" in jobs.get(id).args for id in result["runs"])
    for id in result["runs"]:
        jobs.cancel(id, kill=True)


def test_page_scripts_resume_and_delete(served: tuple[Jobs, Any]) -> None:
    """What a browser asks for, without one."""
    import httpx

    jobs, client = served
    rows = [row for row in client.config["components"] if row["props"].get("server_fns")]
    numbers = {row["props"]["elem_id"]: row["id"] for row in rows}

    def asked(place: str, name: str) -> Any:
        about = {"session_hash": "x", "component_id": numbers[place], "fn_name": name, "data": id}
        return httpx.post(client.src_prefixed + "component_server", json=about, timeout=TIMEOUT_S).json()

    id = wait_until_over(jobs, jobs.submit("generate", ("quick hen",), "ann").id).id
    for place in ("gallery", "live-generate"):
        assert asked(place, "resume") == {"error": f"{id} is done; give more steps to go on"}
    assert asked("live-generate", "cancel") == asked("gallery", "remove") == {}
    assert all("there is no run" in asked(*words)["error"] for words in (("gallery", "remove"), ("gallery", "resume")))


def test_owner_is_user_or_client_address() -> None:
    from app.page.components import owner

    machine = SimpleNamespace(host="10.0.0.7")
    assert owner(None) == owner(SimpleNamespace(client=None)) == "unknown"
    assert owner(SimpleNamespace(client=machine, app=SimpleNamespace(auth=None))) == "10.0.0.7"
    assert owner(SimpleNamespace(client=machine, username="me")) == "me"
    assert owner(SimpleNamespace(client=machine, app=SimpleNamespace(auth={"me": "secret"}))) == "me"
    assert owner(gradio.Request(SimpleNamespace(client=machine), username=None)) == "10.0.0.7"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--share"], "give --auth"),
        (["--auth", "me"], "USER:PASSWORD"),
        (["--auth-file", "/dev/null"], "USER:PASSWORD"),
        (["--port", "x"], "invalid int"),
        (["--port", "99999999"], "expected a number from 1 to 65535"),
        (["--port", "-1"], "expected a number from 1 to 65535"),
        (["--at-once", "0"], "expected a number from 1"),
        (["--at-once", "-1"], "expected a number from 1"),
        (["--waiting", "0"], "expected a number from 1"),
        (["--each", "0"], "expected a number from 1"),
        (["--host", "999.1.1.1"], "is not an address of this machine"),
        (["--host", "203.0.113.9"], "cannot listen on"),
        (["runs"], "unrecognized"),
    ],
)
def test_rejects_invalid_options(words: list[str], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        main(words)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_missing_gradio_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r'pip install "sds3d\[app\]"'):
        main(["--runs", str(tmp_path), "--port", str(free_port())])
