"""A secret that passes through a saga is seen at no sink: each one is read to its end and searched."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from saga import (
    InMemorySagaStorage,
    Redaction,
    Saga,
    SagaContext,
    SagaLogFilter,
    SagaLogger,
    SagaMetrics,
    SagaOrchestrator,
    SagaResult,
    SagaTracer,
    trace_saga_action,
)
from tests.monitoring.otlp import receiving
from tests.unit.kit import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-3f9b21"
CARD = "4539 1488 0343 6467"
TEXT = (
    f"password={CANARY}; {{'api_key': '{CANARY}'}}; card {CARD}; paid with {CARD} 12/27 123; "
    f"Login(password=SecretStr('{CANARY}')); [(b'x-api-key', b'{CANARY}')]; {{'card': {{'n': [1], 'x': '{CANARY}'}}}}"
    f"; https://{CANARY}@git.example; "
    f"https://user:{CANARY}@bank.example/pay?token={CANARY}; Authorization: Bearer {CANARY}\n"
    f"Cookie: a=1; sid={CANARY}\nsecret: {CANARY}"
)
REPRS: list[str] = []
ERRORS: list[str] = []


class LeakyError(Exception):
    """Says too much."""


class Leaky(Saga):
    """Its arguments, results, context and errors hold the canary; so do its own log lines."""

    def __init__(self, password: str, payload: dict[str, str]) -> None:
        """Keep the secrets."""
        self.password = password
        self.payload = payload

    async def build(self) -> None:
        """Fail, retry, turn back, and fail to undo."""
        await self.add_step("login", self._login, self._log_out, compensation_retry=AT_ONCE)
        await self.add_step("pay", self._pay, retry=AT_ONCE)

    async def _login(self, ctx: SagaContext) -> SagaContext:
        REPRS.append(repr(ctx))
        given = ctx.with_data({"password": self.password, "card": CARD})
        REPRS.append(repr(given))
        return given

    async def _log_out(self, result: dict[str, str], ctx: SagaContext) -> None:
        REPRS.append(repr(ctx))
        assert result["password"] == CANARY
        raise LeakyError(TEXT)

    @trace_saga_action
    async def _pay(self, ctx: SagaContext) -> None:
        REPRS.append(repr(ctx))
        structlog.get_logger().info("paying", password=self.password, body=TEXT, deep={"cards": [CARD]})
        structlog.get_logger().info(
            "paying", headers=[(b"x-api-key", CANARY.encode())], card=float(CARD.replace(" ", ""))
        )
        logging.getLogger("shop").warning("paying %s", TEXT)
        logging.getLogger("shop").warning("%(pin)s", {"pin": CANARY}, extra={"token": CANARY}, stack_info=True)
        try:
            self._refuse()
        except LeakyError:
            logging.getLogger("shop").exception("failed")
            structlog.get_logger().exception("failed", stack_info=True)
            raise

    def _refuse(self) -> None:
        raise LeakyError(TEXT)


class Sinks:
    """Everything that leaves the process, kept as text."""

    def __init__(self) -> None:
        """Open the sinks."""
        self.json, self.console, self.user, self.plain, self.rendered = (io.StringIO() for _ in range(5))
        self.spans = InMemorySpanExporter()
        self.registry = CollectorRegistry()

    def texts(self) -> dict[str, str]:
        """Return what reached each sink."""
        return {
            "json records": self.json.getvalue(),
            "console records": self.console.getvalue(),
            "the user's structlog records": self.user.getvalue(),
            "the user's stdlib lines": self.plain.getvalue(),
            "the user's stdlib records, rendered by structlog": self.rendered.getvalue(),
            "spans": "".join(span.to_json() for span in self.spans.get_finished_spans()),
            "prometheus": generate_latest(self.registry).decode(),
            "reprs": "\n".join(REPRS),
            "errors": "\n".join(ERRORS),
        }


def texts_of(result: SagaResult) -> list[str]:
    """Return what the library's own errors say."""
    assert result.error is not None
    assert result.compensation_errors
    return [str(error) for error in (result.error, *result.compensation_errors)]


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    """Sinks that the user's own logging goes to as well, as the page on monitoring says."""
    opened = Sinks()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            Redaction(),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(opened.user),
    )
    handler = logging.StreamHandler(opened.plain)
    handler.addFilter(SagaLogFilter())
    handler.setFormatter(logging.Formatter("%(message)s %(token)s", defaults={"token": ""}))
    rendering = logging.StreamHandler(opened.rendered)
    rendering.addFilter(SagaLogFilter())
    rendering.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        )
    )
    logging.getLogger("shop").addHandler(rendering)
    logging.getLogger("shop").addHandler(handler)
    REPRS.clear()
    ERRORS.clear()
    yield opened
    logging.getLogger("shop").removeHandler(handler)
    logging.getLogger("shop").removeHandler(rendering)
    structlog.reset_defaults()


@pytest.mark.asyncio
async def test_a_canary_is_seen_at_no_sink(sinks: Sinks) -> None:
    """Arguments, results, context data, errors of actions and compensations, reasons, and the user's own lines."""
    metrics = SagaMetrics()
    metrics.to_prometheus(sinks.registry)
    loop = asyncio.get_running_loop()
    with receiving() as receiver:
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(sinks.spans))
        traces.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
        meters = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter(f"{receiver.url}/v1/metrics"))], shutdown_on_exit=False
        )
        metrics.to_opentelemetry(meters)
        observers = [
            SagaLogger(output="json", file=sinks.json),
            SagaLogger(output="console", file=sinks.console),
            SagaLogger(),
            SagaTracer(traces),
            metrics,
        ]
        async with (
            InMemorySagaStorage() as storage,
            metrics.watch(storage),
            SagaOrchestrator(storage, observers=observers, sweep_interval=0.05) as orchestrator,
        ):
            result = await orchestrator.execute(Leaky(CANARY, {"iban": CANARY}), saga_id="o-1")
            await orchestrator.retry("o-1", f"password={CANARY}")
            handle = await orchestrator.start(Leaky(CANARY, {"iban": CANARY}), saga_id="o-1")
            await handle.wait()
            record = await orchestrator.get("o-1")
            REPRS.extend([repr(result), repr(result.context), repr(metrics.snapshot()), repr(record.attention)])
            ERRORS.extend(texts_of(result))
            async with SagaOrchestrator(storage, sagas=[Leaky]) as another:
                elsewhere = await another.execute(Leaky(CANARY, {"iban": CANARY}), saga_id="o-1")
            ERRORS.extend([*texts_of(elsewhere), str(elsewhere.error and elsewhere.error.__cause__)])
        await loop.run_in_executor(None, traces.shutdown)
        await loop.run_in_executor(None, meters.shutdown)
        wire = b"".join(receiver.bodies)
        names = {span.name for span in receiver.spans}
    texts = {**sinks.texts(), "wire": wire.decode("latin-1")}
    assert names >= {"saga Leaky", "step pay", "compensate login", "action _pay"}
    assert "saga.step.attempts" in receiver.metrics
    for sink, text in texts.items():
        assert text, f"nothing came to {sink}, so nothing was shown"
        for secret in (CANARY, CARD, CARD.replace(" ", "")):
            assert secret not in text, f"{sink} shows {secret}: {text[max(0, text.index(secret) - 80) :][:160]}"
    for sink in ("json records", "console records", "the user's stdlib lines", "spans", "errors"):
        assert "***" in texts[sink], f"{sink} had nothing to mask"
    assert CANARY in str(result.error.__cause__ if result.error else ""), "the canary went in"
