"""Whoever awaits a saga is cancelled at every single turn of the loop: it is told, and effects are undone or named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from saga import DAGSaga, InMemorySagaStorage, SagaContext, SagaOrchestrator, SagaResult, SagaStatus
from tests.virtual import VirtualClock, VirtualLoop, run_virtual

TURNS_MAX = 400


@dataclass
class Books:
    """What happened outside of the saga."""

    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)

    @property
    def left(self) -> set[str]:
        """Effects that nobody undid."""
        return set(self.done) - set(self.undone)


class Shaped(DAGSaga):
    """A saga of steps that wait in different ways."""

    saga_name = "shaped"

    def __init__(self, *, wiring: dict[str, list[str]], pivot: str = "", fails: str = "", deaf: str = "") -> None:
        """Say which steps there are, what each waits for, and which is the pivot, fails, or hears no cancellation."""
        self.wiring = wiring
        self.pivot = pivot
        self.fails = fails
        self.deaf = deaf
        self.books = Books()

    async def build(self) -> None:
        """Add the steps."""
        for name, dependencies in self.wiring.items():
            await self.add_dag_step(
                name, self._do, self._undo, dependencies=dependencies, pivot=name == self.pivot, max_retries=0
            )

    async def _do(self, ctx: SagaContext) -> str:
        name = ctx.step_name
        await _pause(name)
        if name == self.deaf:
            await _deaf()
        if name == self.fails:
            message = "refused"
            raise ValueError(message)
        self.books.done.append(name)
        await _pause(name)
        return name

    async def _undo(self, result: str | None, ctx: SagaContext) -> None:
        await _pause(ctx.step_name)
        self.books.undone.append(ctx.step_name)
        await _pause(ctx.step_name)


async def _pause(name: str) -> None:
    """Wait not at all, for one turn, or for a time."""
    match ord(name[-1]) % 3:
        case 0:
            await asyncio.sleep(0)
        case 1:
            await asyncio.sleep(1.0)
        case _:
            return


async def _deaf() -> None:
    until = asyncio.get_running_loop().time() + 2.0
    while (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


LINE = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}
DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
WIDE: dict[str, list[str]] = {"a": [], "b": [], "c": [], "d": []}

SHAPES: dict[str, Callable[[], Shaped]] = {
    "line": lambda: Shaped(wiring=LINE),
    "diamond": lambda: Shaped(wiring=DIAMOND),
    "wide": lambda: Shaped(wiring=WIDE),
    "line that fails": lambda: Shaped(wiring=LINE, fails="d"),
    "diamond that fails": lambda: Shaped(wiring=DIAMOND, fails="d"),
    "diamond that fails inside": lambda: Shaped(wiring=DIAMOND, fails="c"),
    "line with a pivot": lambda: Shaped(wiring=LINE, pivot="c"),
    "diamond with a pivot first": lambda: Shaped(wiring=DIAMOND, pivot="a"),
    "diamond with a pivot last": lambda: Shaped(wiring=DIAMOND, pivot="d"),
    "line that hears nothing": lambda: Shaped(wiring=LINE, deaf="b"),
    "diamond that hears nothing": lambda: Shaped(wiring=DIAMOND, deaf="b"),
}
by_shape = pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES.keys())


async def _cancelled_at(turns: tuple[int, ...], task: asyncio.Task[SagaResult]) -> asyncio.CancelledError | None:
    """Cancel the task at these turns from now; return the error that its caller got, or None if it ended before."""
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    planned = {loop.turns + turn for turn in turns}

    def cancel() -> None:
        if loop.turns in planned:
            task.cancel()

    loop.on_turn = cancel
    try:
        await asyncio.wait([task])
    finally:
        loop.on_turn = lambda: None
    if task.cancelled():
        try:
            task.result()
        except asyncio.CancelledError as error:
            return error
    task.result()
    return None


def _cancel_alone(make: Callable[[], Shaped], *turns: int) -> bool:
    """Run a saga alone, cancel its caller at these turns, and check; say whether it was over before that."""

    async def main() -> bool:
        saga = make()
        error = await _cancelled_at(turns, asyncio.create_task(saga.execute()))
        if error is None:
            return True
        books = saga.books
        left = books.left
        notes = "".join(getattr(error, "__notes__", []))
        named = {name for name in saga.wiring if f"'{name}'" in notes}
        assert left <= named, f"cancelled at {turns}: {left} are left and the note names {named}: {notes!r}"
        if saga.pivot in books.done:
            assert not books.undone, (
                f"cancelled at {turns}: {books.undone} are undone although the pivot has its effect"
            )
        else:
            over = "is completed" in notes
            assert not left or saga.pivot or over, f"cancelled at {turns}: {left} are left and there is no pivot"
        before = (list(books.done), list(books.undone))
        await asyncio.sleep(100.0)
        assert before == (books.done, books.undone), f"cancelled at {turns}: it went on in the background"
        return False

    return run_virtual(main(), collect=False)


@by_shape
def test_a_cancelled_saga_alone_tells_its_caller_and_leaves_nothing_unnamed(make: Callable[[], Shaped]) -> None:
    """At whichever turn: CancelledError reaches the caller, and what had its effect is undone or named in the note."""
    turn = 1
    while not _cancel_alone(make, turn):
        turn += 1
        assert turn < TURNS_MAX
    assert turn > 10, "the saga has many turns, each of which was tried"


@by_shape
def test_further_cancellations_do_not_cut_the_undoing_short(make: Callable[[], Shaped]) -> None:
    """A caller that is cancelled twice is still told once everything is undone or named."""
    for gap in (1, 4):
        turn = 1
        while not _cancel_alone(make, turn, turn + gap):
            turn += 1
            assert turn < TURNS_MAX


@by_shape
def test_a_timeout_around_a_saga_alone_is_a_timeout(make: Callable[[], Shaped]) -> None:
    """`asyncio.timeout` around `execute()` turns its cancellation into TimeoutError, whenever it fires."""

    async def main(seconds: float) -> bool:
        saga = make()
        try:
            async with asyncio.timeout(seconds):
                await saga.execute()
        except TimeoutError:
            return False
        return True

    seconds = 0.0
    while not run_virtual(main(seconds), collect=False):
        seconds += 0.5
        assert seconds < 60.0


@by_shape
def test_cancelling_who_waits_for_an_orchestrator_leaves_the_saga_alone(make: Callable[[], Shaped]) -> None:
    """At whichever turn the caller is cancelled, the saga is either not stored at all or comes to its own end."""

    async def main(turn: int) -> bool:
        saga = make()
        clock = VirtualClock(turn)
        async with InMemorySagaStorage(clock=clock) as storage, SagaOrchestrator(storage, clock=clock) as orchestrator:
            task = asyncio.create_task(orchestrator.execute(saga, saga_id="one"))
            error = await _cancelled_at((turn,), task)
            await asyncio.sleep(100.0)
            stored = await storage.load(["one"])
            if error is None or stored:
                expected = SagaStatus.ROLLED_BACK if saga.fails else SagaStatus.COMPLETED
                assert stored[0].record.status is expected, f"cancelled at {turn}"
                started = set(saga.wiring) - {saga.fails}
                assert len(saga.books.done) == len(set(saga.books.done)), f"cancelled at {turn}: an action ran twice"
                assert saga.fails or set(saga.books.done) == started, f"cancelled at {turn}"
                assert saga.books.left == (set() if saga.fails else started), f"cancelled at {turn}"
            else:
                assert not saga.books.done, f"cancelled at {turn}: nothing is stored"
        return error is None

    turn = 1
    while not run_virtual(main(turn), collect=False):
        turn += 1
        assert turn < TURNS_MAX
    assert turn > 10, "the saga has many turns, each of which was tried"
