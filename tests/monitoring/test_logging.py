"""SagaLogger: one record a fact, the context of user code, and lines that nobody can forge."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from msgspec import Raw
from structlog.testing import capture_logs

from saga import (
    AttentionCode,
    Observer,
    Redaction,
    Saga,
    SagaContext,
    SagaInfo,
    SagaLogFilter,
    SagaLogger,
    SagaOrchestrator,
    SagaStatus,
    SagaValidationError,
)
from saga.events import (
    AttemptFailed,
    AttemptNotRun,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionSet,
    CancelRequested,
    Claimed,
    Completed,
    Created,
    LateOutcome,
    RetryRequested,
)
from saga.testing import FakeClock
from saga.types import ErrorRecord, LeaveReason, Outcome, Phase, UnknownReason
from tests.unit.kit import AT_ONCE, chain, fail, step
from tests.unit.test_context import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

INFO = SagaInfo("o-1", "Order", "1", {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, 1_000.0)


class Facts(Observer):
    """Counts facts."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.names: list[str] = []

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Count a fact."""
        self.names.append(type(event).__name__)


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    """What a test configures is gone after it."""
    yield
    structlog.reset_defaults()


def unescaped(_logger: Any, _method: str, event: Any) -> str:
    """Render a record without any care, as an application may."""
    return " ".join(f"{key}={value}" for key, value in event.items())


def records(text: str) -> list[dict[str, Any]]:
    """Return JSON lines, parsed back."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.asyncio
async def test_each_fact_is_one_json_line_with_the_keys_that_are_promised() -> None:
    """Parsed back, they tell the saga's story in its order."""
    lines, facts = io.StringIO(), Facts()
    async with SagaOrchestrator(observers=[SagaLogger(output="json", file=lines), facts]) as orchestrator:
        await orchestrator.execute(chain(step("a"), step("b", fail), name="Order")(), saga_id="o-1")
    told = records(lines.getvalue())
    assert [each["event"].replace("_", "") for each in told] == [name.lower() for name in facts.names]
    assert {(each["saga_id"], each["saga"]) for each in told} == {("o-1", "Order")}
    [failed] = [each for each in told if each["event"] == "attempt_failed"]
    assert {key: failed[key] for key in ("step", "phase", "attempt", "outcome", "error", "level")} == {
        "step": "b",
        "phase": "action",
        "attempt": 1,
        "outcome": "failed",
        "error": "ValueError: b failed",
        "level": "warning",
    }
    assert failed["duration_s"] >= 0
    undone = [each for each in told if each.get("phase") == "compensation"]
    assert [each["event"] for each in undone] == ["attempt_started", "attempt_succeeded"]
    assert (told[-1]["event"], told[-1]["outcome"]) == ("rolled_back", "rolled_back")
    assert told[-1]["duration_s"] >= failed["duration_s"]


@pytest.mark.asyncio
async def test_each_fact_is_one_line_for_people() -> None:
    """Without colours where it is no terminal."""
    lines, facts = io.StringIO(), Facts()
    async with SagaOrchestrator(observers=[SagaLogger(output="console", file=lines), facts]) as orchestrator:
        await orchestrator.execute(chain(step("a"))())
    text = lines.getvalue()
    assert len(text.splitlines()) == len(facts.names)
    assert "\x1b" not in text
    assert "attempt_succeeded" in text


@pytest.mark.asyncio
async def test_records_go_where_the_application_configured_them_to_go() -> None:
    """By default through structlog's own configuration, which may come after the logger is made."""
    logger = SagaLogger()
    with capture_logs() as caught:
        await chain(step("a"))().execute(observers=[logger])
    assert [each["event"] for each in caught][:2] == ["created", "claimed"]
    mine: list[Any] = []

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        mine.append(event)
        raise structlog.DropEvent

    given = structlog.wrap_logger(structlog.PrintLogger(), processors=[keep])
    await chain(step("a"))().execute(observers=[SagaLogger(given)])
    assert len(mine) == len(caught)


@pytest.mark.asyncio
async def test_lines_of_its_own_leave_the_configuration_alone() -> None:
    """Neither structlog nor logging is another one after it."""
    before = (structlog.get_config().copy(), logging.getLogger().handlers[:], logging.getLogger().level)
    await chain(step("a"))().execute(observers=[SagaLogger(output="json", file=io.StringIO())])
    assert (structlog.get_config(), logging.getLogger().handlers, logging.getLogger().level) == before


class Untouched(Redaction):
    """Shows that nothing is done for a record that is held back."""

    def text(self, text: str) -> str:
        """Tell that it was asked."""
        pytest.fail(f"{text!r} was masked for nothing")


class Talkative(Saga):
    """Logs inside its steps, and beside them."""

    async def build(self) -> None:
        """Add two steps, one of which fails and is undone."""
        await self.add_step("reserve", self._reserve, self._release)
        await self.add_step("pay", self._pay)

    async def _reserve(self, ctx: SagaContext) -> int:
        structlog.get_logger().info("from structlog")
        await asyncio.gather(self._deeper(), self._deeper())
        return 1

    async def _deeper(self) -> None:
        logging.getLogger("shop.stock").warning("from %s", "logging")

    async def _release(self, result: int, ctx: SagaContext) -> None:
        structlog.get_logger().info("undoing")

    async def _pay(self, ctx: SagaContext) -> None:
        message = "declined"
        raise ValueError(message)


@pytest.mark.parametrize("level", ["info", "error"])
@pytest.mark.asyncio
async def test_user_code_logs_with_the_saga_and_the_step(level: Any) -> None:
    """Its structlog records and its standard library lines, in tasks too, whatever the logger's own level is."""
    own, plain = io.StringIO(), io.StringIO()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(own),
    )
    handler = logging.StreamHandler(plain)
    handler.setFormatter(logging.Formatter("%(saga_id)s %(step)s %(message)s"))
    handler.addFilter(SagaLogFilter())
    stock = logging.getLogger("shop.stock")
    stock.addHandler(handler)
    try:
        logger = SagaLogger(output="json", file=io.StringIO(), level=level)
        async with SagaOrchestrator(observers=[logger]) as orchestrator:
            await orchestrator.execute(Talkative(), saga_id="o-1")
        stock.warning("outside")
        stock.warning("mine", extra={"step": "7 of 9"})
    finally:
        stock.removeHandler(handler)
    assert records(own.getvalue()) == [
        {"event": "from structlog", "saga_id": "o-1", "step": "reserve"},
        {"event": "undoing", "saga_id": "o-1", "step": "reserve"},
    ]
    assert plain.getvalue().splitlines() == ["o-1 reserve from logging"] * 2 + [
        "- - outside",
        "- 7 of 9 mine",
    ]
    assert structlog.contextvars.get_contextvars() == {}


def test_what_is_bound_for_user_code_is_gone_after_it() -> None:
    """What was bound before is there again, as where a step starts another saga."""
    logger = SagaLogger(output="json", file=io.StringIO())
    ctx = SagaContext(saga_id="o-1", step_name="pay", attempt=1, phase=Phase.ACTION, source=Source())
    bound = structlog.contextvars.bound_contextvars(step="outer", request="r-1")
    with bound:
        with logger.around(INFO, ctx):
            assert structlog.contextvars.get_contextvars() == {"saga_id": "o-1", "step": "pay", "request": "r-1"}
        assert structlog.contextvars.get_contextvars() == {"step": "outer", "request": "r-1"}


@pytest.mark.parametrize("output", ["json", "console", "raw"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\u2028", "\u0085", "\x1b[2K\r"])
def test_no_text_of_a_saga_forges_a_record(output: Any, newline: str) -> None:
    """Errors, reasons and messages stay on the one line of their fact."""
    lines = io.StringIO()
    raw = structlog.wrap_logger(structlog.WriteLogger(lines), processors=[unescaped])
    logger = SagaLogger(raw) if output == "raw" else SagaLogger(output=output, file=lines)
    forged = f'x{newline}{{"event": "completed", "saga_id": "o-2"}}'
    error = ErrorRecord("ValueError", forged)
    logger.on_event(INFO, AttemptFailed("a", Phase.ACTION, 1, error))
    logger.on_event(INFO, CancelRequested(forged))
    logger.on_event(INFO, RetryRequested(forged))
    logger.on_event(INFO, AttentionSet(AttentionCode.PARKED, forged, blocking=True))
    logger.on_event(INFO, LateOutcome("a", Phase.ACTION, 1, Outcome.FAILED, error))
    logger.on_event(INFO, Created(name="Order", version=forged, shape=(), arguments=Raw(b"{}")))
    logger.on_error(Facts(), ValueError(forged))
    logger.on_event(SagaInfo("o-1", forged, "1"), Completed())
    text = lines.getvalue()
    assert len(text.splitlines()) == 8
    assert text.count("\n") == 8
    assert not set(text) & set("\r\x1b\u2028\x85")
    if output == "json":
        assert {each.get("saga_id", "o-1") for each in records(text)} == {"o-1"}


def test_what_a_fact_says_beside_the_common_keys_is_told() -> None:
    """And how urgent it is: a takeover warns, what blocks is an error."""
    lines, clock = io.StringIO(), FakeClock(now=1_060.0)
    logger = SagaLogger(output="json", file=lines, clock=clock)
    error = ErrorRecord("", "it was cut off")
    logger.on_event(INFO, Claimed("host:1", 3, 1, expired=True))
    logger.on_event(INFO, AttemptUnknown("a", Phase.ACTION, 1, UnknownReason.INTERRUPTED, error, 0.5))
    logger.on_event(INFO, AttemptNotRun("a", Phase.ACTION, 2))
    logger.on_event(INFO, LateOutcome("a", Phase.ACTION, 1, Outcome.SUCCEEDED))
    logger.on_event(INFO, AttentionSet(AttentionCode.CRASH_LOOP, "look", blocking=True))
    clock.advance(4)
    logger.on_event(INFO, Completed())
    logger.on_leave(INFO, LeaveReason.LOST)
    logger.on_leave(INFO, LeaveReason.LOST)
    told = records(lines.getvalue())
    assert [(each["event"], each["level"]) for each in told] == [
        ("claimed", "warning"),
        ("attempt_unknown", "warning"),
        ("attempt_not_run", "info"),
        ("late_outcome", "warning"),
        ("attention_set", "error"),
        ("completed", "info"),
        ("claim_lost", "warning"),
    ]
    assert (told[0]["owner"], told[0]["expired"]) == ("host:1", True)
    assert (told[1]["reason"], told[1]["retry_in_s"], told[1]["error"]) == ("interrupted", 0.5, "it was cut off")
    assert "duration_s" not in told[1]
    assert told[4]["code"] == "crash_loop"
    assert told[5]["duration_s"] == 64
    assert {each.get("trace_id") for each in told[:-1]} == {"ab" * 16}


def running(logger: SagaLogger, attempt: int) -> AbstractContextManager[None]:
    """Return what is around the user code of an attempt."""
    ctx = SagaContext(saga_id="o-1", step_name="pay", attempt=attempt, phase=Phase.ACTION, source=Source())
    return logger.around(INFO, ctx)


def test_a_record_has_the_duration_of_its_own_attempt() -> None:
    """An attempt that was given up may succeed while the next one runs; none has the duration of another."""
    lines, clock = io.StringIO(), FakeClock(now=1_060.0)
    logger = SagaLogger(output="json", file=lines, clock=clock)
    logger.on_event(INFO, Claimed("host:1", 3))
    with running(logger, 1):
        clock.advance(1)
        with running(logger, 2):
            clock.advance(4)
    late = ErrorRecord("ValueError", "too late, password=sesame")
    logger.on_event(INFO, LateOutcome("pay", Phase.ACTION, 1, Outcome.FAILED, late))
    logger.on_event(INFO, AttemptSucceeded("pay", Phase.ACTION, 2, Raw(b"1")))
    logger.on_event(INFO, AttemptSucceeded("pay", Phase.ACTION, 2, Raw(b"1")))
    told = records(lines.getvalue())[1:]
    assert [(each["attempt"], each.get("duration_s")) for each in told] == [(1, 5), (2, 4), (2, None)]
    assert told[0]["error"] == "ValueError: too late, password=***"


@pytest.mark.asyncio
async def test_a_saga_that_a_step_starts_has_records_of_its_own() -> None:
    """It runs in a copy of that step's context, and is no part of that step."""
    caught: list[Any] = []

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        caught.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    async with SagaOrchestrator(observers=[SagaLogger()]) as orchestrator:

        async def start(ctx: SagaContext) -> None:
            await orchestrator.execute(chain(step("inner"), name="Child")(), saga_id="child")
            structlog.get_logger().info("after it")

        await orchestrator.execute(chain(step("outer", start), name="Parent")(), saga_id="parent")
    steps = {(each["saga_id"], each["event"]): each.get("step") for each in caught}
    assert {steps["child", event] for event in ("created", "claimed", "began", "completed")} == {None}
    assert (steps["child", "attempt_started"], steps["child", "attempt_succeeded"]) == ("inner", "inner")
    assert (steps["parent", "attempt_started"], steps["parent", "completed"]) == ("outer", None)
    assert steps["parent", "after it"] == "outer"


def test_an_observer_that_raises_is_told_once_a_kind() -> None:
    """Masked; what this logger raised itself it does not write, nor what its level holds back."""
    lines = io.StringIO()
    logger = SagaLogger(output="json", file=lines)
    for _ in range(2):
        logger.on_error(Facts(), ValueError("password=sesame"))
        logger.on_error(logger, ValueError("mine"))
    logger.on_error(Facts(), KeyError("other"))
    told = [(each["level"], each["event"], each["observer"], each["error"]) for each in records(lines.getvalue())]
    assert told == [
        ("error", "observer_error", "Facts", "ValueError: password=***"),
        ("error", "observer_error", "Facts", "KeyError: 'other'"),
    ]


@pytest.mark.parametrize("header", ["", "00-short", f"00-{'é' * 32}-{'cd' * 8}-01"])
def test_stored_headers_that_name_no_trace_give_no_trace_id(header: str) -> None:
    """They come from the storage, where anything may stand."""
    lines = io.StringIO()
    SagaLogger(output="json", file=lines).on_event(SagaInfo("o-1", "Order", "1", {"traceparent": header}), Completed())
    assert "trace_id" not in records(lines.getvalue())[0]


@pytest.mark.asyncio
async def test_a_level_holds_back_what_is_below_it() -> None:
    """Asked of the logger itself, and of the configuration."""
    cls = chain(step("a", fail, retry=AT_ONCE))
    lines = io.StringIO()
    await cls().execute(observers=[SagaLogger(output="json", file=lines, level="warning")])
    assert {each["level"] for each in records(lines.getvalue())} == {"warning"}
    quiet = io.StringIO()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("error"), logger_factory=structlog.WriteLoggerFactory(quiet)
    )
    logger = SagaLogger(redaction=Untouched())
    assert (await cls().execute(observers=[logger])).status is SagaStatus.ROLLED_BACK
    assert quiet.getvalue() == ""


@pytest.mark.parametrize("wrapper", [structlog.BoundLogger, structlog.stdlib.BoundLogger])
def test_records_go_through_the_standard_librarys_logging_where_structlog_does(
    wrapper: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With either wrapper; its own levels hold back what is below them."""
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=wrapper,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    caplog.set_level(logging.ERROR, logger="saga")
    logger = SagaLogger()
    if wrapper is structlog.stdlib.BoundLogger:
        SagaLogger(redaction=Untouched()).on_event(INFO, CancelRequested("the other one cannot tell"))
    logger.on_event(INFO, Completed())
    logger.on_event(INFO, AttentionSet(AttentionCode.CRASH_LOOP, "look", blocking=True))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].getMessage().startswith("event='attention_set'")
    caplog.set_level(logging.INFO, logger="saga")
    logger.on_event(INFO, Completed())
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_wrong_arguments_are_refused() -> None:
    """Before any saga runs."""
    for wrong in ({"output": "xml"}, {"output": "json", "logger": structlog.get_logger()}, {"level": "loud"}):
        with pytest.raises(SagaValidationError):
            SagaLogger(**wrong)


@pytest.mark.asyncio
@pytest.mark.parametrize("given", [True, False])
async def test_an_application_whose_structlog_is_async_has_its_records_too(given: bool) -> None:  # noqa: FBT001
    """Its methods return coroutines that nobody would await; the logger inside writes at once."""
    text = io.StringIO()
    plain = logging.Logger("shop")  # noqa: LOG001 - one that nobody else can see
    plain.addHandler(logging.StreamHandler(text))
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=lambda *_: plain,
        wrapper_class=structlog.stdlib.AsyncBoundLogger,
    )
    logger = SagaLogger(structlog.get_logger()) if given else SagaLogger()
    await chain(step("a"), name="Order")().execute(observers=[logger])
    assert [json.loads(line)["event"] for line in text.getvalue().splitlines()][-1] == "completed"


@pytest.mark.asyncio
async def test_another_logger_whose_methods_must_be_awaited_is_refused_loudly() -> None:
    """Nothing would be written, and nobody would know."""

    class Awaited(structlog.BoundLoggerBase):
        async def info(self, event: str, **fields: Any) -> None:
            raise AssertionError

        debug = warning = error = info

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    log = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=Awaited)
    assert (await chain(step("a"))().execute(observers=[SagaLogger(log)])).success
    [report] = told
    assert "not when they are awaited" in str(report["exception"])
