"""A domain on real services for tests: run a case with faults, kill its worker, and see whether the books add up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import msgspec
from msgspec import structs

from saga import (
    Observer,
    SagaOrchestrator,
    SagaRecord,
    SagaResult,
    SagaStatus,
    SagaStep,
    SQLiteSagaStorage,
    definition_of,
)
from sagas.demo.audit import audit
from sagas.demo.breakage import BrokenCalls
from sagas.demo.domain import Case, Domain
from sagas.demo.plan import Crash, Job, StepFault
from sagas.demo.stage import Stage, end, staged
from sagas.http import client

ANSWER_SECONDS = 0.5
LATE = f"slow={2 * ANSWER_SECONDS}"
"""A fault: the answer comes long after the caller has given up, and so does the effect."""

LEASE_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
KILLED = -signal.SIGKILL


class Play:
    """A stage with an orchestrator in this process, whose clients give up early and can be broken.

    Attributes:
        stage: Services, mail server, workers.
        orchestrator: Runs sagas on SQLite.
        cases: What was run so far; the audit is about all of it.
    """

    def __init__(
        self, stage: Stage, directory: Path, orchestrator: SagaOrchestrator, resources: dict[str, httpx.AsyncClient]
    ) -> None:
        self.stage = stage
        self.orchestrator = orchestrator
        self.cases: list[Case] = []
        self._directory = directory
        self._resources = resources
        self._calls = BrokenCalls()
        for http in resources.values():
            http.event_hooks["request"].append(self._calls.break_it)
        # As many processes as there are cores: more only wait for each other.
        self._processes = asyncio.Semaphore(2)

    async def run(self, case: Case, *faults: StepFault) -> SagaResult:
        """Run a case to its resting point."""
        self.cases.append(case)
        for fault in faults:
            self._calls.plan(case.number, fault)
        return await self.orchestrator.execute(case.saga(), saga_id=case.number)

    async def retry(self, case: Case) -> SagaStatus:
        """Say that a saga which waits for a person be tried again, and wait until it rests."""
        await self.orchestrator.retry(case.number, "looked at")
        return (await rest_of(self.orchestrator, case.number)).status

    async def kill(self, case: Case, crash: Crash, *faults: StepFault) -> SagaStatus:
        """Run a case in a process that dies, carry it on here, and return where it came to rest."""
        self.cases.append(case)
        file = self._directory / f"{case.number}.db"
        job = Job(case=msgspec.Raw(msgspec.json.encode(case)), faults=faults, crash=crash)
        plan = self.stage.plan(jobs=(job,), lease_seconds=LEASE_SECONDS)
        async with self._processes:
            worker = await self.stage.start(structs.replace(plan, storage=f"sqlite:///{file}"))
            try:
                assert await worker.wait() == KILLED, f"nobody died in {case.number}"
            finally:
                await end(worker)
        async with (
            SQLiteSagaStorage(file) as storage,
            SagaOrchestrator(
                storage, sagas=[self.stage.domain.saga], resources=self._resources, sweep_interval=0.2
            ) as heir,
        ):
            return (await rest_of(heir, case.number)).status

    async def complaints(self) -> list[str]:
        """Return what the audit has to say against the books of all cases so far."""
        endings = {case.number: SagaStatus.ROLLED_BACK for case in self.cases}
        endings |= {number: record.status for number, record in (await self.records()).items()}
        books = await self.stage.books()
        return [
            finding.text
            for finding in audit(self.stage.domain.flows, self.stage.supplies, self.cases, endings, books)
            if not finding.good
        ]

    async def records(self) -> dict[str, SagaRecord]:
        """Return the records of all cases, those of killed workers included."""
        records: dict[str, SagaRecord] = {}
        for case in self.cases:
            file = self._directory / f"{case.number}.db"
            if file.exists():
                async with SQLiteSagaStorage(file) as storage, SagaOrchestrator(storage) as looking:
                    records[case.number] = await looking.get(case.number)
            else:
                records[case.number] = await self.orchestrator.get(case.number)
        return records

    async def operations(self, service: str) -> list[str]:
        """Return the operations in a service's ledger that concern somebody."""
        ledger = (await self.stage.books()).ledgers[service]
        return [row["operation"] for row in ledger if "reference" in row["facts"]]


@asynccontextmanager
async def playing(
    domain: Domain, directory: Path, cases: int, *observers: Observer, answer_seconds: float = ANSWER_SECONDS
) -> AsyncIterator[Play]:
    """Set the stage, with what so many cases need; answers are waited for so long."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(staged(domain, None, 0.0))
        resources = {
            name: await stack.enter_async_context(client(url, answer_seconds))
            for name, url in stage.services.addresses.items()
        }
        storage = await stack.enter_async_context(SQLiteSagaStorage(directory / "sagas.db"))
        orchestrator = await stack.enter_async_context(
            SagaOrchestrator(storage, sagas=[domain.saga], resources=resources, observers=observers)
        )
        await stage.supply(cases)
        yield Play(stage, directory, orchestrator, resources)


async def steps_of(domain: Domain) -> dict[str, SagaStep]:
    """Return the steps of the domain's plain case."""
    return (await definition_of(domain.plain("any").saga())).steps


async def pivot_of(domain: Domain) -> str:
    """Return the pivot of the domain's plain case."""
    return next(step.name for step in (await steps_of(domain)).values() if step.pivot)


async def rest_of(orchestrator: SagaOrchestrator, saga_id: str) -> SagaRecord:
    """Wait until a saga rests."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        record = await orchestrator.get(saga_id)
        if record.at_rest:
            return record
        assert time.monotonic() < deadline, record
        await asyncio.sleep(0.05)
