"""Run one service as a process of its own: loopback only, and never longer than the process that started it."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from sagas.services.tracing import traced

if TYPE_CHECKING:
    from starlette.applications import Starlette

PARENT_CHECK_SECONDS = 0.25


def arguments(name: str) -> argparse.ArgumentParser:
    """Return the parser of the options that every service has."""
    parser = argparse.ArgumentParser(prog=f"python -m sagas.services.{name}", description=f"The {name} service.")
    parser.add_argument("--port", type=int, default=0, help="the loopback port to listen on; 0 takes a free one")
    parser.add_argument("--db", type=Path, required=True, help="the service's SQLite file; made if it is missing")
    parser.add_argument("--otlp", metavar="URL", help="where an OTLP/HTTP receiver takes spans; none are made without")
    parser.set_defaults(name=name)
    return parser


def serve(app: Starlette, options: argparse.Namespace) -> None:
    """Listen on 127.0.0.1, print the port as one line, and serve until SIGTERM or the parent's death."""
    parent = os.getppid()
    # The protocol is named since asyncio sends small answers without delay only where it is.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen()
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            traced(app, options.name, options.otlp),
            loop="asyncio",
            http="h11",
            lifespan="off",
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        asyncio.run(_serve_while_parent_lives(uvicorn.Server(config), listener, parent))


async def _serve_while_parent_lives(server: uvicorn.Server, listener: socket.socket, parent: int) -> None:
    loop = asyncio.get_running_loop()

    def watch_parent() -> None:
        server.should_exit = server.should_exit or os.getppid() != parent
        loop.call_later(PARENT_CHECK_SECONDS, watch_parent)

    watch_parent()
    await server.serve(sockets=[listener])
