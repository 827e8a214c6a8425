"""What traces raises where user code runs: no saga feels it, and the loop is told once."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from saga import (
    Redaction,
    Saga,
    SagaContext,
    SagaStatus,
    SagaTracer,
    trace_saga_action,
    trace_saga_compensation,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Raising(SpanProcessor):
    """Raises where a span of these begins or ends."""

    def __init__(self, where: str, error: BaseException, *names: str) -> None:
        """Say where, what, and how the spans' names begin."""
        self.where = where
        self.error = error
        self.names = names

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Raise, if it is here."""
        if self.where == "on_start" and span.name.startswith(self.names):
            raise self.error

    def on_end(self, span: ReadableSpan) -> None:
        """Raise, if it is here."""
        if self.where == "on_end" and span.name.startswith(self.names):
            raise self.error


class Unable(Redaction):
    """Cannot mask."""

    def text(self, text: str) -> str:
        """Raise."""
        raise LookupError(text)


class Paid(Saga):
    """Charges, and then may fail and be undone."""

    def __init__(self, *, ends_well: bool) -> None:
        """Say how it ends."""
        self.ends_well = ends_well
        self.balance = 0

    async def build(self) -> None:
        """Add the steps."""
        await self.add_step("pay", self._pay, self._refund)
        await self.add_step("ship", self._ship)

    @trace_saga_action
    async def _pay(self, ctx: SagaContext) -> int:
        self.balance += 100
        return 100

    @trace_saga_compensation
    async def _refund(self, paid: int | None, ctx: SagaContext) -> None:
        self.balance -= paid or 0

    @trace_saga_action
    async def _ship(self, ctx: SagaContext) -> None:
        if not self.ends_well:
            message = "no stock"
            raise ValueError(message)


def reports() -> list[dict[str, Any]]:
    """Return what the running loop is told from now on."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    return told


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [RuntimeError("broken"), asyncio.CancelledError()])
@pytest.mark.parametrize("where", ["on_start", "on_end"])
async def test_a_span_processor_that_raises_changes_no_outcome(where: str, error: BaseException) -> None:
    """A charge that succeeded would be rolled back without its refund, since its result was lost."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Raising(where, error, "action ", "compensation "))
    told = reports()
    for ends_well in (True, False):
        saga = Paid(ends_well=ends_well)
        result = await saga.execute(observers=[SagaTracer(provider)])
        assert (result.status is SagaStatus.COMPLETED) is ends_well
        assert saga.balance == (100 if ends_well else 0)
        assert ends_well or str(result.error).endswith("ValueError: no stock")
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert [report["message"] for report in told] == ["tracing a decorated function raised; this is reported once"] * 2
    assert told[0]["exception"] is error
    provider.shutdown()


@pytest.mark.asyncio
async def test_a_redaction_that_raises_changes_no_outcome_and_takes_no_span() -> None:
    """Neither that of the decorated function nor that of its attempt."""
    provider, spans = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    told = reports()
    saga = Paid(ends_well=False)
    result = await saga.execute(observers=[SagaTracer(provider, redaction=Unable())])
    assert (result.status, saga.balance) == (SagaStatus.ROLLED_BACK, 0)
    assert {"action _ship", "step ship"} <= {span.name for span in spans.get_finished_spans()}
    assert len([report for report in told if "decorated" in report["message"]]) == 1
    provider.shutdown()


async def _async() -> int:
    return 1


def _wrapped() -> Callable[..., Any]:
    @functools.wraps(_async)
    def outer() -> Any:
        return _async()

    return outer


class _Callable:
    async def __call__(self) -> int:
        return 1


@pytest.mark.asyncio
@pytest.mark.parametrize("function", [_async, functools.partial(_async), _wrapped(), _Callable()])
async def test_whatever_is_async_can_be_decorated(function: Any) -> None:
    """Below other decorators too, and objects that are called."""
    assert await trace_saga_action(function)() == 1


def test_what_is_no_async_function_is_refused_where_it_is_decorated() -> None:
    """Its caller would get a coroutine that nobody awaits, far from the decorator."""

    def plain() -> int:
        return 1

    for decorate in (trace_saga_action, trace_saga_compensation, trace_saga_action(name="x")):
        with pytest.raises(TypeError, match=r"plain is no async function.*'async def'"):
            decorate(plain)
    with pytest.raises(TypeError, match=r"decorate _async below @staticmethod"):
        trace_saga_action(staticmethod(_async))
    with pytest.raises(TypeError, match=r"decorate _async below @classmethod"):
        trace_saga_action(classmethod(_async))  # type: ignore[arg-type]
