"""`sds3d app`, or `python -m app`: serves the page."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from app.guard import ALL_INTERFACES, Guard
from sds3d.cli.arguments import parser
from sds3d.console import Console, one_line

PORT = 7860
AUTH_VARIABLE = "SDS3D_AUTH"
"""Environment variable with USER:PASSWORD."""
MAX_THREADS = 64
"""Requests that are answered at once; looks at a run take no time, exports some seconds."""


def main(argv: list[str] | None = None) -> int:
    """Serves until Ctrl-C.

    Raises:
        ValueError: an option that does not fit, or runs that another server has.
        OSError: the folder can not be written, or the port is taken.
        ImportError: gradio is not installed.
    """
    args = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    auth = _credentials(args.auth, args.auth_file)
    if args.share and auth is None:
        raise ValueError("--share opens the page to the internet; give --auth-file FILE with it")
    _validate(args)
    runs: Path = args.runs.expanduser().resolve()
    _disable_telemetry(runs)
    try:
        import gradio
    except ImportError:
        raise ImportError('the page needs gradio; get it with: pip install "sds3d[app]"') from None
    if int(gradio.__version__.split(".")[0]) < 6:
        raise ImportError(
            f'the page needs gradio 6, not {gradio.__version__}; get it with: pip install -U "sds3d[app]"'
        )
    from app.actions import Actions
    from app.jobs.queue import Jobs
    from app.page.build import page
    from app.page.theme import head, styles, theme
    from app.uploads.uploads import MAX_MEGABYTES

    jobs = Jobs(runs, max_parallel=args.at_once, max_queued=args.waiting, max_per_owner=args.each)
    console = Console()
    try:
        _, address, shared = page(Actions(jobs)).launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            auth=auth,
            inbrowser=args.open,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            theme=theme(),
            css=styles(),
            head=head(),
            allowed_paths=[str(runs)],
            blocked_paths=[str(jobs.store.jobs_dir), str(jobs.store.uploads)],
            max_file_size=f"{MAX_MEGABYTES}mb",
            max_threads=MAX_THREADS,
            app_kwargs={"middleware": [_guard(args, auth is not None)]},
            enable_monitoring=False,
            run_history=False,
            footer_links=["api"],
            ssr_mode=False,
            _frontend=False,  # or it gives up where the page takes more than three seconds to answer itself
        )
        console.log(f"{shared or address} serves the runs in {runs} (Ctrl-C ends it; runs go on)")
        if auth is None and args.host not in ("127.0.0.1", "localhost", "::1"):
            console.log("whoever reaches this machine may use it; --auth-file FILE asks for an account")
        _wait()
    finally:
        jobs.close()
    return 0


def _wait() -> None:
    """Until Ctrl-C, or a request to end."""
    import signal
    import threading

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    over.wait()


def _disable_telemetry(runs: Path) -> None:
    """What gradio and the hub's client read when they are imported: no request leaves this machine."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("GRADIO_TEMP_DIR", str(runs / ".served"))


def _credentials(text: str | None, file: Path | None) -> tuple[str, str] | None:
    """(user, password) of `--auth`, `--auth-file` or the environment. Raises ValueError, OSError."""
    where = "--auth"
    if text is None and file is not None:
        where, text = str(file), file.read_text(encoding="utf-8").strip()
    if text is None and AUTH_VARIABLE in os.environ:
        where, text = AUTH_VARIABLE, os.environ[AUTH_VARIABLE]
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise ValueError(f"{where} holds no USER:PASSWORD, such as me:a-long-password")
    return user, password


def _validate(args: argparse.Namespace) -> None:
    """Raises ValueError for numbers out of range and a host that this machine cannot listen on."""
    for flag, minimum, maximum in (
        ("port", 1, 65535),
        ("at_once", 1, 256),
        ("waiting", 1, 10_000),
        ("each", 1, 10_000),
    ):
        if not minimum <= getattr(args, flag) <= maximum:
            name = flag.replace("_", "-")
            raise ValueError(f"--{name} is {getattr(args, flag)}; expected a number from {minimum} to {maximum}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(args.host, args.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise ValueError(f"--host {args.host!r} is not an address of this machine; expected 127.0.0.1") from None
    except OSError as error:
        raise ValueError(f"cannot listen on {args.host} port {args.port}: {error.strerror}; try --port N") from None


def _guard(args: argparse.Namespace, needs_login: bool) -> object:
    """The middleware that lets only this server's visitors in."""
    from starlette.middleware import Middleware

    return Middleware(
        Guard,
        hosts=[*args.allow_host, *({args.host} - ALL_INTERFACES)],
        any_address=args.host in ALL_INTERFACES,
        share=args.share,
        needs_login=needs_login,
    )


def _parser() -> argparse.ArgumentParser:
    result = parser(
        "sds3d app",
        "Serves the page: prompts, previews, assets in 3D, comparisons, a gallery. Runs are processes of their own:\n"
        "they go on when a tab, or the server, is closed.",
    )
    result.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="folder of the runs (default: runs)"
    )
    result.add_argument(
        "--host", default="127.0.0.1", help="who may connect: 127.0.0.1 is this machine alone (default)"
    )
    result.add_argument("--port", type=int, default=PORT, metavar="N", help=f"(default: {PORT})")
    result.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another host name that the page is reached by, such as that of a proxy; may be repeated",
    )
    result.add_argument(
        "--auth-file",
        type=Path,
        metavar="FILE",
        help=f"ask for the account USER:PASSWORD in FILE, or in ${AUTH_VARIABLE}",
    )
    result.add_argument("--auth", metavar="USER:PASSWORD", help="the same, visible to others in the list of processes")
    result.add_argument(
        "--share", action="store_true", help="a public address by way of gradio's servers; needs --auth"
    )
    result.add_argument("--open", action="store_true", help="open a browser")
    result.add_argument("--at-once", type=int, default=1, metavar="N", help="runs at the same time (default: 1)")
    result.add_argument("--waiting", type=int, default=20, metavar="N", help="runs that wait, at most (default: 20)")
    result.add_argument("--each", type=int, default=20, metavar="N", help="runs of one visitor, at most (default: 20)")
    return result


def _main_with_exit_code() -> int:
    try:
        return main()
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"sds3d: {one_line(error)}\n")
        return 2


if __name__ == "__main__":
    sys.exit(_main_with_exit_code())
