"""A process that runs one order's saga, or carries on what another one left, and sends its spans over OTLP/HTTP.

With ``--die-at PATH`` it flushes its spans and kills itself when a service's answer to that path arrives: the effect
has happened, nothing of it is recorded, and the span of the attempt is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from saga import LeaveReason, Observer, SagaInfo, SagaOrchestrator, SagaTracer, SQLiteSagaStorage
from sagas.demo.domains.order import DOMAIN
from sagas.http import client
from sagas.order_processing import OrderProcessingSaga


class Rested(Observer):
    """Knows when the saga has come to rest."""

    def __init__(self) -> None:
        """Begin to wait."""
        self.done = asyncio.Event()

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Note that it rests."""
        if reason is LeaveReason.REST:
            self.done.set()


async def work(options: argparse.Namespace, provider: TracerProvider) -> None:
    """Run the order, or wait until the sweep has carried it on to its rest."""
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        resources: dict[str, httpx.AsyncClient] = {}
        for service in options.service:
            name, _, url = service.partition("=")
            resources[name] = await stack.enter_async_context(client(url))
            if options.die_at:
                resources[name].event_hooks["response"].append(killer(options.die_at, provider))
        rested = Rested()
        storage = await stack.enter_async_context(SQLiteSagaStorage(options.storage))
        orchestrator = await stack.enter_async_context(
            SagaOrchestrator(
                storage,
                sagas=[OrderProcessingSaga],
                resources=resources,
                observers=[SagaTracer(), rested],
                lease_ttl=1.0,
                sweep_interval=0.2,
            )
        )
        if options.caller:
            context.attach(propagate.extract({"traceparent": options.caller}))
            await orchestrator.start(DOMAIN.plain("o-1").saga(), saga_id="o-1")
        await rested.done.wait()
        print((await orchestrator.get("o-1")).status, flush=True)  # noqa: T201 - what the test reads


def killer(path: str, provider: TracerProvider) -> Callable[[httpx.Response], Awaitable[None]]:
    """Return a hook that ends this process at the answer to a path."""

    async def kill(response: httpx.Response) -> None:
        if response.request.url.path == path:
            provider.force_flush()
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def main() -> None:
    """Run the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage", required=True)
    parser.add_argument("--service", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--otlp", required=True, metavar="URL")
    parser.add_argument("--die-at", metavar="PATH")
    parser.add_argument("--caller", metavar="TRACEPARENT", help="start the order, as a child of this span")
    options = parser.parse_args()
    provider = TracerProvider(resource=Resource.create({"service.name": f"worker-{os.getpid()}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{options.otlp}/v1/traces")))
    trace.set_tracer_provider(provider)
    asyncio.run(work(options, provider))
    provider.shutdown()


if __name__ == "__main__":
    main()
