"""SagaLogFilter: what the standard library's logging shows is masked, and a message stays on one line."""

from __future__ import annotations

import io
import logging
import logging.handlers
import queue
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from saga import Redaction, SagaLogFilter
from saga.monitoring.logging import MaskedError
from tests.monitoring.test_redaction import UNSHOWN, Lazy, Pretending, Rows, Unable

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "sesame-7"  # noqa: S105 - what the tests look for
JSON = structlog.stdlib.ProcessorFormatter(
    processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ],
    foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
)


def logger_of(
    text: io.StringIO, formatter: logging.Formatter | None = None, redaction: Redaction | None = None
) -> logging.Logger:
    """Return a logger whose lines are masked and kept."""
    handler = logging.StreamHandler(text)
    handler.addFilter(SagaLogFilter(redaction))
    handler.setFormatter(formatter)
    logger = logging.Logger("shop")  # noqa: LOG001 - one that nobody else can see
    logger.addHandler(handler)
    return logger


def test_the_filter_masks_messages_and_tracebacks() -> None:
    """Formatted, so that what was handed over as an argument is seen."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(SagaLogFilter())
    logger = logging.getLogger("shop.secrets")
    logger.addHandler(handler)
    try:
        logger.error("login with password=%s", "sesame-1")
        try:
            int("token: sesame-2")
        except ValueError:
            logger.exception("it failed")
    finally:
        logger.removeHandler(handler)
    assert "sesame" not in text.getvalue()
    assert "ValueError: invalid literal for int() with base 10: 'token: ***" in text.getvalue()


def test_the_filter_raises_nothing_where_user_code_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """A message whose arguments do not fit is reported by the handler, as it is without the filter."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(SagaLogFilter())
    logger = logging.getLogger("shop.wrong")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        logger.warning("no number: %d", "x")
        logger.warning("100 % sure")
    finally:
        logger.removeHandler(handler)
    assert "Logging error" in capsys.readouterr().err
    assert text.getvalue() == "100 % sure\n"


def _failing(logger: logging.Logger) -> None:
    try:
        int(f"token: {SECRET}")
    except ValueError:
        logger.exception("it failed")


def _stack(logger: logging.Logger) -> None:
    def with_password(_password: str) -> None:
        logger.warning("here", stack_info=True)

    with_password(_password="sesame-7")  # noqa: S106 - the source line is in the stack


@pytest.mark.parametrize(
    "log",
    [
        _failing,
        _stack,
        lambda logger: logger.warning("x", extra={"password": SECRET, "body": {"token": SECRET}}),
        lambda logger: logger.warning("%(password)s %(user)s", {"password": SECRET, "user": "u"}),
        lambda logger: logger.warning("%(body)s %(pin)5d", {"body": {"token": SECRET}, "pin": 1234}),
        lambda logger: logger.warning("got %s", {"password": SECRET}),
        lambda logger: logger.warning("got %s", [(b"x-api-key", SECRET.encode())]),
        lambda logger: logger.warning({"password": SECRET}),
        lambda logger: logger.warning("x", exc_info=ValueError(f"password={SECRET}")),
    ],
)
@pytest.mark.parametrize(
    "formatter",
    [
        logging.Formatter("%(message)s %(password)s %(body)s", defaults={"password": "", "body": ""}),
        JSON,
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        ),
    ],
)
def test_whatever_a_formatter_shows_of_a_record_is_masked(
    log: Callable[[logging.Logger], None], formatter: logging.Formatter
) -> None:
    """What is given as extra, by name, as a stack, or as an exception that the formatter renders itself."""
    text = io.StringIO()
    log(logger_of(text, formatter))
    assert SECRET not in text.getvalue()
    assert "1234" not in text.getvalue()
    assert "***" in text.getvalue()


def test_an_exception_is_shown_with_its_traceback() -> None:
    """Also by a formatter that renders it itself; and masked once, however many filters a record passes."""
    text = io.StringIO()
    logger = logger_of(text, JSON)
    second = logging.StreamHandler(text)
    second.addFilter(SagaLogFilter(Redaction(patterns=["base 10"])))
    logger.addHandler(second)
    _failing(logger)
    assert "in _failing" in text.getvalue().splitlines()[0]
    assert "token: ***" in text.getvalue().splitlines()[0]
    assert "\n  ValueError: invalid literal for int() with ***: 'token: ***" in text.getvalue()
    assert "\n    ValueError" not in text.getvalue()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\u2028", "\x1b[2K\r"])
def test_no_message_begins_a_line(newline: str) -> None:
    """Nor does an argument, an extra, a stack or the text of an exception; those are indented."""
    text = io.StringIO()
    forged = f"a{newline}2026 INFO forged"
    logger = logger_of(text, logging.Formatter("LINE %(user)s %(step)s %(message)s"))
    extra = {"user": forged, "step": forged}
    logger.warning(forged, extra=extra)
    logger.warning("%s", forged, extra=extra)
    logger.error("x", exc_info=ValueError(forged), extra=extra)
    logger.handle(logger.makeRecord("shop", 30, "f", 1, "x", (), None, extra=extra, sinfo=forged))
    lines = text.getvalue().splitlines()
    assert [line for line in lines if not line.startswith(("LINE ", "  "))] == []
    assert len([line for line in lines if line.startswith("LINE ")]) == 4
    assert not set(text.getvalue()) & set("\r\x1b\u2028")


def test_a_structlog_record_on_its_way_through_logging_is_masked() -> None:
    """The formatter copies it, so that it must stay a mapping."""
    text = io.StringIO()
    structlog.configure(
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logger_of(text, JSON),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        log = structlog.get_logger()
        log.warning("charged", card_number="4111", body=f"token={SECRET}", n=1)
        log.error("failed", exc_info=ValueError(f"token={SECRET}"))
    finally:
        structlog.reset_defaults()
    assert SECRET not in text.getvalue()
    assert text.getvalue().splitlines()[0] == (
        '{"card_number": "***", "body": "token=***", "n": 1, "event": "charged"}'
    )
    assert "ValueError: token=***" in text.getvalue().splitlines()[1]


def test_records_made_by_hand_pass() -> None:
    """With an exception that is none, with none, and with one of which another handler has made text already."""
    for exc_info in (True, (None, None, None), (ValueError, 1, None), (), None):
        record = logging.makeLogRecord({"msg": "x", "exc_info": exc_info})
        assert SagaLogFilter().filter(record)
        assert record.exc_info is None
    error = ValueError("x")
    record = logging.makeLogRecord({"exc_info": (ValueError, error, None), "exc_text": f"token={SECRET}"})
    assert SagaLogFilter().filter(record)
    assert record.exc_text == "  token=***"
    shown: Any = record.exc_info
    assert isinstance(shown[1], MaskedError)
    assert str(shown[1]) == "\n  token=***"


def test_names_of_the_saga_and_of_the_step_are_left_as_they_are() -> None:
    """Identifiers are no secrets, though they may look like one; and what the caller gave stays."""
    record = logging.makeLogRecord({"msg": "x", "saga_id": "4111111111111111", "step": "token=1"})
    SagaLogFilter().filter(record)
    assert (vars(record)["saga_id"], vars(record)["step"]) == ("4111111111111111", "token=1")


@pytest.mark.parametrize("error", UNSHOWN[:2])
def test_an_exception_that_cannot_be_shown_raises_nothing_where_it_is_logged(error: Exception) -> None:
    """Without the filter the handler would report it."""
    text = io.StringIO()
    logger_of(text).error("it failed", exc_info=error)
    assert text.getvalue() == f"it failed\n  {type(error).__name__} could not be shown\n"


def test_whatever_is_given_to_a_record_raises_nothing_where_it_is_logged() -> None:
    """Extras that cannot be looked at, keys that are no names, a redaction that cannot mask."""
    text = io.StringIO()
    logger = logger_of(text, logging.Formatter("%(message)s %(a)s %(b)s %(c)s", defaults=dict.fromkeys("abc", "-")))
    logger.warning("x", extra={"a": Lazy(), "b": Rows(), "c": Pretending(), 1: "odd"})  # type: ignore[dict-item]
    logger.warning(Pretending())
    record = logger.makeRecord("shop", 30, "f", 1, {"event": "y"}, (), None)
    record.args = Lazy()
    record.args = Pretending()  # type: ignore[assignment]
    assert SagaLogFilter().filter(record)
    first, second = text.getvalue().splitlines()
    assert first == "x *** *** ***"
    assert "Pretending object" in second
    record = logger.makeRecord("shop", 30, "f", 1, {"event": "y"}, (), None, extra={"a": 1}, sinfo="z")
    record.exc_info = (ValueError, ValueError("y"), None)
    assert SagaLogFilter(Unable()).filter(record)
    shown: Any = record.msg
    assert (shown["event"], vars(record)["a"], record.stack_info) == ("***", "***", "  ***")
    assert record.exc_text == "  ***"


def test_what_a_handler_reports_of_a_message_that_cannot_be_formatted_is_masked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And tells which one it was."""
    logger = logger_of(io.StringIO())
    logger.warning("charging %d for %s", "much", {"token": SECRET})
    logger.warning("the password is %d", SECRET)
    logger.warning("token=%s %d", SECRET, "x")
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert "Message: ('charging %d for %s', ('much', {'token': '***'}))" in shown
    assert "Message: ['the password is %d', '***']" in shown


def test_where_structlog_ends_in_the_standard_library_the_filter_masks_what_it_adds() -> None:
    """`Logger.exception` takes the exception anew, which the processor had turned into masked text."""
    shown = []
    for filters in ([], [SagaLogFilter()]):
        text = io.StringIO()
        handler = logging.StreamHandler(text)
        for each in filters:
            handler.addFilter(each)
        plain = logging.Logger("shop")  # noqa: LOG001 - one that nobody else can see
        plain.addHandler(handler)
        log = structlog.wrap_logger(
            plain,
            processors=[Redaction(), structlog.processors.JSONRenderer()],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        try:
            int(f"token: {SECRET}")
        except ValueError:
            log.exception("it failed")
        shown.append(text.getvalue())
    without, with_filter = shown
    assert SECRET in without
    assert SECRET not in with_filter
    assert "token: ***" in with_filter


def test_on_a_handler_that_queues_the_filter_masks_what_is_queued() -> None:
    """That handler makes the text of a record; behind the queue is a thread that knows no saga."""
    queued: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = logging.handlers.QueueHandler(queued)
    handler.addFilter(SagaLogFilter())
    logger = logging.Logger("shop")  # noqa: LOG001 - one that nobody else can see
    logger.addHandler(handler)
    with structlog.contextvars.bound_contextvars(saga_id="o-1", step="pay"):
        logger.warning("%(token)s", {"token": SECRET}, exc_info=ValueError(f"password={SECRET}"))
    record = queued.get_nowait()
    assert record.getMessage() == "***\n  ValueError: password=***"
    assert (vars(record)["saga_id"], vars(record)["step"]) == ("o-1", "pay")
    assert SECRET not in str(vars(record))
