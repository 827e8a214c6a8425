"""Random sagas on hosts that die, freeze, lose the storage and are asked to cancel: the rules hold all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saga import SagaFilter, SagaOrchestrator
from saga.events import AttemptFailed, AttemptSucceeded, AttemptUnknown, CancelRequested, LateOutcome, RetryRequested
from saga.exceptions import SagaError, SagaNotCancellableError, SagaNotFoundError, SagaStorageUnavailableError
from saga.recording import folded
from saga.results import result_of
from saga.storage.base import Entry
from saga.strategies import ParallelFailureStrategy
from saga.types import AT_REST, Attention, Outcome, Phase, SagaResult, SagaStatus, StepStatus
from tests.property.oracle import Reader
from tests.property.plans import Act, Plan, plain_step, plans
from tests.property.world import FAULT_KINDS, HOST, Call, Fault, FaultKind, Host, World
from tests.virtual import run_virtual

T = TypeVar("T")

Doing = Literal["start", "cancel", "retry", "recover", "leave"]


@dataclass(frozen=True)
class Deed:
    """What somebody does at an instant, on one host, to one saga."""

    at: float
    doing: Doing
    host: int
    saga: int


@dataclass(frozen=True)
class Scenario:
    """What is to happen."""

    seed: int
    sagas: tuple[Plan, ...]
    faults: tuple[tuple[Fault, ...], ...]
    deeds: tuple[Deed, ...]
    slow: bool
    help_after: float


instants = st.sampled_from(
    (0.0, 0.001, 0.011, 0.3, 0.5, 0.51, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0, 12.0, 20.0, 40.0, 60.0)
)
faults = st.builds(
    Fault,
    call=st.integers(1, 25),
    kind=st.sampled_from(FAULT_KINDS),
    seconds=st.sampled_from((0.5, 4.0, 14.0, 16.0, 60.0)),
)
deeds = st.builds(
    Deed,
    at=instants,
    doing=st.sampled_from(("start", "cancel", "cancel", "retry", "recover", "leave")),
    host=st.integers(0, 2),
    saga=st.integers(0, 1),
)
scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 2**16),
    sagas=st.lists(plans(size_max=6), min_size=1, max_size=2).map(tuple),
    faults=st.lists(st.lists(faults, max_size=3).map(tuple), min_size=1, max_size=4).map(tuple),
    deeds=st.lists(deeds, max_size=6).map(tuple),
    slow=st.booleans(),
    help_after=st.sampled_from((0.0, 20.0, 100.0)),
)


class Play:
    """Plays one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        """Set the stage."""
        self.scenario = scenario
        self.world = World(scenario.seed, {f"saga{n}": plan for n, plan in enumerate(scenario.sagas)}, scenario.slow)
        self.results: list[SagaResult] = []
        self.orchestrators: dict[str, SagaOrchestrator] = {}
        self.gone: set[str] = set()
        self.left_early: set[str] = set()
        self.statuses: dict[str, SagaStatus] = {}
        self.tasks: dict[asyncio.Task[Any], Host] = {}

    async def run(self) -> None:
        """Let everything happen, wait until all sagas rest, and check."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._task)
        await self.world.storage.open()
        hosts = [Host(f"host{n}", self.world, faults) for n, faults in enumerate(self.scenario.faults)]
        for host in hosts:
            await self._on(host, self._enter(host))
        for number, plan in enumerate(self.scenario.sagas):
            host = hosts[number % len(hosts)]
            self._spawn(host, self._execute(host, f"saga{number}", plan))
        for deed in sorted(self.scenario.deeds, key=lambda deed: deed.at):
            await asyncio.sleep(max(0.0, deed.at - loop.time()))
            host, saga = hosts[deed.host % len(hosts)], deed.saga % len(self.scenario.sagas)
            self._spawn(host, self._do(host, deed.doing, f"saga{saga}", self.scenario.sagas[saga]))
        await asyncio.sleep(self.scenario.help_after)
        healthy = Host("healthy", self.world)
        await self._on(healthy, self._enter(healthy))
        await self._until_all_rest()
        await self._end([*hosts, healthy])
        await self._check()
        await self.world.storage.close()

    # what happens

    async def _enter(self, host: Host) -> None:
        orchestrator = self.orchestrators[host.name] = SagaOrchestrator(
            host.storage,
            sagas=[self.world.saga_class(host, name) for name in self.world.plans],
            lease_ttl=self.world.ttl,
            clock=host.clock,
        )
        await orchestrator.__aenter__()

    async def _execute(self, host: Host, name: str, plan: Plan) -> None:
        saga = self.world.saga_class(host, name)()
        try:
            self.results.append(await self.orchestrators[host.name].execute(saga, saga_id=name, deadline=plan.deadline))
        except SagaStorageUnavailableError:
            return
        except SagaError as error:
            if "handed over" not in str(error) and "has left" not in str(error):
                raise

    async def _do(self, host: Host, doing: Doing, name: str, plan: Plan) -> None:
        await host.gate()
        orchestrator = self.orchestrators[host.name]
        if host.name in self.gone:
            return
        try:
            if doing == "start":
                await self._execute(host, name, plan)
            elif doing == "cancel":
                await orchestrator.cancel(name, "as planned")
            elif doing == "retry":
                await orchestrator.retry(name, "as planned")
            elif doing == "recover":
                await orchestrator.recover()
            else:
                self.left_early.add(host.name)
                await self._leave(host)
        except (SagaNotFoundError, SagaNotCancellableError, SagaStorageUnavailableError):
            return

    async def _leave(self, host: Host) -> None:
        if host.name in self.gone:
            return
        self.gone.add(host.name)
        began = host.clock.monotonic()
        await self.orchestrators[host.name].__aexit__(None, None, None)
        if host.disturbed_until < 0 and not host.faults:
            # The drain, what is interrupted then, and what the storage takes.
            assert host.clock.monotonic() - began < 30.0 + 10.0 + 5.0, "R15a: leaving takes too long"
            left = await host.storage.still_claimed()
            assert not left, f"R15a: {host.name} left and still claims {left}"

    async def _until_all_rest(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < 20_000.0:
            await asyncio.sleep(1.0)
            page = await self.world.storage.query(SagaFilter())
            if all(r.status in AT_REST or (r.attention is not None and r.attention.blocking) for r in page.items):
                return
        message = f"not at rest: {[(r.saga_id, r.status, r.attention) for r in page.items]}"
        raise AssertionError(message)

    async def _end(self, hosts: Sequence[Host]) -> None:
        # Longer than any freeze, any stubborn attempt, and any poll of a result.
        await asyncio.sleep(100.0)
        for host in hosts:
            if not host.dead:
                await self._on(host, self._leave(host))
        await asyncio.sleep(100.0)
        self.world.over = True
        leaked = [task for task, host in self.tasks.items() if not task.done() and not host.dead]
        assert not leaked, f"tasks of hosts that left in order: {leaked}"
        # The loop is told of what is cancelled, which else would begin anew.
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        for _ in range(100):
            left = [task for task in self.tasks if not task.done()]
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        assert not left, f"tasks that don't end: {left}"

    # tasks

    def _task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], /, **options: Any
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coro, loop=loop, **options)
        host = HOST.get()
        if host is not None:
            self.tasks[task] = host
        return task

    def _spawn(self, host: Host, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        token = HOST.set(host)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            HOST.reset(token)

    async def _on(self, host: Host, work: Coroutine[Any, Any, None]) -> None:
        await self._spawn(host, work)

    # what must be true

    async def _check(self) -> None:
        assert not self.world.broken, "\n".join(self.world.broken)
        for name in self.world.plans:
            found = await self.world.storage.load([name])
            calls = [call for call in self.world.ledger if call.saga_id == name]
            if not found:
                assert not calls, f"never stored, and yet {calls}"
                continue
            definition = await self.world.definition(name)
            reader = Reader(definition)
            for entry in found[0].entries:
                reader.read(entry.events)
            self._check_pace(found[0].entries)
            state = folded(found[0].entries)
            record = found[0].record
            self.statuses[name] = record.status
            assert record.status == state.status
            assert _without_since(record.attention) == _without_since(state.attention)
            assert record.version == state.version
            assert record.fence == state.fence
            assert record.recoveries == state.recoveries
            # A result was true when it was given: a retry or a late outcome may have come later.
            prefixes = [folded(found[0].entries[:end]) for end in range(1, len(found[0].entries) + 1)]
            truths = [_told(result_of(name, definition, prefix, {})) for prefix in prefixes if prefix.at_rest]
            for result in self.results:
                assert result.saga_id != name or _told(result) in truths, f"{result} is not among {truths}"
            expected = result_of(name, definition, state, {})
            _check_effects(self.world.plans[name], expected, calls)
            self._check_owners(calls)
            self._check_recorded(calls, reader)

    def _check_owners(self, calls: Sequence[Call]) -> None:
        """Check that a host which lost a saga stops its attempts within a heartbeat after it can know."""
        for call, other in permutations(calls, 2):
            if other.host is call.host or call.host.dead or call.cancelled is not None or other.began < call.began:
                continue
            knows = max(other.began, call.host.disturbed_until) + self.world.ttl / 3 + 2.0
            assert call.ended is not None
            assert call.ended <= knows, f"R16: {call} goes on although {other} runs"

    def _check_recorded(self, calls: Sequence[Call], reader: Reader) -> None:
        """Check that nothing which ended on an undisturbed host is missing in the journal."""
        outcomes = (AttemptSucceeded, AttemptFailed, AttemptUnknown, LateOutcome)
        facts = [fact for fact in reader.facts if isinstance(fact, outcomes)]
        for call in calls:
            if call.host.faults or call.host.name in self.left_early:
                continue
            mine = [f for f in facts if (f.step, f.phase, f.attempt) == (call.step, call.phase, call.attempt)]
            assert mine, f"R4: the end of {call} is not recorded"
            if call.returned and call.cancelled is None:
                good = [f for f in mine if isinstance(f, AttemptSucceeded) or getattr(f, "outcome", "") == "succeeded"]
                assert good, f"R4: {call} succeeded, and recorded is {mine}"

    def _check_pace(self, entries: Sequence[Entry]) -> None:
        """Check that nothing waited for longer than the longest attempt, where nothing went wrong."""
        if any(self.scenario.faults) or any(deed.doing == "leave" for deed in self.scenario.deeds):
            return
        for before, after in pairwise(entries):
            late = any(isinstance(fact, LateOutcome | RetryRequested | CancelRequested) for fact in after.events)
            assert late or after.at - before.at < 45.0, f"it stood still from {before} to {after}"


def _without_since(attention: Attention | None) -> tuple[object, ...] | None:
    # The row says when its owner thought it was, the journal when it was stored.
    return None if attention is None else (attention.code, attention.message, attention.blocking)


def _told(result: SagaResult) -> tuple[object, ...]:
    """Return what a result says, as values that can be compared."""
    return (
        result.success,
        result.status,
        _without_since(result.attention),
        result.completed_steps,
        result.total_steps,
        dict(result.context),
        str(result.error),
        [str(error) for error in result.compensation_errors],
        result.steps,
    )


def _check_effects(plan: Plan, result: SagaResult, calls: Sequence[Call]) -> None:
    """Check that the ledger of effects and the result tell the same story."""
    for call in calls:
        assert call.key == f"{call.saga_id}:{call.step}:{call.phase}"
    for step, record in zip(plan.steps, result.steps, strict=True):
        mine = [call for call in calls if call.step == step.name]
        actions = [call for call in mine if call.phase is Phase.ACTION]
        undos = [call for call in mine if call.phase is Phase.COMPENSATION]
        done = [call for call in actions if call.effect is not None]
        if record.outcome is Outcome.SUCCEEDED:
            assert done, f"{step.name} is said to have succeeded"
        if record.status is StepStatus.COMPENSATED:
            assert [call for call in undos if call.effect is not None], f"{step.name} is said to be undone"
        if result.status is SagaStatus.ROLLED_BACK and done and not undos:
            definite = [call for call in done if call.returned or call.cancelled is None]
            allowed = record.skipped is not None or not definite
            assert allowed, f"{step.name} had an effect that nobody undid: {done}"
        if record.status is StepStatus.NOT_STARTED:
            assert not done, f"{step.name} never started and yet {done}"


unblocked = pytest.mark.filterwarnings("ignore:.*event loop was blocked:RuntimeWarning")
anything = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def play(scenario: Scenario) -> None:
    """Play a scenario and check it."""
    run_virtual(Play(scenario).run(), seconds_max=30_000.0, collect=scenario.seed % 20 == 0)


@unblocked
@anything
@given(scenarios)
def test_whatever_happens_every_saga_comes_to_rest_by_the_rules(scenario: Scenario) -> None:
    """No crash, freeze, lost answer, cancel or takeover breaks a rule or leaves a saga behind."""
    play(scenario)


@pytest.mark.chaos
@pytest.mark.timeout(3_600)
@unblocked
@settings(anything, max_examples=3_000)
@given(scenarios)
def test_whatever_happens_every_saga_comes_to_rest_by_the_rules_at_length(scenario: Scenario) -> None:
    """The same with twenty times as many scenarios."""
    play(scenario)


_OK = Act("ok", 1.0)
_FIRST = plain_step("s0", _OK)
_SECOND = plain_step("s1", _OK, after=("s0",))
SHAPES = {
    "slow": (plain_step("s0", Act("ok", 60.0), timeout=100.0),),
    "line": (_FIRST, _SECOND, plain_step("s2", _OK, after=("s1",))),
    "line that fails": (
        _FIRST,
        _SECOND,
        plain_step("s2", Act("refuse", 1.0), Act("refuse"), Act("refuse"), after=("s1",)),
    ),
    "diamond": (_FIRST, _SECOND, plain_step("s2", _OK, after=("s0",)), plain_step("s3", after=("s1", "s2"))),
    "diamond that fails": (
        _FIRST,
        _SECOND,
        plain_step("s2", Act("refuse", 1.0), Act("refuse"), Act("refuse"), after=("s0",)),
        plain_step("s3", after=("s1", "s2")),
    ),
}


@unblocked
@pytest.mark.parametrize("kind", FAULT_KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_fault_at_any_storage_call_changes_no_outcome(shape: str, kind: FaultKind) -> None:
    """R2, R4, R16: whatever happens to the owner at whichever call, the saga ends as if nothing had happened."""
    plan = Plan(SHAPES[shape], ParallelFailureStrategy.FAIL_FAST)
    for call in range(1, 20):
        scenario = Scenario(call, (plan,), ((Fault(call, kind, 20.0),),), (), slow=False, help_after=0.0)
        play = Play(scenario)
        run_virtual(play.run(), seconds_max=1_000.0, collect=False)
        status = play.statuses.get("saga0")
        if status is None:
            assert not play.world.ledger, f"{kind} at call {call}: nothing is stored, and yet something ran"
        else:
            expected = SagaStatus.ROLLED_BACK if "fails" in shape else SagaStatus.COMPLETED
            assert status is expected, f"{kind} at call {call}"
        if kind.startswith("error") and play.results:
            # The write was repeated, so nobody noticed: not even an attempt more.
            again = [one for one in play.world.ledger if one.attempt > 1]
            assert not again, f"R4: {kind} at call {call}: {again}"
