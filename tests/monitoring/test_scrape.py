"""What a running worker shows: metrics over HTTP, records in a file. Both are read as their readers would."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_SECONDS = 20.0
APP = """
import os, sys
from contextlib import asynccontextmanager
import prometheus_client
from saga import Saga, SagaLogger, SagaMetrics, SagaOrchestrator, SQLiteSagaStorage

class Order(Saga):
    def __init__(self, number: int) -> None:
        self.number = number
    async def build(self) -> None:
        await self.add_step("reserve", self.reserve, self.release)
        await self.add_step("pay", self.pay)
    async def reserve(self, ctx) -> int:
        return self.number
    async def release(self, result, ctx) -> None: ...
    async def pay(self, ctx) -> None:
        if self.number == 3:
            raise ValueError("declined")

@asynccontextmanager
async def orchestrator():
    metrics = SagaMetrics()
    metrics.to_prometheus()
    server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1")
    observers = [metrics, SagaLogger(output="json", file=open("records.jsonl", "w", buffering=1))]
    async with (
        SQLiteSagaStorage("sagas.db") as storage,
        metrics.watch(storage, every=0.1),
        SagaOrchestrator(storage, sagas=[Order], observers=observers) as orchestrator,
    ):
        for number in (1, 2, 3):
            await orchestrator.execute(Order(number))
        print(server.server_port, flush=True)
        yield orchestrator
    server.shutdown()
    server.server_close()
    thread.join()
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port at which a running worker shows its metrics."""
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "saga", "worker", "app:orchestrator"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0


def scraped(port: int) -> dict[str, list[Any]]:
    """Return the samples of a scrape by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_SECONDS) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_a_worker_is_scraped_and_its_records_are_read_back(port: int, tmp_path: Path) -> None:
    """The two say the same, and the gauges are those of the storage."""
    found = scraped(port)
    until = time.monotonic() + WAIT_SECONDS
    while [sample.value for sample in found.get("saga_in_flight", ())] != [0]:
        assert time.monotonic() < until
        found = scraped(port)
    finished = {sample.labels["outcome"]: sample.value for sample in found["saga_finished_total"]}
    assert finished == {"completed": 2, "rolled_back": 1, "failed": 0}
    attempts = {
        (sample.labels["step"], sample.labels["phase"], sample.labels["outcome"]): sample.value
        for sample in found["saga_step_attempts_total"]
    }
    assert attempts == {
        ("reserve", "action", "succeeded"): 3,
        ("pay", "action", "succeeded"): 2,
        ("pay", "action", "failed"): 1,
        ("reserve", "compensation", "succeeded"): 1,
        # What never was is there at 0, so that its first time makes a difference.
        ("reserve", "action", "failed"): 0,
        ("reserve", "action", "unknown"): 0,
        ("pay", "action", "unknown"): 0,
        ("reserve", "compensation", "failed"): 0,
        ("reserve", "compensation", "unknown"): 0,
    }
    assert [sample.value for sample in found["saga_needs_attention"]] == [0]
    assert [sample.value for sample in found["saga_oldest_unfinished_seconds"]] == [0]
    [info] = found["saga_build_info"]
    assert info.labels["version"]
    told = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert sum(each["event"] == "completed" for each in told) == 2
    ended = [each for each in told if each["event"] in ("attempt_succeeded", "attempt_failed")]
    assert len(ended) == sum(attempts.values())
