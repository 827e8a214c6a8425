"""The executable specification of `saga`: one test for each rule of its public face, to be read from top to bottom.

Where time matters, a test runs in virtual time: an hour of waiting passes as soon as nothing else is left to do.
"""
# ruff: noqa: D102 - what the methods of a test's saga do is said by the class's docstring

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from saga import (
    AttentionCode,
    DAGSaga,
    FailureStrategy,
    InMemorySagaStorage,
    Limits,
    Observer,
    OutcomeUnknownError,
    ParallelFailureStrategy,
    RetryPolicy,
    Saga,
    SagaAlreadyExistsError,
    SagaCompensationError,
    SagaContext,
    SagaDefinitionError,
    SagaExecutionError,
    SagaFilter,
    SagaNotCancellableError,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStatus,
    SagaStepError,
    SagaStorage,
    SagaStorageUnavailableError,
    SagaTimeoutError,
    SagaValidationError,
    StepStatus,
)
from saga.types import SkipReason
from tests.virtual import VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence

    from saga import Page, RunningStep, SagaInfo, SagaRecord, SagaStatistics
    from saga.events import Event
    from saga.storage.base import Appended, Claim, Entry, NewSaga, Row, StoredSaga

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter="none")


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on a loop whose clock jumps to the next timer when everything waits."""

    @functools.wraps(test)
    def run() -> None:
        run_virtual(test())

    return run


def durable(storage: SagaStorage | None = None, *, seed: str = "one", **options: Any) -> SagaOrchestrator:
    """Make an orchestrator that tells the time by the loop it runs in."""
    return SagaOrchestrator(storage, clock=VirtualClock(seed), **options)


class Shop(Saga):
    """Reserves, charges and ships, each with an undo; ``broken`` names the step that fails, ``stuck`` an undo."""

    def __init__(self, broken: str = "", stuck: str = "") -> None:
        self.broken = broken
        self.stuck = stuck

    async def build(self) -> None:
        for name in ("reserve", "charge", "ship"):
            await self.add_step(name, self.do, self.undo, compensation_retry=AT_ONCE)

    async def do(self, ctx: SagaContext) -> str:
        ctx.resource("log").append(ctx.step_name)
        if ctx.step_name == self.broken:
            message = "out of order"
            raise ValueError(message)
        return f"{ctx.step_name}-1"

    async def undo(self, result: str, ctx: SagaContext) -> None:
        ctx.resource("log").append(f"undo {ctx.step_name} {result}")
        if ctx.step_name == self.stuck and not ctx.resource("mended"):
            message = "cannot undo"
            raise RuntimeError(message)


# --------------------------------------------------------------------------------------------------- forward, backward


@pytest.mark.asyncio
async def test_a_saga_runs_its_steps_in_order() -> None:
    """Subclass, add steps in build(), execute."""
    log: list[str] = []
    result = await Shop().execute(resources={"log": log})

    assert result.success
    assert result.status is SagaStatus.COMPLETED
    assert log == ["reserve", "charge", "ship"]
    assert result.context == {"reserve": "reserve-1", "charge": "charge-1", "ship": "ship-1"}
    assert (result.completed_steps, result.total_steps) == (3, 3)
    result.raise_for_status()


@pytest.mark.asyncio
async def test_a_failed_saga_is_undone_in_reverse() -> None:
    """Each undo gets what its action returned; the failed step, which had no effect, is not undone."""
    log: list[str] = []
    result = await Shop(broken="ship").execute(resources={"log": log})

    assert not result.success
    assert result.status is SagaStatus.ROLLED_BACK
    assert log == ["reserve", "charge", "ship", "undo charge charge-1", "undo reserve reserve-1"]
    assert [step.status for step in result.steps] == [
        StepStatus.COMPENSATED,
        StepStatus.COMPENSATED,
        StepStatus.SKIPPED,
    ]


@pytest.mark.asyncio
async def test_a_result_says_which_step_failed_and_why() -> None:
    """The error names saga and step, and chains what the action raised."""
    result = await Shop(broken="charge").execute(resources={"log": []})

    assert isinstance(result.error, SagaStepError)
    assert (result.error.saga_name, result.error.step) == ("Shop", "charge")
    assert isinstance(result.error.__cause__, ValueError)
    with pytest.raises(SagaStepError, match="out of order"):
        result.raise_for_status()


@pytest.mark.asyncio
async def test_a_step_without_compensation_is_recorded_as_skipped() -> None:
    """There is nothing to undo, and that stays visible."""

    class Look(Saga):
        async def build(self) -> None:
            await self.add_step("look", succeed)
            await self.add_step("break", fail)

    result = await Look().execute()
    assert result.status is SagaStatus.ROLLED_BACK
    assert result.steps[0].skipped is SkipReason.NO_COMPENSATION


async def succeed(ctx: SagaContext) -> str:
    """Say which step it was."""
    return ctx.step_name


async def fail(ctx: SagaContext) -> None:
    """Fail definitely."""
    message = f"{ctx.step_name} failed"
    raise ValueError(message)


async def forget(result: Any, ctx: SagaContext) -> None:
    """Undo nothing."""


# -------------------------------------------------------------------------------------------------------------- graphs


class Trip(DAGSaga):
    """Books a car and a hotel side by side, then insurance; undoing takes longer for the hotel."""

    async def build(self) -> None:
        await self.add_dag_step("plan", self.book, self.cancel)
        await self.add_dag_step("car", self.book, self.cancel, dependencies={"plan"})
        await self.add_dag_step("hotel", self.book, self.cancel, dependencies={"plan"})
        await self.add_dag_step("insure", self.refuse, self.cancel, dependencies={"car", "hotel"})

    async def book(self, ctx: SagaContext) -> None:
        ctx.resource("log").append(f"begin {ctx.step_name}")
        await asyncio.sleep(1)
        ctx.resource("log").append(f"end {ctx.step_name}")

    async def refuse(self, ctx: SagaContext) -> None:
        message = "no insurance"
        raise ValueError(message)

    async def cancel(self, result: None, ctx: SagaContext) -> None:
        ctx.resource("log").append(f"begin undo {ctx.step_name}")
        await asyncio.sleep(2 if ctx.step_name == "hotel" else 1)
        ctx.resource("log").append(f"end undo {ctx.step_name}")


@in_virtual_time
async def test_independent_steps_run_side_by_side_in_both_directions() -> None:
    """A step waits for what it depends on, an undo for the undos of all that came after."""
    log: list[str] = []
    async with durable(resources={"log": log}) as orchestrator:
        result = await orchestrator.execute(Trip())

    assert result.status is SagaStatus.ROLLED_BACK
    assert log[:2] == ["begin plan", "end plan"]
    assert set(log[2:4]) == {"begin car", "begin hotel"}
    assert set(log[4:6]) == {"end car", "end hotel"}
    assert set(log[6:8]) == {"begin undo car", "begin undo hotel"}
    assert log[8:] == ["end undo car", "end undo hotel", "begin undo plan", "end undo plan"]
    assert result.execution_time == pytest.approx(1 + 1 + 2 + 1)


class Race(DAGSaga):
    """One step fails after a second while another needs ten, or, if cancelled, cannot know whether it succeeded."""

    async def build(self) -> None:
        await self.add_dag_step("quick", self.quick)
        await self.add_dag_step("slow", self.slow, self.undo)
        await self.add_dag_step("after", succeed, dependencies={"slow"})

    async def quick(self, ctx: SagaContext) -> None:
        await asyncio.sleep(1)
        message = "too quick"
        raise ValueError(message)

    async def slow(self, ctx: SagaContext) -> str:
        await asyncio.sleep(10)
        return "slow but sure"

    async def undo(self, result: str | None, ctx: SagaContext) -> None:
        ctx.resource("log").append((ctx.outcome, result))


class AfterThree(FailureStrategy):
    """A user's own strategy: cancel three seconds after the step began."""

    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:
        return step.started_at + 3


@pytest.mark.parametrize(
    ("strategy", "seconds", "seen"),
    [
        (ParallelFailureStrategy.FAIL_FAST, 1, ("unknown", None)),
        (ParallelFailureStrategy.FAIL_FAST_WITH_GRACE, 1 + 5, ("unknown", None)),
        (ParallelFailureStrategy.WAIT_ALL, 10, ("succeeded", "slow but sure")),
        (AfterThree(), 3, ("unknown", None)),
    ],
    ids=["fail fast", "grace", "wait for all", "own strategy"],
)
def test_a_strategy_says_when_the_siblings_of_a_failed_step_are_cancelled(
    strategy: ParallelFailureStrategy | FailureStrategy, seconds: float, seen: tuple[str, str | None]
) -> None:
    """A cancelled step may have had its effect, so it is undone; what came after it never starts."""

    class Chosen(Race):
        failure_strategy = strategy

    async def run() -> None:
        log: list[tuple[str, str | None]] = []
        async with durable(resources={"log": log}) as orchestrator:
            result = await orchestrator.execute(Chosen())
        assert result.execution_time == pytest.approx(seconds)
        assert log == [seen]
        assert result.steps[2].status is StepStatus.NOT_STARTED

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- unknown outcomes


@pytest.mark.parametrize("error", [TimeoutError, ConnectionResetError, OutcomeUnknownError, KeyError])
@pytest.mark.asyncio
async def test_a_step_whose_outcome_is_unknown_is_compensated(error: type[Exception]) -> None:
    """Timeouts and lost connections say nothing about the effect; other types can be declared with unknown_on."""
    keys: list[str] = []

    class Pay(Saga):
        async def build(self) -> None:
            await self.add_step("pay", self.pay, self.refund, unknown_on=(KeyError,))

        async def pay(self, ctx: SagaContext) -> None:
            keys.append(ctx.idempotency_key)
            raise error

        async def refund(self, result: Any, ctx: SagaContext) -> None:
            assert result is None
            assert ctx.outcome == "unknown"
            keys.append(ctx.action_key)

    result = await Pay().execute()
    assert result.steps[0].status is StepStatus.COMPENSATED
    assert keys == [f"{result.saga_id}:pay:action"] * 2


@pytest.mark.parametrize(
    ("compensate_on", "compensated"),
    [("uncertain", {"unknown"}), ("started", {"unknown", "failed"}), ("success", set())],
)
@pytest.mark.asyncio
async def test_a_step_chooses_which_outcomes_are_compensated(compensate_on: Any, compensated: set[str]) -> None:
    """Only "success" leaves an unknown outcome alone, and then a person is told."""
    for outcome, error in (("unknown", OutcomeUnknownError()), ("failed", ValueError("no"))):

        class One(Saga):
            async def build(self) -> None:
                await self.add_step("one", self.one, forget, compensate_on=compensate_on)

            async def one(self, ctx: SagaContext, error: Exception = error) -> None:
                raise error

        result = await One().execute()
        assert (result.steps[0].status is StepStatus.COMPENSATED) is (outcome in compensated)
        in_doubt = result.attention is not None and result.attention.code is AttentionCode.IN_DOUBT
        assert in_doubt is (outcome == "unknown" and outcome not in compensated)


# ----------------------------------------------------------------------------------------------- failing compensations


@pytest.mark.asyncio
async def test_a_saga_that_cannot_be_undone_is_failed_and_a_retry_repairs_it() -> None:
    """One exhausted undo does not stop the others, is never called a success, and is all that a retry runs."""
    log: list[str] = []
    resources = {"log": log, "mended": []}
    async with SagaOrchestrator(resources=resources) as orchestrator:
        handle = await orchestrator.start(Shop(broken="ship", stuck="charge"), saga_id="o-1")
        result = await handle.wait()
        assert result.status is SagaStatus.FAILED
        assert log.count("undo charge charge-1") == AT_ONCE.max_attempts
        assert log.count("undo reserve reserve-1") == 1
        [error] = result.compensation_errors
        assert isinstance(error, SagaCompensationError)
        assert error.step == "charge"
        assert [saga.saga_id for saga in (await orchestrator.query(SagaFilter(attention=True))).items] == ["o-1"]

        log.clear()
        resources["mended"].append(True)
        await orchestrator.retry("o-1", "the bank is back")
        repaired = await handle.wait()
        assert repaired.status is SagaStatus.ROLLED_BACK
        assert repaired.compensation_errors == ()
        assert log == ["undo charge charge-1"]


# ------------------------------------------------------------------------------------------------- points of no return


class Ticket(Saga):
    """Holds a seat, buys the ticket (no way back), and sends it; what a step raises is up to the test."""

    async def build(self) -> None:
        await self.add_step("hold", self.act, self.release)
        await self.add_step("buy", self.act, pivot=True)
        await self.add_step("send", self.act, retry=AT_ONCE)

    async def act(self, ctx: SagaContext) -> None:
        ctx.resource("log").append((ctx.step_name, ctx.attempt))
        await ctx.resource("service")(ctx)

    async def release(self, result: None, ctx: SagaContext) -> None:
        ctx.resource("log").append(("release", ctx.attempt))


def test_a_definite_failure_of_the_pivot_turns_the_saga_back() -> None:
    """Until the pivot has succeeded there is a way back."""

    async def service(ctx: SagaContext) -> None:
        if ctx.step_name == "buy":
            message = "sold out"
            raise ValueError(message)

    async def run() -> None:
        log: list[tuple[str, int]] = []
        async with durable(resources={"log": log, "service": service}) as orchestrator:
            result = await orchestrator.execute(Ticket())
        assert result.status is SagaStatus.ROLLED_BACK
        assert log == [("hold", 1), ("buy", 1), ("release", 1)]

    run_virtual(run())


def test_a_pivot_is_asked_until_its_answer_is_definite() -> None:
    """Whatever its retry policy, and under the same key: only its answer decides which way the saga goes."""
    keys: set[str] = set()

    async def service(ctx: SagaContext) -> None:
        if ctx.step_name == "buy":
            keys.add(ctx.idempotency_key)
            if ctx.attempt <= 5:
                raise ConnectionError

    async def run() -> None:
        log: list[tuple[str, int]] = []
        async with durable(resources={"log": log, "service": service}) as orchestrator:
            result = await orchestrator.execute(Ticket())
        assert result.success
        assert ("buy", 6) in log
        assert len(keys) == 1

    run_virtual(run())


def test_what_fails_after_the_pivot_is_parked_until_a_person_retries_it() -> None:
    """There is no way back, so nothing is undone: the saga rests with blocking attention and goes on afterwards."""
    broken = [True]

    async def service(ctx: SagaContext) -> None:
        if ctx.step_name == "send" and broken[0]:
            message = "printer on fire"
            raise RuntimeError(message)

    async def run() -> None:
        log: list[tuple[str, int]] = []
        async with durable(resources={"log": log, "service": service}) as orchestrator:
            handle = await orchestrator.start(Ticket())
            parked = await handle.wait()
            assert not parked.success
            assert parked.status is SagaStatus.EXECUTING
            assert parked.attention is not None
            assert parked.attention.code is AttentionCode.PARKED
            assert parked.attention.blocking
            with pytest.raises(SagaNotCancellableError, match="no return"):
                await handle.cancel("changed my mind")

            broken[0] = False
            await orchestrator.retry(handle.saga_id, "printer mended")
            assert (await handle.wait()).success
        assert [step for step, _ in log] == ["hold", "buy", "send", "send", "send", "send"]

    run_virtual(run())


class Once(Saga):
    """A step that must not be repeated blindly."""

    async def build(self) -> None:
        await self.add_step("once", self.once, self.undo, on_interrupt="park", timeout=None)

    async def once(self, ctx: SagaContext) -> None:
        ctx.resource("log").append(ctx.attempt)
        await asyncio.sleep(100)

    async def undo(self, result: None, ctx: SagaContext) -> None:
        ctx.resource("log").append("undone")


def test_an_interrupted_step_that_asked_for_it_is_parked_and_a_cancel_undoes_it() -> None:
    """Whether it had its effect is not known: a person decides, and cancelling counts it as UNKNOWN."""

    async def run() -> None:
        log: list[Any] = []
        storage = InMemorySagaStorage(clock=VirtualClock())
        async with storage:
            async with durable(storage, drain_timeout=1, resources={"log": log}) as first:
                await first.start(Once(), saga_id="once")
                await asyncio.sleep(5)
            async with durable(storage, seed="two", sagas=[Once], resources={"log": log}) as second:
                handle = await second.start(Once(), saga_id="once")
                parked = await handle.wait()
                assert parked.attention is not None
                assert parked.attention.code is AttentionCode.PARKED
                assert log == [1]
                await handle.cancel("it did happen")
                assert (await handle.wait()).status is SagaStatus.ROLLED_BACK
        assert log == [1, "undone"]

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- time and retries


class Slow(Saga):
    """A step that needs more seconds than it may take, except in the attempt that is named."""

    def __init__(self, good_attempt: int = 0) -> None:
        self.good_attempt = good_attempt

    async def build(self) -> None:
        await self.add_step("slow", self.slow, self.undo, timeout=3, max_retries=2)

    async def slow(self, ctx: SagaContext) -> int:
        await asyncio.sleep(1 if ctx.attempt == self.good_attempt else 60)
        return ctx.attempt

    async def undo(self, result: int | None, ctx: SagaContext) -> None:
        ctx.resource("log").append(f"undo {ctx.outcome}")


@in_virtual_time
async def test_a_timeout_is_retried_within_the_budget() -> None:
    """Two retries are three attempts; each is under the same key."""
    async with durable() as orchestrator:
        result = await orchestrator.execute(Slow(good_attempt=3))
    assert result.success
    assert result.context == {"slow": 3}


@in_virtual_time
async def test_a_timeout_out_of_budget_turns_the_saga_back_and_the_step_is_undone() -> None:
    """The timed-out action may have had its effect."""
    log: list[str] = []
    async with durable(resources={"log": log}) as orchestrator:
        result = await orchestrator.execute(Slow())
    assert isinstance(result.error, SagaTimeoutError)
    assert result.steps[0].attempts == 3
    assert log == ["undo unknown"]


@in_virtual_time
async def test_a_retry_waits_as_its_policy_says() -> None:
    """1, 2, 4 and then at the most 5 seconds, and nothing after the last attempt."""
    at: list[float] = []

    class Stubborn(Saga):
        async def build(self) -> None:
            policy = RetryPolicy(max_attempts=5, initial_interval=1, backoff=2, max_interval=5, jitter="none")
            await self.add_step("try", self.attempt, retry=policy)

        async def attempt(self, ctx: SagaContext) -> None:
            at.append(asyncio.get_running_loop().time())
            message = "not yet"
            raise ValueError(message)

    async with durable() as orchestrator:
        await orchestrator.execute(Stubborn())
        assert asyncio.get_running_loop().time() == at[-1]
    assert [later - before for before, later in itertools.pairwise(at)] == pytest.approx([1, 2, 4, 5])


@in_virtual_time
async def test_a_retry_that_sleeps_survives_the_end_of_its_process() -> None:
    """The delay is stored: the next process waits for what is left of it."""
    at: list[float] = []

    class Patient(Saga):
        async def build(self) -> None:
            policy = RetryPolicy(max_attempts=2, initial_interval=50, jitter="none")
            await self.add_step("try", self.attempt, retry=policy)

        async def attempt(self, ctx: SagaContext) -> None:
            at.append(asyncio.get_running_loop().time())
            if ctx.attempt == 1:
                message = "not yet"
                raise ValueError(message)

    async with InMemorySagaStorage(clock=VirtualClock()) as storage:
        async with durable(storage) as first:
            await first.start(Patient(), saga_id="p")
            await asyncio.sleep(20)
        async with durable(storage, seed="two", sagas=[Patient]) as second:
            assert (await second.execute(Patient(), saga_id="p")).success
    assert at == pytest.approx([0, 50], abs=5)


@in_virtual_time
async def test_a_deadline_turns_the_saga_back() -> None:
    """Whatever runs is interrupted and undone."""
    log: list[str] = []
    async with durable(resources={"log": log}) as orchestrator:
        result = await orchestrator.execute(Slow(), deadline=2)
    assert isinstance(result.error, SagaTimeoutError)
    assert result.execution_time == pytest.approx(2)
    assert log == ["undo unknown"]


# -------------------------------------------------------------------------------------------------------------- cancel


class Long(Saga):
    """A step of an hour after a quick one."""

    async def build(self) -> None:
        await self.add_step("quick", succeed, self.undo)
        await self.add_step("hour", self.hour, self.undo, timeout=None)

    async def hour(self, ctx: SagaContext) -> None:
        await asyncio.sleep(3600)

    async def undo(self, result: Any, ctx: SagaContext) -> None:
        ctx.resource("log").append(f"undo {ctx.step_name}")


@in_virtual_time
async def test_a_cancelled_saga_interrupts_what_runs_and_undoes_everything() -> None:
    """The request is durable when cancel returns."""
    log: list[str] = []
    async with durable(resources={"log": log}) as orchestrator:
        handle = await orchestrator.start(Long())
        await asyncio.sleep(10)
        await handle.cancel("no longer wanted")
        result = await handle.wait()
        assert result.status is SagaStatus.ROLLED_BACK
        assert result.execution_time == pytest.approx(10)
        assert "no longer wanted" in str(result.error)
        assert log == ["undo hour", "undo quick"]
        await handle.cancel("once more")
        assert await handle.status() is SagaStatus.ROLLED_BACK


@pytest.mark.asyncio
async def test_a_completed_saga_cannot_be_cancelled() -> None:
    """Nothing is undone, and the caller is told."""
    log: list[str] = []
    async with SagaOrchestrator(resources={"log": log}) as orchestrator:
        await orchestrator.execute(Shop(), saga_id="o-1")
        with pytest.raises(SagaNotCancellableError, match="completed"):
            await orchestrator.cancel("o-1", "too late")
        assert (await orchestrator.get("o-1")).status is SagaStatus.COMPLETED
    assert log == ["reserve", "charge", "ship"]


@pytest.mark.asyncio
async def test_an_unknown_saga_is_not_found() -> None:
    """Ids are never guessed at."""
    async with SagaOrchestrator() as orchestrator:
        for ask in (orchestrator.get("none"), orchestrator.cancel("none", "why"), orchestrator.retry("none", "why")):
            with pytest.raises(SagaNotFoundError, match="none"):
                await ask


# --------------------------------------------------------------------------------------------------------- idempotency


@pytest.mark.asyncio
async def test_the_same_start_again_is_the_same_saga() -> None:
    """Same id, same class, same arguments: the stored result, and nothing runs twice."""
    log: list[str] = []
    async with SagaOrchestrator(resources={"log": log}) as orchestrator:
        first = await orchestrator.execute(Shop(broken="ship"), saga_id="o-1")
        second = await orchestrator.execute(Shop(broken="ship"), saga_id="o-1")
    assert second.status is first.status is SagaStatus.ROLLED_BACK
    assert second.steps == first.steps
    assert log.count("reserve") == 1


@pytest.mark.asyncio
async def test_another_saga_under_the_same_id_is_refused_and_told_what_differs() -> None:
    """The id stands for one saga until it is pruned."""
    async with SagaOrchestrator(resources={"log": []}) as orchestrator:
        await orchestrator.execute(Shop(), saga_id="o-1")
        with pytest.raises(SagaAlreadyExistsError, match="arguments differ: broken"):
            await orchestrator.execute(Shop(broken="ship"), saga_id="o-1")
        with pytest.raises(SagaAlreadyExistsError, match="it is a Shop, not a Long"):
            await orchestrator.execute(Long(), saga_id="o-1")


@pytest.mark.asyncio
async def test_an_instance_is_one_run() -> None:
    """Executing it again returns the same saga's result; elsewhere, or under another id, it is refused."""
    log: list[str] = []
    saga = Shop()
    first = await saga.execute(resources={"log": log})
    assert (await saga.execute()).saga_id == first.saga_id == saga.saga_id
    assert log == ["reserve", "charge", "ship"]
    async with SagaOrchestrator(resources={"log": log}) as orchestrator:
        with pytest.raises(SagaExecutionError, match="one instance is one run"):
            await orchestrator.execute(saga)
        mine = Shop()
        await orchestrator.execute(mine, saga_id="o-1")
        assert (await orchestrator.execute(mine)).saga_id == "o-1"
        with pytest.raises(SagaExecutionError, match="cannot run as o-2"):
            await orchestrator.execute(mine, saga_id="o-2")


# ------------------------------------------------------------------------------------------------------------- context


@dataclass(frozen=True)
class Booking:
    """A result that is no plain JSON."""

    code: str
    seats: int


@pytest.mark.asyncio
async def test_a_step_sees_its_ancestors_only() -> None:
    """A result stands under its step's name; with_data() gives it other keys; a later ancestor wins."""
    seen: dict[str, Any] = {}

    class Family(DAGSaga):
        async def build(self) -> None:
            await self.add_dag_step("parent", self.parent)
            await self.add_dag_step("aunt", succeed)
            await self.add_dag_step("child", self.child, dependencies=["parent"])

        async def parent(self, ctx: SagaContext) -> SagaContext:
            return ctx.with_data({"house": "red", "rooms": [1, 2]})

        async def child(self, ctx: SagaContext) -> None:
            ctx.get("rooms").append("changing a value changes nothing that is stored")
            seen.update(house=ctx.get("house"), rooms=ctx.get("rooms"), aunt=ctx.get("aunt"), other=ctx.get("x", 7))
            assert ctx.result_of("parent") == {"house": "red", "rooms": [1, 2]}
            with pytest.raises(SagaValidationError, match="aunt"):
                ctx.result_of("aunt")

    result = await Family().execute()
    result.raise_for_status()
    assert seen == {"house": "red", "rooms": [1, 2], "aunt": None, "other": 7}
    assert result.context == {"house": "red", "rooms": [1, 2], "aunt": "aunt", "child": None}


@pytest.mark.asyncio
async def test_a_result_is_read_back_as_its_annotation_says() -> None:
    """By later steps and by the compensation; without one only plain JSON is accepted, and never changed silently."""
    seen: list[Any] = []

    class Typed(Saga):
        async def build(self) -> None:
            await self.add_step("book", self.book, self.undo)
            await self.add_step("look", self.look, self.undo)

        async def book(self, ctx: SagaContext) -> Booking:
            return Booking("X1", 2)

        async def look(self, ctx: SagaContext) -> Any:
            seen.append(ctx.result_of("book"))
            return (1, 2)

        async def undo(self, result: Any, ctx: SagaContext) -> None:
            seen.append(result)

    result = await Typed().execute()
    assert "annotate" in str(result.error)
    assert seen == [Booking("X1", 2), None, Booking("X1", 2)]


@pytest.mark.asyncio
async def test_live_objects_are_resources_and_never_stored() -> None:
    """Clients and pools are given to whoever runs the saga; a missing one is named."""
    result = await Shop().execute(resources={"http": object()})
    assert "asks for resource 'log'; given are: http" in str(result.error)


@pytest.mark.asyncio
async def test_what_is_wrong_with_a_definition_is_said_before_the_first_effect() -> None:
    """Here a cycle, which is printed; tests/unit/test_bad_input.py has all the others."""

    class Circle(DAGSaga):
        async def build(self) -> None:
            await self.add_dag_step("first", fail)
            await self.add_dag_step("a", fail, dependencies={"b", "first"})
            await self.add_dag_step("b", fail, dependencies={"a"})

    with pytest.raises(SagaDefinitionError, match=r"'Circle'.*(a needs b needs a|b needs a needs b)"):
        await Circle().execute()


# ----------------------------------------------------------------------------------------------- storages and recovery


class OwnStorage(SagaStorage):
    """A storage outside of the package: keeps everything in another one, and can be cut off from it."""

    def __init__(self, inner: InMemorySagaStorage) -> None:
        self.inner = inner
        self.cut_off = False
        self.appends = 0

    def reach(self) -> InMemorySagaStorage:
        if self.cut_off:
            message = "no route to the storage"
            raise SagaStorageUnavailableError(message)
        return self.inner

    async def open(self) -> None:
        """The inner storage is open already."""

    async def close(self) -> None:
        """The inner storage is closed by whoever opened it."""

    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        self.appends += 1
        return await self.reach().create(new, events, claim=claim, write_id=write_id, connection=connection)

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        return await self.reach().load(saga_ids)

    async def append(
        self,
        saga_id: str,
        events: Sequence[Event],
        *,
        row: Row | None,
        expected_version: int | None,
        claim: Claim | None,
        write_id: str,
    ) -> Appended:
        self.appends += 1
        return await self.reach().append(
            saga_id, events, row=row, expected_version=expected_version, claim=claim, write_id=write_id
        )

    async def claim_due(self, owner: str, token: str, ttl: float, limit: int, **options: Any) -> list[StoredSaga]:
        return await self.reach().claim_due(owner, token, ttl, limit, **options)

    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        return await self.reach().renew(claims, ttl)

    async def release(self, claims: Mapping[str, str]) -> None:
        await self.reach().release(claims)

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        return await self.reach().query(selected, cursor, limit)

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        return await self.reach().history(saga_id, cursor, limit)

    async def statistics(self) -> SagaStatistics:
        return await self.reach().statistics()

    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        return await self.reach().prune(older_than, statuses, limit)

    async def health_check(self) -> None:
        await self.reach().health_check()


@in_virtual_time
async def test_a_linear_saga_of_n_steps_costs_n_plus_one_writes_on_any_storage() -> None:
    """A step's outcome and the start of the next are one append, and so are the last outcome and the end."""
    async with InMemorySagaStorage(clock=VirtualClock()) as inner:
        own = OwnStorage(inner)
        async with durable(own, resources={"log": []}) as orchestrator:
            assert (await orchestrator.execute(Shop())).success
        assert own.appends == 3 + 1


class Charge(Saga):
    """Charges a card; the log is the bank's."""

    async def build(self) -> None:
        await self.add_step("check", succeed)
        await self.add_step("charge", self.charge)
        await self.add_step("tell", succeed)

    async def charge(self, ctx: SagaContext) -> None:
        ctx.resource("bank").append((ctx.idempotency_key, ctx.attempt))
        ctx.resource("after_charge")()
        await asyncio.sleep(1)


@in_virtual_time
async def test_another_process_carries_on_what_a_dead_one_left() -> None:
    """What was not recorded is repeated under its own key, what was is not; the dead process writes nothing."""
    bank: list[tuple[str, int]] = []
    async with InMemorySagaStorage(clock=VirtualClock()) as inner:
        line = OwnStorage(inner)

        def die() -> None:
            line.cut_off = True

        first = durable(line, lease_ttl=15, resources={"bank": bank, "after_charge": die})
        second = durable(
            inner, seed="two", sagas=[Charge], lease_ttl=15, resources={"bank": bank, "after_charge": lambda: None}
        )
        async with second, first:
            handle = await first.start(Charge(), saga_id="c-1")
            watching = await second.start(Charge(), saga_id="c-1")
            result = await watching.wait()
            assert result.success
            assert bank == [("c-1:charge:action", 1), ("c-1:charge:action", 2)]
            version = (await second.get("c-1")).version
            assert (await second.get("c-1")).fence == 2

            line.cut_off = False
            assert (await handle.wait()).success
            assert (await second.get("c-1")).version == version


@in_virtual_time
async def test_an_orchestrator_that_leaves_hands_over_what_does_not_end_in_time() -> None:
    """Attempts get the drain timeout, waits are told, and the next process goes on without waiting for a lease."""
    async with InMemorySagaStorage(clock=VirtualClock()) as storage:
        log: list[str] = []
        async with durable(storage, drain_timeout=5, resources={"log": log}) as first:
            handle = await first.start(Long(), saga_id="l-1")
            waiting = asyncio.create_task(handle.wait())
            await asyncio.sleep(1)
        with pytest.raises(SagaExecutionError, match="l-1 was handed over"):
            await waiting
        async with durable(storage, seed="two", sagas=[Long], resources={"log": log}) as second:
            await asyncio.sleep(1)
            record = await second.get("l-1")
            assert record.owner is not None
            assert record.recoveries == 0
            await second.cancel("l-1", "enough")
            assert (await second.execute(Long(), saga_id="l-1")).status is SagaStatus.ROLLED_BACK


@in_virtual_time
async def test_waiting_can_be_given_up_and_the_saga_goes_on() -> None:
    """A saga in an orchestrator belongs to the orchestrator, not to who waits for it."""
    async with durable(resources={"log": []}) as orchestrator:
        handle = await orchestrator.start(Long())
        with pytest.raises(TimeoutError):
            await handle.wait(timeout=5)
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(5)
        waiting.cancel()
        assert await handle.status() is SagaStatus.EXECUTING
        assert (await handle.wait()).success


@pytest.mark.asyncio
async def test_a_lone_saga_undoes_itself_when_its_caller_is_cancelled() -> None:
    """Nobody else could; what the caller gets is still the cancellation."""
    log: list[str] = []
    running = asyncio.create_task(Long().execute(resources={"log": log}))
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert log == ["undo hour", "undo quick"]


@in_virtual_time
async def test_a_saga_whose_code_nobody_has_waits_visibly() -> None:
    """It is never guessed at."""
    async with InMemorySagaStorage(clock=VirtualClock()) as storage:
        async with durable(storage, drain_timeout=0, resources={"log": []}) as first:
            await first.start(Long(), saga_id="l-1")
        async with durable(storage, seed="two") as without_code:
            await asyncio.sleep(120)
            attention = (await without_code.get("l-1")).attention
            assert attention is not None
            assert attention.code is AttentionCode.NO_CODE
            assert not attention.blocking


# ------------------------------------------------------------------------------------------------ observers and limits


class Notes(Observer):
    """Writes down everything that it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def headers(self, saga: SagaInfo) -> Mapping[str, str]:
        return {"trace": "t-1"}

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        self.notes.append(type(event).__name__)

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        self.notes.append(f"enter {ctx.step_name} {saga.headers['trace']}")
        yield
        self.notes.append(f"leave {ctx.step_name}")

    def on_leave(self, saga: SagaInfo, reason: Any) -> None:
        self.notes.append(f"leaves {saga.saga_name}: {reason}")


@pytest.mark.asyncio
async def test_an_observer_sees_facts_in_order_once_they_are_durable() -> None:
    """And surrounds the user's code, with what it stored when the saga was created."""

    class Single(Saga):
        async def build(self) -> None:
            await self.add_step("one", succeed)

    notes = Notes()
    await Single().execute(observers=[notes])
    assert notes.notes == [
        "Created",
        "Claimed",
        "Began",
        "AttemptStarted",
        "enter one t-1",
        "leave one",
        "AttemptSucceeded",
        "Completed",
        "leaves Single: rest",
    ]


@pytest.mark.asyncio
async def test_a_broken_observer_is_reported_once_and_never_felt() -> None:
    """It goes to the loop's exception handler."""

    class Broken(Observer):
        def on_event(self, saga: SagaInfo, event: Event) -> None:
            message = "observer on strike"
            raise RuntimeError(message)

    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))
    assert (await Shop().execute(resources={"log": []}, observers=[Broken()])).success
    assert reports == ["observer Broken raised; this is reported once"]


@in_virtual_time
async def test_starting_waits_while_too_many_sagas_run() -> None:
    """start() returns once the saga has a slot and is durable: that is the back-pressure."""

    class Second(Saga):
        def __init__(self, number: int) -> None:
            self.number = number

        async def build(self) -> None:
            await self.add_step("wait", self.work)

        async def work(self, ctx: SagaContext) -> None:
            running = ctx.resource("running")
            running.append(self.number)
            assert len(running) <= 2
            await asyncio.sleep(1)
            running.remove(self.number)

    async with durable(limits=Limits(max_in_flight=2), resources={"running": []}) as orchestrator:
        handles = [await orchestrator.start(Second(number)) for number in range(6)]
        assert asyncio.get_running_loop().time() == pytest.approx(2)
        assert all([(await handle.wait()).success for handle in handles])


@in_virtual_time
async def test_a_saga_started_from_an_action_never_waits_for_a_slot() -> None:
    """The outer saga holds the only one while it waits for the inner one."""

    class Outer(Saga):
        async def build(self) -> None:
            await self.add_step("inner", self.inner)

        async def inner(self, ctx: SagaContext) -> None:
            result = await ctx.resource("orchestrator")[0].execute(Shop(), saga_id=f"{ctx.saga_id}.inner")
            result.raise_for_status()

    resources: dict[str, Any] = {"log": [], "orchestrator": []}
    async with durable(limits=Limits(max_in_flight=1), resources=resources) as orchestrator:
        resources["orchestrator"].append(orchestrator)
        assert (await orchestrator.execute(Outer())).success


@pytest.mark.asyncio
async def test_an_orchestrator_belongs_to_one_loop_and_says_so() -> None:
    """Use from another thread's loop, before entering, or after leaving is a named error."""
    orchestrator = SagaOrchestrator(resources={"log": []})
    with pytest.raises(SagaExecutionError, match="async with"):
        await orchestrator.execute(Shop())
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(orchestrator.execute(Shop()))
        except SagaExecutionError as error:
            errors.append(error)

    async with orchestrator:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert (await orchestrator.execute(Shop())).success
    assert "one for each loop and thread" in str(errors[0])
    with pytest.raises(SagaExecutionError, match="left"):
        await orchestrator.execute(Shop())
