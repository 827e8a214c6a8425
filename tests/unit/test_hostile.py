"""User code and objects that raise where nobody expects it: the saga goes on by the rules, and harms no other."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import gc
import warnings
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from saga import (
    FailureStrategy,
    Limits,
    Observer,
    OutcomeUnknownError,
    RetryPolicy,
    RunningStep,
    Saga,
    SagaContext,
    SagaExecutionError,
    SagaInfo,
    SagaOrchestrator,
    SagaResult,
    SagaStatus,
    SagaValidationError,
    StepStatus,
)
from saga.environment import Seat, Slots
from tests.unit.kit import (
    Hush,
    Line,
    cancel_myself,
    chain,
    dag,
    fail,
    leave,
    memory,
    never_end,
    orchestrator,
    raising,
    returning,
    step,
    undo,
)
from tests.virtual import VirtualLoop

ONCE = RetryPolicy(max_attempts=1)


class OwnError(Exception):
    """An error of the application's, of no type that the library or Python knows."""


class Lazy:
    """A proxy that is bound to nothing, as some frameworks have them."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        """Fail."""
        raise OwnError


class Odd(enum.Enum):
    """An enum that cannot be shown."""

    ONE = 1

    def __str__(self) -> str:
        """Fail."""
        raise OwnError

    def __format__(self, spec: str) -> str:
        """Fail."""
        raise OwnError


class Unset(msgspec.Struct):
    """A struct one of whose fields may be missing."""

    number: int


def unset() -> Unset:
    """Return one without its field."""
    made = Unset(1)
    del made.number
    return made


@dataclass
class Checked:
    """A result that checks itself when it is read back."""

    number: int
    strict = False

    def __post_init__(self) -> None:
        """Fail once rules have become strict."""
        if type(self).strict:
            raise OwnError


class Picky(type):
    """A class that does not say what is of it."""

    def __instancecheck__(cls, other: object) -> bool:
        """Fail."""
        raise OwnError

    def __subclasscheck__(cls, other: type) -> bool:
        """Fail."""
        raise OwnError


class PickyError(Exception, metaclass=Picky):
    """An error of such a class."""


async def cancel_again(ctx: SagaContext) -> None:
    """Wait for too long, and answer the timeout with a cancellation of one's own."""
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise


async def decimal(ctx: SagaContext) -> Decimal:
    """Return a number that may not even be compared."""
    return Decimal("sNaN")


async def struct(ctx: SagaContext) -> Unset:
    """Return a struct without its field."""
    return unset()


async def keys(ctx: SagaContext) -> dict[Odd, int]:
    """Return keys that cannot be shown."""
    return {Odd.ONE: 1}


async def group(ctx: SagaContext) -> None:
    """Fail as a TaskGroup does one of whose tasks got no answer."""
    message = "two calls"
    raise ExceptionGroup(message, [ValueError("no"), ExceptionGroup(message, [OutcomeUnknownError()])])


async def four_ways(action: Any, **options: Any) -> list[tuple[SagaResult, list[str]]]:
    """Run this action in the driver and beside a sibling, alone and orchestrated: results, and what was undone."""
    answers = []
    for kind in (chain, dag):
        for alone in (True, False):
            undone: list[str] = []

            async def note(_result: Any, ctx: SagaContext, undone: list[str] = undone) -> None:
                undone.append(ctx.step_name)

            saga = kind(step("a", compensation=note), step("odd", action, note, **options))()
            if alone:
                result = await saga.execute()
            else:
                async with orchestrator() as runs:
                    result = await runs.execute(saga)
            answers.append((result, undone))
    return answers


@pytest.mark.parametrize(
    ("action", "options"),
    [
        (returning(Lazy()), {}),
        (decimal, {}),
        (struct, {}),
        (keys, {}),
        (raising(Hush), {}),
        (cancel_myself, {}),
        (cancel_again, {"timeout": 1.0}),
        (raising(ValueError()), {"unknown_on": (PickyError,)}),
        (group, {}),
    ],
    ids=[
        "class",
        "comparison",
        "attribute",
        "text",
        "no Exception",
        "cancels itself",
        "cancels again",
        "kind",
        "group",
    ],
)
@pytest.mark.usefixtures("system_time")
@pytest.mark.asyncio
async def test_what_leaves_the_outcome_open_is_undone(action: Any, options: dict[str, Any]) -> None:
    """The saga turns back, with and without siblings: no driver stops, and no action is repeated by takeovers."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    for result, undone in await four_ways(action, retry=ONCE, **options):
        assert result.status is SagaStatus.ROLLED_BACK
        assert sorted(undone) == ["a", "odd"]
        assert result.steps[1].attempts == 1


@pytest.mark.asyncio
async def test_a_stored_result_that_can_be_read_no_more_stops_no_other_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    """R9: its own undo fails visibly, and can be tried again when the code is mended."""
    undone: list[str] = []

    async def note(_result: Any, ctx: SagaContext) -> None:
        undone.append(ctx.step_name)

    async def checked(ctx: SagaContext) -> Checked:
        return Checked(1)

    async def tighten(ctx: SagaContext) -> None:
        monkeypatch.setattr(Checked, "strict", True)
        message = "turn back"
        raise ValueError(message)

    cls = chain(step("a", compensation=note), step("b", checked, note, compensation_retry=ONCE), step("c", tighten))
    async with orchestrator() as runs:
        result = await runs.execute(cls(), saga_id="s")
        assert result.status is SagaStatus.FAILED
        assert undone == ["a"]
        assert result.steps[1].status is StepStatus.COMPENSATION_FAILED
        monkeypatch.setattr(Checked, "strict", False)
        await runs.retry("s", "mended")
        assert (await runs.execute(cls(), saga_id="s")).status is SagaStatus.ROLLED_BACK
    assert undone == ["a", "b"]


class Lost(FailureStrategy):
    """A strategy that answers what it was given."""

    def __init__(self, answer: Any) -> None:
        """Keep the answer."""
        self.answer = answer

    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:
        """Answer, or raise."""
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: float | None = self.answer
        return answer


@pytest.mark.parametrize("answer", [OwnError(), "soon", float("nan")], ids=["raises", "text", "nan"])
@pytest.mark.asyncio
async def test_a_strategy_that_cannot_say_cancels_at_once(answer: Any) -> None:
    """The saga has failed already, so nothing is gained by waiting."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(1_000)

    cls = dag(step("a", fail), step("b", slow, timeout=None), failure_strategy=Lost(answer))
    result = await cls().execute()
    assert result.status is SagaStatus.ROLLED_BACK
    assert result.execution_time < 10


@pytest.mark.asyncio
async def test_a_warning_that_is_an_error_does_not_undo_an_undo() -> None:
    """Where warnings are errors, one about a compensation's return value is told to the loop."""
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))

    async def talkative(_result: Any, ctx: SagaContext) -> str:
        return "done"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = await chain(step("a"), step("b", compensation=talkative), step("c", fail))().execute()
    assert result.status is SagaStatus.ROLLED_BACK
    assert [report for report in reports if "returned str, which is ignored" in report]


class Misfit(Saga):
    """A saga that cannot be made again."""

    broken = ""

    def __init__(self, number: int) -> None:
        """Fail while it is broken."""
        self.number = number
        if self.broken == "init":
            raise UnreadableError
        if self.broken == "init cancelled":
            raise asyncio.CancelledError

    async def build(self) -> None:
        """Fail while it is broken."""
        if self.broken == "build":
            message = "\udcff" * 3_000_000
            raise ValueError(message)
        if self.broken == "build cancelled":
            raise asyncio.CancelledError
        while self.broken == "build hangs":
            try:
                await asyncio.sleep(1_000)
            except asyncio.CancelledError:
                continue
        await self.add_step("a", self.act)

    async def act(self, ctx: SagaContext) -> None:
        """Do nothing."""


class UnreadableError(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        """Fail."""
        raise OwnError


@pytest.mark.parametrize("how", ["init", "init cancelled", "build", "build cancelled", "build hangs"])
@pytest.mark.asyncio
async def test_a_saga_that_cannot_be_made_again_waits_visibly_and_holds_up_no_other(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R20: those behind it are carried on; the sweep goes on, too."""
    good = chain(step("a"), name="Good")
    async with memory() as storage:
        for number in range(3):
            await leave(storage, Misfit(number), f"bad-{number}")
            await leave(storage, good(), f"good-{number}")
        monkeypatch.setattr(Misfit, "broken", how)
        async with orchestrator(storage, sagas=[Misfit, good]) as runs:
            await asyncio.sleep(50)
            for number in range(3):
                assert (await runs.get(f"good-{number}")).status is SagaStatus.COMPLETED
                bad = await runs.get(f"bad-{number}")
                assert bad.attention is not None
                assert bad.attention.code == "bad_code"
                assert bad.attention.message
                assert len(bad.attention.message) <= 4_096
            monkeypatch.setattr(Misfit, "broken", "")
            await asyncio.sleep(200)
            for number in range(3):
                assert (await runs.get(f"bad-{number}")).status is SagaStatus.COMPLETED


@pytest.mark.asyncio
async def test_a_step_that_cancels_every_task_stops_neither_heartbeats_nor_sweeps() -> None:
    """Both begin anew, which is told to the loop; sagas that others left are still found."""
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))

    async def kill_all(ctx: SagaContext) -> None:
        mine = asyncio.current_task()
        for task in asyncio.all_tasks() - {main}:
            if task is not mine:
                task.cancel()

    main = asyncio.current_task()
    cls = chain(step("a"), name="Left")
    async with memory() as storage, orchestrator(storage, sagas=[cls]) as runs:
        assert (await runs.execute(chain(step("k", kill_all))())).success
        await leave(storage, cls(), "left")
        await asyncio.sleep(60)
        assert (await runs.get("left")).status is SagaStatus.COMPLETED
    assert reports == ["a background loop of the orchestrator was cancelled and begins anew"] * 2


def test_a_loop_that_is_torn_down_is_like_a_crash() -> None:
    """R2: nothing is recorded of what it cut off, and the next process runs that again, whatever the budget."""
    attempts: list[int] = []
    undone: list[str] = []
    storage = memory()

    async def act(ctx: SagaContext) -> None:
        attempts.append(ctx.attempt)
        await asyncio.sleep(10)

    async def note(_result: Any, ctx: SagaContext) -> None:
        undone.append(ctx.step_name)

    line = chain(step("a", act, note), name="Line")
    beside = dag(step("a", act, note), step("b", act, note), name="Beside")

    async def first_process() -> None:
        async with storage:
            runs = await orchestrator(storage).__aenter__()
            for cls in (line, beside):
                await runs.start(cls(), saga_id=cls.__name__)
            await asyncio.sleep(5)

    async def second_process() -> None:
        await asyncio.sleep(60)
        async with storage, orchestrator(storage, seed="two", sagas=[line, beside]) as runs:
            for cls in (line, beside):
                assert (await runs.execute(cls(), saga_id=cls.__name__)).success

    reports: list[dict[str, Any]] = []
    for process in (first_process, second_process):
        loop = VirtualLoop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context))
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # noqa: B023  (used within the turn)
            runner.run(process())
        gc.collect()
    assert sorted(attempts) == [1, 1, 1, 2, 2, 2]
    assert undone == []
    assert reports == []


@pytest.mark.asyncio
async def test_a_cancellation_that_a_step_leaves_behind_hits_nobody() -> None:
    """Neither the next step, nor the driver, nor the next step's own timeout."""

    async def leave_one(ctx: SagaContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(5, task.cancel)

    async def swallow(ctx: SagaContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            return

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(20 if ctx.attempt == 1 else 0)

    patient = RetryPolicy(max_attempts=3, jitter="none")
    for first in (leave_one, swallow):
        cls = chain(step("a", first), step("b", slow, timeout=10, retry=patient), step("c"))
        async with orchestrator() as runs:
            result = await runs.execute(cls())
        assert result.success
        assert (await cls().execute()).success


@pytest.mark.parametrize("how", ["queued", "asleep", "left"])
@pytest.mark.asyncio
async def test_a_step_that_waits_for_another_saga_leaves_it_the_slot(how: str) -> None:
    """R15a and back-pressure: nested sagas never wait for each other's slots, wherever the inner one is."""
    runs: SagaOrchestrator
    again = RetryPolicy(max_attempts=2, initial_interval=30.0, jitter="none")

    async def flaky(ctx: SagaContext) -> None:
        if how == "asleep" and ctx.attempt == 1:
            message = "once more"
            raise ValueError(message)

    inner = chain(step("i", flaky, retry=again), name="Inner")

    async def outer_step(ctx: SagaContext) -> None:
        await asyncio.sleep(5)
        assert (await runs.execute(inner(), saga_id="inner")).success

    outer = chain(step("o", outer_step, timeout=None), name="Outer")
    async with memory() as storage:
        if how == "left":
            await leave(storage, inner(), "inner")
        async with orchestrator(storage, sagas=[inner, outer], limits=Limits(max_in_flight=1)) as runs:
            first = [] if how == "left" else [inner()]
            if how == "asleep":
                await runs.start(first[0], saga_id="inner")
                await asyncio.sleep(1)
            handle = await runs.start(outer(), saga_id="outer")
            others = []
            if how == "queued":
                others.append(asyncio.create_task(runs.execute(first[0], saga_id="inner")))
            async with asyncio.timeout(200):
                assert (await handle.wait()).success
                await asyncio.gather(*others)
            async with asyncio.timeout(200):
                assert (await runs.execute(chain(step("z"), name="Later")())).success, "no slot is lost"


@pytest.mark.asyncio
async def test_a_deadline_that_has_passed_when_the_saga_is_stored_ends_it_at_once() -> None:
    """Such as what is left of a caller's own."""
    result = await chain(step("a"))().execute(deadline=1e-9)
    assert result.status is SagaStatus.ROLLED_BACK
    async with orchestrator() as runs:
        result = await runs.execute(chain(step("a"))(), deadline=1e-9)
    assert result.status is SagaStatus.ROLLED_BACK
    assert result.steps[0].attempts == 0


@pytest.mark.asyncio
async def test_who_waits_for_a_saga_elsewhere_does_not_mind_a_start_that_fails_here() -> None:
    """The second start of the same saga waits for a slot and is given up; the first one's handle still waits."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(50)

    cls, blocking = chain(step("a", slow, timeout=None)), chain(step("b", slow, timeout=None), name="Blocking")
    async with (
        memory() as storage,
        orchestrator(storage, seed="one") as there,
        orchestrator(storage, seed="two", limits=Limits(max_in_flight=1)) as here,
    ):
        await there.start(cls(), saga_id="s")
        handle = await here.start(cls(), saga_id="s")
        waiting = asyncio.create_task(handle.wait())
        await here.start(blocking(), saga_id="blocks")
        second = asyncio.create_task(here.start(cls(), saga_id="s"))
        await asyncio.sleep(5)
        second.cancel()
        await asyncio.sleep(1)
        assert (await waiting).success


class Jagged(Observer):
    """An observer that breaks where it is looked at."""

    def __init__(self, name: str) -> None:
        """Break at this name."""
        self.name = name

    def __getattribute__(self, name: str) -> Any:
        """Fail at the name."""
        if name == object.__getattribute__(self, "name"):
            raise OwnError
        return object.__getattribute__(self, name)

    def headers(self, saga: SagaInfo) -> dict[str, str]:
        """Return what cannot be stored."""
        return {"trace": "\udcff"}

    def around(self, saga: SagaInfo, ctx: SagaContext) -> Any:
        """Return what can be entered and not left."""

        class Half:
            def __enter__(self) -> None:
                """Enter."""

        return Half()


@pytest.mark.parametrize("name", ["headers", "on_event", "around", "on_leave", "on_error", "none of them"])
@pytest.mark.asyncio
async def test_an_observer_that_breaks_where_it_is_looked_at_is_not_felt(name: str) -> None:
    """It is reported, once."""
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))
    async with orchestrator(observers=[Jagged(name)]) as runs:
        assert (await runs.execute(chain(step("a"), step("b", compensation=undo))())).success
    assert reports == ["observer Jagged raised; this is reported once"]


@pytest.mark.asyncio
async def test_a_context_variable_of_one_saga_is_not_seen_by_another() -> None:
    """Also where a timer that another saga armed lets this one's driver be replaced."""
    tenant = contextvars.ContextVar("tenant", default="none")
    seen: list[str] = []

    async def stubborn(ctx: SagaContext) -> None:
        seen.append(tenant.get())
        await never_end(ctx)

    async def note(_result: Any, ctx: SagaContext) -> None:
        seen.append(tenant.get())

    cls = chain(step("a", compensation=note), step("b", stubborn, timeout=10, retry=ONCE))
    async with orchestrator() as runs:
        tenant.set("A")
        first = await runs.start(chain(step("w", stubborn, timeout=10, retry=ONCE), name="First")())
        tenant.set("B")
        second = await runs.start(cls())
        assert (await first.wait()).status is SagaStatus.ROLLED_BACK
        assert (await second.wait()).status is SagaStatus.ROLLED_BACK
    assert seen == ["A", "B", "B"]


@pytest.mark.parametrize("reason", ["\udcff", "", " ", "x" * 1_001, 7, None])
@pytest.mark.asyncio
async def test_a_reason_is_a_text_that_can_be_stored(reason: Any) -> None:
    """In cancel and retry alike."""
    async with orchestrator() as runs:
        await runs.execute(chain(step("a"))(), saga_id="s")
        for asked in (runs.cancel("s", reason), runs.retry("s", reason)):
            with pytest.raises(SagaValidationError, match="reason must be a text"):
                await asked


@pytest.mark.parametrize("kind", ["two waits", "a sibling that ends"])
@pytest.mark.asyncio
async def test_a_slot_stays_lent_as_long_as_a_step_waits(kind: str) -> None:
    """Neither the end of another wait nor the driver, which a sibling's end wakes, takes it back before."""
    runs: SagaOrchestrator
    again = RetryPolicy(max_attempts=2, initial_interval=30.0, jitter="none")

    async def flaky(ctx: SagaContext) -> None:
        if ctx.attempt == 1:
            message = "once more"
            raise ValueError(message)

    sleepy, quick = chain(step("s", flaky, retry=again), name="Sleepy"), chain(step("q"), name="Quick")

    async def outer_step(ctx: SagaContext) -> None:
        waited = [runs.execute(sleepy(), saga_id="sleepy")]
        if kind == "two waits":
            waited.append(runs.execute(quick(), saga_id="quick"))
        assert all(result.success for result in await asyncio.gather(*waited))

    async def sibling(ctx: SagaContext) -> None:
        await asyncio.sleep(5)

    steps = [step("o", outer_step, timeout=None)]
    if kind != "two waits":
        steps.append(step("b", sibling))
    outer = dag(*steps, name="Outer")
    async with (
        memory() as storage,
        orchestrator(storage, sagas=[sleepy, quick, outer], limits=Limits(max_in_flight=1)) as runs,
    ):
        await runs.start(sleepy(), saga_id="sleepy")
        await asyncio.sleep(1)
        async with asyncio.timeout(200):
            assert (await runs.execute(outer(), saga_id="outer")).success
            assert (await runs.execute(chain(step("z"), name="Later")())).success, "no slot is lost"


@pytest.mark.asyncio
async def test_a_seat_that_is_taken_back_while_its_driver_queues_is_held_once() -> None:
    """One slot is taken, and one comes back."""
    slots = Slots(2)
    await slots.take()
    await slots.take()
    mine, other = Seat(slots), Seat(slots)
    third = asyncio.create_task(slots.take())
    await asyncio.sleep(1)
    with mine.lent():
        await asyncio.sleep(1)
        assert third.done()
        queueing = asyncio.create_task(mine.take(at_once=False))
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    slots.give_back()
    await queueing
    mine.leave(for_good=True)
    other.leave(for_good=True)
    await asyncio.sleep(1)
    assert slots.free == 2


@pytest.mark.asyncio
async def test_an_attempt_whose_task_is_cancelled_before_its_first_turn_has_not_run() -> None:
    """A sibling that cancels everything comes first: the other runs once, and the saga goes on."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    main = asyncio.current_task()
    ran: list[int] = []

    async def kill_all(ctx: SagaContext) -> None:
        for task in asyncio.all_tasks() - {main, asyncio.current_task()}:
            assert task is not None
            task.cancel()

    async def count(ctx: SagaContext) -> None:
        ran.append(ctx.attempt)

    async with orchestrator() as runs:
        handle = await runs.start(dag(step("a", kill_all), step("b", count))())
        assert (await handle.wait(timeout=500)).success
    assert len(ran) == 1


@pytest.mark.asyncio
async def test_loops_that_are_cancelled_again_and_again_begin_anew_each_time() -> None:
    """However soon."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    main = asyncio.current_task()
    cls = chain(step("a"), name="Left")
    async with memory() as storage, orchestrator(storage, sagas=[cls]) as runs:
        for seconds in (0.01, 0.2, 0.01, 0.15):
            await asyncio.sleep(seconds)
            for task in asyncio.all_tasks() - {main}:
                assert task is not None
                task.cancel()
        await leave(storage, cls(), "left")
        await asyncio.sleep(60)
        assert (await runs.get("left")).status is SagaStatus.COMPLETED


@pytest.mark.asyncio
async def test_a_cancellation_that_a_step_does_not_wait_for_cuts_no_write() -> None:
    """It comes before the outcome is written, and the outcome is kept."""

    class Slow(Line):
        """A storage that takes a moment."""

        async def before(self, call: str) -> None:
            """Wait."""
            await asyncio.sleep(0.5)

    async def cancel_and_return(ctx: SagaContext) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 1

    async with memory() as storage, orchestrator(Slow(storage)) as runs:
        result = await runs.execute(chain(step("a", cancel_and_return), step("b"))())
    assert result.success
    assert result.steps[0].attempts == 1


@pytest.mark.asyncio
async def test_what_an_abandoned_attempt_does_to_its_context_is_its_own() -> None:
    """The undo that comes after it does not see it."""
    tenant = contextvars.ContextVar("tenant", default="none")
    seen: list[str] = []

    async def stubborn(ctx: SagaContext) -> None:
        tenant.set("abandoned")
        await never_end(ctx)

    async def note(_result: Any, ctx: SagaContext) -> None:
        seen.append(tenant.get())

    async with orchestrator() as runs:
        result = await runs.execute(chain(step("a", stubborn, note, timeout=10, retry=ONCE))())
    assert result.status is SagaStatus.ROLLED_BACK
    assert seen == ["none"]


@pytest.mark.asyncio
async def test_a_saga_that_is_gone_when_its_turn_comes_keeps_no_slot() -> None:
    """Its driver queued for one, and another process took the saga meanwhile."""
    slots = Slots(1)
    await slots.take()
    seat = Seat(slots)
    seat.leave()
    await slots.take()
    queueing = asyncio.create_task(seat.take(at_once=False))
    await asyncio.sleep(1)
    seat.leave(for_good=True)
    slots.give_back()
    await queueing
    assert slots.free == 1


@pytest.mark.asyncio
async def test_a_cancellation_in_the_middle_of_a_write_leaves_the_saga_to_the_lease() -> None:
    """What is stored is not known then, and a write id must never stand for two writes: this driver goes on no more."""

    class Slow(Line):
        """A storage whose answer to a write takes long."""

        async def after(self, call: str) -> None:
            """Wait."""
            await asyncio.sleep(5 if call == "append" else 0)

    attempts: list[int] = []

    async def leave_one(ctx: SagaContext) -> None:
        attempts.append(ctx.attempt)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(1, task.cancel)

    cls = chain(step("a", leave_one), step("b"))
    async with memory() as storage, orchestrator(Slow(storage), sagas=[cls]) as runs:
        handle = await runs.start(cls(), saga_id="s")
        with pytest.raises(SagaExecutionError, match="the driver of saga s stopped"):
            await handle.wait()
        assert (await handle.wait()).success
        [stored] = await storage.load(["s"])
    assert attempts == [1], "its outcome was stored, though nobody here heard of it"
    assert stored.record.fence == 2
