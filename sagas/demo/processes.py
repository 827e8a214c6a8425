"""Run the services as processes of their own, and end them whatever happens."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS = 15.0
STOP_SECONDS = 3.0


class ServiceEndedError(Exception):
    """A service did not start, or ended by itself; the message has the end of its log."""


class Services:
    """Services, each a process with an SQLite file, a log, and a port that it keeps.

    Attributes:
        addresses: Where each listens, by name.
    """

    def __init__(self, directory: Path, commands: Mapping[str, Sequence[str]]) -> None:
        """Keep how they are started.

        Args:
            directory: Where each keeps its file and its log.
            commands: The module of each and its own options, by name.
        """
        self.addresses: dict[str, str] = {}
        self._directory = directory
        self._commands = commands
        self._ports = dict.fromkeys(commands, 0)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        """Start them, at once, and wait until each listens.

        Raises:
            ServiceEndedError: If one does not.
        """
        for name in self._commands:
            self._launch(name)
        for name in self._commands:
            self._wait_for(name)

    def start(self, name: str) -> None:
        """Start one that was killed, on the same file and port.

        Raises:
            ServiceEndedError: If it does not listen in time.
        """
        self._launch(name)
        self._wait_for(name)

    def kill(self, name: str) -> None:
        """Kill one by SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        _wait(process)

    def ended(self) -> dict[str, int]:
        """Return the exit statuses of those that have ended by themselves."""
        return {name: status for name, process in self._processes.items() if (status := process.poll()) is not None}

    def stop_all(self) -> None:
        """Ask each to end; kill what has not ended after a moment."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            _wait(process)

    def log_of(self, name: str) -> str:
        """Return the end of a service's log, as a message goes on with it."""
        log = (self._directory / f"{name}.log").read_text(errors="replace")[-2_000:]
        return f"; its log ends with:\n{log}" if log else ", its log is empty"

    def _launch(self, name: str) -> None:
        module, *options = self._commands[name]
        command = [sys.executable, "-m", f"sagas.services.{module}", "--db", str(self._directory / f"{name}.db")]
        # A service that is still starting cannot see any more who started it if that process is gone already.
        command += ["--port", str(self._ports[name]), "--parent", str(os.getpid()), *options]
        with (self._directory / f"{name}.log").open("ab") as log:
            # A session of its own keeps Ctrl-C from the terminal away: the parent ends it in good order.
            self._processes[name] = subprocess.Popen(  # noqa: S603  (this interpreter, on a module of this package)
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True
            )

    def _wait_for(self, name: str) -> None:
        output, line = self._processes[name].stdout, b""
        if output is not None and select.select([output], [], [], START_SECONDS)[0]:
            line = output.readline()
        if not line:
            raise ServiceEndedError(f"the {name} service did not start within {START_SECONDS:g} s{self.log_of(name)}")
        self._ports[name] = int(line)
        self.addresses[name] = f"http://127.0.0.1:{self._ports[name]}"


@contextmanager
def running_services(directory: Path, smtp: str, services: Mapping[str, str], delay: float = 0.0) -> Iterator[Services]:
    """Run services.

    Args:
        directory: Where each keeps its SQLite file and its log.
        smtp: ``HOST:PORT`` of the mail server.
        services: The module of ``sagas.services`` that each one runs, by name.
        delay: How long a call takes on average, in seconds.

    Raises:
        ServiceEndedError: If one of them does not start, or has ended by itself when all are to be stopped.
    """
    mail = {"notification": ["--smtp", smtp]}
    running = Services(
        directory, {name: [module, "--delay", str(delay), *mail.get(module, [])] for name, module in services.items()}
    )
    try:
        running.start_all()
        yield running
    finally:
        ended = running.ended()
        running.stop_all()
        if ended:
            told = "; ".join(f"{name} with status {status}{running.log_of(name)}" for name, status in ended.items())
            raise ServiceEndedError(f"services ended by themselves: {told}")


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
