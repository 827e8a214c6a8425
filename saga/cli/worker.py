"""The command ``saga worker``: one process of a fleet."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from saga import SagaError, SagaOrchestrator, SagaStorageError
from saga.cli.exit_status import SAGA_FAILED, USAGE

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer()

HEALTH_SECONDS = 5.0
"""How often the storage is asked whether it answers, where somebody wants to see it."""

Host = AbstractAsyncContextManager[SagaOrchestrator]


@app.command()
def worker(
    orchestrator: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME", help="A function without arguments that returns an async context manager of one."
        ),
    ],
    *,
    alive_file: Annotated[
        Path | None,
        typer.Option(help="Touched every 5 s while the storage answers; removed at the end. For probes."),
    ] = None,
) -> None:
    """Run an orchestrator until SIGTERM or SIGINT, then let running steps end and hand the rest over.

    A second signal leaves at once: what runs is carried on by others after its lease.

    Exit status: 0 after a signal, 1 if the orchestrator cannot run, 2 if there is none of this name.
    """
    try:
        status = asyncio.run(_run(_found(orchestrator), alive_file))
    except SagaError as error:
        typer.echo(f"saga worker: {error}", err=True)
        raise typer.Exit(SAGA_FAILED) from None
    raise typer.Exit(status)


def _found(name: str) -> Callable[[], Host]:
    """Return the function of this name, from the working directory or what is installed."""
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        _refuse(f"{name!r} names no orchestrator: write MODULE:NAME")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        _refuse(f"there is no module {error.name!r} in {Path.cwd()} or installed")
    try:
        found: Any = getattr(module, attribute)
    except AttributeError:
        _refuse(f"module {module_name!r} has no {attribute!r}")
    if not inspect.isroutine(found) or inspect.iscoroutinefunction(found):
        _refuse(
            f"{name} is of type {type(found).__name__}: name a function decorated with "
            "contextlib.asynccontextmanager that opens the storage and yields an entered SagaOrchestrator"
        )
    return found


def _refuse(message: str) -> NoReturn:
    typer.echo(f"saga worker: {message}", err=True)
    raise typer.Exit(USAGE)


async def _run(make: Callable[[], Host], alive_file: Path | None) -> int:
    """Run until a signal comes, and return the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(number: signal.Signals) -> None:
        if stop.is_set():
            _say(f"{number.name} again: leaving at once; others carry on what runs here after its lease")
            os._exit(128 + number)
        _say(f"{number.name}: letting running steps end")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard, number)
    host = make()
    if not isinstance(host, AbstractAsyncContextManager):
        _refuse(f"the function returned {type(host).__name__}, which is no async context manager")
    async with host as orchestrator:
        if not isinstance(orchestrator, SagaOrchestrator):
            _refuse(f"the context manager gave {type(orchestrator).__name__}, which is no SagaOrchestrator")
        _say("ready")
        await _wait(stop, orchestrator, alive_file)
    _say("left")
    return 0


async def _wait(stop: asyncio.Event, orchestrator: SagaOrchestrator, alive_file: Path | None) -> None:
    if alive_file is None:
        await stop.wait()
        return
    try:
        while not stop.is_set():
            with suppress(SagaStorageError):
                await orchestrator.storage.health_check()
                alive_file.touch()  # noqa: ASYNC240 - a file of no length, written once in 5 seconds
            with suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_SECONDS):
                    await stop.wait()
    finally:
        alive_file.unlink(missing_ok=True)  # noqa: ASYNC240 - as above


def _say(message: str) -> None:
    typer.echo(f"saga worker {os.getpid()}: {message}", err=True)
