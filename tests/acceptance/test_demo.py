"""`saga demo`, as a user runs it: its words, its exit status, what it leaves behind."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sagas.demo.audit import Books, audit
from sagas.demo.orders import Order
from sagas.order_processing import OrderLine

ORDER = Order("order-1", [OrderLine("tea", 2, 1_250)], "tok_good", completes=True)
ENDS_WITHIN_SECONDS = 30


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "saga", "demo", *arguments],
        capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_SECONDS
    )  # fmt: skip


def children_of(session: str) -> list[int]:
    """Return the processes whose command line names this text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if session in (process / "cmdline").read_text():
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended while we looked.
    return found


def row(operation: str, **facts: object) -> dict[str, object]:
    """One ledger row."""
    return {"operation": operation, "facts": facts}


def clean_books() -> Books:
    """What one completed order leaves."""
    line = {"order_id": ORDER.number, "sku": "tea", "quantity": 2}
    held = {"order_id": ORDER.number, "amount": 2_500}
    return Books(
        ledgers={
            "inventory": [row("received", sku="tea", quantity=10), row("reserved", **line), row("committed", **line)],
            "payment": [row("authorised", **held), row("captured", **held)],
            "notification": [row("sent", order_id=ORDER.number)],
        },
        problems=[],
        repeats={},
        stock=[{"sku": "tea", "on_hand": 8, "reserved": 0}],
        mailed=[ORDER.email],
    )


def test_the_audit_finds_nothing_in_clean_books() -> None:
    """One order, one capture, one mail, eight of ten left."""
    assert [finding for finding in audit([ORDER], clean_books()) if not finding.good] == []


LINE = {"order_id": ORDER.number, "sku": "tea", "quantity": 2}


@pytest.mark.parametrize(
    ("service", "extra", "complaint"),
    [
        ("payment", row("captured", order_id=ORDER.number, amount=2_500), "50.00 EUR charged in 2 captures"),
        ("payment", row("authorised", order_id=ORDER.number, amount=100), "1.00 EUR still held"),
        ("payment", row("refunded", order_id=ORDER.number, amount=2_500), "0.00 EUR charged in 1 capture"),
        ("payment", row("captured", order_id="order-2", amount=1), "nobody ordered order-2"),
        ("inventory", row("reserved", **LINE), "2 still reserved"),
        ("inventory", row("committed", **LINE), "4 shipped"),
        ("notification", row("sent", order_id=ORDER.number), "1 mail due, 2 sent, 1 received"),
    ],
)
def test_the_audit_names_what_does_not_add_up(service: str, extra: dict[str, object], complaint: str) -> None:
    """Each single row too many in any ledger is found."""
    books = clean_books()
    books = dataclasses.replace(books, ledgers={**books.ledgers, service: [*books.ledgers[service], extra]})

    complaints = [finding.text for finding in audit([ORDER], books) if not finding.good]
    assert any(complaint in text for text in complaints), complaints


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"problems": ["payment: rotten"]}, "payment: rotten"),
        ({"mailed": []}, "1 mail due, 1 sent, 0 received"),
        ({"stock": [{"sku": "tea", "on_hand": 9, "reserved": 0}]}, "9 left"),
    ],
)
def test_the_audit_believes_no_one(change: dict[str, Any], complaint: str) -> None:
    """A service's own complaint, a mail that never arrived, a shelf that is fuller than the ledger says."""
    complaints = [f.text for f in audit([ORDER], dataclasses.replace(clean_books(), **change)) if not f.good]

    assert any(complaint in text for text in complaints), complaints


def test_the_demo_shows_three_orders_and_clean_books() -> None:
    """One completes, one is undone, one is carried on after SIGKILL; the capture is asked for twice and done once."""
    done = demo()

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "lines in a pipe are plain"
    first, second, third, books = re.split(r"\n(?=order-100\d  |The services)", done.stdout)[1:]
    assert "COMPLETED" in first
    assert "the bank declined the card" in second
    assert re.search(r"↩ reserve_cup +undone.*\n.*↩ reserve_tea +undone", second)
    assert "ROLLED BACK" in second
    before, after = third.split("SIGKILL: ")
    assert "✓ authorise" in before
    assert "✓ capture" not in before
    assert "? capture        outcome unknown" in after
    assert "· capture        attempt 2, under the same key" in after
    assert re.search(r"✓ capture[^✓]*✓ commit_stock[^✓]*✓ notify[^✓]*COMPLETED", after)
    assert "✓ authorise" not in after
    assert "order-1003: 42.00 EUR owed, 42.00 EUR charged in 1 capture, 0.00 EUR still held" in books
    assert "payment: calls repeated under their key and answered with the first answer: 1" in books
    assert "✗" not in books
    assert "Money and stock add up" in books


def test_the_demo_says_what_it_can_do() -> None:
    """Its help names its option."""
    done = demo("--help")

    assert done.returncode == 0
    assert "--charge-twice" in done.stdout


def test_the_audit_notices_a_second_charge() -> None:
    """Somebody charges an order twice behind the saga's back: exit status 1, and the order is named."""
    done = demo("--charge-twice")

    assert done.returncode == 1
    assert "✗ order-1001: 42.00 EUR owed, 84.00 EUR charged in 2 captures" in done.stdout
    assert "do NOT add up" in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_demo_takes_its_processes_along_when_it_is_interrupted(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Ctrl-C in the middle: the exit status says so, and no service and no worker stays behind."""
    command = [sys.executable, "-m", "saga", "demo"]
    # All of the demo's processes name its temporary directory, which lies below this one.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "✓ validate" in line:
                break
        assert len(children_of(str(tmp_path))) >= 3
        process.send_signal(number)
        errors = process.stderr.read()
        assert process.wait(ENDS_WITHIN_SECONDS) == status, errors

    assert errors == ""
    assert children_of(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_the_services_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    """Nobody can clean up after SIGKILL: the services notice by themselves."""
    command = [sys.executable, "-m", "saga", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "✓ validate" in line:
                break
        process.kill()

    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while children_of(str(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_unknown_command_is_a_usage_error() -> None:
    """Exit status 2, and the word that was not understood."""
    done = subprocess.run(
        [sys.executable, "-m", "saga", "dmeo"], capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_SECONDS
    )

    assert done.returncode == 2
    assert "dmeo" in done.stderr


@pytest.mark.parametrize(("missing", "advice"), [("typer", "[cli]"), ("httpx", "saga demo needs httpx")])
def test_a_missing_extra_is_named_with_what_to_install(tmp_path: Path, missing: str, advice: str) -> None:
    """Without typer there is no command at all, without httpx no demo: exit status 2 and one line of advice."""
    blocker = (
        f"import sys\nsys.modules[{missing!r}] = None\nsys.argv = ['saga', 'demo']\nfrom saga.cli import main\nmain()\n"
    )
    script = tmp_path / "without.py"
    script.write_text(blocker)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_SECONDS
    )

    assert done.returncode == 2
    assert advice in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
