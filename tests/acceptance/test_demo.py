"""`saga demo`, as a user runs it: its words, its exit status, what it leaves behind."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from saga import AttemptFailed, ErrorRecord, Phase, SagaInfo, SagaStatus
from sagas.demo.audit import Books, audit
from sagas.demo.domain import Run, Scene, Supply
from sagas.demo.domains import DOMAINS
from sagas.demo.domains.order import DOMAIN, Order
from sagas.demo.domains.payment import Payment
from sagas.demo.plan import Plan
from sagas.demo.stage import staged
from sagas.demo.story import tell
from sagas.demo.watch import Watch
from sagas.order_processing import OrderLine

ORDER = Order("order-1", [OrderLine("tea", 2, 1_250)])
ENDS_WITHIN_SECONDS = 60


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


SUPPLIES = [Supply("inventory", "tea", 10, "", {}), Supply("shipping", "AT", 9, "", {})]


def clean_books() -> Books:
    """What one completed order leaves."""
    line = {"reference": ORDER.number, "item": "tea", "quantity": 2}
    held = {"reference": ORDER.number, "amount": 2_500, "currency": "EUR"}
    parcel = {"reference": ORDER.number, "item": "AT", "quantity": 1}
    return Books(
        ledgers={
            "inventory": [row("received", item="tea", quantity=10), row("reserved", **line), row("committed", **line)],
            "payment": [row("authorised", **held), row("captured", **held)],
            "shipping": [
                row("room_added", item="AT", quantity=9),
                row("booked", **parcel),
                row("dispatched", **parcel),
            ],
            "notification": [row("sent", reference=ORDER.number)],
        },
        pools={
            "inventory": [{"item": "tea", "total": 8, "held": 0}],
            "shipping": [{"item": "AT", "total": 8, "held": 0}],
        },
        problems=[],
        repeats={},
        refused={},
        mailed=[ORDER.email],
    )


def complaints(books: Books, status: SagaStatus | None = SagaStatus.COMPLETED) -> list[str]:
    """What the audit has to say against these books, if the order's saga ended so."""
    endings = {} if status is None else {ORDER.number: status}
    findings = audit(DOMAIN.flows, SUPPLIES, [ORDER], endings, books)
    return [finding.text for finding in findings if not finding.good]


def test_the_audit_finds_nothing_in_clean_books() -> None:
    """One order, one capture, one parcel, one mail, eight of ten left."""
    assert complaints(clean_books()) == []


LINE = {"reference": ORDER.number, "item": "tea", "quantity": 2}
MONEY = {"reference": ORDER.number, "currency": "EUR"}


@pytest.mark.parametrize(
    ("service", "extra", "complaint"),
    [
        ("payment", row("captured", amount=2_500, **MONEY), "25.00 EUR captured more often than due"),
        ("payment", row("captured", amount=2_500, **MONEY), "25.00 EUR captured that was not authorised"),
        ("payment", row("authorised", amount=100, **MONEY), "1.00 EUR still authorised"),
        ("payment", row("refunded", amount=2_500, **MONEY), "25.00 EUR refunded that was due"),
        ("payment", row("captured", reference="order-2", amount=1, currency="EUR"), "nobody asked for order-2"),
        ("payment", row("captured", amount=1, currency="EUR"), "payment: captured for nobody"),
        ("inventory", row("reserved", **LINE), "2 tea still reserved"),
        ("inventory", row("committed", **LINE), "2 tea committed more often than due"),
        ("inventory", row("reserved", item="tea", quantity=9), "promised twice: 1 too many at one time"),
        ("inventory", row("received", item="tea", quantity=1), "10 were supplied"),
        ("inventory", row("stolen", item="tea", quantity=-8), "10 were supplied"),
        ("inventory", row("received", item="coffee", quantity=1), "coffee at inventory"),
        (
            "shipping",
            row("dispatched", reference=ORDER.number, item="AT", quantity=1),
            "1 parcel to AT dispatched more",
        ),
        ("notification", row("sent", reference=ORDER.number), "1 mail sent more often than due"),
    ],
)
def test_the_audit_names_what_does_not_add_up(service: str, extra: dict[str, object], complaint: str) -> None:
    """Each single row too many in any ledger is found."""
    books = clean_books()
    books = dataclasses.replace(books, ledgers={**books.ledgers, service: [*books.ledgers[service], extra]})

    assert any(complaint in text for text in complaints(books)), complaints(books)


@pytest.mark.parametrize("service", ["payment", "inventory", "shipping", "notification"])
def test_the_audit_misses_what_is_not_there(service: str) -> None:
    """A completed order without its capture, its goods, its parcel or its mail."""
    books = clean_books()
    books = dataclasses.replace(books, ledgers={**books.ledgers, service: books.ledgers[service][:-1]})

    assert any("not, as is due" in text for text in complaints(books)), complaints(books)


def test_the_audit_reads_the_rows_in_their_order() -> None:
    """Money that was captured before it was held, and in another currency than it was held."""
    books = clean_books()
    held, taken = books.ledgers["payment"]
    backwards = dataclasses.replace(books, ledgers={**books.ledgers, "payment": [taken, held]})
    other = row("captured", reference=ORDER.number, amount=2_500, currency="USD")
    exchanged = dataclasses.replace(books, ledgers={**books.ledgers, "payment": [held, other]})

    assert any("captured that was not authorised" in text for text in complaints(backwards))
    assert any("captured that was not authorised" in text for text in complaints(exchanged))


@pytest.mark.parametrize("status", [SagaStatus.ROLLED_BACK, SagaStatus.FAILED, None])
def test_the_audit_holds_the_books_against_how_the_saga_ended(status: SagaStatus | None) -> None:
    """What a completed order leaves is wrong for any other ending."""
    assert any("2 tea committed" in text for text in complaints(clean_books(), status))


@pytest.mark.parametrize("status", [SagaStatus.PENDING, SagaStatus.EXECUTING, SagaStatus.COMPENSATING])
def test_the_audit_says_no_more_of_a_saga_under_way_than_that_it_is(status: SagaStatus) -> None:
    """Nobody can say yet what must be there, and what of it is too much."""
    done = "captured 25.00 EUR, committed 2 tea, dispatched 1 parcel to AT, sent 1 mail"
    assert complaints(clean_books(), status) == [f"order-1 {status}: {done}; it has not come to its end"]


def test_the_audit_names_a_saga_that_failed() -> None:
    """It came to rest, and not to an end: what it left held is named as well."""
    books = clean_books()
    kept = {**books.ledgers, "inventory": books.ledgers["inventory"][:-1]}
    found = complaints(dataclasses.replace(books, ledgers=kept), SagaStatus.FAILED)

    assert "order-1 failed: " in found[0]
    assert "an undo failed, and a person has not settled it" in found[0]
    assert "2 tea still reserved" in found[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"problems": ["payment: rotten"]}, "payment: rotten"),
        ({"mailed": []}, "0 mails received, 1 due"),
        ({"mailed": [ORDER.email, ORDER.email]}, "2 mails received, 1 due"),
        ({"mailed": [ORDER.email, "a@stranger.example"]}, "nobody asked for a mail to a@stranger.example"),
        ({"pools": {"inventory": [], "shipping": []}}, "tea at inventory: 10 there, 2 committed, 0 left"),
        ({"pools": {**clean_books().pools, "inventory": [{"item": "tea", "total": 9, "held": 0}]}}, "9 left"),
        ({"pools": {**clean_books().pools, "inventory": [{"item": "tea", "total": 8, "held": 1}]}}, "1 reserved"),
    ],
)
def test_the_audit_believes_no_one(change: dict[str, Any], complaint: str) -> None:
    """A service's own complaint, a mail too few or too many, a shelf that differs from the ledger."""
    found = complaints(dataclasses.replace(clean_books(), **change))

    assert any(complaint in text for text in found), found


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
    assert "✓ book_shipment" in before
    assert "✓ capture" not in before
    assert "? capture       outcome unknown" in after
    assert "· capture       attempt 2, under the same key" in after
    assert re.search(r"✓ capture[^✓]*✓ commit_stock[^✓]*✓ dispatch[^✓]*✓ notify[^✓]*COMPLETED", after)
    assert "✓ authorise" not in after
    assert "order-1003 completed: captured 42.00 EUR, committed 2 tea, committed 1 cup" in books
    assert "payment: calls repeated under their key and answered with the first answer: 1" in books
    assert "✗" not in books
    assert "The books add up" in books


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "payment",
            [
                "the holder of the card has not answered yet; again in",
                "payment-3 rolled back: captured 120.00 EUR, refunded 120.00 EUR",
                "payment-4 rolled back: captured 120.00 EUR, refunded 117.50 EUR",
            ],
        ),
        (
            "trade",
            [
                "asked for, 460 free",
                "↩ place_venue_north undone",
                "fill_venue_north has run, and nothing of it is recorded",
                "trade-4 completed: cleared 4120.00 EUR, reported 100 ACME, filled 60 ACME, filled 40 ACME",
            ],
        ),
        (
            "travel",
            [
                "FAIL_FAST: hotel and car are cut off",
                "2 pending for others; again in",
                "VIE-LIS late at airline: 2 there, 2 confirmed, 0 left, 0 pending",
            ],
        ),
    ],
)
def test_each_domain_tells_its_story(name: str, said: list[str]) -> None:
    """Every saga ends as its scene says, and the books add up."""
    done = demo(name)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert [text for text in said if text not in done.stdout] == []
    assert "The books add up" in done.stdout
    scenes = re.split(r"\n(?=travel-\d  |The services)", done.stdout)
    doubts = [sorted(re.findall(r"\? (\w+) +outcome unknown", scene)) for scene in scenes[2:5]]
    if name == "travel":
        turns = [re.findall(r"^  (turns back.*)$", scene, re.MULTILINE) for scene in scenes[2:5]]
        assert turns == [["turns back; 2 steps still run"]] * 3, "hotel and car are at it when the flight is refused"
        assert "  travel-5  turns back: what was done is undone" in scenes[6]
        assert doubts == [["book_car", "book_hotel"], ["book_car"], []], "the strategies differ in what is known"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "busy; again at once"), (0.04, "busy; again in 0.04 s"), (12.5, "busy; again in 12.50 s")],
)
def test_a_wait_is_told_as_what_it_is(seconds: float, told: str) -> None:
    """Not as 0.0 s."""
    out = io.StringIO()
    busy = ErrorRecord("ServiceError", "busy")
    failed = AttemptFailed(step="capture", phase=Phase.ACTION, attempt=1, error=busy, retry_in=seconds)
    Watch(Console(file=out), 8, named=False).on_event(SagaInfo("pay-1", "PaymentSaga", "1"), failed)

    assert out.getvalue() == f"  · capture  {told}\n"


def test_the_demo_says_what_it_can_do() -> None:
    """Its help names its options, its list what each demo shows and the steps that can be broken."""
    helped, listed = demo("--help"), demo("--list")

    assert (helped.returncode, listed.returncode) == (0, 0)
    for option in ("--fail", "--crash", "--lose-reply", "--storage", "--load", "--list"):
        assert option in helped.stdout
    for domain in DOMAINS.values():
        assert domain.shows in listed.stdout
    assert "validate reserve_tea reserve_cup authorise book_shipment capture" in listed.stdout
    words = " ".join(helped.stdout.replace("│", " ").split())
    assert "it runs one saga that this happens to. What is stored" in words
    assert "which may get in each other's way differently" in words
    told = helped.stdout.partition("╭")[0]
    # A line that ends early does so at the end of a paragraph.
    early = [a for a, b in itertools.pairwise(told.splitlines()) if b.strip() and 0 < len(a.strip()) < 60]
    assert early == []


@pytest.mark.parametrize(
    ("name", "step"), [("order", "notify"), ("payment", "settle"), ("trade", "report"), ("travel", "notify")]
)
def test_the_audit_notices_that_something_was_done_twice(name: str, step: str) -> None:
    """A case is run again under another saga's keys: exit status 1, and it is named."""
    done = demo(name, "--tamper", "--lose-reply", step)

    assert done.returncode == 1
    assert re.search(rf"✗ {name}-1 completed: .* more often than due", done.stdout), done.stdout
    assert "do NOT add up" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["order", "--fail", "book_shipment"], ["✗ book_shipment", "↩ authorise", "ROLLED BACK"]),
        (["order", "--fail", "dispatch"], ["! parked", "A person looks at it", "✓ dispatch", "COMPLETED"]),
        (["payment", "--lose-reply", "capture", "--crash", "settle"], ["? capture", "☠", "✓ settle", "COMPLETED"]),
        (["trade", "--crash", "place_venue_south"], ["☠", "· place_venue_south attempt 2", "COMPLETED"]),
        (["travel", "--fail", "book_car", "--lose-reply", "book_hotel"], ["✗ book_car", "ROLLED BACK"]),
    ],
)
def test_a_step_goes_wrong_as_it_was_asked_to(arguments: list[str], said: list[str]) -> None:
    """Refused, killed, its answer lost, also together; the books add up all the same."""
    done = demo(*arguments)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [text for text in said if text not in done.stdout] == []
    assert "The books add up" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["marriage"], "there is no demo 'marriage'; there are order, payment, trade, travel"),
        (["order", "--fail", "pray"], "order has no step 'pray'; it has validate, reserve_tea"),
        (["order", "--lose-reply", "validate"], "validate calls no service"),
        (["order", "--crash", "capture", "--crash", "notify"], "a worker dies once"),
        (["order", "--load", "5", "--fail", "capture"], "--load breaks things at random"),
        (["order", "--seed", "5"], "--seed is for --load"),
        (["order", "--storage", "memory:"], "memory is of no use"),
        (
            ["order", "--storage", "carrier-pigeon://loft"],
            "--storage takes a URL such as sqlite:///sagas.db, postgresql",
        ),
        (["order", "--storage", "sqlite:///:memory:"], "--storage takes a URL such as sqlite:///sagas.db"),
        (["order", "--storage", "sqlite:///"], "'sqlite:…' is none that the demo can use"),
        (["order", "--storage", "sqlite:////nowhere/s.db"], "--storage cannot be used: the folder /nowhere does not"),
        (["order", "--load", "5", "--storage", "redis://:secret@127.0.0.1:1/0"], "--storage cannot be used: Redis at"),
        (["order", "--fail", "capture", "--lose-reply", "capture"], "capture cannot go wrong in two ways"),
        (["order", "--fail", "capture", "--fail", "capture"], "capture cannot go wrong in two ways"),
        (["order", "--lose-reply", "notify", "--lose-reply", "notify"], "notify cannot go wrong in two ways"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(arguments: list[str], advice: str) -> None:
    """Exit status 2, one line that says what would work, and nothing is started."""
    done = demo(*arguments)

    assert done.returncode == 2
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert "InMemory" not in done.stderr
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_a_storage_with_somebody_elses_sagas_is_left_alone(tmp_path: Path) -> None:
    """The demo's workers would carry them on, with the demo's services: it refuses, and says why."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    program = f"""
import asyncio
from saga import SagaOrchestrator, open_storage
from sagas.demo.domains.order import DOMAIN

class Silent:
    async def post(self, *_, **__):
        await asyncio.sleep(60)

async def main():
    async with (
        open_storage({url!r}) as storage,
        SagaOrchestrator(storage, sagas=[DOMAIN.saga], resources={{"inventory": Silent()}}, drain_timeout=0.1) as host,
    ):
        await host.start(DOMAIN.plain("mine").saga(), saga_id="mine")

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=ENDS_WITHIN_SECONDS)
    done = demo("order", "--storage", url)

    assert done.returncode == 2
    assert "that storage has unfinished sagas of OrderProcessingSaga (1)" in done.stderr


def test_sagas_stay_in_the_storage_that_was_named(tmp_path: Path) -> None:
    """A second run there has numbers of its own."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    done = [demo("payment", "--lose-reply", "capture", "--storage", url) for _ in range(2)]

    assert [one.returncode for one in done] == [0, 0], done
    assert (tmp_path / "sagas.db").exists()


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


@pytest.mark.parametrize("arguments", [["order"], ["order", "--load", "300"]])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_no_process_outlives_the_demo(tmp_path: Path, arguments: list[str], number: signal.Signals) -> None:
    """Nobody can clean up after SIGKILL: services and workers notice by themselves; so with a closed terminal."""
    command = [sys.executable, "-m", "saga", "demo", *arguments]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + ENDS_WITHIN_SECONDS
        while not any("plan-" in command_of(child) for child in children_of(str(tmp_path))):
            assert time.monotonic() < deadline, "there is a worker"
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)

    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while children_of(str(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("what", ["worker", "service"])
def test_a_process_that_starts_after_its_starter_died_ends_at_once(tmp_path: Path, what: str) -> None:
    """It looks for its parent too late to see who that was, so it is told."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    if what == "worker":
        plan = Plan(parent=gone.pid, domain="order", storage=f"sqlite:///{tmp_path / 's.db'}", services={})
        file = tmp_path / "plan.json"
        file.write_bytes(msgspec.json.encode(plan))
        command = ["sagas.demo.worker", str(file)]
    else:
        command = ["sagas.services.inventory", "--db", str(tmp_path / "i.db"), "--parent", str(gone.pid)]
    done = subprocess.run([sys.executable, "-m", *command], check=False, timeout=ENDS_WITHIN_SECONDS)

    assert done.returncode == (1 if what == "worker" else 0)


def command_of(process: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # It ended while we looked.


def test_a_crash_that_never_comes_is_said() -> None:
    """The saga turned back before the step that was to kill its worker: exit status 1."""
    done = demo("payment", "--fail", "capture", "--crash", "settle")

    assert done.returncode == 1
    assert "  ✗ nobody died: the saga never came to settle" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == "But not everything went as it should: nobody died: the saga never came to settle."


@pytest.mark.asyncio
async def test_a_story_that_ends_otherwise_is_no_success() -> None:
    """The books add up, but the saga was undone where its scene said that it completes."""
    told = io.StringIO()
    scene = Scene("All goes well.", (Run(Payment("pay-1", "tok_declined")),))
    async with staged(DOMAINS["payment"], None, 0.0) as stage:
        good = await tell(Console(file=told, soft_wrap=True), stage, [scene])

    assert not good
    assert "✗ pay-1 is rolled_back, it should be completed" in told.getvalue()
    last = told.getvalue().splitlines()[-1]
    assert last == "But not everything went as it should: pay-1 is rolled_back, it should be completed."


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
