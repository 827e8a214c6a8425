"""What the demo tells: three orders on real services, then the books."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sagas.demo.audit import Books, audit
from sagas.demo.mailbox import Mailbox
from sagas.demo.orders import COMPLETES, CURRENCY, DECLINED, KILLED, STOCK
from sagas.demo.processes import running_services
from sagas.http import client

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx
    from rich.console import Console

    from sagas.demo.orders import Order

ORDERS = (COMPLETES, DECLINED, KILLED)
EXIT_STATUSES = (0, 1, -signal.SIGKILL, 0)


async def tell(console: Console, *, charge_twice: bool) -> bool:
    """Run the demo; say whether every saga ended as it should and the books add up.

    Args:
        console: Where it is told.
        charge_twice: Charge the first order a second time behind the saga's back.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-demo-")))
        mailbox = await stack.enter_async_context(Mailbox())
        addresses = stack.enter_context(running_services(directory, mailbox.address))
        clients = {name: await stack.enter_async_context(client(url)) for name, url in addresses.items()}
        _heading(console, "Services, each a process with its own SQLite file", "")
        for name, url in addresses.items():
            console.print(f"  {name:<14} {url}")
        console.print(f"  {'mail':<14} smtp://{mailbox.address}")
        for sku, quantity in STOCK.items():
            await _post(clients["inventory"], "/receipts", f"receipt:{sku}", sku=sku, quantity=quantity)

        ended_well = await _run_orders(console, Workers(directory / "sagas.db", addresses))
        if charge_twice:
            await _charge_again(console, clients["payment"], COMPLETES)
        books = await read_books(clients, mailbox)
        return _report(console, books) and ended_well


async def _run_orders(console: Console, workers: Workers) -> bool:
    _heading(console, COMPLETES.number, f"{COMPLETES.summary}. All goes well.")
    first = await workers.run("--order", COMPLETES.to_json())

    _heading(console, DECLINED.number, f"{DECLINED.summary}. The card is declined.")
    second = await workers.run("--order", DECLINED.to_json())

    _heading(console, KILLED.number, f"{KILLED.summary}. Its process is killed once the money is taken.")
    third = await workers.run("--order", KILLED.to_json(), "--die-at", "/captures")
    console.print(
        Text("  ☠ the worker is dead by SIGKILL: the money is taken, and it recorded nothing of it", style="red")
    )
    console.print("  A new worker opens the same SQLite file and carries on as soon as the dead one's claim runs out.")
    fourth = await workers.run("--carry-on", KILLED.number)
    if (first, second, third, fourth) != EXIT_STATUSES:
        text = f"  ✗ the workers' exit statuses are {first}, {second}, {third}, {fourth}; expected {EXIT_STATUSES}"
        console.print(Text(text, style="bold red"))
        return False
    return True


class Workers:
    """Starts worker processes, one after the other, on the same storage and services."""

    def __init__(self, storage: Path, addresses: Mapping[str, str]) -> None:
        self._options = ["--storage", str(storage)]
        for name, url in addresses.items():
            self._options += ["--service", f"{name}={url}"]

    async def run(self, *arguments: str) -> int:
        """Run one worker on this process's standard output and return its exit status; end it if this is cancelled."""
        command = ["-m", "sagas.demo.worker", *self._options, *arguments]
        # A session of its own keeps Ctrl-C from the terminal away: this process ends it in good order.
        worker = await asyncio.create_subprocess_exec(sys.executable, *command, start_new_session=True)
        try:
            return await worker.wait()
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


async def _post(http: httpx.AsyncClient, path: str, key: str, **body: object) -> dict[str, Any]:
    response = await http.post(path, json=body, headers={"Idempotency-Key": key})
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


async def _charge_again(console: Console, payment: httpx.AsyncClient, order: Order) -> None:
    _heading(console, "As asked", f"{order.number} is charged a second time, behind its saga's back.")
    body = {"order_id": order.number, "card": order.card, "amount": order.amount, "currency": CURRENCY}
    held = await _post(payment, "/authorisations", "again:authorise", **body)
    await _post(payment, "/captures", "again:capture", authorisation_id=held["authorisation_id"])


async def read_books(clients: Mapping[str, httpx.AsyncClient], mailbox: Mailbox) -> Books:
    """Read back what the services and the mail server have.

    Args:
        clients: The services' clients by name.
        mailbox: The mail server.
    """

    async def get(name: str, path: str) -> Any:
        return (await clients[name].get(path)).raise_for_status().json()

    audits = {name: await get(name, "/audit") for name in clients}
    return Books(
        ledgers={name: await get(name, "/ledger") for name in clients},
        problems=[f"{name}: {problem}" for name, found in audits.items() for problem in found["problems"]],
        repeats={name: found["repeats"] for name, found in audits.items()},
        stock=await get("inventory", "/stock"),
        mailed=[str(mail["To"]) for mail in mailbox.mails],
    )


def _report(console: Console, books: Books) -> bool:
    _heading(console, "The services' ledgers", "read back and added up")
    findings = audit(ORDERS, books)
    for finding in findings:
        console.print(Text.assemble("  ", ("✓", "green") if finding.good else ("✗", "red"), f" {finding.text}"))
    for name, times in books.repeats.items():
        if times:
            console.print(f"  · {name}: calls repeated under their key and answered with the first answer: {times}")
    good = all(finding.good for finding in findings)
    if good:
        console.print(
            Text("\nMoney and stock add up: nothing charged twice, nothing left reserved.", style="bold green")
        )
    else:
        console.print(Text("\nThe books do NOT add up.", style="bold red"))
    return good


def _heading(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(Text.assemble((title, "bold"), f"  {text}".rstrip()))
