"""A worker process: runs sagas of one domain on a storage, and carries on those that others left.

``python -m sagas.demo.worker FILE``: the file holds a ``sagas.demo.plan.Plan`` as JSON. Exit status: 0 all that it was
told to run or to carry on rest, 1 the process that started it is gone.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from saga import Observer, SagaOrchestrator, definition_of, open_storage
from sagas.demo.breakage import BrokenCalls, Killer
from sagas.demo.domains import DOMAINS
from sagas.demo.plan import Plan
from sagas.demo.watch import Watch, stdout_console
from sagas.http import client
from sagas.lifeline import when_orphaned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagas.demo.plan import Job

SWEEP_SECONDS = 0.5
LOOK_SECONDS = 0.1


async def work(plan: Plan) -> None:
    """Do what the plan says, unless the parent ends before."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine always runs in one)
    when_orphaned(plan.parent, task.cancel)
    domain = DOMAINS[plan.domain]
    calls, killer = BrokenCalls(), Killer()
    observers: list[Observer] = [killer]
    if plan.told:
        steps = (await definition_of(domain.plain("any").saga())).steps
        observers.insert(0, Watch(stdout_console(), max(map(len, steps)), named=len(plan.jobs) > 1))
    async with AsyncExitStack() as stack:
        resources = {}
        for name, url in plan.services.items():
            resources[name] = await stack.enter_async_context(client(url, plan.answer_seconds))
            resources[name].event_hooks["request"].append(calls.break_it)
        storage = await stack.enter_async_context(open_storage(plan.storage))
        orchestrator = await stack.enter_async_context(
            SagaOrchestrator(
                storage,
                sagas=[domain.saga],
                resources=resources,
                observers=observers,
                lease_ttl=plan.lease_seconds,
                sweep_interval=SWEEP_SECONDS,
            )
        )
        places = asyncio.Semaphore(plan.at_once)

        async def run(job: Job) -> None:
            case = msgspec.json.decode(job.case, type=domain.case)
            saga_id = job.saga_id or case.number
            for fault in job.faults:
                calls.plan(saga_id, fault)
            if job.crash is not None:
                killer.plan(saga_id, job.crash)
            async with places:
                if job.how == "start":
                    await orchestrator.execute(case.saga(), saga_id=saga_id)
                    return
                if job.how == "retry":
                    await orchestrator.retry(saga_id, "somebody has looked at it")
                await _rests(orchestrator, saga_id)

        async with asyncio.TaskGroup() as group:
            for job in plan.jobs:
                group.create_task(run(job))


async def _rests(orchestrator: SagaOrchestrator, saga_id: str) -> None:
    """Wait until a saga rests; the sweep finds by itself what nobody drives."""
    while True:
        if (await orchestrator.get(saga_id)).at_rest:
            return
        await asyncio.sleep(LOOK_SECONDS)


def main(arguments: Sequence[str]) -> int:
    """Run the worker and return its exit status."""
    if len(arguments) != 1:
        sys.stderr.write("python -m sagas.demo.worker FILE: a plan as JSON\n")
        return 2
    plan = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Plan)
    try:
        asyncio.run(work(plan))
    except asyncio.CancelledError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
