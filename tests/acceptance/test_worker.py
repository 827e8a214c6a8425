"""``saga worker`` as its users meet it: what it says, how it ends, and the examples under ``deploy/``."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saga import SagaOrchestrator

ROOT = Path(__file__).resolve().parents[2]
APP = """
import asyncio
from contextlib import asynccontextmanager
from saga import Saga, SagaOrchestrator, SQLiteSagaStorage, PostgreSQLSagaStorage

class Slow(Saga):
    def __init__(self, name: str) -> None: ...
    async def build(self) -> None:
        await self.add_step("wait", self.wait)
    async def wait(self, ctx) -> None:
        print("in the step", flush=True)
        await asyncio.sleep(60)

@asynccontextmanager
async def good():
    async with SQLiteSagaStorage("sagas.db") as storage, SagaOrchestrator(storage, sagas=[Slow]) as orchestrator:
        yield orchestrator

@asynccontextmanager
async def busy():
    async with SQLiteSagaStorage("sagas.db") as storage, SagaOrchestrator(storage, sagas=[Slow]) as orchestrator:
        await orchestrator.start(Slow("a"))
        yield orchestrator

@asynccontextmanager
async def away():
    async with PostgreSQLSagaStorage("postgresql://u:sesame-secret@127.0.0.1:1/d", answer_timeout=2.0) as storage:
        yield SagaOrchestrator(storage)

@asynccontextmanager
async def wrong():
    yield 3

async def coroutine(): ...
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with an application."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def worker(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a worker."""
    return subprocess.Popen(
        [sys.executable, "-m", "saga", "worker", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def ready(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker that is ready."""
    with worker(folder, "app:good", "--alive-file", str(folder / "alive")) as process:
        assert process.stderr is not None
        assert "ready" in process.stderr.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_says_when_it_is_ready_and_leaves_on_a_signal(
    ready: subprocess.Popen[str], folder: Path, number: signal.Signals
) -> None:
    """In good order: status 0, and its alive file is gone."""
    until = time.monotonic() + 10
    while not (folder / "alive").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    ready.send_signal(number)
    assert ready.wait(10) == 0
    assert ready.stderr is not None
    said = ready.stderr.read()
    assert number.name in said
    assert "left" in said
    assert not (folder / "alive").exists()


def test_a_second_signal_leaves_at_once(folder: Path) -> None:
    """Although a step runs that would be given 30 s."""
    with worker(folder, "app:busy") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "ready" in process.stderr.readline()
        assert "in the step" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        assert "after its lease" in process.stderr.read()


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("app", 2, "MODULE:NAME"),
        ("app:", 2, "MODULE:NAME"),
        ("nothing_here:x", 2, "no module 'nothing_here'"),
        ("app:nothing", 2, "has no 'nothing'"),
        ("app:number", 2, "asynccontextmanager"),
        ("app:coroutine", 2, "asynccontextmanager"),
        ("app:Slow", 2, "asynccontextmanager"),
        ("app:wrong", 2, "no SagaOrchestrator"),
        ("app:away", 1, "cannot be reached"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(folder: Path, name: str, status: int, said: str) -> None:
    """With its own exit status, without a traceback and without a password."""
    with worker(folder, name) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (status, "")
    assert said in err
    assert err.count("\n") == 1
    assert "sesame-secret" not in err


def test_the_example_application_runs(tmp_path: Path) -> None:
    """As the image runs it."""
    environment = {**os.environ, "SAGA_STORAGE_URL": f"sqlite:///{tmp_path / 'sagas.db'}"}
    with subprocess.Popen(
        [sys.executable, "-m", "saga", "worker", "deploy.app:orchestrator"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "ready" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_manifests_name_what_exists_and_give_time_enough(tmp_path: Path) -> None:
    """Options, the application, and a grace period above the drain of the application."""
    answer = subprocess.run(
        [sys.executable, "-m", "saga", "worker", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    app = (ROOT / "deploy" / "app.py").read_text()
    (drain,) = re.findall(r"drain_timeout=([\d.]+)", app)
    assert float(drain) == SagaOrchestrator()._drain_timeout  # noqa: SLF001 - the documented default
    for name, grace in (
        ("compose.yaml", r"stop_grace_period: (\d+)s"),
        ("kubernetes.yaml", r"PeriodSeconds: (\d+)\n\s+sec"),
    ):
        text = (ROOT / "deploy" / name).read_text()
        (seconds,) = re.findall(grace, text)
        assert float(seconds) >= float(drain) + 15.0, name
        options = set(re.findall(r'"(--[a-z-]+)"', text)) - {"--username", "--dbname"}
        assert options == {"--alive-file"}
        assert all(option in answer.stdout for option in options)
        assert "deploy.app:orchestrator" in text
        assert "\t" not in text
