"""One life of a process that drives sagas, to be cut off where its request says.

A life is told what to do by a ``Request`` and leaves a ``Report`` in its directory if it gets to its end. The signal
is sent by the process to itself, in the very thread that writes or runs the step, so every planned death is exact.
"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from saga import (
    AttentionCode,
    Limits,
    Observer,
    SagaFilter,
    SagaInfo,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStatus,
    SQLiteSagaStorage,
)
from saga.clock import SystemClock
from saga.events import Event
from tests.crash.stories import CLASSES, STORIES
from tests.crash.world import World

POLL_SECONDS = 0.005
NEVER = 1_000_000.0
AT_REST = (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK, SagaStatus.FAILED)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Where a life is cut off: at a storage write, or in user code.

    Attributes:
        write: Which write it is, counted from 1; 0 for user code.
        instant: ``before`` the statements, ``written`` (before COMMIT) or ``committed`` (before the caller knows).
        place: Step, phase, and ``before`` or ``after`` its effect.
        stop: Whether the process is only stopped (SIGSTOP) instead of killed.
    """

    write: int = 0
    instant: str = ""
    place: tuple[str, str, str] | None = None
    stop: bool = False


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a life is for.

    Attributes:
        directory: Where the files are.
        story: Which story the sagas tell.
        role: ``first`` starts the saga and waits for it; ``heir`` finishes what it finds, and starts the saga only if
            it finds none; ``crowd`` starts all of ``sagas`` and dies once each waits at its gate; ``share`` takes sagas
            over, a few at a time, until none is unfinished.
        sagas: The ids.
        ahead: How many seconds this life's clock is ahead: leases of earlier lives have run out for it.
        gate: The step that waits until the file ``open`` is there; empty for none.
        pause: Up to so many seconds each action takes longer.
        lease: The lease's ttl in seconds.
        sweep: Seconds between two sweeps.
        cut: Where it is cut off.
    """

    directory: str
    story: str = ""
    role: str = "first"
    sagas: tuple[str, ...] = ("s-1",)
    ahead: float = 0.0
    gate: str = ""
    pause: float = 0.0
    lease: float = 15.0
    sweep: float = NEVER
    cut: Cut | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a life that came to its end leaves.

    Attributes:
        writes: How many storage writes it made.
        journals: All facts of each saga, in order.
        statuses: Where each saga is.
        seen: The facts of each saga that this process appended itself, in order.
        left: Why it stopped driving each saga that it drove.
    """

    writes: int
    journals: dict[str, list[dict[str, Any]]]
    statuses: dict[str, SagaStatus]
    seen: dict[str, list[dict[str, Any]]]
    left: dict[str, str]


class AheadClock(SystemClock):
    """The system's clock, some seconds ahead."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self._ahead = ahead

    def now(self) -> float:
        """Return the wall time."""
        return super().now() + self._ahead

    def boot_time(self) -> float:
        """Return the time since the boot, by which leases go."""
        return super().boot_time() + self._ahead


class MortalStorage(SQLiteSagaStorage):
    """SQLite storage that counts its writes once it is armed, and cuts its process off at one of them."""

    def __init__(self, path: Path, clock: SystemClock, cut: Cut | None) -> None:
        super().__init__(path, clock=clock)
        self.armed = False
        self.writes = 0
        self._cut = cut

    def _at(self, instant: str, saga_ids: Sequence[str]) -> None:
        if not self.armed:
            return
        self.writes += instant == "before"
        if self._cut is not None and (self._cut.write, self._cut.instant) == (self.writes, instant):
            cut_off(self._cut)


class Witness(Observer):
    """Keeps the facts that this process appended."""

    def __init__(self) -> None:
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self.left: dict[str, str] = {}

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Keep the fact."""
        self.seen.setdefault(saga.saga_id, []).append(plain(event))

    def on_leave(self, saga: SagaInfo, reason: str) -> None:
        """Keep the reason."""
        self.left[saga.saga_id] = str(reason)


def plain(event: Event) -> dict[str, Any]:
    """Return a fact as it is stored."""
    fact: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return fact


def cut_off(cut: Cut) -> None:
    """End this process here, or stop it until somebody lets it go on."""
    # SIGSTOP to the process would stop whichever thread takes it first, and this one would still run for a while.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if cut.stop else signal.SIGKILL)


async def live(request: Request) -> Report:
    """Live as requested."""
    directory = Path(request.directory)
    clock = AheadClock(request.ahead)
    world = World(directory)
    if request.cut is not None and request.cut.place is not None:
        cut = request.cut
        world.on_place = lambda *place: cut_off(cut) if place == cut.place else None
    witness = Witness()
    gate = Gate(request.gate, directory / "open", request.pause)
    async with (
        MortalStorage(directory / "sagas.db", clock, request.cut) as storage,
        SagaOrchestrator(
            storage,
            sagas=CLASSES,
            observers=[witness],
            resources={"world": world, "gate": gate},
            limits=Limits(max_in_flight=2) if request.role == "share" else None,
            lease_ttl=request.lease,
            sweep_interval=request.sweep,
            clock=clock,
        ) as orchestrator,
    ):
        await ROLES[request.role](request, storage, orchestrator, gate)
        stored = await storage.load(request.sagas)
        return Report(
            writes=storage.writes,
            journals={
                saga.record.saga_id: [plain(fact) for entry in saga.entries for fact in entry.events] for saga in stored
            },
            statuses={saga.record.saga_id: saga.record.status for saga in stored},
            seen=witness.seen,
            left=witness.left,
        )


class Gate:
    """Lets actions take a while, and those of one name wait for a file."""

    def __init__(self, step: str, file: Path, pause: float) -> None:
        self._step = step
        self._file = file
        self._pause = pause
        self.waiting = 0

    async def __call__(self, step: str) -> None:
        """Pause, and wait for the file if it is this step."""
        if self._pause:
            await asyncio.sleep(self._pause * random.random())  # noqa: S311 - spreads, guards nothing
        if step == self._step:
            self.waiting += 1
            while not self._file.exists():  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(POLL_SECONDS)


async def _first(request: Request, storage: MortalStorage, orchestrator: SagaOrchestrator, gate: Gate) -> None:
    await _after_the_first_sweep(orchestrator)
    storage.armed = True
    await orchestrator.execute(STORIES[request.story].make(), saga_id=request.sagas[0])


async def _heir(request: Request, storage: MortalStorage, orchestrator: SagaOrchestrator, gate: Gate) -> None:
    storage.armed = True
    await _after_the_first_sweep(orchestrator)
    try:
        while (await orchestrator.get(request.sagas[0])).status not in AT_REST:  # noqa: ASYNC110 - as its users look
            await asyncio.sleep(POLL_SECONDS)
    except SagaNotFoundError:
        await orchestrator.execute(STORIES[request.story].make(), saga_id=request.sagas[0])


async def _crowd(request: Request, storage: MortalStorage, orchestrator: SagaOrchestrator, gate: Gate) -> None:
    for saga_id in request.sagas:
        await orchestrator.start(STORIES[request.story].make(), saga_id=saga_id)
    while gate.waiting < len(request.sagas):  # noqa: ASYNC110 - what counts is that all have come
        await asyncio.sleep(POLL_SECONDS)
    cut_off(Cut())


async def _share(request: Request, storage: MortalStorage, orchestrator: SagaOrchestrator, gate: Gate) -> None:
    while True:
        while (await orchestrator.statistics()).oldest_unfinished_at is not None:  # noqa: ASYNC110 - also others' sagas
            await asyncio.sleep(POLL_SECONDS)
        # Whoever kills without mercy brings a saga to rest that crashed too often in a row; then a person says go on.
        page = await orchestrator.query(SagaFilter(attention=True), limit=500)
        looping = [
            row.saga_id for row in page.items if row.attention and row.attention.code is AttentionCode.CRASH_LOOP
        ]
        if not looping:
            return
        for saga_id in looping:
            await orchestrator.retry(saga_id, "it was the test that killed its processes")


async def _after_the_first_sweep(orchestrator: SagaOrchestrator) -> None:
    """Return when the sweep that every orchestrator begins with is over, so that a run's writes are always the same."""
    # The second call waits behind the orchestrator's own sweep, which waits behind the first.
    await orchestrator.recover()
    await orchestrator.recover()


Role = Callable[[Request, MortalStorage, SagaOrchestrator, Gate], Awaitable[None]]
ROLES: dict[str, Role] = {"first": _first, "heir": _heir, "crowd": _crowd, "share": _share}
