"""Start the services as processes of their own, and end them whatever happens."""

from __future__ import annotations

import select
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS = 15.0
STOP_SECONDS = 3.0


class ServiceEndedError(Exception):
    """A service did not start, or ended by itself; the message has the end of its log."""


@contextmanager
def running_services(
    directory: Path, smtp: str, services: Mapping[str, str], delay: float = 0.0
) -> Iterator[dict[str, str]]:
    """Run services; give their addresses by name.

    Args:
        directory: Where each keeps its SQLite file and its log.
        smtp: ``HOST:PORT`` of the mail server.
        services: The module of ``sagas.services`` that each one runs, by name.
        delay: How long a call takes on average, in seconds.

    Raises:
        ServiceEndedError: If one of them does not start, or has ended when all are to be stopped.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, module in services.items():
            more = ["--delay", str(delay), *(["--smtp", smtp] if module == "notification" else [])]
            processes[name] = _start(name, module, directory, more)
        yield {name: _address(name, process, directory) for name, process in processes.items()}
    finally:
        ended = {name: status for name, process in processes.items() if (status := process.poll()) is not None}
        stop(processes.values())
        if ended:
            told = "; ".join(f"{name} with status {status}{_log_of(name, directory)}" for name, status in ended.items())
            raise ServiceEndedError(f"services ended by themselves: {told}")


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask each process to end; kill what has not ended after a moment."""
    ending = list(processes)
    for process in ending:
        process.terminate()
    for process in ending:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _start(name: str, module: str, directory: Path, more: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"sagas.services.{module}", "--db", str(directory / f"{name}.db"), *more]
    with (directory / f"{name}.log").open("ab") as log:
        # A session of its own keeps Ctrl-C from the terminal away: the parent ends it in good order.
        return subprocess.Popen(  # noqa: S603  (this interpreter, on a module of this package)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True
        )


def _address(name: str, process: subprocess.Popen[bytes], directory: Path) -> str:
    line = b""
    if process.stdout is not None and select.select([process.stdout], [], [], START_SECONDS)[0]:
        line = process.stdout.readline()
    if not line:
        message = f"the {name} service did not start within {START_SECONDS:g} s{_log_of(name, directory)}"
        raise ServiceEndedError(message)
    return f"http://127.0.0.1:{int(line)}"


def _log_of(name: str, directory: Path) -> str:
    log = (directory / f"{name}.log").read_text(errors="replace")[-2_000:]
    return f"; its log ends with:\n{log}" if log else ", its log is empty"
