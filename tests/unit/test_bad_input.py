"""What users hand over by mistake, row by row: refused before the first effect, or recorded for what it is.

Each test's id names its row of the project's list of bad inputs.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

import pytest

from saga import (
    AttentionCode,
    RetryPolicy,
    Saga,
    SagaAlreadyExistsError,
    SagaCompensationError,
    SagaContext,
    SagaDefinitionError,
    SagaError,
    SagaExecutionError,
    SagaPayloadTooLargeError,
    SagaResult,
    SagaSerializationError,
    SagaStatus,
    SagaStepError,
    SagaTimeoutError,
    SagaValidationError,
    StepStatus,
)
from tests.unit.kit import (
    AT_ONCE,
    Hush,
    chain,
    dag,
    defined,
    fail,
    memory,
    orchestrator,
    raising,
    returning,
    step,
    succeed,
)
from tests.virtual import VirtualLoop, run_virtual

D, V, S, L = SagaDefinitionError, SagaValidationError, SagaSerializationError, SagaPayloadTooLargeError
MIB = 1_048_576

Steps = list[dict[str, Any]]


def ring(size: int) -> Steps:
    """Steps that depend on each other in a circle."""
    return [step(f"s{place}", dependencies=[f"s{(place + 1) % size}"]) for place in range(size)]


async def takes_nothing() -> None:
    """Take no context."""


async def takes_two(one: Any, other: Any) -> None:
    """Take one argument too many."""


async def generates(ctx: SagaContext) -> Any:
    """Be an async generator."""
    yield ctx


def sync(ctx: SagaContext) -> str:
    """Be no coroutine."""
    return ctx.step_name


# ------------------------------------------------------------------------------------- what a definition may consist of

LONG = "x" * 256
DEFINITIONS: list[tuple[str, Steps, type[SagaError], str]] = [
    ("row 1: no steps", [], D, "saga 'Bad' has no steps"),
    ("row 2: empty name", [step("")], V, "name must be a string that is not empty; got ''"),
    ("row 2: blank name", [step(" \t")], V, "not empty"),
    ("row 3: None", [step(None)], V, "name must be a string; got None"),
    ("row 3: number", [step(7)], V, "name must be a string; got 7"),
    ("row 3: bytes", [step(b"a")], V, "name must be a string; got b'a'"),
    ("row 4: 256 characters", [step(LONG)], V, "at most 200 characters, not 256"),
    ("row 5: NUL", [step("a\0b")], V, r"control characters such as '\x00'"),
    ("row 5: newline", [step("a\nb")], V, r"control characters such as '\n'"),
    ("row 5: ANSI escape", [step("\x1b[31m")], V, r"control characters such as '\x1b'"),
    ("row 5: right to left", [step("a\u202eb")], V, r"control characters such as '\u202e'"),
    ("row 5: colon", [step("a:b")], V, "without ':'"),
    ("row 7: duplicate", [step("a"), step("a")], D, "step 'a': there is a step of this name already"),
    ("row 8: equal in NFC", [step("caf\u00e9"), step("cafe\u0301")], D, "there is a step of this name already"),
    ("row 9: unknown", [step("a"), step("b", dependencies={"zz"})], D, "step 'b' depends on 'zz'"),
    ("row 10: itself", [step("a", dependencies={"a"})], D, "in a circle: a needs a"),
    ("row 11: two", [step("a", dependencies={"b"}), step("b", dependencies={"a"})], D, " needs "),
    ("row 11: fifty", ring(50), D, "s7 needs s8 needs s9"),
    ("row 12: string", [step("a"), step("b", dependencies="step1")], V, "dependencies must be a set, list or tuple"),
    ("row 13: None inside", [step("a", dependencies=[None])], V, "dependencies must be made of step names"),
    ("row 13: twice", [step("a"), step("b", dependencies=["a", "a"])], V, "without duplicates; got ['a', 'a']"),
    ("row 16: None", [step("a", None)], D, "the action must be an async function, not None"),
    ("row 16: number", [step("a", 7)], D, "the action must be an async function, not 7"),
    ("row 16: number to undo", [step("a", compensation=7)], D, "the compensation must be an async function, not 7"),
    ("row 17: sync", [step("a", sync)], D, "the action is a sync function; declare it with 'async def'"),
    ("row 19: async generator", [step("a", generates)], D, "the action is an async generator"),
    ("row 20: no argument", [step("a", takes_nothing)], D, "the action must take 1 positional argument(s)"),
    ("row 20: two arguments", [step("a", takes_two)], D, "the context; it is (one: 'Any', other: 'Any')"),
    ("row 21: no argument", [step("a", compensation=takes_nothing)], D, "the compensation must take 2"),
    ("row 21: one argument", [step("a", compensation=succeed)], D, "the action's result and the context"),
    *[
        (f"row 22: {name}={value!r}", [step("a", **{name: value})], V, f"{name} must be a finite number of seconds")
        for name in ("timeout", "compensation_timeout")
        for value in (0, -1, float("nan"), float("inf"), "30", True)
    ],
    *[
        (f"row 23: {value!r}", [step("a", max_retries=value)], V, "max_retries must be an integer from 0 to 1000, or")
        for value in (-1, 1.5, True, 10**9)
    ],
    ("row 23: beside a policy", [step("a", max_retries=1, retry=RetryPolicy())], V, "max_retries must be None where"),
]


@pytest.mark.parametrize(
    ("steps", "kind", "text"), [row[1:] for row in DEFINITIONS], ids=[row[0] for row in DEFINITIONS]
)
@pytest.mark.asyncio
async def test_a_bad_step_is_refused_before_the_first_effect(steps: Steps, kind: type[SagaError], text: str) -> None:
    """With the error's own class, and a text that names saga, step and value."""
    effects: list[str] = []

    async def effect(ctx: SagaContext) -> None:
        effects.append(ctx.step_name)

    cls = dag(step("effect", effect), *steps, name="Bad") if steps else dag(name="Bad")
    with pytest.raises(kind) as refused:
        await cls().execute()
    assert text in str(refused.value)
    assert "saga 'Bad'" in str(refused.value)
    assert refused.value.saga_name == "Bad"
    assert effects == []


async def returns_what_is_gone(ctx: SagaContext) -> functools.Gone:  # type: ignore[name-defined]
    """Name what its module has no more."""


@pytest.mark.asyncio
async def test_an_annotation_that_cannot_be_read_is_refused_with_its_step() -> None:
    """By name; it is no error of the library's."""
    with pytest.raises(D, match=r"^saga 'Bad', step 'a': the action: its .* -> 'functools\.Gone'$"):
        await chain(step("a", returns_what_is_gone), name="Bad")().execute()


@pytest.mark.parametrize("deadline", [0, "60", float("nan"), pytest.param(10**400, id="huge")])
@pytest.mark.asyncio
async def test_a_deadline_that_is_no_time_is_refused(deadline: Any) -> None:
    """However large the number is."""
    with pytest.raises(V, match=r"^deadline must be a finite number of seconds above 0"):
        await chain(step("a"))().execute(deadline=deadline)
    async with orchestrator() as orch:
        with pytest.raises(V, match=r"^deadline must be a finite number of seconds above 0"):
            await orch.start(chain(step("a"))(), deadline=deadline)


@pytest.mark.asyncio
async def test_markup_in_a_name_is_data() -> None:
    """[row 6] It is up to who shows a name to escape it."""
    name = "<script>alert(1)</script>"
    result = await chain(step(name))().execute()
    assert result.context == {name: name}


def promise(ctx: SagaContext) -> Awaitable[str]:
    """Return something to be awaited."""
    return succeed(ctx)


class Callable_:  # noqa: N801 - stands for an object with an async __call__
    """An object that is called like an async function."""

    async def __call__(self, ctx: SagaContext) -> str:
        """Return the step's name."""
        return ctx.step_name


async def with_more(prefix: str, ctx: SagaContext) -> str:
    """Take something before the context."""
    return f"{prefix}{ctx.step_name}"


@pytest.mark.parametrize(
    ("action", "result"),
    [
        pytest.param(promise, "a", id="row 17: sync, annotated as awaitable"),
        pytest.param(lambda ctx: succeed(ctx), "a", id="row 18: lambda"),  # noqa: PLW0108 - a lambda is what is tested
        pytest.param(functools.partial(with_more, "my "), "my a", id="row 18: partial"),
        pytest.param(Callable_(), "a", id="row 18: async __call__"),
    ],
)
@pytest.mark.asyncio
async def test_whatever_returns_an_awaitable_is_an_action(action: Any, result: str) -> None:
    """It need not be a plain async function."""
    assert (await chain(step("a", action))().execute()).context == {"a": result}


@pytest.mark.asyncio
async def test_a_lambda_that_returns_no_awaitable_is_an_unknown_outcome() -> None:
    """[row 17] It cannot be seen before it is called, and by then it may have had its effect."""
    result = await chain(step("a", lambda ctx: ctx.step_name))().execute()
    assert result.steps[0].status is StepStatus.COMPENSATED
    assert "cannot be awaited" in str(result.error)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({"backoff": 0}, "RetryPolicy.backoff must be a number of at least 1; got 0", id="row 24: base 0"),
        pytest.param(
            {"max_interval": 0.1}, "RetryPolicy.max_interval must be at least initial_interval", id="row 24: max"
        ),
        pytest.param({"jitter": 1.5}, "RetryPolicy.jitter must be 'full' or 'none'; got 1.5", id="row 24: jitter"),
        pytest.param({"max_attempts": 0}, "RetryPolicy.max_attempts must be an integer from 1", id="row 24: attempts"),
        pytest.param({"max_attempts": 1_002}, "from 1 to 1001", id="row 24: too many attempts"),
        pytest.param({"initial_interval": 0}, "RetryPolicy.initial_interval must be", id="row 24: interval"),
        pytest.param({"max_elapsed": -1}, "RetryPolicy.max_elapsed must be", id="row 24: elapsed"),
        pytest.param({"retry_on": ValueError}, "RetryPolicy.retry_on must be a tuple", id="row 24: types"),
        pytest.param({"no_retry_on": (int,)}, "RetryPolicy.no_retry_on must be a tuple", id="row 24: no exceptions"),
    ],
)
def test_a_retry_policy_that_cannot_work_is_refused(fields: dict[str, Any], text: str) -> None:
    """Its fields are checked when it is made."""
    with pytest.raises(SagaValidationError) as refused:
        RetryPolicy(**fields)
    assert text in str(refused.value)


# ------------------------------------------------------------------------------------------------------ building it


@pytest.mark.asyncio
async def test_a_step_cannot_be_added_once_the_saga_has_started() -> None:
    """[row 14] Not outside of build() at all."""
    saga = chain(step("a"), name="Bad")()
    await saga.execute()
    with pytest.raises(SagaExecutionError, match=r"saga 'Bad': steps are added in build\(\)"):
        await saga.add_step("late", succeed)


@pytest.mark.asyncio
async def test_a_step_cannot_be_added_by_an_action() -> None:
    """[row 15] The action fails definitely; nothing is added."""

    class Bad(Saga):
        async def build(self) -> None:
            """Add the step that tries."""
            await self.add_step("a", self.add)

        async def add(self, ctx: SagaContext) -> None:
            """Try to add another one."""
            await self.add_step("late", succeed)

    result = await Bad().execute()
    assert result.total_steps == 1
    assert result.error is not None
    assert isinstance(result.error.__cause__, SagaExecutionError)


class Forgets(Saga):
    """Adds its second step without awaiting it."""

    async def build(self) -> None:
        """Forget an await."""
        await self.add_step("a", succeed)
        self.add_step("b", succeed)


class SyncBuild(Saga):
    """Is not built by a coroutine."""

    def build(self) -> None:  # type: ignore[override]
        """Be sync."""


class BreaksInBuild(Saga):
    """Cannot be built."""

    async def build(self) -> None:
        """Raise."""
        message = "no configuration"
        raise LookupError(message)


class BuildsNothing(Saga):
    """Has forgotten to define build()."""


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        pytest.param(Forgets, "without 'await'", id="row 25: a step that is not awaited"),
        pytest.param(SyncBuild, "build must be declared with 'async def'", id="row 25: sync build"),
        pytest.param(BreaksInBuild, "build() raised LookupError: no configuration", id="row 26"),
        pytest.param(BuildsNothing, "must define 'async def build(self)'", id="row 26: no build"),
    ],
)
@pytest.mark.asyncio
async def test_a_build_that_goes_wrong_is_a_definition_error(cls: type[Saga], text: str) -> None:
    """It names the saga, wraps the cause, and leaks no warning of a coroutine that was never awaited."""
    with pytest.raises(SagaDefinitionError) as refused:
        await cls().execute()
    assert text in str(refused.value)
    assert cls.__name__ in str(refused.value)
    assert isinstance(refused.value.__cause__, LookupError) is (cls is BreaksInBuild)


@pytest.mark.asyncio
async def test_code_with_another_graph_sets_attention_and_waits_for_better_code() -> None:
    """[row 27] The saga is released and due again; the code that fits carries it on and clears the attention."""

    async def wait(ctx: SagaContext) -> None:
        await asyncio.sleep(100)

    good = chain(step("a"), step("b", wait, timeout=None), name="Moves")
    bad = chain(step("a2"), step("b", wait, timeout=None), name="Moves")
    async with memory() as storage:
        async with orchestrator(storage, drain_timeout=0) as first:
            await first.start(good(), saga_id="m")
            await asyncio.sleep(1)
        async with orchestrator(storage, seed="two", sagas=[bad]) as second:
            await asyncio.sleep(10)
            attention = (await second.get("m")).attention
            assert attention is not None
            assert attention.code is AttentionCode.BAD_CODE
            assert not attention.blocking
            assert "step 'a' has started and the code has it no more" in attention.message
            assert "'Moves'" in attention.message
        async with orchestrator(storage, seed="three", sagas=[good]) as third:
            result = await third.execute(good(), saga_id="m")
            assert result.success
            assert result.attention is None


@pytest.mark.asyncio
async def test_a_saga_has_at_most_ten_thousand_steps() -> None:
    """[row 28] The step that is one too many is named."""

    class Many(Saga):
        async def build(self) -> None:
            """Add too many."""
            for number in range(10_001):
                await self.add_step(f"s{number}", succeed)

    with pytest.raises(SagaValidationError, match=r"saga 'Many': the number of steps must be at most 10000; got 10001"):
        await defined(Many)


# ----------------------------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    "saga_id",
    ["", "x" * 300, 7, b"a", "a/b", "..\\", "../x", "a{}", "a*", "a b", "a\0", "a\n", "'; DROP TABLE sagas;--"],
    ids=lambda value: f"row {30 if 'DROP' in str(value) else 29}: {str(value)[:20]!r}",
)
@pytest.mark.asyncio
async def test_an_id_that_could_mean_something_to_a_storage_is_refused(saga_id: Any) -> None:
    """In start, execute, get, cancel and retry alike."""
    async with orchestrator() as runs:
        for asked in (
            runs.start(chain(step())(), saga_id=saga_id),
            runs.execute(chain(step())(), saga_id=saga_id),
            runs.get(saga_id),
            runs.cancel(saga_id, "why"),
            runs.retry(saga_id, "why"),
        ):
            with pytest.raises(SagaValidationError, match="saga_id must be 1 to 128 characters"):
                await asked


class Order(Saga):
    """Takes anything."""

    def __init__(self, number: Any) -> None:
        """Keep it."""
        self.number = number

    async def build(self) -> None:
        """Add one step."""
        await self.add_step("a", succeed)


@pytest.mark.asyncio
async def test_an_existing_id_with_the_same_input_is_the_existing_saga() -> None:
    """[row 31] Nothing runs twice."""
    async with orchestrator() as runs:
        first = await runs.execute(Order(1), saga_id="o")
        assert await runs.execute(Order(1), saga_id="o") == first


@pytest.mark.asyncio
async def test_an_existing_id_with_other_input_is_refused() -> None:
    """[row 32] The error names what differs."""
    async with orchestrator() as runs:
        await runs.execute(Order(1), saga_id="o")
        with pytest.raises(SagaAlreadyExistsError, match="saga o exists already and its arguments differ: number"):
            await runs.execute(Order(2), saga_id="o")
        with pytest.raises(SagaAlreadyExistsError, match="saga o exists already and it is a Order, not a Sample"):
            await runs.execute(chain(step())(), saga_id="o")


# -------------------------------------------------------------------------------------------------------------- values


class Colour(Enum):
    """An enum without strings."""

    RED = 1


class Shade(StrEnum):
    """An enum of strings."""

    DARK = "dark"


@dataclass
class Point:
    """A dataclass."""

    x: int


class Text(str):
    """A string with a type of its own."""

    __slots__ = ()


class Mapping_(dict[str, int]):  # noqa: N801 - stands for any dict with a type of its own
    """A dict with a type of its own."""


class Real(float):
    """A float with a type of its own, as number libraries have."""


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def own_tail() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = [1]
    value.append(value)
    return value


def own_value() -> dict[str, Any]:
    """Return a dict that contains itself."""
    value: dict[str, Any] = {}
    value["again"] = value
    return value


VALUES: list[tuple[str, Any]] = [
    ("row 33: lambda", lambda: None),
    ("row 33: lock", Lock()),
    ("row 33: path", Path("/")),
    ("row 34: set", {1}),
    ("row 34: frozenset", frozenset({1})),
    ("row 34: tuple", (1, 2)),
    ("row 34: bytes", b"x"),
    ("row 34: Decimal", Decimal("1.10")),
    ("row 34: datetime", datetime(2026, 1, 1, tzinfo=UTC)),
    ("row 34: UUID", UUID(int=1)),
    ("row 34: Enum", Colour.RED),
    ("row 34: StrEnum", Shade.DARK),
    ("row 34: dataclass", Point(1)),
    ("row 35: NaN", float("nan")),
    ("row 35: inf", float("inf")),
    ("row 35: -inf", float("-inf")),
    ("row 36: 2**70", 2**70),
    ("row 36: -2**70", -(2**70)),
    ("row 37: lone surrogate", "\ud800"),
    ("row 38: NUL", "a\0b"),
    ("row 38: NUL beside others", "\u00e9\0"),
    ("row 39: int key", {1: "a"}),
    ("row 39: None key", {None: "a"}),
    ("row 39: tuple key", {(1, 2): "a"}),
    ("row 39: NUL in a key", {"\0": "a"}),
    ("row 41: list in itself", own_tail()),
    ("row 41: dict in itself", own_value()),
    ("row 42: 10,000 deep", nested(10_000)),
    ("row 42: 101 deep", nested(101)),
    ("row 46: str subclass", Text("a")),
    ("row 46: dict subclass", Mapping_(a=1)),
    ("row 46: float subclass", Real(1.5)),
]


@pytest.mark.parametrize("value", [value for _, value in VALUES], ids=[row for row, _ in VALUES])
@pytest.mark.asyncio
async def test_a_value_that_would_not_read_back_as_it_was_is_refused_wherever_it_comes_from(value: Any) -> None:
    """As an argument, in with_data and as a result; the path of the culprit is named, and nothing changes silently."""
    deep = {"a": {"b": [0, 0, 0, value]}}

    class Takes(Saga):
        def __init__(self, argument: Any) -> None:
            """Keep it."""
            self.argument = argument

    with pytest.raises(SagaSerializationError, match="saga 'Takes', argument 'argument': ") as refused:
        Takes(deep)
    assert refused.value.path.startswith("$.a.b[3]")

    async def add(ctx: SagaContext) -> SagaContext:
        with pytest.raises(SagaSerializationError, match="saga 'Sample', step 'add'") as refused:
            ctx.with_data(deep)
        assert refused.value.path.startswith("$.a.b[3]")
        return ctx.with_data({"added": True})

    result = await chain(step("add", add), step("returns", returning(deep)))().execute()
    assert result.context == {"added": True}
    assert [each.status for each in result.steps] == [StepStatus.COMPENSATED, StepStatus.COMPENSATED]
    assert isinstance(result.error, SagaStepError)
    assert "the result of step 'returns' cannot be stored: $.a.b[3]" in str(result.error)


@pytest.mark.asyncio
async def test_an_open_file_in_a_value_is_refused(tmp_path: Path) -> None:
    """[row 33] By its path."""
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(SagaSerializationError, match=r"\$\[0\] cannot be stored"),
    ):
        Order([file])


def typed(hint: Any, value: Any) -> Callable[[SagaContext], Awaitable[Any]]:
    """Return an action that returns this value under this annotation."""

    async def action(ctx: SagaContext) -> Any:
        return value

    action.__annotations__["return"] = hint
    return action


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        pytest.param(set[int], {1, 2}, id="row 34: set"),
        pytest.param(tuple[int, str], (1, "a"), id="row 34: tuple"),
        pytest.param(bytes, b"\0\xff", id="row 34: bytes"),
        pytest.param(Decimal, Decimal("1.10"), id="row 34: Decimal"),
        pytest.param(datetime, datetime(2026, 1, 1, tzinfo=UTC), id="row 34: datetime"),
        pytest.param(UUID, UUID(int=1), id="row 34: UUID"),
        pytest.param(Colour, Colour.RED, id="row 34: Enum"),
        pytest.param(Point, Point(1), id="row 34: dataclass"),
        pytest.param(list[Point], [Point(1)], id="row 34: list of dataclasses"),
        pytest.param(dict[str, tuple[int, ...]], {"a": (1, 2)}, id="row 34: tuples inside"),
        pytest.param(int, 2**63 - 1, id="row 36: greatest"),
        pytest.param(int, -(2**63), id="row 36: least"),
        pytest.param(dict[int, str], {1: "a"}, id="row 39: int keys, annotated"),
        pytest.param(dict[str, Any], {"__proto__": 1, "$type": 2, "__class__": 3, "py/object": 4}, id="row 40: typed"),
        pytest.param(Any, {"__proto__": 1, "$type": 2, "__class__": 3, "py/object": "os.system"}, id="row 40: plain"),
        pytest.param(Any, nested(100), id="row 42: 100 deep"),
    ],
)
@pytest.mark.asyncio
async def test_an_annotated_result_reads_back_with_its_type(hint: Any, value: Any) -> None:
    """For later steps, the compensation and the result alike."""
    seen: list[Any] = []

    async def look(ctx: SagaContext) -> None:
        seen.extend((ctx.result_of("a"), ctx.get("a")))
        raise ValueError

    async def undone(result: Any, ctx: SagaContext) -> None:
        seen.append(result)

    result = await chain(step("a", typed(hint, value), undone), step("look", look))().execute()
    assert result.context == {"a": value}
    assert seen == [value, value, value]
    assert {type(each) for each in seen} == {type(value)}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        pytest.param(float, float("nan"), id="row 35"),
        pytest.param(dict[str, Any], {"a": float("inf")}, id="row 35: inside"),
        pytest.param(int, 2**70, id="row 36"),
        pytest.param(str, "a\0", id="row 38"),
        pytest.param(list[Any], own_tail(), id="row 41"),
        pytest.param(list[Any], nested(10_000), id="row 42"),
        pytest.param(dict[str, Any], {"a": {1}}, id="row 34: set under Any"),
        pytest.param(dict[str, Any], {"a": (1,)}, id="row 34: tuple under Any"),
        pytest.param(dict[str, Any], {"a": Decimal("1.10")}, id="row 34: Decimal under Any"),
        pytest.param(list[Any], [UUID(int=1)], id="row 34: UUID under Any"),
        pytest.param(int, True, id="row 46: bool for int"),
        pytest.param(Point, {"x": 1}, id="row 46: dict for dataclass"),
        pytest.param(dict[str, int], Mapping_(a=1), id="row 46: dict subclass"),
        pytest.param(int, "1", id="row 46: text for int"),
    ],
)
@pytest.mark.asyncio
async def test_an_annotation_that_does_not_fit_is_an_unknown_outcome(hint: Any, value: Any) -> None:
    """The effect took place, so the step is undone; the text says what to do."""
    result = await chain(step("a", typed(hint, value)))().execute()
    assert result.status is SagaStatus.ROLLED_BACK
    assert result.steps[0].status is StepStatus.COMPENSATED
    assert "the result of step 'a' cannot be stored" in str(result.error)


@pytest.mark.parametrize("size", [MIB + 1, 3 * MIB], ids=lambda size: f"row 43: {size} bytes")
@pytest.mark.asyncio
async def test_a_payload_over_the_limit_is_refused(size: int) -> None:
    """As an argument and in with_data by its class, as a result as an UNKNOWN outcome; at the limit it is stored."""
    text = "x" * (size - len('""'))
    with pytest.raises(SagaPayloadTooLargeError, match=f"saga 'Order', argument 'number': .* {size} bytes .* {MIB}"):
        Order(text)

    async def add(ctx: SagaContext) -> None:
        with pytest.raises(SagaPayloadTooLargeError, match="saga 'Sample', step 'add'"):
            ctx.with_data({"text": text})

    result = await chain(step("add", add), step("returns", returning(text)))().execute()
    assert result.steps[1].status is StepStatus.COMPENSATED
    assert result.error is not None
    assert isinstance(result.error.__cause__, SagaPayloadTooLargeError)
    assert (await chain(step("a", returning("x" * (MIB - 2))))().execute()).success


@pytest.mark.asyncio
async def test_data_that_grows_over_the_limit_step_by_step_undoes_the_step_that_brought_it_over() -> None:
    """[row 44] Each addition fits, their sum does not."""
    keys: list[str] = []

    async def add(ctx: SagaContext) -> SagaContext:
        for key in ("a", "b", "c"):
            ctx = ctx.with_data({key: "x" * (MIB // 2)})
        return ctx

    async def undone(result: Any, ctx: SagaContext) -> None:
        keys.append(f"{ctx.step_name} {result} {ctx.outcome}")

    result = await chain(step("before"), step("add", add, undone))().execute()
    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert isinstance(result.error.__cause__, SagaPayloadTooLargeError)
    assert keys == ["add None unknown"]


@pytest.mark.asyncio
async def test_a_result_that_cannot_be_stored_is_undone_as_maybe_executed() -> None:
    """[row 45] The compensation gets None and is told that the outcome is unknown; retrying would not help."""
    seen: list[Any] = []

    async def undone(result: Any, ctx: SagaContext) -> None:
        seen.append((result, ctx.outcome, ctx.action_key))

    saga = chain(step("a", returning(object()), undone, max_retries=3))()
    result = await saga.execute()
    assert result.steps[0].attempts == 1
    assert seen == [(None, "unknown", f"{saga.saga_id}:a:action")]
    assert "annotate the return type" in str(result.error)


# ---------------------------------------------------------------------------------------------------- what actions do


async def return_unchanged(ctx: SagaContext) -> SagaContext:
    """Return the context as it came."""
    return ctx


async def return_coroutine(ctx: SagaContext) -> Any:
    """Forget to await."""
    return succeed(ctx)


async def return_task(ctx: SagaContext) -> Any:
    """Return a task."""
    task = asyncio.ensure_future(succeed(ctx))
    await task
    return task


@pytest.mark.parametrize(
    ("action", "text"),
    [
        pytest.param(return_unchanged, "it returned its context unchanged", id="row 47: its context"),
        pytest.param(return_coroutine, "$ cannot be stored: a coroutine", id="row 47: a coroutine"),
        pytest.param(return_task, "cannot be stored: a", id="row 47: a task"),
    ],
)
@pytest.mark.asyncio
async def test_a_result_that_is_no_value_is_an_unknown_outcome(action: Any, text: str) -> None:
    """And no warning of a coroutine that was never awaited comes on top."""
    result = await chain(step("a", action))().execute()
    assert result.steps[0].status is StepStatus.COMPENSATED
    assert text in str(result.error)


@pytest.mark.asyncio
async def test_a_context_derived_from_the_own_one_is_a_result() -> None:
    """[row 47] Its new keys are what later steps see."""

    async def add(ctx: SagaContext) -> SagaContext:
        derived = ctx.with_data({"a": 1}).with_data({"b": [2]})
        derived.get("b").append("not stored")
        assert derived.get("b") == [2]
        return derived

    assert (await chain(step("add", add))().execute()).context == {"a": 1, "b": [2]}


@pytest.mark.asyncio
async def test_changing_what_the_context_gave_changes_nothing() -> None:
    """[row 48] Each look decodes anew, and what was given to with_data is a copy."""
    mine = {"list": [1]}

    async def add(ctx: SagaContext) -> SagaContext:
        derived = ctx.with_data(mine)
        mine["list"].append(2)
        return derived

    async def change(ctx: SagaContext) -> Any:
        ctx.get("list").append(3)
        with pytest.raises(AttributeError):
            ctx.attempt = 7  # type: ignore[misc]
        return ctx.get("list")

    assert (await chain(step("add", add), step("change", change))().execute()).context == {"list": [1], "change": [1]}


class Unprintable(Exception):  # noqa: N818 - stands for an exception of any name
    """Has no text."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError


class Unpicklable(Exception):  # noqa: N818 - stands for an exception of any name
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        """Hold a lambda."""
        super().__init__(lambda: None)


def deep_group() -> Exception:
    """Return groups of exceptions, one in another."""
    error: Exception = ValueError("the innermost")
    for depth in range(50):
        error = ExceptionGroup(f"group {depth}", [error])
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(Unprintable(), "Unprintable", id="row 49: no text"),
        pytest.param(Unpicklable(), "Unpicklable", id="row 49: not to be pickled"),
        pytest.param(ValueError("x" * 1_000_000), "ValueError", id="row 49: huge"),
        pytest.param(ValueError("a\0b\ud800"), "ValueError", id="row 49: text that no storage keeps"),
        pytest.param(StopIteration(1), "RuntimeError", id="row 53: StopIteration"),
        pytest.param(StopAsyncIteration(1), "StopAsyncIteration", id="row 53: StopAsyncIteration"),
        pytest.param(GeneratorExit(), "GeneratorExit", id="row 53: GeneratorExit"),
        pytest.param(deep_group(), "ExceptionGroup", id="row 54"),
    ],
)
@pytest.mark.asyncio
async def test_whatever_an_action_raises_is_a_recorded_failure(error: BaseException, kind: str) -> None:
    """By type and bounded text; the live exception is the cause where it was seen."""
    async with memory() as storage, orchestrator(storage) as runs:
        result = await runs.execute(chain(step("before"), step("a", raising(error)))(), saga_id="s")
        [stored] = await storage.load(["s"])
    assert stored.unreadable is None
    assert result.status is SagaStatus.ROLLED_BACK
    record = result.steps[1].error
    assert record is not None
    assert record.type == kind
    assert len(record.message) <= 4_096
    assert result.error is not None
    assert type(result.error.__cause__).__name__ == kind


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit], ids=lambda error: f"row 50: {error.__name__}")
def test_what_ends_the_process_is_not_swallowed_and_the_saga_is_recovered(error: type[BaseException]) -> None:
    """The interrupted attempt runs again in the next process, under its own key."""
    attempts: list[int] = []

    async def end(ctx: SagaContext) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise error

    storage = memory()
    cls = chain(step("a", end))

    async def first_process() -> None:
        async with storage, orchestrator(storage) as runs:
            await runs.execute(cls(), saga_id="s")

    async def second_process() -> None:
        await asyncio.sleep(60)
        async with storage, orchestrator(storage, seed="two", sagas=[cls]) as runs:
            assert (await runs.execute(cls(), saga_id="s")).success

    with pytest.raises(error):
        run_virtual(first_process())
    run_virtual(second_process())
    assert attempts == [1, 2]


@pytest.mark.asyncio
async def test_an_error_that_is_no_exception_is_not_swallowed_and_the_saga_is_recovered() -> None:
    """[row 50] The loop's exception handler is told; whether there was an effect is not known, so it is undone."""
    undone: list[str] = []
    reports: list[BaseException] = []

    async def hush(ctx: SagaContext) -> None:
        raise Hush

    async def note(result: object, ctx: SagaContext) -> None:
        undone.append(ctx.step_name)

    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
    for cls in (chain(step("a", compensation=note), step("b", hush, note)), dag(step("b", hush, note), step("c"))):
        for result in (await cls().execute(), await executed(cls())):
            assert result.status is SagaStatus.ROLLED_BACK
            assert isinstance(result.error, SagaStepError)
            assert isinstance(result.error.__cause__, Hush)
    assert undone == ["b", "a", "b", "a", "b", "b"]
    assert [type(each) for each in reports] == [Hush] * 4


async def executed(saga: Saga) -> SagaResult:
    """Run a saga in an orchestrator."""
    async with orchestrator() as runs:
        return await runs.execute(saga)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(asyncio.CancelledError, id="row 51"),
        pytest.param(TimeoutError, id="row 52"),
    ],
)
@pytest.mark.asyncio
async def test_a_cancellation_or_timeout_of_the_actions_own_is_an_unknown_outcome(error: type[BaseException]) -> None:
    """It is the step's error, not the engine's timeout; the worker lives on."""
    async with orchestrator() as runs:
        result = await runs.execute(chain(step("a", raising(error)))())
        assert result.status is SagaStatus.ROLLED_BACK
        assert result.steps[0].status is StepStatus.COMPENSATED
        assert isinstance(result.error, SagaStepError)
        assert not isinstance(result.error, SagaTimeoutError)
        assert type(result.error.__cause__) is error
        assert (await runs.execute(Order(1))).success


@pytest.mark.asyncio
async def test_an_action_that_swallows_its_cancellation_is_left_to_itself_after_five_seconds() -> None:
    """[row 55] It counts as UNKNOWN and is undone; its late success changes the attention only."""
    seen: list[Any] = []

    async def stubborn(ctx: SagaContext) -> str:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue
            return "done after all"

    async def undone(result: Any, ctx: SagaContext) -> None:
        seen.append((asyncio.get_running_loop().time(), result, ctx.outcome))

    async with orchestrator() as runs:
        result = await runs.execute(chain(step("a", stubborn, undone, timeout=3))(), saga_id="s")
        assert result.status is SagaStatus.ROLLED_BACK
        assert seen == [(pytest.approx(3 + 5), None, "unknown")]
        await asyncio.sleep(100)
        record = await runs.get("s")
        assert record.status is SagaStatus.ROLLED_BACK
        assert record.attention is not None
        assert record.attention.code is AttentionCode.LATE_EFFECT


@pytest.mark.asyncio
async def test_an_action_that_blocks_the_loop_is_named_and_never_runs_in_two_places_unnoticed() -> None:
    """[row 56] One warning a step; the process that lost its claim meanwhile writes nothing more."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    async def block(ctx: SagaContext) -> int:
        if ctx.attempt == 1:
            for _ in range(2):
                loop.turn(60)  # as time.sleep(60) would
                await asyncio.sleep(6)
        return ctx.attempt

    cls = chain(step("blocks", block, timeout=None), name="Blocks")
    async with memory() as storage:
        first = orchestrator(storage)
        second = orchestrator(storage, seed="two", sagas=[cls])
        async with first, second:
            running = asyncio.create_task(first.execute(cls(), saga_id="s"))
            with pytest.warns(RuntimeWarning, match="saga 'Blocks': the event loop was blocked .* 'blocks'") as told:
                await asyncio.sleep(300)
            assert len(told) == 1
            assert (await running).success
            [stored] = await storage.load(["s"])
    successes = [fact for entry in stored.entries for fact in entry.events if type(fact).__name__ == "AttemptSucceeded"]
    assert len(successes) == 1


async def close_loop(ctx: SagaContext) -> None:
    """Close the loop that everything runs in."""
    asyncio.get_running_loop().close()


async def run_another(ctx: SagaContext) -> None:
    """Run a loop inside the loop."""
    coroutine = succeed(ctx)
    try:
        asyncio.run(coroutine)
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    "action", [pytest.param(close_loop, id="row 57: closes"), pytest.param(run_another, id="row 57: asyncio.run")]
)
@pytest.mark.asyncio
async def test_misuse_of_the_loop_is_the_steps_own_error(action: Any) -> None:
    """The worker lives on."""
    async with orchestrator() as runs:
        result = await runs.execute(chain(step("a", action))())
        assert result.status is SagaStatus.ROLLED_BACK
        assert result.steps[0].error is not None
        assert result.steps[0].error.type == "RuntimeError"
        assert (await runs.execute(Order(1))).success


class Selfish(Saga):
    """Waits in its step for a saga of its own id."""

    def __init__(self, number: int) -> None:
        """Keep the number."""
        self.number = number

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("a", self.start_again)

    async def start_again(self, ctx: SagaContext) -> str:
        """Start the same saga, and another one of the same id."""
        runs = ctx.resource("runs")[0]
        with pytest.raises(SagaAlreadyExistsError, match=f"saga {ctx.saga_id} exists already"):
            await runs.start(Selfish(self.number + 1), saga_id=ctx.saga_id)
        handle = await runs.start(Selfish(self.number), saga_id=ctx.saga_id)
        with pytest.raises(SagaExecutionError, match="waits for its own saga"):
            await handle.wait()
        return handle.saga_id  # type: ignore[no-any-return]


@pytest.mark.asyncio
async def test_a_step_that_starts_its_own_saga_gets_the_existing_one_and_cannot_wait_for_it() -> None:
    """[row 58] Waiting for oneself would never end; other arguments under the same id are refused as ever."""
    resources: dict[str, Any] = {"runs": []}
    async with orchestrator(resources=resources) as runs:
        resources["runs"].append(runs)
        result = await runs.execute(Selfish(1), saga_id="s")
        result.raise_for_status()
        assert result.context == {"a": "s"}


@pytest.mark.asyncio
async def test_a_step_that_executes_its_own_instance_is_told() -> None:
    """[row 58] Also without an orchestrator."""

    class Alone(Saga):
        async def build(self) -> None:
            """Add the step."""
            await self.add_step("a", self.again)

        async def again(self, ctx: SagaContext) -> None:
            """Wait for oneself."""
            with pytest.raises(SagaExecutionError, match="waits for its own saga"):
                await self.execute()

    (await Alone().execute()).raise_for_status()


# ------------------------------------------------------------------------------------------------------ compensations


@pytest.mark.asyncio
async def test_a_compensation_that_always_raises_uses_up_its_budget_and_fails_the_saga() -> None:
    """[row 59] Ten attempts by default; the saga is found among those that need attention."""

    async def stuck(result: Any, ctx: SagaContext) -> None:
        message = "cannot undo"
        raise RuntimeError(message)

    async with orchestrator() as runs:
        result = await runs.execute(chain(step("a", compensation=stuck), step("b", fail))(), saga_id="s")
        assert result.status is SagaStatus.FAILED
        assert result.steps[0].compensation_attempts == 10
        [error] = result.compensation_errors
        assert isinstance(error, SagaCompensationError)
        assert "step 'a' of saga Sample s could not be undone in 10 attempts: RuntimeError: cannot undo" in str(error)
        assert (await runs.statistics()).needs_attention == 1


@pytest.mark.asyncio
async def test_a_compensation_that_hangs_is_cut_off_by_its_own_timeout() -> None:
    """[row 60] Each attempt; then the saga is FAILED."""
    attempts: list[float] = []

    async def hang(result: Any, ctx: SagaContext) -> None:
        attempts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(10_000)

    cls = chain(step("a", compensation=hang, compensation_timeout=7, compensation_retry=AT_ONCE), step("b", fail))
    async with orchestrator() as runs:
        result = await runs.execute(cls())
    assert result.status is SagaStatus.FAILED
    assert attempts == pytest.approx([0, 7], abs=0.1)
    assert "it ran beyond its timeout" in str(result.compensation_errors[0])


@pytest.mark.asyncio
async def test_what_a_compensation_returns_is_ignored_with_one_warning_a_step() -> None:
    """[row 61] It looks like a mistake, and is not worth more than that."""

    async def returns(result: Any, ctx: SagaContext) -> Any:
        return "ignored"

    cls = chain(step("a", compensation=returns), step("b", fail), name="Returns")
    async with orchestrator() as runs:
        together = asyncio.gather(*(runs.execute(cls()) for _ in range(3)))
        with pytest.warns(RuntimeWarning) as told:
            results = await together
    assert {result.status for result in results} == {SagaStatus.ROLLED_BACK}
    assert [str(each.message) for each in told] == [
        "saga 'Returns': the compensation of step 'a' returned str, which is ignored"
    ]


# ------------------------------------------------------------------------------------------------------------ contexts


@pytest.mark.parametrize("data", [None, 7, "text", [("a", 1)]], ids=lambda data: f"row 62: {data!r}")
@pytest.mark.asyncio
async def test_with_data_takes_mappings_only(data: Any) -> None:
    """The error names the step and what was given."""

    async def add(ctx: SagaContext) -> None:
        with pytest.raises(
            SagaValidationError, match=rf"step 'a': with_data\(\) takes a mapping, not {type(data).__name__}"
        ):
            ctx.with_data(data)

    (await chain(step("a", add))().execute()).raise_for_status()


@pytest.mark.asyncio
async def test_an_unknown_key_gives_none_or_the_default() -> None:
    """[row 63] As documented."""

    async def look(ctx: SagaContext) -> None:
        assert ctx.get("nobody left this") is None
        assert ctx.get("nobody left this", 7) == 7

    (await chain(step("a", look))().execute()).raise_for_status()
