"""Building: from what build() adds to a checked definition. What is refused stands in test_bad_input.py."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from types import MethodType
from typing import Any

import pytest

from saga import (
    DAGSaga,
    ParallelFailureStrategy,
    RetryPolicy,
    Saga,
    SagaContext,
    SagaDefinitionError,
    SagaExecutionError,
    SagaValidationError,
)
from saga.building import birth_of, definition_of, life_of
from saga.definition import COMPENSATION_RETRY, ONCE
from saga.strategies import FailFastStrategy
from tests.unit.kit import chain, dag, defined, fail, step, succeed, undo


@pytest.mark.asyncio
async def test_a_linear_saga_is_a_chain() -> None:
    """Each step depends on the one before."""
    definition = await defined(chain(step("a"), step("b"), step("c")))
    assert [(shape.name, shape.dependencies) for shape in definition.shape] == [("a", ()), ("b", ("a",)), ("c", ("b",))]


@pytest.mark.asyncio
async def test_dependencies_are_stored_in_one_order() -> None:
    """A set has none, so it is sorted; a list keeps its own."""
    steps = [step(name) for name in "abc"]
    for given in ({"c", "a", "b"}, frozenset({"b", "c", "a"})):
        definition = await defined(dag(*steps, step("d", dependencies=given)))
        assert definition.shape[-1].dependencies == ("a", "b", "c")
    definition = await defined(dag(*steps, step("d", dependencies=["c", "a"]), step("e", dependencies=None)))
    assert [shape.dependencies for shape in definition.shape[-2:]] == [("c", "a"), ()]


@pytest.mark.asyncio
async def test_retries_are_a_policy_with_the_default_intervals() -> None:
    """R11: max_retries=3 means 4 attempts."""
    own = RetryPolicy(max_attempts=9)
    steps = [step("a", max_retries=3), step("b", max_retries=0), step("c", retry=own), step("d")]
    steps[0]["compensation_retry"] = own
    built = (await defined(chain(*steps))).steps
    assert [built[name].retry for name in "abcd"] == [RetryPolicy(max_attempts=4), ONCE, own, None]
    assert [built[name].compensation_retry for name in "ab"] == [own, COMPENSATION_RETRY]


@pytest.mark.asyncio
async def test_options_that_look_alike_are_not_mixed_up() -> None:
    """True equals 1, but is no number of seconds; what was accepted before does not help it."""
    await defined(chain(step("a", timeout=1)))
    with pytest.raises(SagaValidationError, match="timeout must be"):
        await defined(chain(step("a", timeout=True)))
    await defined(chain(step("a", max_retries=1)))
    with pytest.raises(SagaValidationError, match="max_retries must be"):
        await defined(chain(step("a", max_retries=True)))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"unknown_on": [ValueError]}, SagaValidationError, "unknown_on must be a tuple of exception types"),
        ({"compensate_on": "always"}, SagaValidationError, "compensate_on must be 'uncertain', 'success' or 'started'"),
        ({"compensate_on": []}, SagaValidationError, "compensate_on must be"),
        ({"on_interrupt": "ignore"}, SagaValidationError, "on_interrupt must be 'retry', 'compensate' or 'park'"),
        ({"pivot": 1}, SagaValidationError, "pivot must be True or False"),
        ({"pivot": True, "on_interrupt": "compensate"}, SagaDefinitionError, "a pivot cannot have on_interrupt"),
        ({"retry": 3}, SagaValidationError, "retry must be a RetryPolicy or None"),
        ({"compensation_retry": {}}, SagaValidationError, "compensation_retry must be a RetryPolicy or None"),
    ],
)
@pytest.mark.asyncio
async def test_an_option_that_means_nothing_is_refused(options: Any, error: type[Exception], text: str) -> None:
    """Naming saga, step, option and value."""
    with pytest.raises(error, match=f"saga 'Sample', step 'a': {text}"):
        await defined(chain(step("a", **options)))


@pytest.mark.asyncio
async def test_a_definition_is_built_once() -> None:
    """And is the same object afterwards."""
    built = []

    class Counts(Saga):
        async def build(self) -> None:
            """Count."""
            built.append(1)
            await asyncio.sleep(1)
            await self.add_step("a", succeed)

    saga = Counts()
    first, second, third = await asyncio.gather(*(definition_of(saga) for _ in range(3)))
    assert first is second is third is await definition_of(saga)
    assert built == [1]


@pytest.mark.asyncio
async def test_a_build_that_failed_can_be_tried_again() -> None:
    """With nothing left over from the first time; who waited for it tries for himself."""
    fails = [True, True]

    class Flaky(Saga):
        async def build(self) -> None:
            """Raise twice."""
            await self.add_step("a", succeed)
            await asyncio.sleep(1)
            if fails and fails.pop():
                raise OSError

    saga = Flaky()
    first, second = await asyncio.gather(definition_of(saga), definition_of(saga), return_exceptions=True)
    assert isinstance(first, SagaDefinitionError)
    assert isinstance(second, SagaDefinitionError)
    assert list((await definition_of(saga)).steps) == ["a"]


@pytest.mark.asyncio
async def test_an_error_of_our_own_passes_through_build() -> None:
    """It names what is wrong better than a wrapper would."""

    class Raises(Saga):
        async def build(self) -> None:
            """Raise."""
            message = "mine"
            raise SagaExecutionError(message)

    with pytest.raises(SagaExecutionError, match=r"^mine$"):
        await definition_of(Raises())


@pytest.mark.parametrize("thing", [Saga, None, "saga", object()])
@pytest.mark.asyncio
async def test_only_an_instance_of_a_saga_can_be_run(thing: Any) -> None:
    """Not the class."""
    with pytest.raises(SagaValidationError, match=r"saga must be an instance of a Saga subclass \(not the class\)"):
        life_of(thing)


@pytest.mark.asyncio
async def test_a_dag_saga_needs_to_know_dependencies() -> None:
    """add_step would have to guess them."""

    class Mixed(DAGSaga):
        async def build(self) -> None:
            """Use the wrong method."""
            await self.add_step("a", succeed)

    with pytest.raises(SagaDefinitionError, match=r"Mixed is a DAGSaga: use add_dag_step"):
        await definition_of(Mixed())


@pytest.mark.asyncio
async def test_the_strategy_is_the_classes() -> None:
    """By name or as an object; a wrong one is refused before the first effect."""
    fast = FailFastStrategy()
    definition = await defined(dag(step(), failure_strategy=fast))
    assert definition.strategy is fast
    definition = await defined(dag(step(), failure_strategy=ParallelFailureStrategy.WAIT_ALL))
    assert type(definition.strategy).__name__ == "WaitAllStrategy"
    with pytest.raises(SagaDefinitionError, match="failure_strategy must be"):
        await defined(dag(step("a", fail), failure_strategy="wait_all"))


@pytest.mark.asyncio
async def test_methods_keep_their_objects() -> None:
    """Though their functions are checked once for all instances."""

    class Two(Saga):
        def __init__(self, number: int) -> None:
            """Keep it."""
            self.number = number

        async def build(self) -> None:
            """Add a method."""
            await self.add_step("a", self.tell, self.untell)

        async def tell(self, ctx: SagaContext) -> int:
            """Return the number."""
            return self.number

        async def untell(self, result: int, ctx: SagaContext) -> None:
            """Do nothing."""

    results = [await Two(number).execute() for number in (1, 2)]
    assert [result.context for result in results] == [{"a": 1}, {"a": 2}]


@pytest.mark.asyncio
async def test_the_first_fact_holds_what_another_process_needs() -> None:
    """Name, version, shape, arguments and deadline."""
    saga = chain(step("a", compensation=undo), name="Born", saga_version="7")()
    born = birth_of(life_of(saga), await definition_of(saga), 60.0)
    assert (born.name, born.version, born.deadline, bytes(born.arguments)) == ("Born", "7", 60.0, b"{}")
    assert [shape.name for shape in born.shape] == ["a"]


def logged(call: Any) -> Any:
    """Decorate a function, as closures do."""

    @functools.wraps(call)
    async def logging(*args: Any) -> Any:
        return await call(*args)

    return logging


class Courier:
    """Calls for a saga, which it holds."""

    def __init__(self, saga: Saga) -> None:
        """Hold it."""
        self.saga = saga

    async def __call__(self, ctx: SagaContext) -> None:
        """Do nothing."""


class Held(Saga):
    """Has actions that hold it."""

    def __init__(self, how: str) -> None:
        """Say which."""
        self.how = how

    async def build(self) -> None:
        """Add one step."""

        async def closure(ctx: SagaContext) -> None:
            del self.how

        async def closed_undo(result: Any, ctx: SagaContext) -> None:
            del self.how

        async def with_default(ctx: SagaContext, saga: Any = self) -> None:
            """Hold the saga as a default."""

        async def with_keyword(ctx: SagaContext, *, saga: Any = self) -> None:
            """Hold the saga as a default by name."""

        async def attributed(ctx: SagaContext) -> None:
            """Hold the saga as an attribute."""

        async def as_method(_: Any, ctx: SagaContext) -> None:
            del self.how

        attributed.saga = self  # type: ignore[attr-defined]
        actions = {
            "method": self.act,
            "decorated method": self.act_logged,
            "function": succeed,
            "closure": closure,
            "decorated": logged(self.act),
            "default": with_default,
            "keyword": with_keyword,
            "attribute": attributed,
            "closure as a method": MethodType(as_method, self),
            "partial": functools.partial(Held.act, self),
            "object": Courier(self),
        }
        undoing = closed_undo if self.how == "compensation" else None
        await self.add_step("a", actions.get(self.how, succeed), undoing, max_retries=1)

    async def act(self, ctx: SagaContext) -> None:
        """Be a method."""

    @logged
    async def act_logged(self, ctx: SagaContext) -> None:
        """Be a decorated method."""


@pytest.mark.parametrize(
    "how",
    [
        "method",
        "decorated method",
        "function",
        "closure",
        "compensation",
        "decorated",
        "default",
        "keyword",
        "attribute",
        "closure as a method",
        "partial",
        "object",
    ],
)
@pytest.mark.asyncio
async def test_what_was_checked_once_keeps_no_saga_alive(how: str) -> None:
    """A worker would hold the arguments of a thousand sagas that have ended, whatever stands in them."""
    sagas: list[weakref.ref[Saga]] = []
    for _ in range(3):
        saga = Held(how)
        sagas.append(weakref.ref(saga))
        await definition_of(saga)
        del saga
    gc.collect()
    assert [saga() for saga in sagas] == [None] * 3


@pytest.mark.parametrize(("how", "checks"), [("method", 1), ("decorated method", 1), ("function", 1), ("closure", 3)])
@pytest.mark.asyncio
async def test_what_lives_as_long_as_its_class_is_checked_once(how: str, checks: int) -> None:
    """Steps are checked again where that is the price of forgetting a saga, and only there."""
    cls = type(f"Once {how}", (Held,), {})
    definitions = [await definition_of(cls(how)) for _ in range(3)]
    assert len({id(definition.steps["a"].retry) for definition in definitions}) == checks


class MuteError(LookupError):
    """An error whose text cannot be read."""

    def __str__(self) -> str:
        """Raise."""
        raise OSError


class Raises(Saga):
    """Cannot be built."""

    def __init__(self, why: Any) -> None:
        """Say why."""
        self.why = {"mute": MuteError("x"), "cancelled": asyncio.CancelledError("not you")}.get(why, why)

    async def build(self) -> None:
        """Raise."""
        raise self.why


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("mute", r"^saga 'Raises': build\(\) raised MuteError: \(no text\)$"),
        ("cancelled", r"^saga 'Raises': build\(\) raised CancelledError: not you$"),
    ],
)
@pytest.mark.asyncio
async def test_whatever_build_raises_is_an_error_of_the_definition(why: str, text: str) -> None:
    """Also a cancellation that nobody asked for: the caller would take it for his own."""
    saga = Raises(why)
    with pytest.raises(SagaDefinitionError, match=text) as refused:
        await saga.execute()
    assert refused.value.saga_name == "Raises"
    assert refused.value.__cause__ is saga.why


@pytest.mark.asyncio
async def test_who_is_cancelled_while_build_runs_is_cancelled() -> None:
    """By whoever asks for it, or by a timeout around it; the saga can be built afterwards."""
    waits = [True, True]

    class Slow(Saga):
        async def build(self) -> None:
            """Wait twice."""
            if waits and waits.pop():
                await asyncio.sleep(60)
            await self.add_step("a", succeed)

    saga = Slow()
    task = asyncio.create_task(definition_of(saga))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await definition_of(saga)
    assert list((await definition_of(saga)).steps) == ["a"]


class Undecided(DAGSaga):
    """Cannot say what its strategy is."""

    @property
    def failure_strategy(self) -> Any:  # type: ignore[override]
        """Raise."""
        message = "no configuration"
        raise LookupError(message)

    async def build(self) -> None:
        """Add a step."""
        await self.add_dag_step("a", succeed)


@pytest.mark.asyncio
async def test_a_strategy_that_cannot_be_read_is_an_error_of_the_definition() -> None:
    """It is user code like build()."""
    with pytest.raises(SagaDefinitionError, match=r"^saga 'Undecided': failure_strategy raised LookupError: no conf"):
        await Undecided().execute()


class Selfish(Saga):
    """Waits for itself while it is built."""

    def __init__(self, how: str) -> None:
        """Say how."""
        self.how = how

    async def build(self) -> None:
        """Wait, directly or by way of another task or saga."""
        if self.how == "execute":
            await self.execute()
        elif self.how == "task":
            await asyncio.gather(self.execute())
        else:
            guest = Guest()
            guest.host = self
            await guest.execute()


class Guest(Saga):
    """Waits for another saga while it is built."""

    host: Saga

    async def build(self) -> None:
        """Wait."""
        await self.host.execute()


@pytest.mark.parametrize("how", ["execute", "task", "saga"])
@pytest.mark.asyncio
async def test_a_build_that_waits_for_its_own_saga_is_told(how: str) -> None:
    """It would wait for ever."""
    async with asyncio.timeout(5):
        with pytest.raises(SagaDefinitionError, match=r"^saga 'Selfish': build\(\) waits for its own saga"):
            await Selfish(how).execute()


@pytest.mark.asyncio
async def test_a_task_that_build_leaves_behind_may_wait_for_the_saga() -> None:
    """Once it is built, nothing waits for itself; what was forgotten is built again."""
    tasks = []
    built = asyncio.Event()

    class Starts(Saga):
        async def build(self) -> None:
            """Start a task once."""
            await self.add_step("a", succeed)
            if not tasks:
                tasks.append(asyncio.create_task(self.later()))

        async def later(self) -> Any:
            await built.wait()
            return (await self.execute()).context

    await definition_of(Starts())
    built.set()
    assert await tasks[0] == {"a": "a"}


class Twice(Saga):
    """Awaits one step twice."""

    async def build(self) -> None:
        """Await it twice."""
        adding = self.add_step("a", succeed)
        await adding
        await adding


class Early(Saga):
    """Makes a step before build()."""

    def __init__(self) -> None:
        """Make it."""
        self.adding = self.add_step("a", succeed)

    async def build(self) -> None:
        """Await it."""
        await self.adding


@pytest.mark.parametrize("cls", [Twice, Early])
@pytest.mark.asyncio
async def test_each_step_is_made_and_awaited_once_in_build(cls: type[Saga]) -> None:
    """Else the steps that were forgotten could not be told from those that were not."""
    with pytest.raises(SagaDefinitionError, match=r"step 'a' is awaited twice, or was made before build") as refused:
        await cls().execute()
    assert (refused.value.saga_name, refused.value.step) == (cls.__name__, "a")
