"""Starting sagas: one instance is one run, one id one saga, whoever asks and whoever gives up meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from saga import (
    Limits,
    Saga,
    SagaAlreadyExistsError,
    SagaContext,
    SagaExecutionError,
    SagaOrchestrator,
    SagaResult,
    SagaValidationError,
)
from tests.unit.kit import chain, orchestrator, step


class Slowly(Saga):
    """A saga whose build() waits, so that several may ask for it meanwhile."""

    def __init__(self) -> None:
        """Nothing has run."""
        self.ran: list[str] = []

    async def build(self) -> None:
        """Wait, then add a step."""
        await asyncio.sleep(1)
        await self.add_step("a", self.act)

    async def act(self, ctx: SagaContext) -> None:
        """Note the run."""
        self.ran.append(ctx.saga_id)


def refusals(answers: list[SagaResult | BaseException]) -> list[str]:
    """Return the texts of what was refused."""
    for answer in answers:
        assert isinstance(answer, SagaResult | SagaExecutionError)
    return [str(answer) for answer in answers if isinstance(answer, SagaExecutionError)]


@pytest.mark.asyncio
async def test_an_instance_that_is_asked_for_in_two_places_while_it_is_built_runs_in_one() -> None:
    """By itself, or by the orchestrator: never both."""
    saga = Slowly()
    async with orchestrator() as runs:
        answers = await asyncio.gather(saga.execute(), runs.execute(saga), return_exceptions=True)
    assert len(saga.ran) == 1
    assert len(refusals(answers)) == 1
    assert "one instance is one run" in refusals(answers)[0]


@pytest.mark.asyncio
async def test_an_instance_that_is_asked_for_under_two_ids_while_it_is_built_runs_under_one() -> None:
    """The other call gets no result that is not its own."""
    saga = Slowly()
    async with orchestrator() as runs:
        answers = await asyncio.gather(
            runs.execute(saga, saga_id="p"), runs.execute(saga, saga_id="q"), return_exceptions=True
        )
    assert saga.ran == [saga.saga_id]
    assert len(refusals(answers)) == 1
    assert "cannot run as" in refusals(answers)[0]


@pytest.mark.asyncio
async def test_a_start_does_not_fail_because_somebody_else_gave_up_the_same_one() -> None:
    """Two asked for one id while there was no slot; the first was cancelled, as a web server does."""
    gate = asyncio.Event()

    async def wait(ctx: SagaContext) -> None:
        await gate.wait()

    blocking, wanted = chain(step(action=wait, timeout=None)), chain(step(), name="Wanted")
    async with orchestrator(limits=Limits(max_in_flight=1)) as runs:
        await runs.start(blocking(), saga_id="blocks")
        first = asyncio.create_task(runs.execute(wanted(), saga_id="x"))
        await asyncio.sleep(1)
        second = asyncio.create_task(runs.execute(wanted(), saga_id="x"))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(1)
        gate.set()
        async with asyncio.timeout(100):
            assert (await second).success


@pytest.mark.asyncio
async def test_a_start_that_waits_for_a_slot_while_the_orchestrator_stops_says_so() -> None:
    """It was not its caller who gave up; whoever asked for the same id is told the same."""
    gate = asyncio.Event()

    async def wait(ctx: SagaContext) -> None:
        await gate.wait()

    wanted = chain(step(), name="Wanted")
    async with orchestrator(limits=Limits(max_in_flight=1)) as runs:
        await runs.start(chain(step(action=wait, timeout=None))(), saga_id="blocks")
        asked = [asyncio.create_task(runs.execute(wanted(), saga_id="x")) for _ in range(2)]
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_later(1, gate.set)
    for each in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(each, SagaExecutionError)
        assert "saga x was not started: the orchestrator stopped" in str(each)


@pytest.mark.asyncio
async def test_an_instance_that_was_refused_its_id_may_have_another() -> None:
    """It has not run as anything yet."""
    async with orchestrator() as runs:
        await runs.execute(chain(step(), name="First")(), saga_id="x")
        saga = chain(step(), name="Second")()
        with pytest.raises(SagaAlreadyExistsError):
            await runs.execute(saga, saga_id="x")
        with pytest.raises(SagaExecutionError, match="has no id yet"):
            _ = saga.saga_id
        result = await runs.execute(saga, saga_id="y")
    assert (result.success, result.saga_id) == (True, "y")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"storage": "sqlite:///sagas.db"}, "storage must be a SagaStorage, such as open_storage"),
        ({"limits": {"max_in_flight": 3}}, "limits must be a Limits"),
        ({"resources": ["http"]}, "resources must be a mapping"),
    ],
)
def test_what_an_orchestrator_cannot_work_with_is_refused_at_once(options: dict[str, Any], told: str) -> None:
    """Not when the first saga comes."""
    with pytest.raises(SagaValidationError, match=told):
        SagaOrchestrator(**options)


@pytest.mark.asyncio
async def test_an_instance_that_is_executed_alone_twice_at_once_runs_once() -> None:
    """Both get the one result."""
    saga = Slowly()
    first, second = await asyncio.gather(saga.execute(), saga.execute())
    assert first.saga_id == second.saga_id
    assert len(saga.ran) == 1
