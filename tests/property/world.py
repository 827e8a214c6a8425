"""A small world in virtual time: hosts with orchestrators, one storage, and a ledger of every call of user code.

A host can be frozen (a paused process, or a killed one if nobody thaws it): its storage calls don't return, its timers
don't fire and its user code doesn't go on. Nothing of the library is replaced; hosts wrap the storage and the clock.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from saga import DAGSaga, SagaContext, SagaStorage
from saga.building import definition_of
from saga.definition import SagaDefinition
from saga.events import AttemptStarted, Event
from saga.exceptions import SagaStorageUnavailableError
from saga.storage.base import Appended, Claim, Entry, NewSaga, Row, StoredSaga
from saga.storage.memory import InMemorySagaStorage
from saga.types import Page, Phase, SagaFilter, SagaRecord, SagaStatistics, SagaStatus
from tests.property.plans import Act, Plan, StepPlan
from tests.virtual import VirtualClock

T = TypeVar("T")

HOST: ContextVar[Host | None] = ContextVar("host", default=None)
"""The host whose code runs."""

FaultKind = Literal["die_before", "die_after", "error_before", "error_after", "freeze_before", "freeze_after", "cut"]
FAULT_KINDS: tuple[FaultKind, ...] = (
    "die_before",
    "die_after",
    "error_before",
    "error_after",
    "freeze_before",
    "freeze_after",
    "cut",
)


@dataclass(frozen=True)
class Fault:
    """What befalls a host at its n-th storage call, and for how many seconds where it passes."""

    call: int
    kind: FaultKind
    seconds: float = 0.0


@dataclass
class Call:
    """One call of user code.

    Attributes:
        host: Where.
        saga_id: Of which saga.
        step: Of which step.
        phase: The action or the compensation.
        attempt: Which attempt.
        key: Its idempotency key.
        began: When it began.
        effect: When it had its effect; None if it had none.
        ended: When it ended; None while it runs.
        cancelled: When it was first cancelled; None if it was not.
        returned: Whether it returned what can be stored.
        number: Its place among all calls.
    """

    host: Host
    saga_id: str
    step: str
    phase: Phase
    attempt: int
    key: str
    began: float
    number: int
    effect: float | None = None
    ended: float | None = None
    cancelled: float | None = None
    returned: bool = False


class Host:
    """One process: it can be frozen, thawed, and cut off from the storage."""

    def __init__(self, name: str, world: World, faults: Sequence[Fault] = ()) -> None:
        """Make a host that runs."""
        self.name = name
        self.world = world
        self.clock = HostClock(self, f"{world.seed}/{name}")
        self.storage = HostStorage(self, world.storage)
        self.faults = {fault.call: fault for fault in faults}
        self.calls = 0
        self.dead = False
        self.latency: float | None = None if world.slow else 0.0
        self.cut_until = 0.0
        self.disturbed_until = -1_000.0
        self._frozen: asyncio.Future[None] | None = None
        self.postponed: deque[Callable[[], None]] = deque()

    @property
    def frozen(self) -> bool:
        """Whether nothing runs here."""
        return self._frozen is not None

    def freeze(self, seconds: float | None) -> None:
        """Stop everything, for so many seconds or for ever."""
        if self._frozen is not None:
            return
        loop = asyncio.get_running_loop()
        self._frozen = loop.create_future()
        if seconds is None:
            self.dead = True
            self.disturbed_until = float("inf")
        else:
            self.disturbed_until = max(self.disturbed_until, loop.time() + seconds)
            loop.call_later(seconds, self._thaw)

    def _thaw(self) -> None:
        frozen, self._frozen = self._frozen, None
        if frozen is not None:
            frozen.set_result(None)
        while self.postponed and self._frozen is None:
            self.postponed.popleft()()

    def cut(self, seconds: float) -> None:
        """Cut the host off from the storage."""
        self.cut_until = asyncio.get_running_loop().time() + seconds
        self.disturbed_until = max(self.disturbed_until, self.cut_until)

    async def gate(self) -> None:
        """Return once the host is not frozen."""
        while self._frozen is not None:
            await asyncio.shield(self._frozen)

    async def sleep(self, seconds: float) -> None:
        """Sleep as code on this host does."""
        if seconds > 0:
            await asyncio.sleep(seconds)
        await self.gate()


class HostClock(VirtualClock):
    """A clock whose callbacks wait while the host is frozen."""

    def __init__(self, host: Host, seed: str) -> None:
        """Take the host's name as part of the seed."""
        super().__init__(seed)
        self._host = host

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after so many seconds, or when the host thaws."""
        timers: list[asyncio.TimerHandle] = []

        def fire() -> None:
            if self._host.frozen:
                self._host.postponed.append(lambda: None if timers[0].cancelled() else callback())
            else:
                callback()

        timers.append(super().call_later(seconds, fire))
        return timers[0]


class HostStorage(SagaStorage):
    """The shared storage as one host sees it: slow, sometimes away, and out of reach for a frozen host."""

    def __init__(self, host: Host, inner: SagaStorage) -> None:
        """Wrap the storage that all share."""
        self._host = host
        self._inner = inner
        self._chance = random.Random(f"{host.world.seed}/{host.name}/latency")  # noqa: S311 - repeatable
        self._tokens: list[tuple[str, str]] = []

    async def open(self) -> None:
        """Do nothing: the world opens what all share."""

    async def close(self) -> None:
        """Do nothing, as above."""

    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        """Pass on."""
        self._host.world.started.add(new.saga_id)
        if claim is not None:
            self._tokens.append((new.saga_id, claim.token))

        async def create() -> Appended:
            answer = await self._inner.create(new, events, claim=claim, write_id=write_id, connection=connection)
            self._host.world.claimers[new.saga_id] = self._host
            return answer

        return await self._call(create)

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Pass on."""
        return await self._call(lambda: self._inner.load(saga_ids))

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
        """Pass on."""
        return await self._call(
            lambda: self._inner.append(
                saga_id, events, row=row, expected_version=expected_version, claim=claim, write_id=write_id
            )
        )

    async def claim_due(
        self,
        owner: str,
        token: str,
        ttl: float,
        limit: int,
        *,
        definitions: Collection[tuple[str, str]],
        exclude: Collection[str],
        suspects: int = 1,
    ) -> list[StoredSaga]:
        """Pass on."""
        # Noted first: what is claimed stays claimed, also where the answer reaches nobody.
        self._tokens += [(saga_id, token) for saga_id in self._host.world.started]

        async def claim() -> list[StoredSaga]:
            found = await self._inner.claim_due(
                owner, token, ttl, limit, definitions=definitions, exclude=exclude, suspects=suspects
            )
            self._host.world.claimers.update({stored.record.saga_id: self._host for stored in found})
            return found

        return await self._call(claim)

    async def still_claimed(self) -> list[str]:
        """Return the sagas that the host claims now; those claims end with this."""
        return [saga_id for saga_id, token in self._tokens if await self._inner.renew({saga_id: token}, 0.0)]

    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        """Pass on."""
        return await self._call(lambda: self._inner.renew(claims, ttl))

    async def release(self, claims: Mapping[str, str]) -> None:
        """Pass on."""
        return await self._call(lambda: self._inner.release(claims))

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Pass on."""
        return await self._call(lambda: self._inner.query(selected, cursor, limit))

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Pass on."""
        return await self._call(lambda: self._inner.history(saga_id, cursor, limit))

    async def statistics(self) -> SagaStatistics:
        """Pass on."""
        return await self._call(self._inner.statistics)

    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        """Pass on."""
        return await self._call(lambda: self._inner.prune(older_than, statuses, limit))

    async def health_check(self) -> None:
        """Pass on."""
        return await self._call(self._inner.health_check)

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        host = self._host
        await host.gate()
        host.calls += 1
        fault = host.faults.get(host.calls)
        await self._befall(fault, "before")
        await host.sleep(self._latency())
        if asyncio.get_running_loop().time() < host.cut_until:
            message = "cut off"
            raise SagaStorageUnavailableError(message)
        answer = await work()
        await self._befall(fault, "after")
        await host.sleep(self._latency())
        return answer

    async def _befall(self, fault: Fault | None, when: str) -> None:
        if fault is None:
            return
        if fault.kind == "cut":
            self._host.cut(fault.seconds)
        elif fault.kind == f"error_{when}":
            message = f"as planned, {when} the effect"
            raise SagaStorageUnavailableError(message)
        elif fault.kind in (f"die_{when}", f"freeze_{when}"):
            self._host.freeze(None if fault.kind.startswith("die") else fault.seconds)
            await self._host.gate()

    def _latency(self) -> float:
        given = self._host.latency
        return self._chance.choice((0.0, 0.0, 0.0, 0.01, 0.01, 0.3)) if given is None else given


@dataclass
class World:
    """What all hosts share.

    Attributes:
        seed: Decides all chance.
        slow: Whether storage calls take time.
        plans: The sagas by name.
        ledger: Every call of user code.
        broken: What user code saw and must not see.
        ttl: Seconds that claims stand.
        started: The sagas that were ever created, or were to be.
        claimers: Who claimed each saga last.
        over: Whether user code must end when it is cancelled, whatever it was to do.
        classes: The code of each host.
    """

    seed: int
    plans: dict[str, Plan]
    slow: bool = True
    storage: InMemorySagaStorage = field(default_factory=lambda: InMemorySagaStorage(clock=VirtualClock("storage")))
    ledger: list[Call] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    ttl: float = 15.0
    started: set[str] = field(default_factory=set)
    claimers: dict[str, Host] = field(default_factory=dict)
    over: bool = False
    classes: dict[tuple[str, str], type[DAGSaga]] = field(default_factory=dict)

    def saga_class(self, host: Host, name: str) -> type[DAGSaga]:
        """Return the host's own code for a saga."""
        if (host.name, name) not in self.classes:
            self.classes[host.name, name] = _class_of(self, host, name, self.plans[name])
        return self.classes[host.name, name]

    async def definition(self, name: str) -> SagaDefinition:
        """Return the steps of a saga."""
        return await definition_of(self.saga_class(Host("reader", self), name)())

    async def entries(self, saga_id: str) -> tuple[Entry, ...]:
        """Return a journal as it is stored now."""
        return (await self.storage.load([saga_id]))[0].entries

    async def began(self, host: Host, ctx: SagaContext) -> Call:
        """Write down a call of user code and look whether it may run now."""
        paused = host.frozen
        await host.gate()
        now = asyncio.get_running_loop().time()
        call = Call(
            host, ctx.saga_id, ctx.step_name, ctx.phase, ctx.attempt, ctx.idempotency_key, now, len(self.ledger)
        )
        await self._check_may_run(call)
        if self.claimers[call.saga_id] is not host and not paused:
            self.broken.append(f"R16: {call} begins although {self.claimers[call.saga_id].name} has claimed the saga")
        self.ledger.append(call)
        return call

    async def _check_may_run(self, call: Call) -> None:
        facts = [fact for entry in await self.entries(call.saga_id) for fact in entry.events]
        started = AttemptStarted(call.step, call.phase, call.attempt)
        undisturbed = self._reach(call.host) < asyncio.get_running_loop().time()
        if started not in facts:
            self.broken.append(f"R1: {call} runs and its STARTED is not stored")
        for other in self.ledger:
            if other.saga_id != call.saga_id:
                continue
            if (other.step, other.phase, other.attempt) == (call.step, call.phase, call.attempt):
                self.broken.append(f"R1: {call} runs twice: {other}")
            if other.ended is None and other.host is not call.host and undisturbed:
                self._check_beside(call, other)
            elif other.ended is None and other.host is call.host:
                self._check_on_one_host(call, other)

    def _reach(self, host: Host) -> float:
        """Return until when a disturbance of a host may show: a lease and a heartbeat."""
        return host.disturbed_until + 2 * self.ttl

    def _check_beside(self, call: Call, other: Call) -> None:
        if self._reach(other.host) < call.began and other.cancelled is None:
            self.broken.append(f"R16: {call} begins while {other} runs on a healthy host")

    def _check_on_one_host(self, call: Call, other: Call) -> None:
        given_up = other.cancelled is not None and other.cancelled + 5.0 <= call.began + 0.001
        if (call.step, call.phase) == (other.step, other.phase) and not given_up:
            self.broken.append(f"R7: {call} begins while {other} runs")
        if call.phase is Phase.COMPENSATION and other.phase is Phase.ACTION and not given_up:
            self.broken.append(f"R7: {call} begins while {other} runs")


def _class_of(world: World, host: Host, name: str, plan: Plan) -> type[DAGSaga]:
    class Planned(DAGSaga):
        saga_name = name
        failure_strategy = plan.strategy

        def __init__(self, number: int = 0) -> None:
            self.number = number

        async def build(self) -> None:
            for step in plan.steps:
                await self.add_dag_step(
                    step.name,
                    _action_of(world, host, step),
                    _compensation_of(world, host, step) if step.compensable else None,
                    dependencies=step.dependencies,
                    timeout=step.timeout,
                    retry=step.retry,
                    compensation_retry=step.compensation_retry,
                    compensation_timeout=step.timeout,
                    pivot=step.pivot,
                    compensate_on=step.compensate_on,
                    on_interrupt=step.on_interrupt,
                )

    return Planned


def _action_of(world: World, host: Host, step: StepPlan) -> Callable[[SagaContext], Awaitable[Any]]:
    async def action(ctx: SagaContext) -> Any:
        call = await world.began(host, ctx)
        for dependency in step.dependencies:
            if ctx.get(dependency) != {"by": dependency}:
                world.broken.append(f"R3: {call} sees {ctx.get(dependency)} of {dependency}")
        return await _act(call, _scripted(step.acts, ctx.attempt))

    return action


def _compensation_of(world: World, host: Host, step: StepPlan) -> Callable[[Any, SagaContext], Awaitable[None]]:
    async def compensation(result: Any, ctx: SagaContext) -> None:
        call = await world.began(host, ctx)
        expected = {"by": step.name} if ctx.outcome == "succeeded" else None
        if result != expected:
            world.broken.append(f"R6: {call} got {result!r} where the outcome is {ctx.outcome}")
        await _act(call, _scripted(step.undo_acts, ctx.attempt))

    return compensation


def _scripted(script: Sequence[Act], attempt: int) -> Act:
    return script[attempt - 1] if attempt <= len(script) else Act("ok", 0.0)


async def _act(call: Call, act: Act) -> Any:
    host = call.host
    loop = asyncio.get_running_loop()
    try:
        result = await _perform(call, act)
        call.returned = act.kind != "unstorable"
    except asyncio.CancelledError:
        call.cancelled = loop.time() if call.cancelled is None else call.cancelled
        raise
    finally:
        if not host.dead:
            call.ended = loop.time()
    return None if call.phase is Phase.COMPENSATION else result


async def _perform(call: Call, act: Act) -> Any:
    host = call.host

    def effect() -> None:
        call.effect = asyncio.get_running_loop().time()

    result = {"by": call.step}
    if act.kind == "quick":
        effect()
        return result
    if act.kind == "early":
        effect()
    if act.kind in ("deaf", "deaf_refuse", "stubborn"):
        await _deaf(call, act.seconds, 20.0 if act.kind == "stubborn" else 2.0)
    else:
        await host.sleep(10_000.0 if act.kind == "hang" else act.seconds)
    if act.kind in ("refuse", "deaf_refuse"):
        message = "refused"
        raise ValueError(message)
    if act.kind == "break":
        message = "broken"
        raise TypeError(message)
    if act.kind == "lost_request":
        message = "not sent"
        raise ConnectionError(message)
    if call.effect is None:
        effect()
    if act.kind == "lost_answer":
        message = "sent, no answer"
        raise ConnectionError(message)
    return object() if act.kind == "unstorable" else result


async def _deaf(call: Call, seconds: float, more: float) -> None:
    """Sleep; when cancelled, go on for some more seconds all the same."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        try:
            await call.host.sleep(until - loop.time())
        except asyncio.CancelledError:
            if call.host.world.over:
                raise
            if call.cancelled is None:
                call.cancelled = loop.time()
                until = loop.time() + more
