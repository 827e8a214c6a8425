"""Observers: what they are told, and how a broken one is kept away from sagas."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from saga import (
    LeaveReason,
    Limits,
    Observer,
    SagaAlreadyExistsError,
    SagaContext,
    SagaInfo,
    SagaStatus,
    SagaValidationError,
)
from saga.events import Began, Completed
from saga.observers import Observers
from tests.unit.kit import chain, fail, memory, orchestrator, step
from tests.unit.test_context import context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INFO = SagaInfo("o-1", "Order", "1")


class Notes(Observer):
    """Writes everything down."""

    def __init__(self, name: str = "", **headers: str) -> None:
        """Answer with these headers."""
        self.name = name
        self.notes: list[str] = []
        self._headers = headers

    def headers(self, saga: SagaInfo) -> Mapping[str, str]:
        """Return the headers."""
        return self._headers

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Write the fact's name down."""
        self.notes.append(type(event).__name__)

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        """Write down how the code inside ends."""
        self.notes.append("enter")
        try:
            yield
        except BaseException as error:
            self.notes.append(f"raised {type(error).__name__}")
            raise
        self.notes.append("leave")

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Write the reason down."""
        self.notes.append(reason)


class Broken(Observer):
    """Raises wherever it is asked."""

    def headers(self, saga: SagaInfo) -> Mapping[str, str]:
        """Raise."""
        raise RuntimeError

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Raise."""
        raise RuntimeError

    def around(self, saga: SagaInfo, ctx: SagaContext) -> Any:
        """Raise."""
        raise RuntimeError

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Raise."""
        raise RuntimeError


class BrokenInside(Observer):
    """Returns a context manager that raises."""

    def __init__(self, *, entering: bool) -> None:
        """Say where it is to raise."""
        self._entering = entering

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        """Raise before or after the code inside."""
        if self._entering:
            raise RuntimeError
        yield
        raise RuntimeError


class Swallows(Observer):
    """Wants to swallow errors."""

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        """Swallow what is raised inside."""
        with pytest.raises(ValueError, match="a failed"):
            yield


@pytest.fixture
def reports() -> list[str]:
    """What the loop's exception handler was given; filled by ``listen``."""
    return []


def listen(reports: list[str]) -> None:
    """Take what is given to the loop's exception handler."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))


def test_only_observers_are_accepted() -> None:
    """A class is none; nobody at all is fine."""
    for wrong in ([Notes], [None], ["notes"]):
        with pytest.raises(SagaValidationError, match="observers must be a sequence of Observer instances"):
            Observers(wrong)  # type: ignore[arg-type]
    assert not Observers(()).present
    assert Observers([Notes()]).present


def test_the_base_observes_nothing() -> None:
    """Its methods can be overridden one by one."""
    base = Observer()
    assert base.headers(INFO) == {}
    base.on_event(INFO, Began())
    base.on_leave(INFO, LeaveReason.REST)
    with base.around(INFO, context()):
        pass


def test_headers_of_all_observers_are_one_mapping() -> None:
    """The later one's win."""
    observers = Observers([Notes(a="1", b="1"), Notes(b="2", c="2")])
    assert observers.headers(INFO) == {"a": "1", "b": "2", "c": "2"}


def test_facts_come_in_order_to_one_observer_after_the_other() -> None:
    """Each fact to all of them."""
    order: list[tuple[str, str]] = []

    class Ordered(Notes):
        def on_event(self, saga: SagaInfo, event: Any) -> None:
            """Write down who was told what."""
            order.append((self.name, type(event).__name__))

    Observers([Ordered("x"), Ordered("y")]).on_events(INFO, (Began(), Completed()))
    assert order == [("x", "Began"), ("y", "Began"), ("x", "Completed"), ("y", "Completed")]


@pytest.mark.asyncio
async def test_headers_that_are_no_text_are_not_stored(reports: list[str]) -> None:
    """They would make the journal unreadable; those of other observers are kept."""
    listen(reports)
    assert Observers([Notes(a=1), Notes(b="2")]).headers(INFO) == {"b": "2"}  # type: ignore[arg-type]
    assert reports == ["observer Notes raised; this is reported once"]


def test_observers_are_left_in_the_reverse_of_the_order_in_which_they_were_entered() -> None:
    """As nested ``with`` statements would be: a span ends before what it stands in."""
    order: list[str] = []

    class Nested(Notes):
        @contextmanager
        def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
            """Write down when."""
            order.append(f"into {self.name}")
            yield
            order.append(f"out of {self.name}")

    for leave in Observers([Nested("x"), Nested("y")]).enter(INFO, context()):
        leave(None)
    assert order == ["into x", "into y", "out of y", "out of x"]


@pytest.mark.parametrize(
    "broken",
    [Broken(), BrokenInside(entering=True), BrokenInside(entering=False)],
    ids=["everywhere", "entering", "leaving"],
)
@pytest.mark.asyncio
async def test_a_broken_observer_is_reported_once_and_felt_by_nobody(broken: Observer, reports: list[str]) -> None:
    """Neither by the saga nor by the other observers."""
    listen(reports)
    notes = Notes()
    async with orchestrator(observers=[broken, notes]) as runs:
        assert (await runs.execute(chain(step("a"), step("b"))())).success
    assert reports == [f"observer {type(broken).__name__} raised; this is reported once"]
    assert notes.notes.count("leave") == 2


@pytest.mark.asyncio
async def test_an_observer_cannot_swallow_an_error(reports: list[str]) -> None:
    """What its context manager returns is ignored."""
    listen(reports)
    async with orchestrator(observers=[Swallows()]) as runs:
        result = await runs.execute(chain(step("a", fail))())
    assert result.status is SagaStatus.ROLLED_BACK
    assert reports == []


@pytest.mark.asyncio
async def test_around_sees_what_the_code_raised() -> None:
    """And a timeout as the cancellation by which it is carried out."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(100)

    notes = Notes()
    async with orchestrator(observers=[notes]) as runs:
        await runs.execute(chain(step("a", fail))())
        await runs.execute(chain(step("a", slow, timeout=1), name="Slow")())
    assert [note for note in notes.notes if note.startswith("raised")] == ["raised ValueError", "raised CancelledError"]


@pytest.mark.asyncio
async def test_a_process_is_told_only_of_its_own_facts() -> None:
    """The claim of a takeover is one; and once of each time it stops driving a saga."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(100)

    cls = chain(step("a", slow, timeout=None))
    one, two = Notes(), Notes()
    async with memory() as storage:
        async with orchestrator(storage, observers=[one], drain_timeout=0) as first:
            await first.start(cls(), saga_id="s")
            await asyncio.sleep(1)
        async with orchestrator(storage, seed="two", sagas=[cls], observers=[two]) as second:
            assert (await second.execute(cls(), saga_id="s")).success
        [stored] = await storage.load(["s"])
    assert one.notes[0] == "Created"
    assert one.notes[-1] == LeaveReason.RELEASED
    assert two.notes[-1] == LeaveReason.REST
    assert "Created" not in two.notes
    facts = [type(fact).__name__ for entry in stored.entries for fact in entry.events]
    assert [note for note in one.notes + two.notes if note[0].isupper()] == facts


@pytest.mark.asyncio
async def test_an_observer_that_raises_is_reported_once_wherever_it_stands(reports: list[str]) -> None:
    """An observer that two orchestrators share is one: its first error is the news; each is told to all observers."""
    listen(reports)

    class Curious(Observer):
        def __init__(self) -> None:
            """Begin without errors."""
            self.heard: list[str] = []

        def on_error(self, observer: Observer, error: BaseException) -> None:
            """Keep who raised, and raise as well."""
            self.heard.append(f"{type(observer).__name__} {type(error).__name__}")
            raise LookupError

    broken, curious = Broken(), Curious()
    for _ in range(2):
        Observers([broken, curious]).on_events(INFO, (Began(), Completed()))
    assert curious.heard == ["Broken RuntimeError"] * 4
    assert reports == [f"observer {name} raised; this is reported once" for name in ("Broken", "Curious")]


class Collects(Broken):
    """Has an attribute that somebody else might want to count with."""

    def __init__(self) -> None:
        """Begin."""
        self.errors: list[str] = []


@dataclasses.dataclass(frozen=True)
class Frozen(Broken):
    """Cannot be changed."""

    name: str = "frozen"


class Cancels(Observer):
    """Looks at a future that was cancelled."""

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Raise what is no Exception."""
        raise asyncio.CancelledError

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        """Raise it behind the code inside."""
        yield
        raise asyncio.CancelledError


@pytest.mark.parametrize("broken", [Collects(), Frozen(), Cancels()], ids=["collects", "frozen", "cancels"])
@pytest.mark.asyncio
async def test_no_saga_feels_an_observer_whatever_it_is_like(broken: Observer, reports: list[str]) -> None:
    """One that cannot be written to, one with attributes of the same name, one that raises what cancels tasks."""
    listen(reports)
    async with orchestrator(observers=[broken]) as runs:
        assert (await runs.execute(chain(step("a"), step("b"))())).success
    assert reports == [f"observer {type(broken).__name__} raised; this is reported once"]


@pytest.mark.asyncio
async def test_a_start_that_comes_to_nothing_is_heard_of_by_who_was_asked_for_headers() -> None:
    """Or what an observer keeps for a saga that is to come would stay for ever."""
    notes = Notes()
    async with memory() as storage:
        async with orchestrator(storage) as other:
            await other.execute(chain(step("a"), name="Other")(), saga_id="s")
        async with orchestrator(storage, seed="two", observers=[notes]) as runs:
            with pytest.raises(SagaAlreadyExistsError):
                await runs.execute(chain(step("a"))(), saga_id="s")
    assert notes.notes == [LeaveReason.LOST]


@pytest.mark.asyncio
async def test_a_run_that_never_began_is_not_left() -> None:
    """The caller gave up while the start waited for a slot: nobody was asked for headers."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(100)

    notes = Notes()
    cls = chain(step("a", slow, timeout=None))
    async with orchestrator(observers=[notes], limits=Limits(max_in_flight=1)) as runs:
        await runs.start(cls())
        waiting = asyncio.ensure_future(runs.start(cls()))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert notes.notes.count("Created") == 1
    assert [note for note in notes.notes if note in set(LeaveReason)] == [LeaveReason.RELEASED]


@pytest.mark.asyncio
async def test_an_observer_is_told_when_a_saga_was_created() -> None:
    """By the storage's clock, and as soon as it is known; before that there is nothing to tell."""
    seen: list[float | None] = []

    class Times(Observer):
        def headers(self, saga: SagaInfo) -> Mapping[str, str]:
            """Note what is known before the saga is."""
            seen.append(saga.created_at)
            return {}

        def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
            """Note what is known at the end."""
            seen.append(saga.created_at)

    async with memory() as storage, orchestrator(storage, observers=[Times()]) as runs:
        await runs.execute(chain(step("a"))(), saga_id="s")
        record = await runs.get("s")
    assert seen == [None, record.created_at]
