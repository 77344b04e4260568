"""Caption on a page of your own machine with finished runs and plugs: `lockdec play RUN_OR_PLUG...`."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from contextlib import suppress

from lockdec.errors import ConfigError
from lockdec.terminal import forgive, plain_errors

HOST, PORT = "127.0.0.1", 8642
DESCRIPTION = """\
Serves a page on which finished runs and plugs caption what you give them: a picture that you drop or draw, a text that
you type, a sound that you record. It shows the captions with their alternatives, what speaks for each word and what it
attends to, beside the controls, and the command that does the same.

Only this machine can open the page unless --host says otherwise. Nothing that is sent is executed or kept, and
the page asks no other server for anything.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: serves until Ctrl-C. Errors that the user can fix end the process with one plain line."""
    options = _parser().parse_args(arguments)
    forgive()
    with plain_errors(), suppress(KeyboardInterrupt):  # which is how it ends
        _serve(options)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; ConfigError if that is not possible."""
    if not host.strip():  # which the socket takes for all addresses
        raise ConfigError(f"--host '{host}': name an address; 127.0.0.1 is this machine alone, 0.0.0.0 all networks")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, TypeError) as error:  # TypeError: no name that can be encoded
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({reason}); --port 0 takes a free port"
        ) from error


def address(listener: socket.socket) -> str:
    """The URL of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _serve(options: argparse.Namespace) -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError("the playground needs starlette and uvicorn: pip install 'lockdec[play]'") from error
    with listening(options.host, options.port) as listener:
        from lockdec.runtime.process import ready

        ready(loggers=())
        from lockdec.play.player import Opening, open_players
        from lockdec.play.server import LOOPBACK, application

        opening = Opening(options.decoder, options.encoder, options.device, options.trust, options.allow_download)
        app = application(open_players(options.folders, opening), options.host)
        open_to_all = "" if options.host in LOOPBACK else "; whoever reaches this machine can open it"
        print(f"lockdec: {address(listener)} (Ctrl-C ends it{open_to_all})", flush=True)
        config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False,
                                proxy_headers=False, limit_concurrency=32)  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockdec play", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", metavar="RUN_OR_PLUG", nargs="+",
        help="the folder of a run, a sweep (its best cell is used), an export or a plug",
    )  # fmt: skip
    parser.add_argument("--host", default=HOST, help=f"the address to listen at (default {HOST}: this machine only)")
    parser.add_argument("--port", type=int, default=PORT, help=f"the port (default {PORT}); 0 takes a free one")
    parser.add_argument(
        "--decoder", metavar="DECODER", help="of the plugs, as in lockdec caption; by default that of the first run"
    )
    parser.add_argument("--encoder", metavar="FOLDER", help="of plugs whose encoder reads files of yours: their folder")
    parser.add_argument("--device", default="cpu", help="where to compute, as torch names it (default cpu)")
    for option, what in (("--trust", "PREFIX"), ("--allow-download", "MODEL")):
        parser.add_argument(option, action="append", default=[], metavar=what, help="as in lockdec caption")
    return parser


if __name__ == "__main__":
    main()
