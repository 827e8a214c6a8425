"""Every single fault at every step of every domain: the saga ends as it should, and the services' ledgers add up."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from saga import (
    AttentionCode,
    Observer,
    Outcome,
    Phase,
    SagaContext,
    SagaInfo,
    SagaResult,
    SagaStatus,
    StepRecord,
    StepStatus,
    definition_of,
)
from sagas.demo.domain import Case, Domain
from sagas.demo.domains import DOMAINS
from sagas.demo.plan import Crash, StepFault
from tests.acceptance.play import LATE, Play, pivot_of, playing, steps_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSING = ("error-before", "error-after", "reply-lost", LATE)
"""What a repeat of the call gets over."""

CASES = 200
"""So many find what they need at the services."""

AFTER_THE_END_SECONDS = 12.0
"""Longer than all attempts of a step before the pivot take."""

MANY = 25
"""More often than any policy of a step before the pivot asks."""


@pytest.fixture(params=DOMAINS)
def domain(request: pytest.FixtureRequest) -> Domain:
    """Each of the four."""
    return DOMAINS[request.param]


class Hindrance(Observer):
    """Puts a real cause for a refusal in the way of steps, and mends it.

    What a service holds is given back behind everybody's back just before the step asks for it; a mail server does not
    know the recipient.
    """

    def __init__(self) -> None:
        self._planned: dict[tuple[str, str], Callable[[], None]] = {}
        self._mending: list[Callable[[], None]] = []

    def put_before(self, play: Play, case: Case, step: str) -> None:
        """Have this step of this case refused."""
        if step == "notify":
            play.stage.mailbox.answers[case.email] = "550 no such user"
            self._mending.append(play.stage.mailbox.answers.clear)
        elif step in HOLDERS:
            file = play.stage.directory / f"{HOLDERS[step]}.db"
            self._planned[case.number, step] = lambda: _rename(file, case.number, "held", "released")
            self._mending.append(lambda: _rename(file, case.number, "released", "held"))

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        """Put it there before the step's code runs."""
        self._planned.pop((saga.saga_id, ctx.step_name), lambda: None)()
        yield

    def mend(self) -> None:
        """Take all of it away."""
        for mend in self._mending:
            mend()
        self._mending.clear()


HOLDERS = {
    "commit_stock": "inventory",
    "dispatch": "shipping",
    "fill_venue_south": "venue_south",
    "clear": "brokerage",
    "confirm_flight": "airline",
    "confirm_hotel": "hotel",
    "confirm_car": "car_rental",
}
"""Which service holds what a step after the pivot uses."""


def _rename(file: Path, reference: str, old: str, new: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("UPDATE holdings SET status = ? WHERE reference = ? AND status = ?", (new, reference, old))


@pytest.fixture(scope="module")
def hindrance() -> Hindrance:
    """Watches all stages of this module."""
    return Hindrance()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plays(
    tmp_path_factory: pytest.TempPathFactory, hindrance: Hindrance
) -> AsyncIterator[Callable[[Domain], Awaitable[Play]]]:
    """A stage for each domain, set when it is first asked for: what a test leaves behind is the next one's problem."""
    async with AsyncExitStack() as stack:
        playing_now: dict[str, Play] = {}

        async def play_of(domain: Domain) -> Play:
            if domain.name not in playing_now:
                set_stage = playing(domain, tmp_path_factory.mktemp(domain.name), CASES, hindrance)
                playing_now[domain.name] = await stack.enter_async_context(set_stage)
            return playing_now[domain.name]

        yield play_of


@pytest_asyncio.fixture(loop_scope="module")
async def play(domain: Domain, plays: Callable[[Domain], Awaitable[Play]]) -> Play:
    """The domain's stage."""
    return await plays(domain)


async def calling(domain: Domain) -> list[str]:
    """Return the steps that call a service."""
    return [name for name in await steps_of(domain) if name not in domain.local]


async def undone_by_the_end(domain: Domain) -> list[str]:
    """Return the steps that have a compensation and come before the pivot."""
    pivot = await pivot_of(domain)
    return [step.name for step in (await steps_of(domain)).values() if step.compensation and step.name != pivot]


async def giving_up(domain: Domain) -> list[str]:
    """Return the steps before the pivot that are not repeated for ever, and call a service."""
    pivot, after = await pivot_of(domain), await after_pivot(domain)
    return [
        step.name
        for step in (await steps_of(domain)).values()
        if step.name != pivot and step.name not in after and step.retry is not None and step.retry.max_attempts
    ]


async def after_pivot(domain: Domain) -> frozenset[str]:
    """Return the steps that come after the pivot."""
    return (await definition_of(domain.plain("any").saga())).graph.after_pivot


def statuses(results: Iterable[tuple[str, SagaResult]]) -> set[SagaStatus]:
    """Return how they ended."""
    return {result.status for _, result in results}


async def test_without_a_fault_it_completes(play: Play, domain: Domain) -> None:
    """The plain case."""
    result = await play.run(domain.plain("plain"))

    result.raise_for_status()
    assert await play.complaints() == []


async def run_each(
    play: Play, name: str, steps: Iterable[str], *more: StepFault, times: int = 1, phase: Phase = Phase.ACTION
) -> list[tuple[str, SagaResult]]:
    """Run a case for each of these steps and each fault that passes, side by side; return each step with its result."""
    broken = [(step, fault) for step in steps for fault in PASSING]
    results = await asyncio.gather(
        *(
            play.run(
                play.stage.domain.plain(f"{name}-{step}-{fault.partition('=')[0]}"),
                StepFault(step=step, fault=fault, times=times, phase=phase),
                *more,
            )
            for step, fault in broken
        )
    )
    return [(step, result) for (step, _), result in zip(broken, results, strict=True)]


def records(results: Iterable[tuple[str, SagaResult]]) -> list[StepRecord]:
    """Return what became of the step that was broken, for each result."""
    return [record for step, result in results for record in result.steps if record.name == step]


async def test_a_fault_that_passes_is_got_over_at_every_step(play: Play, domain: Domain) -> None:
    """Whether the effect took place or not: the repeat under the same key makes it once."""
    results = await run_each(play, "passes", await calling(domain))

    assert statuses(results) == {SagaStatus.COMPLETED}
    assert min(record.attempts for record in records(results)) >= 2, "each was asked again"
    assert await play.complaints() == []


async def test_a_refusal_before_or_at_the_pivot_turns_the_saga_back(play: Play, domain: Domain) -> None:
    """Nothing is left of it."""
    after = await after_pivot(domain)
    steps = [step for step in await calling(domain) if step not in after]
    results = await asyncio.gather(
        *(play.run(domain.plain(f"no-{step}"), StepFault(step=step, fault="decline")) for step in steps)
    )

    assert {result.status for result in results} == {SagaStatus.ROLLED_BACK}
    assert [result.error.step for result in results if result.error is not None] == steps
    assert await play.complaints() == []


async def test_a_refusal_after_the_pivot_waits_for_a_person(play: Play, domain: Domain, hindrance: Hindrance) -> None:
    """Nothing is undone; a look changes nothing as long as the cause is there. It is mended: the saga completes."""
    steps = sorted(await after_pivot(domain))
    cases = [domain.plain(f"wait-{step}") for step in steps]
    for case, step in zip(cases, steps, strict=True):
        hindrance.put_before(play, case, step)
    # A report has no cause of its own to be refused.
    faults = [[StepFault(step=step, fault="decline", times=2)] if step == "report" else [] for step in steps]
    results = await asyncio.gather(*(play.run(case, *more) for case, more in zip(cases, faults, strict=True)))

    waiting = [(result.status, result.attention and result.attention.code) for result in results]
    assert waiting == [(SagaStatus.EXECUTING, AttentionCode.PARKED)] * len(steps)
    too_early = await asyncio.gather(*(play.retry(case) for case in cases))
    assert too_early == [SagaStatus.EXECUTING] * len(steps)
    hindrance.mend()
    retried = await asyncio.gather(*(play.retry(case) for case in cases))
    assert retried == [SagaStatus.COMPLETED] * len(steps)
    assert await play.complaints() == []


async def test_a_fault_that_stays_turns_the_saga_back(play: Play, domain: Domain) -> None:
    """Nobody ever learns what became of the calls: the undo names their key, and gives back what there is."""
    results = await run_each(play, "stays", await giving_up(domain), times=MANY)

    assert statuses(results) == {SagaStatus.ROLLED_BACK}
    assert {record.outcome for record in records(results)} == {Outcome.UNKNOWN}
    assert await play.complaints() == []


async def test_a_fault_in_an_undo_is_got_over_at_every_step(play: Play, domain: Domain) -> None:
    """The saga is refused at its pivot, and each undo goes wrong once."""
    refusal = StepFault(step=await pivot_of(domain), fault="decline")
    steps = await undone_by_the_end(domain)
    results = await run_each(play, "undo", steps, refusal, phase=Phase.COMPENSATION)

    assert statuses(results) == {SagaStatus.ROLLED_BACK}
    assert min(record.compensation_attempts for record in records(results)) >= 2, "each was asked again"
    assert await play.complaints() == []


async def test_a_refused_undo_is_a_failure_until_a_person_looks(play: Play, domain: Domain) -> None:
    """It is not repeated, and never called a success; the other undos are tried. Then somebody says: retry."""
    refusal = StepFault(step=await pivot_of(domain), fault="decline")
    steps = await undone_by_the_end(domain)
    cases = [domain.plain(f"refused-{step}") for step in steps]
    faults = [StepFault(step=step, fault="decline", phase=Phase.COMPENSATION) for step in steps]
    results = await asyncio.gather(*(play.run(case, refusal, fault) for case, fault in zip(cases, faults, strict=True)))

    assert {result.status for result in results} == {SagaStatus.FAILED}
    for step, result in zip(steps, results, strict=True):
        failed = [record.name for record in result.steps if record.status is StepStatus.COMPENSATION_FAILED]
        # An undo that needs another one to be done first fails with it: money that was not refunded cannot be voided.
        assert step in failed
    assert set(await asyncio.gather(*(play.retry(case) for case in cases))) == {SagaStatus.ROLLED_BACK}
    assert await play.complaints() == []


@pytest.mark.timeout(180)
async def test_an_effect_that_comes_after_the_end_is_refused(plays: Callable[[Domain], Awaitable[Play]]) -> None:
    """Every call is later than the saga: its undo was there before, and has laid a tombstone for each key."""
    fault = f"slow={AFTER_THE_END_SECONDS}"

    async def run_late(domain: Domain) -> None:
        play, steps = await plays(domain), await undone_by_the_end(domain)
        before = await refused(play)
        results = await asyncio.gather(
            *(play.run(domain.plain(f"late-{step}"), StepFault(step=step, fault=fault, times=MANY)) for step in steps)
        )
        assert {result.status for result in results} == {SagaStatus.ROLLED_BACK}
        assert await refused(play) == before, "no call has arrived yet"
        # Only once all of them have arrived can none of them do harm any more.
        calls = sum(record.attempts for record in records(zip(steps, results, strict=True)))
        async with asyncio.timeout(2 * AFTER_THE_END_SECONDS):
            while await refused(play) - before < calls:  # noqa: ASYNC110 - what is asked is another process
                await asyncio.sleep(0.2)
        assert await play.complaints() == []

    await asyncio.gather(*(run_late(domain) for domain in DOMAINS.values()))


async def refused(play: Play) -> int:
    """Return how many calls came after their undo."""
    return sum((await play.stage.books()).refused.values())


async def test_a_worker_that_is_killed_in_any_step_leaves_a_saga_that_completes(play: Play, domain: Domain) -> None:
    """Before the step's first line or after its effect: another process completes the saga."""
    crashes = [
        crash for step in await steps_of(domain) for crash in (Crash(step=step, when="before"), Crash(step=step))
    ]
    ends = await asyncio.gather(*(play.kill(domain.plain(f"{crash.when}-{crash.step}"), crash) for crash in crashes))

    assert set(ends) == {SagaStatus.COMPLETED}
    assert await play.complaints() == []


async def test_a_worker_that_is_killed_in_any_undo_leaves_a_saga_that_is_undone(play: Play, domain: Domain) -> None:
    """The saga was refused at its pivot; another process undoes the rest, and what is undone already only once."""
    refusal, undo = StepFault(step=await pivot_of(domain), fault="decline"), Phase.COMPENSATION
    crashes = [
        crash
        for step in await undone_by_the_end(domain)
        for crash in (Crash(step=step, when="before", phase=undo), Crash(step=step, phase=undo))
    ]
    ends = await asyncio.gather(
        *(play.kill(domain.plain(f"undo-{crash.when}-{crash.step}"), crash, refusal) for crash in crashes)
    )

    assert set(ends) == {SagaStatus.ROLLED_BACK}
    assert await play.complaints() == []
