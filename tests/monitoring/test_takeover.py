"""A takeover by a real orchestrator, as all three observers show it."""

from __future__ import annotations

import io
import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from saga import InMemorySagaStorage, SagaLogger, SagaMetrics, SagaOrchestrator, SagaStatus, SagaTracer
from saga.testing import FakeClock
from tests.unit.kit import chain, leave, step

AGE = 100.0
"""Seconds between the creation and the takeover, by the storage's clock."""


@pytest.mark.asyncio
async def test_a_saga_whose_owner_gives_no_sign_of_life_is_seen_to_be_taken_over() -> None:
    """Counted, warned of, and traced; its duration reaches back to its creation."""
    clock, lines, spans = FakeClock(), io.StringIO(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    metrics = SagaMetrics(clock=clock)
    observers = [metrics, SagaLogger(output="json", file=lines, clock=clock), SagaTracer(provider)]
    cls = chain(step("a"), name="Order")
    async with InMemorySagaStorage(clock=clock) as storage:
        await leave(storage, cls(), "o-1")
        dead = await storage.claim_due(
            "dead:1", "its token", 15.0, 10, definitions=[("Order", "1")], exclude=set(), suspects=10
        )
        assert [found.record.saga_id for found in dead] == ["o-1"]
        clock.advance(AGE)
        async with SagaOrchestrator(storage, sagas=[cls], observers=observers) as orchestrator:
            await orchestrator.recover()
            assert (await orchestrator.execute(cls(), saga_id="o-1")).success
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.started, seen.takeovers, seen.by_status) == (0, 1, {SagaStatus.COMPLETED: 1})
    assert seen.durations[SagaStatus.COMPLETED].total == AGE
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (told[0]["event"], told[0]["level"]) == ("claimed", "warning")
    assert (told[-1]["event"], told[-1]["duration_s"]) == ("completed", AGE)
    # It was created where nobody traced, so this process makes the span that the others are children of.
    root, *others = spans.get_finished_spans()
    assert root.context is not None
    assert (root.name, root.parent) == ("saga Order", None)
    assert [span.name for span in others] == ["takeover Order", "step a"]
    assert {span.parent.span_id for span in others if span.parent} == {root.context.span_id}
    provider.shutdown()
