"""Every single fault at every step of every domain: the saga ends as it should, and the services' ledgers add up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from saga import AttentionCode, Phase, SagaResult, SagaStatus, StepStatus, definition_of
from sagas.demo.domain import Domain
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plays(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[Domain], Awaitable[Play]]]:
    """A stage for each domain, set when it is first asked for: what a test leaves behind is the next one's problem."""
    async with AsyncExitStack() as stack:
        playing_now: dict[str, Play] = {}

        async def play_of(domain: Domain) -> Play:
            if domain.name not in playing_now:
                set_stage = playing(domain, tmp_path_factory.mktemp(domain.name), CASES)
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


def statuses(results: Iterable[SagaResult]) -> set[SagaStatus]:
    """Return how they ended."""
    return {result.status for result in results}


async def test_without_a_fault_it_completes(play: Play, domain: Domain) -> None:
    """The plain case."""
    result = await play.run(domain.plain("plain"))

    result.raise_for_status()
    assert await play.complaints() == []


@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_passes_is_got_over_at_every_step(play: Play, domain: Domain, fault: str) -> None:
    """Whether the effect took place or not: the repeat under the same key makes it once."""
    steps = await calling(domain)
    name = fault.partition("=")[0]
    results = await asyncio.gather(
        *(play.run(domain.plain(f"{name}-{step}"), StepFault(step=step, fault=fault)) for step in steps)
    )

    assert statuses(results) == {SagaStatus.COMPLETED}
    attempts = [
        step.attempts for name, result in zip(steps, results, strict=True) for step in result.steps if step.name == name
    ]
    assert min(attempts) >= 2, "each was asked again"
    assert await play.complaints() == []


async def test_a_refusal_before_or_at_the_pivot_turns_the_saga_back(play: Play, domain: Domain) -> None:
    """Nothing is left of it."""
    after = await after_pivot(domain)
    steps = [step for step in await calling(domain) if step not in after]
    results = await asyncio.gather(
        *(play.run(domain.plain(f"no-{step}"), StepFault(step=step, fault="decline")) for step in steps)
    )

    assert statuses(results) == {SagaStatus.ROLLED_BACK}
    assert [result.error.step for result in results if result.error is not None] == steps
    assert await play.complaints() == []


async def test_a_refusal_after_the_pivot_waits_for_a_person(play: Play, domain: Domain) -> None:
    """Nothing is undone; once somebody has looked at it, it goes on and completes."""
    steps = sorted(await after_pivot(domain))
    cases = [domain.plain(f"wait-{step}") for step in steps]
    results = await asyncio.gather(
        *(play.run(case, StepFault(step=step, fault="decline")) for step, case in zip(steps, cases, strict=True))
    )

    waiting = [(result.status, result.attention and result.attention.code) for result in results]
    assert waiting == [(SagaStatus.EXECUTING, AttentionCode.PARKED)] * len(steps)
    retried = await asyncio.gather(*(play.retry(case) for case in cases))
    assert retried == [SagaStatus.COMPLETED] * len(steps)
    assert await play.complaints() == []


@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_stays_turns_the_saga_back(play: Play, domain: Domain, fault: str) -> None:
    """Nobody ever learns what became of the calls: the undo names their key, and late effects meet its tombstone."""
    steps = await giving_up(domain)
    name = fault.partition("=")[0]
    results = await asyncio.gather(
        *(
            play.run(domain.plain(f"stays-{name}-{step}"), StepFault(step=step, fault=fault, times=MANY))
            for step in steps
        )
    )

    assert statuses(results) == {SagaStatus.ROLLED_BACK}
    assert await play.complaints() == []


@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_in_an_undo_is_got_over_at_every_step(play: Play, domain: Domain, fault: str) -> None:
    """The saga is refused at its pivot, and each undo goes wrong once."""
    pivot, name = await pivot_of(domain), fault.partition("=")[0]
    refusal = StepFault(step=pivot, fault="decline")
    steps = await undone_by_the_end(domain)
    results = await asyncio.gather(
        *(
            play.run(
                domain.plain(f"undo-{name}-{step}"),
                refusal,
                StepFault(step=step, fault=fault, phase=Phase.COMPENSATION),
            )
            for step in steps
        )
    )

    assert statuses(results) == {SagaStatus.ROLLED_BACK}
    tried = [
        step.compensation_attempts
        for name, result in zip(steps, results, strict=True)
        for step in result.steps
        if step.name == name
    ]
    assert tried == [2] * len(steps)
    assert await play.complaints() == []


async def test_a_refused_undo_is_a_failure_until_a_person_looks(play: Play, domain: Domain) -> None:
    """It is not repeated, and never called a success; the other undos are tried. Then somebody says: retry."""
    refusal = StepFault(step=await pivot_of(domain), fault="decline")
    steps = await undone_by_the_end(domain)
    cases = [domain.plain(f"refused-{step}") for step in steps]
    faults = [StepFault(step=step, fault="decline", phase=Phase.COMPENSATION) for step in steps]
    results = await asyncio.gather(*(play.run(case, refusal, fault) for case, fault in zip(cases, faults, strict=True)))

    assert statuses(results) == {SagaStatus.FAILED}
    for step, result in zip(steps, results, strict=True):
        failed = [record.name for record in result.steps if record.status is StepStatus.COMPENSATION_FAILED]
        # An undo that needs another one to be done first fails with it: money that was not refunded cannot be voided.
        assert step in failed
    assert set(await asyncio.gather(*(play.retry(case) for case in cases))) == {SagaStatus.ROLLED_BACK}
    assert await play.complaints() == []


async def test_an_effect_that_comes_after_the_end_is_refused(play: Play, domain: Domain) -> None:
    """Every call is later than the saga: its undo was there before, and has laid a tombstone for each key."""
    steps = await undone_by_the_end(domain)
    before = await tombstones(play)
    began = time.monotonic()
    fault = f"slow={AFTER_THE_END_SECONDS}"
    results = await asyncio.gather(
        *(play.run(domain.plain(f"late-{step}"), StepFault(step=step, fault=fault, times=MANY)) for step in steps)
    )
    assert statuses(results) == {SagaStatus.ROLLED_BACK}
    assert await tombstones(play) - before >= len(steps)
    # Longer than the last call sleeps: only now can it have done harm.
    await asyncio.sleep(AFTER_THE_END_SECONDS + 1.0)
    assert time.monotonic() - began > AFTER_THE_END_SECONDS
    assert await play.complaints() == []


async def tombstones(play: Play) -> int:
    """Return how many undos came before their actions."""
    ledgers = (await play.stage.books()).ledgers.values()
    return sum(row["operation"] == "tombstone" for ledger in ledgers for row in ledger)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_is_killed_in_any_step_leaves_a_saga_that_completes(
    play: Play, domain: Domain, when: str
) -> None:
    """Before the step's first line or after its effect: another process completes the saga."""
    crashes = [Crash(step=step, when="before" if when == "before" else "after") for step in await steps_of(domain)]
    ends = await asyncio.gather(*(play.kill(domain.plain(f"{when}-{crash.step}"), crash) for crash in crashes))

    assert set(ends) == {SagaStatus.COMPLETED}
    assert await play.complaints() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_is_killed_in_any_undo_leaves_a_saga_that_is_undone(
    play: Play, domain: Domain, when: str
) -> None:
    """The saga was refused at its pivot; another process undoes the rest, and what is undone already only once."""
    refusal = StepFault(step=await pivot_of(domain), fault="decline")
    crashes = [
        Crash(step=step, when="before" if when == "before" else "after", phase=Phase.COMPENSATION)
        for step in await undone_by_the_end(domain)
    ]
    ends = await asyncio.gather(
        *(play.kill(domain.plain(f"undo-{when}-{crash.step}"), crash, refusal) for crash in crashes)
    )

    assert set(ends) == {SagaStatus.ROLLED_BACK}
    assert await play.complaints() == []
