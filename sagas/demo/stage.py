"""The stage of a demo: services as processes, a mail server, a storage, and worker processes on them."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from saga import SagaFilter, SagaOrchestrator, open_storage
from sagas.demo.audit import Books
from sagas.demo.mailbox import Mailbox
from sagas.demo.plan import Plan
from sagas.demo.processes import running_services
from sagas.http import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from saga import SagaRecord
    from sagas.demo.domain import Domain, Supply
    from sagas.demo.processes import Services

PAGE = 500


class Stage:
    """What the sagas of one domain run on.

    Attributes:
        domain: The domain.
        storage: The URL of the sagas' storage.
        services: The services' processes.
        directory: Where they keep their files.
        clients: A client of each service.
        mailbox: What the mail server received.
        supplies: What the services were given first.
    """

    def __init__(
        self,
        domain: Domain,
        storage: str,
        directory: Path,
        services: Services,
        clients: Mapping[str, httpx.AsyncClient],
        mailbox: Mailbox,
    ) -> None:
        self.domain = domain
        self.storage = storage
        self.services = services
        self.directory = directory
        self.clients = clients
        self.mailbox = mailbox
        self.supplies: list[Supply] = []
        self._plans = 0

    async def supply(self, cases: int) -> None:
        """Give the services what so many cases find there."""
        self.supplies = list(self.domain.supplies(cases))
        for number, supply in enumerate(self.supplies):
            await self.post(supply.service, supply.path, f"supply:{number}", supply.body)

    async def post(self, service: str, path: str, key: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Make a mutating call, behind the sagas' back."""
        response = await self.clients[service].post(path, json=body, headers={"Idempotency-Key": key})
        answer: dict[str, Any] = response.raise_for_status().json()
        return answer

    def plan(self, **more: Any) -> Plan:
        """Return a worker's plan on this stage."""
        return Plan(
            parent=os.getpid(), domain=self.domain.name, storage=self.storage, services=self.services.addresses, **more
        )

    async def start(self, plan: Plan) -> asyncio.subprocess.Process:
        """Start a worker, on this process's standard output."""
        self._plans += 1
        file = self.directory / f"plan-{self._plans}.json"
        file.write_bytes(msgspec.json.encode(plan))
        # A session of its own keeps Ctrl-C from the terminal away: this process ends it in good order.
        command = ["-m", "sagas.demo.worker", str(file)]
        return await asyncio.create_subprocess_exec(sys.executable, *command, start_new_session=True)

    async def run(self, plan: Plan) -> int:
        """Run one worker and return its exit status; end it if this is cancelled."""
        worker = await self.start(plan)
        try:
            return await worker.wait()
        finally:
            await end(worker)

    async def records(self) -> dict[str, SagaRecord]:
        """Return the stored sagas of this domain, by id."""
        found: dict[str, SagaRecord] = {}
        wanted = SagaFilter(name=self.domain.saga.saga_name)
        cursor: str | None = None
        async with open_storage(self.storage) as storage, SagaOrchestrator(storage) as looking:
            while True:
                page = await looking.query(wanted, cursor, PAGE)
                found.update((record.saga_id, record) for record in page.items)
                cursor = page.cursor
                if cursor is None:
                    return found

    async def books(self) -> Books:
        """Read back what the services and the mail server have."""

        async def get(name: str, path: str) -> Any:
            return (await self.clients[name].get(path)).raise_for_status().json()

        async def ledger(name: str) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = []
            while page := await get(name, f"/ledger?after={rows[-1]['seq'] if rows else 0}"):
                rows += page
            return rows

        audits = {name: await get(name, "/audit") for name in self.clients}
        # A mail in doubt is handed over again under the same Message-ID: it is one mail (RFC 5322, 3.6.4).
        mails = {str(mail["Message-ID"]): str(mail["To"]) for mail in self.mailbox.mails}
        pooled = {flow.service for flow in self.domain.flows if flow.pooled}
        return Books(
            ledgers={name: await ledger(name) for name in self.clients},
            pools={name: await get(name, "/pools") for name in self.clients if name in pooled},
            problems=[f"{name}: {problem}" for name, found in audits.items() for problem in found["problems"]],
            repeats={name: found["repeats"] for name, found in audits.items()},
            refused={name: found["refused"] for name, found in audits.items()},
            mailed=list(mails.values()),
        )


async def end(worker: asyncio.subprocess.Process) -> None:
    """Kill a worker that has not ended."""
    if worker.returncode is None:
        worker.kill()
        await worker.wait()


@asynccontextmanager
async def staged(domain: Domain, storage: str | None, delay: float) -> AsyncIterator[Stage]:
    """Run the services of a domain, and take everything away in the end.

    Args:
        domain: The domain.
        storage: The URL of the sagas' storage; None makes an SQLite file that is gone in the end.
        delay: How long a call of a service takes on average, in seconds.

    Raises:
        ServiceEndedError: If a service does not start, or ends by itself.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-demo-")))
        mailbox = await stack.enter_async_context(Mailbox())
        services = stack.enter_context(running_services(directory, mailbox.address, domain.services, delay))
        clients = {name: await stack.enter_async_context(client(url)) for name, url in services.addresses.items()}
        url = storage or f"sqlite:///{directory / 'sagas.db'}"
        yield Stage(domain, url, directory, services, clients, mailbox)
