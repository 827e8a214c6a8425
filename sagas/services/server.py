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

from sagas.lifeline import when_orphaned
from sagas.services.faults import PlannedFault
from sagas.services.tracing import traced

if TYPE_CHECKING:
    from sagas.services.service import Service


def arguments(name: str) -> argparse.ArgumentParser:
    """Return the parser of the options that every service has."""
    parser = argparse.ArgumentParser(prog=f"python -m sagas.services.{name}", description=f"The {name} service.")
    parser.add_argument("--port", type=int, default=0, help="the loopback port to listen on; 0 takes a free one")
    parser.add_argument("--db", type=Path, required=True, help="the service's SQLite file; made if it is missing")
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="SECONDS", help="how long a mutating call takes on average"
    )
    parser.add_argument(
        "--fault",
        type=_planned_fault,
        action="append",
        default=[],
        metavar="PATH:FAULT[:TIMES]",
        help="break the next calls of a path, such as /captures:reply-lost:2",
    )
    parser.add_argument("--otlp", metavar="URL", help="where an OTLP/HTTP receiver takes spans; none are made without")
    parser.add_argument(
        "--parent",
        type=int,
        default=os.getppid(),
        metavar="PID",
        help="the process that starts this one, and with which it ends; the parent by default",
    )
    parser.set_defaults(name=name)
    return parser


def _planned_fault(text: str) -> PlannedFault:
    path, _, rest = text.partition(":")
    fault, _, times = rest.partition(":")
    if not path.startswith("/") or not fault:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form PATH:FAULT[:TIMES]")
    try:
        return PlannedFault(path, fault, int(times or 1))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def serve(service: Service, options: argparse.Namespace) -> None:
    """Listen on 127.0.0.1, print the port as one line, and serve until SIGTERM or the parent's death.

    Args:
        service: What is served.
        options: What ``arguments`` parsed.
    """
    for fault in options.fault:
        service.faults.add(fault)
    app = traced(service.app(options.delay), options.name, options.otlp)
    # The protocol is named since asyncio sends small answers without delay only where it is.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen()
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            lifespan="off",
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        asyncio.run(_serve_while_parent_lives(uvicorn.Server(config), listener, options.parent))


async def _serve_while_parent_lives(server: uvicorn.Server, listener: socket.socket, parent: int) -> None:
    when_orphaned(parent, lambda: setattr(server, "should_exit", True))
    await server.serve(sockets=[listener])
