"""A worker process: runs one order's saga on a SQLite file, or carries on the one that another worker left.

``python -m sagas.demo.worker --storage FILE --service NAME=URL … (--order JSON | --carry-on NUMBER)``. With
``--die-at PATH`` it sends itself SIGKILL when a service's good answer to that path arrives: the effect has happened,
and nothing of it is recorded. Exit status: 0 the saga completed, 1 it was undone or rests unfinished.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from saga import SagaOrchestrator, SagaStatus, SQLiteSagaStorage
from sagas.demo.orders import Order
from sagas.demo.watch import Watch, stdout_console
from sagas.http import client
from sagas.order_processing import OrderProcessingSaga

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import httpx

LEASE_SECONDS = 2.0
SWEEP_SECONDS = 0.5
WORK_SECONDS = 20.0


async def work(options: argparse.Namespace) -> bool:
    """Drive the saga to its resting point; say whether it completed."""
    async with asyncio.timeout(WORK_SECONDS), AsyncExitStack() as stack:
        resources = {}
        for service in options.service:
            name, _, url = service.partition("=")
            resources[name] = await stack.enter_async_context(client(url))
            if options.die_at:
                resources[name].event_hooks["response"].append(_killer(options.die_at))
        watch = Watch(stdout_console())
        storage = await stack.enter_async_context(SQLiteSagaStorage(options.storage))
        orchestrator = await stack.enter_async_context(
            SagaOrchestrator(
                storage,
                sagas=[OrderProcessingSaga],
                resources=resources,
                observers=[watch],
                lease_ttl=LEASE_SECONDS,
                sweep_interval=SWEEP_SECONDS,
            )
        )
        if options.order is not None:
            order = Order.from_json(options.order)
            return (await orchestrator.execute(order.saga(), saga_id=order.number)).success
        # The sweep finds the abandoned saga by itself; this process only waits.
        await watch.rested.wait()
        return (await orchestrator.get(options.carry_on)).status is SagaStatus.COMPLETED


def _killer(path: str) -> Callable[[httpx.Response], Awaitable[None]]:
    async def kill_this_process(response: httpx.Response) -> None:
        if response.is_success and response.request.url.path == path:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill_this_process


def main(arguments: Sequence[str]) -> int:
    """Run the worker and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sagas.demo.worker", description="Runs one order's saga.")
    parser.add_argument("--storage", type=Path, required=True, help="the SQLite file with the sagas")
    parser.add_argument("--service", action="append", default=[], metavar="NAME=URL", help="where a service listens")
    parser.add_argument("--die-at", metavar="PATH", help="send SIGKILL to itself when the answer to this path arrives")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--order", metavar="JSON", help="the order to process")
    what.add_argument("--carry-on", metavar="NUMBER", help="the order that another worker left")
    try:
        return 0 if asyncio.run(work(parser.parse_args(arguments))) else 1
    except TimeoutError:
        sys.stderr.write(f"the worker gave up: the saga did not come to rest within {WORK_SECONDS:g} s\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
