"""A load: many sagas at random, with random faults, on worker processes of which some are killed; then the audit."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from saga import Phase, SagaOrchestrator, definition_of, open_storage
from sagas.demo.audit import UNFINISHED
from sagas.demo.plan import Job, StepFault
from sagas.demo.report import heading, report
from sagas.demo.stage import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from saga import SagaStorage
    from sagas.demo.domain import Case, Domain
    from sagas.demo.stage import Stage

WORKERS = 2
LOOK_SECONDS = 0.2
STALLED_SECONDS = 120.0
"""If nothing has come to rest for so long, something is wrong."""

ANSWER_SECONDS = 1.0
FAULTS = ("error-before", "error-after", "reply-lost", f"slow={1.5 * ANSWER_SECONDS}")


class LoadStalledError(Exception):
    """No saga has come to rest for a long time, or a worker has failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is done, and how badly.

    Attributes:
        sagas: How many sagas.
        kills: How many times a worker is killed, and started again on the same work.
        prefix: What the sagas' ids begin with.
        seed: What everything random is drawn from.
    """

    sagas: int
    kills: int
    prefix: str
    seed: int


async def run_load(console: Console, stage: Stage, load: Load) -> bool:
    """Run the sagas to their ends and say whether the books add up.

    Raises:
        LoadStalledError: If they do not all end.
    """
    chance = random.Random(load.seed)  # noqa: S311 - a test load, not a secret
    cases = [stage.domain.random_case(f"{load.prefix}-{n:05}", chance) for n in range(1, load.sagas + 1)]
    await stage.supply(load.sagas)
    jobs = [await _job(stage.domain, case, chance) for case in cases]
    text = f"with random faults, on {WORKERS} worker processes that are killed now and then (seed {load.seed})"
    heading(console, f"{load.sagas} sagas", text)
    killed = await _Running(console, stage, jobs, load.kills, chance).to_the_end()
    console.print(f"  · workers killed in the middle of their work: {killed}")
    endings = {number: record.status for number, record in (await stage.records()).items()}
    return report(console, stage, cases, endings, await stage.books())


async def _job(domain: Domain, case: Case, chance: random.Random) -> Job:
    """Return a case with faults at up to three calls, of actions or compensations."""
    steps = (await definition_of(case.saga())).steps.values()
    calls = [(step.name, Phase.ACTION) for step in steps if step.name not in domain.local]
    calls += [(step.name, Phase.COMPENSATION) for step in steps if step.compensation is not None]
    broken = chance.sample(calls, chance.choice((0, 1, 1, 2, 3)))
    faults = tuple(
        StepFault(step=step, fault=chance.choice(FAULTS), times=chance.choice((1, 1, 2, 4, 4)), phase=phase)
        for step, phase in broken
    )
    return Job(case=msgspec.Raw(msgspec.json.encode(case)), faults=faults)


class _Running:
    """The workers of a load, each with its share of the jobs; one that is killed is started again on its share."""

    def __init__(self, console: Console, stage: Stage, jobs: Sequence[Job], kills: int, chance: random.Random) -> None:
        self._console = console
        self._stage = stage
        self._jobs = jobs
        self._chance = chance
        # Spread over the run: each is due when so many sagas rest.
        self._kills_at = [len(jobs) * (number + 1) // (kills + 2) for number in range(kills)]
        self._killed = 0
        self._workers: list[asyncio.subprocess.Process] = []

    async def to_the_end(self) -> int:
        """Return when all workers have ended: how many were killed before."""
        columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        async with open_storage(self._stage.storage) as storage:
            earlier = await self._rested(storage)
            try:
                self._workers = [await self._start(number) for number in range(WORKERS)]
                with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as progress:
                    bar = progress.add_task("at rest", total=len(self._jobs))
                    await self._watch(storage, earlier, lambda rested: progress.update(bar, completed=rested))
            finally:
                for worker in self._workers:
                    await end(worker)
        return self._killed

    async def _watch(self, storage: SagaStorage, earlier: int, show: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        rested, since = -1, loop.time()
        while any(worker.returncode is None for worker in self._workers):
            await asyncio.sleep(LOOK_SECONDS)
            now_rested = await self._rested(storage) - earlier
            if now_rested != rested:
                rested, since = now_rested, loop.time()
                show(rested)
            if self._kills_at and rested >= self._kills_at[0] and any(w.returncode is None for w in self._workers):
                self._kills_at.pop(0)
                await self._kill_one()
            if loop.time() - since > STALLED_SECONDS:
                raise LoadStalledError(f"nothing came to rest for {STALLED_SECONDS:g} s; {rested} sagas rest")
            if any(worker.returncode for worker in self._workers):
                raise LoadStalledError("a worker failed; what it printed stands above")

    async def _rested(self, storage: SagaStorage) -> int:
        counts = (await storage.statistics()).by_status.get(self._stage.domain.saga.saga_name, {})
        return sum(count for status, count in counts.items() if status not in UNFINISHED)

    async def _kill_one(self) -> None:
        """Kill a worker that is at it, in the middle of whatever it does, and start it again."""
        number = self._chance.choice([n for n, worker in enumerate(self._workers) if worker.returncode is None])
        self._workers[number].kill()
        self._killed += 1
        await self._workers[number].wait()
        self._workers[number] = await self._start(number)

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        share = tuple(self._jobs[number::WORKERS])
        return await self._stage.start(self._stage.plan(jobs=share, answer_seconds=ANSWER_SECONDS))


async def unfinished(domain: Domain, storage: str) -> int:
    """Return how many sagas of the domain's class a storage has that have not ended: somebody else's."""
    async with open_storage(storage) as opened, SagaOrchestrator(opened) as looking:
        counts = (await looking.statistics()).by_status.get(domain.saga.saga_name, {})
    return sum(count for status, count in counts.items() if status in UNFINISHED)
