"""`saga demo`, as a user runs it: its words, its exit status, what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def test_the_demo_shows_three_orders_and_clean_books() -> None:
    """One completes, one is undone, one is carried on after SIGKILL; the capture is asked for twice and done once."""
    done = demo()

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    first, second, third, books = re.split(r"\n(?=order-100\d  |The services)", done.stdout)[1:]
    assert "COMPLETED" in first
    assert "the bank declined the card" in second
    assert re.search(r"↩ reserve_cup +undone.*\n.*↩ reserve_tea +undone", second)
    assert "ROLLED BACK" in second
    before, after = third.split("SIGKILL: ")
    assert "✓ authorise" in before
    assert "✓ capture" not in before
    assert "carries on" in after
    assert re.search(r"✓ capture[^✓]*✓ commit_stock[^✓]*✓ notify[^✓]*COMPLETED", after)
    assert "✓ authorise" not in after
    assert "order-1003: 42.00 EUR owed, 42.00 EUR charged in 1 capture, 0.00 EUR still held" in books
    assert "✗" not in books
    assert "Money and stock add up" in books


def test_the_demo_writes_plain_lines_into_a_pipe() -> None:
    """No escape sequence, no line broken at a terminal's width."""
    done = demo("--help")

    assert done.returncode == 0
    assert "--charge-twice" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_audit_notices_a_second_charge() -> None:
    """Somebody charges an order twice behind the saga's back: exit status 1, and the order is named."""
    done = demo("--charge-twice")

    assert done.returncode == 1
    assert "✗ order-1001: 42.00 EUR owed, 84.00 EUR charged in 2 captures" in done.stdout
    assert "do NOT add up" in done.stdout
    assert "\x1b" not in done.stdout


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
        assert len(children_of(str(tmp_path))) == 4
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
