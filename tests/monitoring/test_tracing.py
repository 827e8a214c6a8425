"""SagaTracer: one saga is one trace, in one process and over several; and the decorators for user code."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from saga import (
    InMemorySagaStorage,
    LeaveReason,
    Redaction,
    RetryPolicy,
    Saga,
    SagaAlreadyExistsError,
    SagaContext,
    SagaInfo,
    SagaOrchestrator,
    SagaTracer,
    SQLiteSagaStorage,
    trace_saga_action,
    trace_saga_compensation,
)
from saga.events import AttemptFailed, AttemptStarted, AttemptSucceeded, AttemptUnknown, Claimed, Created
from saga.types import ErrorRecord, Phase, UnknownReason
from tests.unit.kit import AT_ONCE, chain, dag, fail, step, undo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


Spans = InMemorySpanExporter
CREATED = Created(name="Order", version="1", shape=(), arguments=msgspec.Raw(b"{}"))


@pytest.fixture
def spans() -> Spans:
    """Keeps what is exported."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: Spans) -> Iterator[TracerProvider]:
    """An SDK whose spans are kept."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(spans))
    yield made
    made.shutdown()


def by_name(spans: Spans) -> dict[str, list[ReadableSpan]]:
    """Return the finished spans by name."""
    found: dict[str, list[ReadableSpan]] = {}
    for span in spans.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def one(spans: Spans, name: str) -> ReadableSpan:
    """Return the one finished span of this name."""
    [span] = by_name(spans)[name]
    return span


def id_of(span: ReadableSpan) -> tuple[int, int]:
    """Return a span's trace id and span id."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    """Return the ids of a span's parent."""
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def events_of(span: ReadableSpan) -> dict[str, dict[str, Any]]:
    """Return a span's events by name."""
    return {event.name: dict(event.attributes or {}) for event in span.events}


@pytest.mark.asyncio
async def test_a_saga_is_one_trace_with_a_span_for_each_attempt(provider: TracerProvider, spans: Spans) -> None:
    """Named by step, with what the attempt was and how it ended."""
    async with SagaOrchestrator(observers=[SagaTracer(provider)]) as orchestrator:
        await orchestrator.execute(chain(step("a"), step("b", fail), name="Order")(), saga_id="o-1")
    found = by_name(spans)
    assert {name: len(each) for name, each in found.items()} == {
        "saga Order": 1,
        "step a": 1,
        "step b": 1,
        "compensate a": 1,
    }
    root = one(spans, "saga Order")
    for name in ("step a", "step b", "compensate a"):
        assert parent_of(one(spans, name)) == id_of(root)
    assert one(spans, "compensate a").attributes == {
        "saga.id": "o-1",
        "saga.name": "Order",
        "saga.version": "1",
        "saga.step.name": "a",
        "saga.step.attempt": 1,
        "saga.phase": "compensation",
        "saga.idempotency_key": "o-1:a:compensation",
        "saga.outcome": "succeeded",
    }
    failed = one(spans, "step b")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "b failed")
    assert failed.attributes is not None
    assert (failed.attributes["error.type"], failed.attributes["saga.outcome"]) == ("ValueError", "failed")
    assert events_of(failed) == {"exception": {"exception.type": "ValueError", "exception.message": "b failed"}}


@pytest.mark.asyncio
async def test_the_span_of_a_saga_ends_when_the_saga_is_stored(provider: TracerProvider, spans: Spans) -> None:
    """So that it is exported although the process may die in the first step, and all attempts are its children."""
    seen: list[list[str]] = []

    async def action(ctx: SagaContext) -> None:
        seen.append([span.name for span in spans.get_finished_spans()])

    await chain(step("a", action), name="Order")().execute(observers=[SagaTracer(provider)])
    assert seen == [["saga Order"]]


@pytest.mark.asyncio
async def test_each_retry_is_a_span_and_the_failure_before_it_says_when(provider: TracerProvider, spans: Spans) -> None:
    """The event has the pause that was drawn; only the last failure has none."""
    await chain(step("a", fail, retry=AT_ONCE))().execute(observers=[SagaTracer(provider)])
    first, last = by_name(spans)["step a"]
    assert [span.attributes and span.attributes["saga.step.attempt"] for span in (first, last)] == [1, 2]
    assert events_of(first)["retry"] == {"saga.retry_in_s": 0.001}
    assert "retry" not in events_of(last)
    assert first.end_time is not None
    assert last.start_time is not None
    assert first.end_time < last.start_time


@pytest.mark.asyncio
async def test_the_trace_continues_the_callers(provider: TracerProvider, spans: Spans) -> None:
    """And the span's own context is what is stored with the saga."""
    tracer = provider.get_tracer("caller")
    from_afar = propagate.extract({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": "vendor=7"})
    async with InMemorySagaStorage() as storage:
        async with SagaOrchestrator(storage, observers=[SagaTracer(provider)]) as orchestrator:
            with tracer.start_as_current_span("request", from_afar) as request:
                await orchestrator.execute(chain(step("a"), name="Order")(), saga_id="o-1")
        [stored] = await storage.load(["o-1"])
    root = one(spans, "saga Order")
    assert parent_of(root) == (request.get_span_context().trace_id, request.get_span_context().span_id)
    first = stored.entries[0].events[0]
    assert isinstance(first, Created)
    trace_id, span_id = id_of(root)
    assert set(first.headers) == {"traceparent", "tracestate"}
    assert first.headers["tracestate"] == "vendor=7"
    version, stored_trace, stored_span, flags = first.headers["traceparent"].split("-")
    assert (version, int(stored_trace, 16), int(stored_span, 16)) == ("00", trace_id, span_id)
    assert trace.TraceFlags(int(flags, 16)).sampled


@pytest.mark.asyncio
async def test_calls_made_in_a_step_are_children_of_its_span(provider: TracerProvider, spans: Spans) -> None:
    """Whatever the caller's code does in between, also in a task, and side by side with other steps."""

    async def call(ctx: SagaContext) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            context = propagate.extract(dict(request.headers))
            provider.get_tracer("service").start_span(f"serve {ctx.step_name}", context).end()
            return httpx.Response(200)

        async def send() -> None:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
                await http.get("http://service/", headers=headers)

        await asyncio.create_task(send())

    cls = dag(step("a", call), step("b", call))
    await cls().execute(observers=[SagaTracer(provider)])
    for name in "ab":
        assert parent_of(one(spans, f"serve {name}")) == id_of(one(spans, f"step {name}"))
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.asyncio
async def test_an_unsampled_trace_stays_unsampled_in_every_process(spans: Spans) -> None:
    """The decision is stored with the saga."""
    off = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    off.add_span_processor(SimpleSpanProcessor(spans))
    tracer = SagaTracer(off)
    headers = tracer.headers(SagaInfo("o-1", "Order", "1"))
    assert not trace.TraceFlags(int(headers["traceparent"][-2:], 16)).sampled
    with tracer.around(SagaInfo("o-1", "Order", "1", headers), context("a")):
        pass
    assert spans.get_finished_spans() == ()
    off.shutdown()


def context(name: str, phase: Phase = Phase.ACTION, attempt: int = 1) -> SagaContext:
    """The context of an attempt."""
    return SagaContext(saga_id="o-1", step_name=name, attempt=attempt, phase=phase, source=None)  # type: ignore[arg-type]


def test_after_a_takeover_the_trace_goes_on_with_a_remote_parent_and_a_link(
    provider: TracerProvider, spans: Spans
) -> None:
    """The span of the killed attempt is lost; the takeover says so."""
    first, second = SagaTracer(provider), SagaTracer(provider)
    headers = first.headers(SagaInfo("o-1", "Order", "1"))
    saga = SagaInfo("o-1", "Order", "1", headers)
    first.on_event(saga, CREATED)
    with first.around(saga, context("a")):
        pass  # its process dies here, with the span open
    second.on_event(saga, Claimed("host:2", 2, 1, expired=True))
    second.on_event(saga, AttemptUnknown("a", Phase.ACTION, 1, UnknownReason.INTERRUPTED, ErrorRecord("", "cut off")))
    second.on_event(saga, AttemptStarted("a", Phase.ACTION, 2))
    with second.around(saga, context("a", attempt=2)):
        pass
    second.on_event(saga, AttemptSucceeded("a", Phase.ACTION, 2))
    second.on_leave(saga, LeaveReason.REST)
    root, takeover, again = one(spans, "saga Order"), one(spans, "takeover Order"), one(spans, "step a")
    assert parent_of(takeover) == parent_of(again) == id_of(root)
    assert again.parent is not None
    assert again.parent.is_remote
    assert [link.context.span_id for link in takeover.links] == [id_of(root)[1]]
    assert [link.context.span_id for link in again.links] == [id_of(takeover)[1]]
    assert events_of(takeover) == {
        "attempt lost": {"saga.step.name": "a", "saga.phase": "action", "saga.step.attempt": 1}
    }
    assert again.attributes is not None
    assert again.attributes["saga.step.attempt"] == 2


@pytest.mark.asyncio
async def test_a_saga_that_was_handed_over_goes_on_without_a_takeover(provider: TracerProvider, spans: Spans) -> None:
    """A shutdown is no crash: the interrupted attempt's span is exported, and the heir's is its sibling."""
    reached = asyncio.Event()
    calls: list[int] = []

    async def action(ctx: SagaContext) -> None:
        calls.append(ctx.attempt)
        if len(calls) == 1:
            reached.set()
            await asyncio.Event().wait()

    cls = chain(step("a", action, timeout=None), name="Order")
    async with InMemorySagaStorage() as storage:
        async with SagaOrchestrator(storage, observers=[SagaTracer(provider)], drain_timeout=0) as orchestrator:
            await orchestrator.start(cls(), saga_id="o-1")
            await reached.wait()
        heir = SagaOrchestrator(storage, sagas=[cls], observers=[SagaTracer(provider)], sweep_interval=0.05)
        async with heir as orchestrator:
            assert (await orchestrator.execute(cls(), saga_id="o-1")).success
    first, second = by_name(spans)["step a"]
    assert first.attributes is not None
    assert (first.attributes["saga.outcome"], first.attributes["error.type"]) == ("unknown", "interrupted")
    assert parent_of(first) == parent_of(second) == id_of(one(spans, "saga Order"))
    assert "takeover Order" not in by_name(spans)


@pytest.mark.asyncio
async def test_a_start_that_is_refused_leaves_no_span(provider: TracerProvider, spans: Spans) -> None:
    """Nothing is its child, and nothing of it is kept."""
    tracer = SagaTracer(provider)
    async with InMemorySagaStorage() as storage:
        async with SagaOrchestrator(storage) as other:
            await other.execute(chain(step("a"), name="Other")(), saga_id="o-1")
        async with SagaOrchestrator(storage, observers=[tracer]) as orchestrator:
            with pytest.raises(SagaAlreadyExistsError):
                await orchestrator.execute(chain(step("a"), name="Order")(), saga_id="o-1")
    gc.collect()
    assert spans.get_finished_spans() == ()
    assert not [kept for kept in vars(tracer).values() if kept and isinstance(kept, dict)]


@pytest.mark.asyncio
async def test_a_saga_started_in_the_callers_transaction_has_its_span_too(
    provider: TracerProvider, spans: Spans, tmp_path: Path
) -> None:
    """Although another process may begin it: the attempts are children of what the starter exported."""
    cls = chain(step("a"), name="Order")
    file = tmp_path / "sagas.db"
    async with (
        SQLiteSagaStorage(file) as storage,
        SagaOrchestrator(storage, observers=[SagaTracer(provider)], sweep_interval=0.05) as orchestrator,
    ):
        with sqlite3.connect(file, isolation_level=None) as connection:
            connection.execute("BEGIN IMMEDIATE")
            handle = await orchestrator.start(cls(), connection=connection)
            connection.execute("COMMIT")
        root = one(spans, "saga Order")
        connection.close()
        await orchestrator.recover()
        assert (await handle.wait()).success
    assert parent_of(one(spans, "step a")) == id_of(root)


def test_an_attempt_that_succeeds_late_does_not_end_another_ones_span(provider: TracerProvider, spans: Spans) -> None:
    """The first attempt was given up and the second one runs when the first one turns out to have succeeded."""
    info = SagaInfo("o-1", "Order", "1")
    tracer = SagaTracer(provider)
    first, second = (context("a", attempt=number) for number in (1, 2))
    with tracer.around(info, first):
        pass
    gone = AttemptUnknown("a", Phase.ACTION, 1, UnknownReason.TIMEOUT, ErrorRecord("TimeoutError", ""))
    tracer.on_event(info, gone)
    with tracer.around(info, second):
        tracer.on_event(info, AttemptSucceeded("a", Phase.ACTION, 1))
    assert outcomes(spans) == [(1, "unknown")]
    tracer.on_event(info, AttemptFailed("a", Phase.ACTION, 2, ErrorRecord("ValueError", "no")))
    assert outcomes(spans) == [(1, "unknown"), (2, "failed")]


def outcomes(spans: Spans) -> list[tuple[object, object]]:
    """Return number and outcome of the attempts of step a that are exported."""
    said = [span.attributes or {} for span in by_name(spans)["step a"]]
    return [(each["saga.step.attempt"], each["saga.outcome"]) for each in said]


def test_an_attempts_span_is_current_while_its_code_runs_and_ends_with_it(
    provider: TracerProvider, spans: Spans
) -> None:
    """Although it is exported only when the outcome is stored: the write is not a part of it."""
    info = SagaInfo("o-1", "Order", "1")
    tracer = SagaTracer(provider)
    with tracer.around(info, context("a")):
        running = trace.get_current_span()
        assert running.is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert "step a" not in by_name(spans)
    left_at = time.time_ns()
    tracer.on_event(info, AttemptSucceeded("a", Phase.ACTION, 1))
    span = one(spans, "step a")
    assert span.end_time is not None
    assert span.end_time <= left_at


class Traced(Saga):
    """Uses both decorators, with and without arguments, on methods."""

    def __init__(self, amount: int) -> None:
        """Keep the amount."""
        self.amount = amount

    async def build(self) -> None:
        """Add a step that is undone."""
        await self.add_step("reserve", self._reserve, self._release)
        await self.add_step("pay", self._pay)

    @trace_saga_action
    async def _reserve(self, ctx: SagaContext) -> dict[str, int]:
        return {"amount": await self._look_up(self.amount)}

    @trace_saga_action(name="look up", attributes={"shop.table": "stock"})
    async def _look_up(self, amount: int) -> int:
        return amount

    @trace_saga_compensation(name="release")
    async def _release(self, result: dict[str, int], ctx: SagaContext) -> None:
        assert result == {"amount": self.amount}

    @trace_saga_action(name="charge")
    async def _pay(self, ctx: SagaContext) -> None:
        message = "password=sesame"
        raise ValueError(message)


@pytest.mark.asyncio
async def test_decorated_code_has_spans_inside_of_its_attempt(provider: TracerProvider, spans: Spans) -> None:
    """They know saga, step and attempt from the context, and what was raised, masked."""
    result = await Traced(3).execute(observers=[SagaTracer(provider)])
    assert result.compensation_errors == ()
    reserve = one(spans, "action _reserve")
    assert parent_of(reserve) == id_of(one(spans, "step reserve"))
    assert reserve.attributes is not None
    assert (reserve.attributes["saga.step.name"], reserve.attributes["saga.phase"]) == ("reserve", "action")
    assert parent_of(one(spans, "action look up")) == id_of(reserve)
    assert one(spans, "action look up").attributes == {"shop.table": "stock"}
    assert parent_of(one(spans, "compensation release")) == id_of(one(spans, "compensate reserve"))
    charge = one(spans, "action charge")
    assert (charge.status.status_code, charge.status.description) == (StatusCode.ERROR, "password=***")


class Chatty(Saga):
    """Says too much, over two lines."""

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("talk", self._talk)

    @trace_saga_action
    async def _talk(self, ctx: SagaContext) -> None:
        message = "the zebra\nforged: yes"
        raise ValueError(message)


@pytest.mark.asyncio
async def test_decorated_code_is_masked_as_its_attempt_is(provider: TracerProvider, spans: Spans) -> None:
    """By the tracer's own redaction, and on one line, in both spans."""
    await Chatty().execute(observers=[SagaTracer(provider, redaction=Redaction(patterns=["zebra"]))])
    for name in ("action _talk", "step talk"):
        assert one(spans, name).status.description == "the ***\\nforged: yes"


@pytest.mark.asyncio
async def test_nothing_is_kept_of_a_saga_that_rests(provider: TracerProvider) -> None:
    """Millions may pass through one process."""
    tracer = SagaTracer(provider)
    async with SagaOrchestrator(observers=[tracer]) as orchestrator:
        await orchestrator.execute(chain(step("a"), step("b", fail), name="Order")())
    assert [kept for kept in vars(tracer).values() if isinstance(kept, dict)] == [{}, {}]


def test_only_an_attempt_that_was_cut_off_is_lost(provider: TracerProvider, spans: Spans) -> None:
    """One that timed out elsewhere has its span there."""
    tracer, info = SagaTracer(provider), SagaInfo("o-1", "Order", "1")
    tracer.on_event(info, Claimed("host:2", 2, 1, expired=True))
    for name, reason in (("a", UnknownReason.TIMEOUT), ("b", UnknownReason.INTERRUPTED)):
        tracer.on_event(info, AttemptUnknown(name, Phase.ACTION, 1, reason, ErrorRecord("", "")))
    tracer.on_leave(info, LeaveReason.REST)
    lost = [dict(event.attributes or {}) for event in one(spans, "takeover Order").events]
    assert [each["saga.step.name"] for each in lost] == ["b"]


@pytest.mark.asyncio
async def test_decorated_functions_stay_what_they_were() -> None:
    """Their results are typed as before, and outside of sagas they are called as before."""

    @trace_saga_action
    async def plain(ctx: SagaContext, *, twice: bool = False) -> tuple[int, int]:
        """Return two numbers."""
        return (1, 2 if twice else 1)

    assert (plain.__name__, plain.__doc__) == ("plain", "Return two numbers.")
    assert await plain(context("a"), twice=True) == (1, 2)
    result = await chain(step("a", plain, compensation=trace_saga_compensation(undo)))().execute()
    assert result.context["a"] == (1, 1)


def test_without_an_sdk_nothing_is_made_and_the_callers_context_is_handed_on() -> None:
    """In a process of its own, since an SDK that was installed once stays."""
    code = """
import asyncio, sys
from opentelemetry import context, propagate, trace
from saga import InMemorySagaStorage, Saga, SagaOrchestrator, SagaTracer, trace_saga_action
class Order(Saga):
    async def build(self):
        await self.add_step("a", self.act)
    @trace_saga_action
    async def act(self, ctx):
        assert not trace.get_current_span().is_recording()
async def main():
    async with InMemorySagaStorage() as storage, SagaOrchestrator(storage, observers=[SagaTracer()]) as runs:
        assert (await runs.execute(Order(), saga_id="bare")).success
        header = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        context.attach(propagate.extract(header))
        assert (await runs.execute(Order(), saga_id="called")).success
        bare, called = [found.entries[0].events[0].headers for found in await storage.load(["bare", "called"])]
        assert (bare, called) == ({}, header), (bare, called)
asyncio.run(main())
assert "opentelemetry.sdk" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.asyncio
async def test_an_attempt_that_outlives_its_saga_closes_its_span(provider: TracerProvider, spans: Spans) -> None:
    """The engine gives up on code that ignores its cancellation; the span ends with the fact, not with the code."""
    info = SagaInfo("o-1", "Order", "1")
    tracer = SagaTracer(provider)
    around = tracer.around(info, context("a"))
    around.__enter__()
    tracer.on_event(info, AttemptUnknown("a", Phase.ACTION, 1, UnknownReason.TIMEOUT, ErrorRecord("", "too slow"), 1.0))
    assert one(spans, "step a").attributes
    around.__exit__(None, None, None)
    assert len(by_name(spans)["step a"]) == 1
    with tracer.around(info, context("b")):
        tracer.on_leave(info, LeaveReason.LOST)
    assert one(spans, "step b").attributes


@pytest.mark.asyncio
async def test_payloads_are_in_no_attribute(provider: TracerProvider, spans: Spans) -> None:
    """Neither arguments nor results nor data of the context."""

    class Secretive(Saga):
        def __init__(self, note: str) -> None:
            self.note = note

        async def build(self) -> None:
            await self.add_step("a", self._a, undo, retry=RetryPolicy())
            await self.add_step("b", fail)

        async def _a(self, ctx: SagaContext) -> SagaContext:
            return ctx.with_data({"key": f"result of {self.note}"})

    await Secretive("a note of mine").execute(observers=[SagaTracer(provider)])
    assert spans.get_finished_spans()
    assert "note of mine" not in "".join(span.to_json() for span in spans.get_finished_spans())
