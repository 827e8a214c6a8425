"""Running sagas where something comes between: hand-over, cancellation in odd moments, broken user code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Never, NoReturn

import pytest

from saga import (
    AttentionCode,
    InMemorySagaStorage,
    LeaveReason,
    Limits,
    Observer,
    RetryPolicy,
    Saga,
    SagaContext,
    SagaExecutionError,
    SagaInfo,
    SagaStatus,
    SagaStorageUnavailableError,
    SagaTimeoutError,
)
from saga.storage.base import Appended, NewSaga
from tests.unit.kit import (
    Hush,
    Line,
    cancel_myself,
    chain,
    dag,
    fail,
    leave,
    memory,
    orchestrator,
    raising,
    step,
    succeed,
    undo,
)
from tests.virtual import VirtualClock


class Slow(Line):
    """A storage whose appends take a second."""

    async def before(self, call: str) -> None:
        """Wait."""
        if call == "append":
            await asyncio.sleep(1)


class Tokens(InMemorySagaStorage):
    """Keeps the tokens that sagas were created with."""

    def __init__(self, clock: VirtualClock) -> None:
        """Know of none."""
        super().__init__(clock=clock)
        self.tokens: dict[str, str] = {}

    async def create(self, new: NewSaga, *arguments: Any, **options: Any) -> Appended:
        """Note the token."""
        self.tokens[new.saga_id] = options["claim"].token
        return await super().create(new, *arguments, **options)


@pytest.mark.asyncio
async def test_a_saga_that_only_sleeps_is_released_at_once_although_it_was_writing_when_shutdown_began() -> None:
    """R15a: release at once what runs no attempt."""
    policy = RetryPolicy(max_attempts=5, initial_interval=50, jitter="none")
    async with memory() as storage:
        async with orchestrator(Slow(storage)) as first:
            await first.start(chain(step(action=fail, retry=policy))(), saga_id="s")
            await asyncio.sleep(0.5)
            left_at = first.clock.monotonic()
        assert first.clock.monotonic() - left_at < 5
        [stored] = await storage.load(["s"])
        assert stored.record.owner is None


@pytest.mark.parametrize(
    ("action", "told"),
    [(cancel_myself, []), (raising(Hush), ["user code raised what is no Exception"])],
    ids=["cancels itself", "no Exception"],
)
@pytest.mark.asyncio
async def test_a_sibling_that_ends_its_task_in_an_odd_way_does_not_hang_the_saga(action: Any, told: list[str]) -> None:
    """Whatever user code does, the saga rests, or its driver says that it stopped; it is never held for ever."""
    cls = dag(step("odd", action), step("even"))
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))
    async with orchestrator() as runs:
        handle = await runs.start(cls())
        _, ended = await asyncio.wait([rested := asyncio.ensure_future(handle.wait())], timeout=1_000)
        rested.cancel()
        assert not ended, "nobody is told within 1,000 seconds"
    assert reports == told


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_while_it_waits_for_a_slot_leaves_nothing_behind() -> None:
    """The same id can be started afterwards."""
    gate = asyncio.Event()

    async def wait(ctx: SagaContext) -> None:
        await gate.wait()

    cls = chain(step(action=wait, timeout=None))
    async with orchestrator(limits=Limits(max_in_flight=1)) as runs:
        first = await runs.start(cls(), saga_id="one")
        waiting = asyncio.create_task(runs.start(cls(), saga_id="two"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(1)
        gate.set()
        assert (await first.wait()).success
        async with asyncio.timeout(100):
            assert (await runs.execute(cls(), saga_id="two")).success


@pytest.mark.asyncio
async def test_a_request_without_effect_does_not_make_a_sleeping_saga_go_round_in_circles() -> None:
    """R13: on a saga that turns back a cancel does nothing; it is due again when its retry is."""
    policy = RetryPolicy(max_attempts=3, initial_interval=1000, max_interval=1000, jitter="none")

    async def stuck(result: Any, ctx: SagaContext) -> None:
        message = "cannot undo"
        raise RuntimeError(message)

    cls = chain(step("a", compensation=stuck, compensation_retry=policy), step("b", fail))
    async with memory() as storage, orchestrator(storage) as runs:
        await runs.start(cls(), saga_id="s")
        await asyncio.sleep(10)
        before = (await runs.get("s")).version
        await runs.cancel("s", "does nothing")
        await asyncio.sleep(300)
        after = await runs.get("s")
        assert after.status is SagaStatus.COMPENSATING
        assert after.version <= before + 3


@pytest.mark.asyncio
async def test_a_timeout_says_that_it_was_one() -> None:
    """The error's text speaks of the timeout, not of the cancellation that it was carried out with."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(100)

    async with orchestrator() as runs:
        result = await runs.execute(chain(step(action=slow, timeout=3))())
    assert isinstance(result.error, SagaTimeoutError)
    assert "timeout" in str(result.error)
    assert "CancelledError" not in str(result.error)


@pytest.mark.asyncio
async def test_a_crash_loop_is_a_resting_point_and_a_retry_goes_on_where_it_broke() -> None:
    """R18: whoever waits is told, and nobody holds the claim."""
    broken = [True]
    falls: list[bool] = []
    attempts: list[int] = []

    class Crashing(Line):
        """A storage that breaks where the action's outcome is to be written, and takes the saga's driver with it."""

        async def before(self, call: str) -> None:
            if call == "append" and falls:
                falls.clear()
                message = "a bug"
                raise RuntimeError(message)

    async def crash(ctx: SagaContext) -> None:
        attempts.append(ctx.attempt)
        falls.extend(broken)

    cls = chain(step("a", crash))
    async with memory() as storage, orchestrator(Crashing(storage), sagas=[cls]) as runs:
        with pytest.raises(SagaExecutionError, match="the driver of saga s stopped"):
            await runs.execute(cls(), saga_id="s")
        parked = await runs.execute(cls(), saga_id="s")
        assert parked.attention is not None
        assert parked.attention.code is AttentionCode.CRASH_LOOP
        assert (await runs.get("s")).owner is None
        assert attempts == [1, 2, 3, 4, 5, 6]
        broken.clear()
        await runs.retry("s", "mended")
        assert (await runs.execute(cls(), saga_id="s")).success
        assert attempts == [1, 2, 3, 4, 5, 6, 7]


async def never(ctx: SagaContext) -> Never:
    """Raise always."""
    message = "never"
    raise ValueError(message)


async def no_return(ctx: SagaContext) -> NoReturn:
    """Raise always."""
    message = "no return"
    raise ValueError(message)


@pytest.mark.parametrize("action", [never, no_return])
@pytest.mark.asyncio
async def test_an_action_may_be_annotated_as_one_that_only_raises(action: Any) -> None:
    """Type checkers ask for it."""
    async with orchestrator() as runs:
        assert (await runs.execute(chain(step(action=action))())).status is SagaStatus.ROLLED_BACK


@dataclass
class Reserve:
    """An action with parameters of its own; a dataclass that compares by value has no hash."""

    seats: int

    async def __call__(self, ctx: SagaContext) -> int:
        """Return the number of seats."""
        return self.seats


@pytest.mark.asyncio
async def test_an_action_need_not_be_hashable() -> None:
    """Such as an instance of a dataclass with an async __call__."""
    async with orchestrator() as runs:
        assert (await runs.execute(chain(step(action=Reserve(3)))())).context == {"a": 3}


@pytest.mark.usefixtures("system_time")
@pytest.mark.asyncio
async def test_an_instance_that_is_executed_twice_at_once_is_built_once() -> None:
    """Also where build() awaits something; both get the one result."""

    class Builds(Saga):
        async def build(self) -> None:
            """Await between two steps."""
            await self.add_step("a", succeed, undo)
            await asyncio.sleep(0)
            await self.add_step("b", succeed, undo)

    saga = Builds()
    first, second = await asyncio.gather(saga.execute(), saga.execute())
    assert first.saga_id == second.saga_id
    assert first.context == {"a": "a", "b": "b"}


@pytest.mark.asyncio
async def test_headers_that_cannot_be_stored_are_left_out_and_reported() -> None:
    """No observer may make a journal that nobody can read."""

    class Wrong(Observer):
        def headers(self, saga: SagaInfo) -> Any:
            """Return what is no mapping of strings."""
            return {"number": 7}

    class Right(Observer):
        def headers(self, saga: SagaInfo) -> Any:
            """Return a header."""
            return {"trace": "t-1"}

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
    async with memory() as storage, orchestrator(storage, observers=[Wrong(), Right()]) as runs:
        assert (await runs.execute(chain(step())(), saga_id="s")).success
        [stored] = await storage.load(["s"])
    assert stored.unreadable is None
    assert stored.entries[0].events[0].headers == {"trace": "t-1"}
    assert len(reports) == 1


# --------------------------------------------------------------------------------- other processes, and storages away


class Cut(Line):
    """A storage that can be cut off, and that can lose answers."""

    cut = False
    lost = ""

    async def before(self, call: str) -> None:
        """Refuse while the line is cut."""
        if self.cut:
            message = "no route"
            raise SagaStorageUnavailableError(message)

    async def after(self, call: str) -> None:
        """Lose the first answer of each call that is named."""
        if call == self.lost:
            self.lost = ""
            message = "the answer was lost"
            raise SagaStorageUnavailableError(message)


@pytest.mark.parametrize("call", ["append", "renew", "claim_due"])
@pytest.mark.asyncio
async def test_a_lost_answer_repeats_the_call_and_never_the_action(call: str) -> None:
    """R4: the same write under the same id is stored once."""
    attempts: list[tuple[str, int]] = []

    async def act(ctx: SagaContext) -> None:
        attempts.append((ctx.step_name, ctx.attempt))
        await asyncio.sleep(10)

    async with memory() as storage:
        line = Cut(storage)
        async with orchestrator(line) as runs:
            handle = await runs.start(chain(step("a", act), step("b", act))(), saga_id="s")
            line.lost = call
            assert (await handle.wait()).success
        [stored] = await storage.load(["s"])
    assert line.lost == "", "no answer was lost"
    assert attempts == [("a", 1), ("b", 1)]
    assert stored.record.version == 3
    assert stored.record.recoveries == 0


@pytest.mark.asyncio
async def test_a_start_whose_answer_was_lost_is_not_felt() -> None:
    """R4: asking once more with the same write id finds that the saga is stored, and it is driven at once."""
    async with memory() as storage:
        line = Cut(storage)
        line.lost = "create"
        async with orchestrator(line) as runs:
            result = await runs.execute(chain(step("a"))(), saga_id="s")
        [stored] = await storage.load(["s"])
    assert result.success
    assert line.lost == "", "no answer was lost"
    assert stored.record.fence == 1


@pytest.mark.asyncio
async def test_a_start_while_the_storage_is_away_fails_fast_and_can_be_repeated() -> None:
    """Nothing has run, and the same instance starts once the storage is back (R19)."""
    async with memory() as storage:
        line = Cut(storage)
        saga = chain(step("a"))()
        async with orchestrator(line) as runs:
            line.cut = True
            with pytest.raises(SagaStorageUnavailableError):
                await runs.execute(saga, saga_id="s")
            line.cut = False
            assert (await runs.execute(saga)).success


@pytest.mark.asyncio
async def test_an_outage_is_waited_out() -> None:
    """R4: the outcome is kept and written when the storage is back; nobody else took the saga meanwhile."""
    attempts: list[int] = []

    async def act(ctx: SagaContext) -> None:
        attempts.append(ctx.attempt)
        await asyncio.sleep(2)

    async with memory() as storage:
        line = Cut(storage)
        async with orchestrator(line) as runs:
            handle = await runs.start(chain(step("a", act), step("b", act))(), saga_id="s")
            await asyncio.sleep(1)
            line.cut = True
            await asyncio.sleep(40)
            line.cut = False
            assert (await handle.wait()).success
    assert attempts == [1, 1]


@pytest.mark.asyncio
async def test_a_process_that_cannot_renew_its_claim_stops_before_another_goes_on() -> None:
    """R16: its attempt is interrupted a ttl after the last renewal that succeeded was sent."""
    log: list[tuple[int, str, float]] = []

    async def act(ctx: SagaContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(100 if ctx.attempt == 1 else 1)
        except asyncio.CancelledError:
            log.append((ctx.attempt, "interrupted", loop.time()))
            raise
        log.append((ctx.attempt, "done", loop.time()))

    cls = chain(step("a", act, timeout=None))
    async with memory() as storage:
        line = Cut(storage)
        async with orchestrator(storage, seed="two", sagas=[cls]), orchestrator(line) as cut_off:
            handle = await cut_off.start(cls(), saga_id="s")
            await asyncio.sleep(1)
            line.cut = True
            await asyncio.sleep(60)
            line.cut = False
            assert (await handle.wait()).success
    assert [(attempt, how) for attempt, how, _ in log] == [(1, "interrupted"), (2, "done")]
    assert log[0][2] < 15 + 15 / 3


@pytest.mark.parametrize("sleeping", [False, True], ids=["running", "sleeping"])
@pytest.mark.asyncio
async def test_a_cancel_from_another_process_takes_effect_within_a_heartbeat(*, sleeping: bool) -> None:
    """R13: it interrupts what runs, and wakes what sleeps."""

    async def act(ctx: SagaContext) -> None:
        await asyncio.sleep(0 if sleeping else 1_000)
        raise ValueError

    policy = RetryPolicy(max_attempts=3, initial_interval=50, jitter="none")
    cls = chain(step("a", act, timeout=None, retry=policy))
    async with memory() as storage, orchestrator(storage) as owner, orchestrator(storage, seed="two") as other:
        handle = await owner.start(cls(), saga_id="s")
        await asyncio.sleep(1)
        await other.cancel("s", "from elsewhere")
        assert (await handle.wait()).status is SagaStatus.ROLLED_BACK
        assert asyncio.get_running_loop().time() <= 1 + 15 / 3


@pytest.mark.asyncio
async def test_a_saga_that_sleeps_long_is_nobodys_meanwhile() -> None:
    """It costs neither a claim nor a slot, and comes back by the sweep."""
    policy = RetryPolicy(max_attempts=2, initial_interval=300, max_interval=300, jitter="none")
    async with orchestrator(limits=Limits(max_in_flight=1)) as runs:
        handle = await runs.start(chain(step("a", fail, retry=policy))(), saga_id="s")
        await asyncio.sleep(10)
        record = await runs.get("s")
        assert (record.owner, record.due_at) == (None, pytest.approx(runs.clock.now() + 290))
        assert (await runs.execute(chain(step("b"), name="Other")())).success
        assert (await handle.wait()).status is SagaStatus.ROLLED_BACK
        assert 300 <= asyncio.get_running_loop().time() < 310


@pytest.mark.parametrize("committed", [False, True], ids=["pivot open", "pivot committed"])
@pytest.mark.usefixtures("system_time")
@pytest.mark.asyncio
async def test_a_lone_saga_past_its_pivot_is_left_as_it_is_when_its_caller_is_cancelled(*, committed: bool) -> None:
    """R13: nothing is undone; what is left is named in a note."""
    undone: list[str] = []

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(50)

    async def note(result: Any, ctx: SagaContext) -> None:
        undone.append(ctx.step_name)

    pivot = step("pivot", succeed if committed else slow, None, pivot=True)
    running = asyncio.create_task(chain(step("a", succeed, note), pivot, step("after", slow, None))().execute())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await running
    assert undone == []
    assert "'a', 'pivot'" in cancelled.value.__notes__[0]


@pytest.mark.asyncio
async def test_an_owner_whose_claim_was_taken_stops_its_attempt_within_a_heartbeat() -> None:
    """R16: the heartbeat tells it; it writes nothing more and drives the saga no longer."""
    interrupted: list[float] = []
    left: list[LeaveReason] = []

    class Watch(Observer):
        """Sees runs leave."""

        def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
            """Keep the reason."""
            left.append(reason)

    async def act(ctx: SagaContext) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            interrupted.append(asyncio.get_running_loop().time())
            raise

    async with Tokens(clock=VirtualClock("storage")) as storage, orchestrator(storage, observers=[Watch()]) as runs:
        await runs.start(chain(step("a", act), name="Taken")(), saga_id="s")
        await storage.release({"s": storage.tokens["s"]})
        assert await storage.claim_due("thief", "t", 1000.0, 1, definitions=[("Taken", "1")], exclude=())
        taken_at = asyncio.get_running_loop().time()
        await asyncio.sleep(10)
        assert [at - taken_at <= 5.0 for at in interrupted] == [True]
        assert left == [LeaveReason.LOST]
        [stored] = await storage.load(["s"])
        assert (stored.record.owner, stored.record.version) == ("thief", 2)


@pytest.mark.asyncio
async def test_a_backlog_is_not_left_to_wait_for_the_next_sweep() -> None:
    """What did not fit into the slots is claimed as they become free."""
    cls = chain(step("a"))
    async with memory() as storage:
        for number in range(100):
            await leave(storage, cls(), f"s-{number}")
        async with orchestrator(storage, sagas=[cls], limits=Limits(max_in_flight=10), sweep_interval=3_600.0) as runs:
            await runs.recover()
            await asyncio.sleep(1)
            assert (await runs.statistics()).by_status == {"Sample": {SagaStatus.COMPLETED: 100}}
