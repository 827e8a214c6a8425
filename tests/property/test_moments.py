"""Single moments that random runs rarely meet, each played in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from saga import Limits, SagaOrchestrator
from saga.events import AttemptUnknown, Event, LateOutcome
from saga.recording import folded
from saga.strategies import ParallelFailureStrategy
from saga.types import AttentionCode, SagaStatus, UnknownReason
from tests.property.plans import Act, Plan, StepPlan, plain_step
from tests.property.world import Host, World
from tests.virtual import run_virtual


def saga_of(*steps: StepPlan, strategy: ParallelFailureStrategy = ParallelFailureStrategy.FAIL_FAST) -> Plan:
    """Return a saga of these steps."""
    return Plan(steps, strategy)


def played(play: Callable[[World], Awaitable[None]], **plans: Plan) -> None:
    """Play with these sagas and check what user code saw."""

    async def main() -> None:
        world = World(1, plans, slow=False)
        async with world.storage:
            await play(world)
        assert not world.broken, "\n".join(world.broken)

    run_virtual(main(), seconds_max=10_000.0)


def orchestrator_on(host: Host, limits: Limits | None = None) -> SagaOrchestrator:
    """Return an orchestrator with the host's code."""
    classes = [host.world.saga_class(host, name) for name in host.world.plans]
    return SagaOrchestrator(host.storage, sagas=classes, clock=host.clock, limits=limits)


def test_a_cancelled_attempt_does_not_delay_the_timeout_of_another() -> None:
    """R12: timers are shared per duration, and one that begins anew goes to the end of its queue."""

    async def play(world: World) -> None:
        host = Host("host", world)
        async with orchestrator_on(host) as orchestrator:
            first = await orchestrator.start(world.saga_class(host, "first")(), saga_id="first")
            await asyncio.sleep(1.0)
            second = await orchestrator.start(world.saga_class(host, "second")(), saga_id="second")
            await asyncio.sleep(1.0)
            await first.cancel("now it waits for five seconds to be given up")
            await second.wait()
            await asyncio.sleep(60.0)
        entries = await world.entries("second")
        lost = [(entry.at, fact) for entry in entries for fact in entry.events if isinstance(fact, AttemptUnknown)]
        assert [(at - entries[0].at, fact.reason) for at, fact in lost] == [(5.0, UnknownReason.TIMEOUT)]

    played(
        play,
        first=saga_of(plain_step("s0", Act("stubborn", 100.0), timeout=5.0)),
        second=saga_of(plain_step("s0", Act("hang"), timeout=5.0)),
    )


def test_a_cancel_that_meets_a_parking_saga_takes_effect() -> None:
    """R13: a request that was sent before the saga parked and arrives after it leaves nothing that nobody may claim."""

    async def play(world: World) -> None:
        near, far = Host("near", world), Host("far", world)
        async with orchestrator_on(near) as owner, orchestrator_on(far) as other:
            await owner.start(world.saga_class(near, "one")(), saga_id="one")
            await asyncio.sleep(0.8)
            far.latency = 0.15
            await other.cancel("one", "please")
            far.latency = 0.0
            await asyncio.sleep(60.0)
        stored = (await world.storage.load(["one"]))[0]
        assert stored.record.status is folded(stored.entries).status is SagaStatus.ROLLED_BACK

    played(play, one=saga_of(plain_step("s0"), plain_step("s1", Act("unstorable", 1.0), after=("s0",), pivot=True)))


def test_a_late_outcome_waits_for_a_storage_that_is_away() -> None:
    """R7: the end of an attempt that was given up is recorded, also where the storage is away just then."""

    async def play(world: World) -> None:
        host = Host("host", world)
        async with orchestrator_on(host) as orchestrator:
            result = await orchestrator.execute(world.saga_class(host, "one")(), saga_id="one")
            assert result.status is SagaStatus.ROLLED_BACK
            host.cut(30.0)
            await asyncio.sleep(100.0)
        stored = (await world.storage.load(["one"]))[0]
        last = stored.entries[-1].events[-1]
        assert isinstance(last, LateOutcome)
        assert stored.record.attention is not None
        assert stored.record.attention.code is AttentionCode.LATE_EFFECT

    played(play, one=saga_of(plain_step("s0", Act("stubborn", 3.0), timeout=2.0)))


def test_leaving_while_a_claim_is_on_its_way_leaves_nothing_claimed() -> None:
    """R15a: what a sweep has just claimed is released as well, and does not wait for its lease to run out."""

    async def play(world: World) -> None:
        first, second = Host("first", world), Host("second", world)
        async with orchestrator_on(first) as orchestrator:
            await orchestrator.start(world.saga_class(first, "one")(), saga_id="one")
        second.latency = 0.5
        async with orchestrator_on(second):
            # Half a second to the storage, half a second back: the claim stands, and its answer is not here yet.
            await asyncio.sleep(0.7)
        assert not await second.storage.still_claimed()
        assert (await world.storage.load(["one"]))[0].record.owner is None

    played(play, one=saga_of(plain_step("s0", Act("hang"), timeout=100.0)))


async def _cancelled_while_an_outcome_is_written(world: World) -> tuple[Event, ...]:
    """Run a saga whose first outcome, after a second, meets a cancel on its way; return its facts."""
    near, far = Host("near", world), Host("far", world)
    near.latency = 0.2
    async with orchestrator_on(near) as owner, orchestrator_on(far) as other:
        handle = await owner.start(world.saga_class(near, "one")(), saga_id="one")
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.9)
        await other.cancel("one", "please")
        result = await handle.wait()
        assert result.status is SagaStatus.ROLLED_BACK
        assert asyncio.get_running_loop().time() - began < 10.0, "nothing waits for what was cancelled"
    return tuple(fact for entry in await world.entries("one") for fact in entry.events)


def test_an_outcome_that_meets_a_request_is_kept() -> None:
    """R4, R13: the append is refused, the outcome is not lost, and the compensation gets the result."""

    async def play(world: World) -> None:
        facts = await _cancelled_while_an_outcome_is_written(world)
        places = [type(fact).__name__ for fact in facts]
        assert places.index("CancelRequested") < places.index("AttemptSucceeded")
        assert not [fact for fact in facts if isinstance(fact, AttemptUnknown)]

    played(play, one=saga_of(plain_step("s0", Act("ok", 1.0)), plain_step("s1", Act("ok", 1.0), after=("s0",))))


def test_a_failure_that_meets_a_cancel_leaves_nothing_to_the_strategy() -> None:
    """R13: a cancel that took effect interrupts what runs, also where a failure is recorded right after it."""

    async def play(world: World) -> None:
        facts = await _cancelled_while_an_outcome_is_written(world)
        lost = [fact for fact in facts if isinstance(fact, AttemptUnknown)]
        assert [(fact.step, fact.reason) for fact in lost] == [("s1", UnknownReason.CANCELLED)]

    steps = (plain_step("s0", Act("refuse", 1.0)), plain_step("s1", Act("ok", 25.0)))
    played(play, one=saga_of(*steps, strategy=ParallelFailureStrategy.WAIT_ALL))
