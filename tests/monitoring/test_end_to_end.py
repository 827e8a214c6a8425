"""An order on real services, over a crash: what arrives at an OTLP receiver is one connected trace."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sagas.demo.domains.order import DOMAIN
from sagas.demo.mailbox import Mailbox
from tests.monitoring.otlp import Receiver, Span, receiving

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("order_worker.py")
TRACE_ID, CALLER_SPAN = "ab" * 16, "cd" * 8
CALLER = f"00-{TRACE_ID}-{CALLER_SPAN}-01"
WAIT_SECONDS = 30.0
SUPPLIES = ("POST /receipts", "POST /room")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where spans go."""
    with receiving() as running:
        yield running


@contextmanager
def service(name: str, directory: Path, *more: str) -> Iterator[str]:
    """Run a service as a process; give its address."""
    command = [sys.executable, "-m", f"sagas.services.{name}", "--db", str(directory / f"{name}.db"), *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)


def worker(directory: Path, addresses: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """Run a worker to its end."""
    services = [part for name, url in addresses.items() for part in ("--service", f"{name}={url}")]
    command = [sys.executable, str(WORKER), "--storage", str(directory / "sagas.db"), *services, *more]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.asyncio
async def test_an_order_that_crashes_and_is_carried_on_is_one_connected_trace(
    receiver: Receiver, tmp_path: Path
) -> None:
    """With the attempts of both processes, and the services' own spans inside; the killed attempt is an event."""
    async with Mailbox() as mailbox:
        await asyncio.to_thread(run, receiver, mailbox.address, tmp_path)
    # The services have sent what they still had when they were told to end.
    spans = [span for span in receiver.spans if span.name not in SUPPLIES]
    assert {span.trace_id for span in spans} == {TRACE_ID}
    judge(spans)


def run(receiver: Receiver, smtp: str, directory: Path) -> None:
    """Run the order in one process that is killed once the money is taken, and in a second one to its end."""
    otlp = ("--otlp", receiver.url)
    with (
        service("inventory", directory, *otlp) as inventory,
        service("payment", directory, *otlp) as payment,
        service("shipping", directory, *otlp) as shipping,
        service("notification", directory, *otlp, "--smtp", smtp) as notification,
    ):
        addresses = {"inventory": inventory, "payment": payment, "shipping": shipping, "notification": notification}
        for supply in DOMAIN.supplies(1):
            url = f"{addresses[supply.service]}{supply.path}"
            httpx.post(url, json=supply.body, headers={"Idempotency-Key": supply.item}).raise_for_status()
        killed = worker(directory, addresses, *otlp, "--caller", CALLER, "--die-at", "/captures")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        carried_on = worker(directory, addresses, *otlp)
        assert (carried_on.returncode, carried_on.stdout) == (0, "completed\n"), carried_on.stderr


def judge(spans: Sequence[Span]) -> None:
    """Check that the trace is connected, and says what happened."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "a span was exported twice"
    [root] = [span for span in spans if span.name == "saga OrderProcessingSaga"]
    assert root.parent_id == CALLER_SPAN
    attempts = [span for span in spans if span.name.startswith(("step ", "compensate "))]
    [takeover] = [span for span in spans if span.name == "takeover OrderProcessingSaga"]
    assert {span.parent_id for span in (*attempts, takeover)} == {root.span_id}

    first, second = sorted({span.service for span in attempts}, key=lambda service: service != root.service)
    assert first == root.service
    assert {span.name for span in attempts if span.service == first} == {
        "step validate",
        "step reserve_tea",
        "step reserve_cup",
        "step authorise",
        "step book_shipment",
    }
    heirs = {span.name: span for span in attempts if span.service == second}
    assert set(heirs) == {"step capture", "step commit_stock", "step dispatch", "step notify"}
    assert heirs["step capture"].attributes["saga.step.attempt"] == 2
    assert takeover.service == second
    assert takeover.links == [root.span_id]
    assert all(span.links == [takeover.span_id] for span in heirs.values())
    assert takeover.events == [
        ("attempt lost", {"saga.step.name": "capture", "saga.phase": "action", "saga.step.attempt": 1})
    ]

    calls = [span for span in spans if span.service in ("inventory", "payment", "shipping", "notification")]
    lost = {span.parent_id for span in spans} - by_id.keys() - {CALLER_SPAN}
    assert len(lost) == 1, "only the killed attempt's span is missing"
    orphans = [call for call in calls if call.parent_id in lost]
    assert [call.name for call in orphans] == ["POST /captures"]
    parents = {call.name: by_id[call.parent_id].name for call in calls if call not in orphans}
    assert parents == {
        "POST /reservations": "step reserve_cup",
        "POST /authorisations": "step authorise",
        "POST /bookings": "step book_shipment",
        "POST /captures": "step capture",
        "POST /commits": "step commit_stock",
        "POST /dispatches": "step dispatch",
        "POST /messages": "step notify",
    }
