"""Lives as the tests see them: started through a zygote, waited for, judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.crash.child import Report, Request

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class End:
    """How a life ended.

    Attributes:
        status: Its exit status; negative: the signal that ended it.
        report: What it left; None where it was killed.
    """

    status: int
    report: Report | None

    @property
    def killed(self) -> bool:
        """Whether it died by SIGKILL."""
        return self.status == -signal.SIGKILL

    def done(self) -> Report:
        """Return the report of a life that came to its own end.

        Raises:
            AssertionError: If it did not.
        """
        assert self.status == 0, f"it ended with status {self.status}; see its output"
        assert self.report is not None
        return self.report


class Zygote:
    """One zygote; it runs one life at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Use a running one."""
        self._process = process
        self._life: int | None = None

    def start(self, request: Request) -> int:
        """Start a life and return its process's number."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(request).decode() + "\n")
        self._process.stdin.flush()
        number: int = self._answer()["process"]
        self._life = number
        return number

    def wait_until_stopped(self) -> None:
        """Wait until the life is stopped by SIGSTOP."""
        answer = self._answer()
        assert answer == {"stopped": True}, f"it ended instead: {answer}"

    def wait(self) -> End:
        """Wait until the life ends."""
        answer = self._answer()
        assert "status" in answer, "it was stopped instead"
        self._life = None
        return End(answer["status"], msgspec.convert(answer["report"], Report | None))

    def live(self, request: Request) -> End:
        """Start a life and wait until it ends."""
        self.start(request)
        return self.wait()

    def end_life(self) -> None:
        """Kill the life that a failed test has left."""
        if self._life is not None:
            os.kill(self._life, signal.SIGKILL)
            while "status" not in self._answer():
                pass
            self._life = None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def zygote() -> Iterator[Zygote]:
    """Run a zygote."""
    command = [sys.executable, "-m", "tests.crash.zygote"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Zygote(process)
        finally:
            process.kill()
