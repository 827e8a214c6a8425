"""The storage contract: creating and appending."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from saga.exceptions import (
    SagaAlreadyExistsError,
    SagaClaimLostError,
    SagaNotFoundError,
    SagaValidationError,
    SagaVersionMovedError,
)
from saga.storage.base import Appended
from saga.testing.contract_kit import (
    FACTS,
    NAME,
    RUNNING,
    TTL,
    VERSION,
    ContractBase,
    append,
    at_rest,
    attention,
    began,
    claim,
    claim_due,
    create,
    record,
    request,
    row,
    stored,
    write_id,
)
from saga.types import AT_REST, SagaStatus

if TYPE_CHECKING:
    from saga.testing.clock import FakeClock


class Creating(ContractBase):
    """What ``create`` promises."""

    @pytest.mark.asyncio
    async def test_a_new_saga_reads_back_as_it_was_given(self, clock: FakeClock) -> None:
        """Row and facts are those of ``create``, stamped by the storage, at version 1."""
        async with self.storage(clock) as storage:
            look = attention(blocking=False)
            answer = await create(storage, "s", first_row=row(due_in=7.5, attention=look, recoveries=1))
            found = await stored(storage, "s")
        assert type(answer) is Appended
        assert answer.at == pytest.approx(clock.now())
        assert found.unreadable is None
        assert [entry.events for entry in found.entries] == [FACTS]
        assert (found.entries[0].version, found.entries[0].at) == (1, answer.at)
        assert (found.record.saga_id, found.record.saga_name, found.record.saga_version) == ("s", NAME, VERSION)
        assert (found.record.status, found.record.attention) == (SagaStatus.EXECUTING, look)
        assert (answer.version, found.record.version, found.record.recoveries) == (1, 1, 1)
        assert (found.record.created_at, found.record.updated_at) == (answer.at, answer.at)
        assert found.record.due_at == pytest.approx(clock.now() + 7.5)
        assert (found.record.owner, found.record.fence) == (None, 0)

    @pytest.mark.asyncio
    async def test_a_saga_that_is_created_with_a_claim_is_owned_at_once(self, clock: FakeClock) -> None:
        """Its fence is 1, nobody else gets it, and it may be written under its token."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine", "host-7"))
            found = await record(storage, "s")
            assert (found.owner, found.fence) == ("host-7", 1)
            assert await claim_due(storage, "theirs") == []
            assert (await append(storage, "s", 1, claim("mine"))).version == 2

    @pytest.mark.asyncio
    async def test_a_saga_that_is_created_without_a_claim_is_for_whoever_claims_it(self, clock: FakeClock) -> None:
        """It is due after its delay, not before."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=row(due_in=2.0))
            assert await claim_due(storage, "early") == []
            clock.advance(2.0)
            assert await claim_due(storage, "late") == ["s"]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("status", sorted(AT_REST))
    async def test_a_saga_that_is_created_at_rest_is_never_due(self, clock: FakeClock, status: SagaStatus) -> None:
        """A PENDING saga that is cancelled may end in its first append."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=row(status, due_in=None))
            assert (await record(storage, "s")).due_at is None
            clock.advance(1e6)
            assert await claim_due(storage, "t") == []

    @pytest.mark.asyncio
    async def test_an_id_that_is_taken_is_refused_and_nothing_changes(self, clock: FakeClock) -> None:
        """The saga that has the id stays as it is, its journal too."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            before = await stored(storage, "s")
            clock.advance(1)
            with pytest.raises(SagaAlreadyExistsError) as caught:
                await create(storage, "s", held=claim("t"), name="other", facts=began())
            assert caught.value.saga_id == "s"
            assert await stored(storage, "s") == before

    @pytest.mark.asyncio
    async def test_the_same_creation_again_gives_the_first_answer(self, clock: FakeClock) -> None:
        """Also after others appended, and after the claim was lost."""
        async with self.storage(clock) as storage:
            first = await create(storage, "s", held=claim("mine"), write="w")
            clock.advance(TTL)
            assert await create(storage, "s", held=claim("mine"), write="w") == first
            await request(storage, "s")
            assert await claim_due(storage, "theirs") == ["s"]
            before = await stored(storage, "s")
            assert await create(storage, "s", held=claim("mine"), write="w") == first
            assert await stored(storage, "s") == before


class Appending(ContractBase):
    """What ``append`` promises an owner and a visitor."""

    @pytest.mark.asyncio
    async def test_an_owner_adds_facts_and_renews_the_row(self, clock: FakeClock) -> None:
        """Version, stamp, status, attention, due time and recovery count are those of the append."""
        async with self.storage(clock) as storage:
            created = await create(storage, "s", held=claim("t"), facts=began())
            clock.advance(3)
            look = attention(blocking=False)
            given = row(SagaStatus.COMPENSATING, due_in=4.25, attention=look, recoveries=3)
            answer = await append(storage, "s", 1, claim("t"), new_row=given)
            found = await stored(storage, "s")
        assert answer.at == pytest.approx(clock.now())
        assert [(entry.version, entry.events) for entry in found.entries] == [(1, began()), (2, FACTS)]
        assert [entry.at for entry in found.entries] == [created.at, answer.at]
        assert (found.record.status, found.record.attention) == (SagaStatus.COMPENSATING, look)
        assert (answer.version, found.record.version, found.record.recoveries) == (2, 2, 3)
        assert (found.record.created_at, found.record.updated_at) == (created.at, answer.at)
        assert found.record.due_at == pytest.approx(clock.now() + 4.25)
        assert (found.record.owner, found.record.fence) == ("host-1", 1)

    @pytest.mark.asyncio
    async def test_an_attention_can_be_taken_back(self, clock: FakeClock) -> None:
        """The row shows what the last append said."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=row(attention=attention(blocking=False)))
            await append(storage, "s", 1, None)
            assert (await record(storage, "s")).attention is None

    @pytest.mark.asyncio
    async def test_an_append_of_the_owner_extends_the_claim(self, clock: FakeClock) -> None:
        """By the ttl of the claim, counted from the append."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL - 1)
            await append(storage, "s", 1, claim("mine"))
            clock.advance(TTL - 1)
            assert await claim_due(storage, "early") == []
            clock.advance(1)
            assert await claim_due(storage, "late") == ["s"]

    @pytest.mark.asyncio
    async def test_an_append_that_releases_gives_the_claim_up(self, clock: FakeClock) -> None:
        """The next one gets the saga at once, it is no crash, and the old token is worth nothing."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            await append(storage, "s", 1, claim("mine"), new_row=row(release=True))
            assert (await record(storage, "s")).owner is None
            with pytest.raises(SagaClaimLostError):
                await append(storage, "s", 2, claim("mine"))
            assert await claim_due(storage, "theirs", owner="host-2") == ["s"]
            found = await record(storage, "s")
            assert (found.owner, found.fence, found.recoveries) == ("host-2", 2, 0)

    @pytest.mark.asyncio
    @pytest.mark.parametrize("status", sorted(AT_REST))
    async def test_a_saga_at_rest_is_never_due(self, clock: FakeClock, status: SagaStatus) -> None:
        """Whatever delay its last append names."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"))
            await append(storage, "s", 1, claim("t"), new_row=row(status, release=True))
            assert (await record(storage, "s")).due_at is None
            clock.advance(1e6)
            assert await claim_due(storage, "t2") == []

    @pytest.mark.asyncio
    async def test_a_blocking_attention_is_rest(self, clock: FakeClock) -> None:
        """Nobody claims the saga until a visitor clears it."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=row(attention=attention(blocking=True)))
            clock.advance(1e6)
            assert await claim_due(storage, "t") == []
            await append(storage, "s", 1, None)
            assert await claim_due(storage, "t") == ["s"]

    @pytest.mark.asyncio
    async def test_a_visitor_leaves_the_claim_as_it_is(self, clock: FakeClock) -> None:
        """The owner stays, its lease is not extended, and a release in the visitor's row is ignored."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL - 1)
            answer = await append(storage, "s", 1, None, new_row=row(SagaStatus.COMPENSATING, release=True))
            found = await record(storage, "s")
            assert (answer.version, found.status, found.owner) == (2, SagaStatus.COMPENSATING, "host-1")
            assert (await append(storage, "s", 2, claim("mine"))).version == 3
            await append(storage, "s", 3, None)
            clock.advance(TTL)
            assert await claim_due(storage, "theirs") == ["s"]

    @pytest.mark.asyncio
    async def test_a_visitor_wakes_what_rests(self, clock: FakeClock) -> None:
        """A repair of a FAILED saga makes it due."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=at_rest(SagaStatus.FAILED))
            await append(storage, "s", 1, None, new_row=row(SagaStatus.COMPENSATING))
            assert await claim_due(storage, "t") == ["s"]

    @pytest.mark.asyncio
    async def test_an_expired_claim_that_nobody_took_still_writes(self, clock: FakeClock) -> None:
        """And the write extends it again."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL * 100)
            assert (await append(storage, "s", 1, claim("mine"))).version == 2
            assert await claim_due(storage, "theirs") == []

    @pytest.mark.asyncio
    @pytest.mark.parametrize("fresh", [True, False])
    async def test_the_same_append_again_gives_the_first_answer(self, clock: FakeClock, *, fresh: bool) -> None:
        """At once, after others appended, after the claim was lost, and at rest; whatever version it then expects."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            first = await append(storage, "s", 1, claim("mine"), write="w")

            async def again() -> None:
                before = await stored(storage, "s")
                expected = before.record.version if fresh else 1
                assert await append(storage, "s", expected, claim("mine"), write="w") == first
                assert await stored(storage, "s") == before

            await again()
            clock.advance(1)
            await append(storage, "s", 2, claim("mine"))
            await request(storage, "s")
            await again()
            clock.advance(TTL)
            assert await claim_due(storage, "theirs") == ["s"]
            await again()
            await append(storage, "s", 5, claim("theirs"), new_row=at_rest())
            await again()

    @pytest.mark.asyncio
    async def test_the_same_write_id_may_be_used_on_two_sagas(self, clock: FakeClock) -> None:
        """It is unique within one journal."""
        async with self.storage(clock) as storage:
            for saga_id in ("a", "b"):
                assert (await create(storage, saga_id, write="w")).version == 1
                assert (await append(storage, saga_id, 1, None, write="v")).version == 2


class Refusing(ContractBase):
    """Which appends are refused, and that they leave no trace."""

    @pytest.mark.asyncio
    async def test_a_moved_version_is_refused_and_both_versions_are_named(self, clock: FakeClock) -> None:
        """An owner whose token stands is told that others wrote, not that it lost the claim."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            await request(storage, "s")
            before = await stored(storage, "s")
            clock.advance(1)
            for held in (claim("mine"), None):
                with pytest.raises(SagaVersionMovedError) as caught:
                    await append(storage, "s", 1, held)
                assert (caught.value.saga_id, caught.value.expected, caught.value.actual) == ("s", 1, 2)
            with pytest.raises(SagaVersionMovedError):
                await append(storage, "s", 3, claim("mine"))
            assert await stored(storage, "s") == before

    @pytest.mark.asyncio
    async def test_an_old_token_is_refused_whatever_the_version(self, clock: FakeClock) -> None:
        """A claim that was taken over is lost, and that is what its owner is told."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL)
            assert await claim_due(storage, "theirs") == ["s"]
            before = await stored(storage, "s")
            for expected in (1, 2, 3):
                with pytest.raises(SagaClaimLostError) as caught:
                    await append(storage, "s", expected, claim("mine"))
                assert caught.value.saga_id == "s"
            assert await stored(storage, "s") == before
            assert (await append(storage, "s", 2, claim("theirs"))).version == 3

    @pytest.mark.asyncio
    async def test_an_unclaimed_saga_takes_no_token(self, clock: FakeClock) -> None:
        """A token that was never given out is no claim."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            with pytest.raises(SagaClaimLostError):
                await append(storage, "s", 1, claim("invented"))
            assert len((await stored(storage, "s")).entries) == 1

    @pytest.mark.asyncio
    async def test_a_saga_that_does_not_exist_is_not_found(self, clock: FakeClock) -> None:
        """By an owner, a visitor and a request alike."""
        async with self.storage(clock) as storage:
            with pytest.raises(SagaNotFoundError) as caught:
                await append(storage, "s", 1, claim("t"))
            assert caught.value.saga_id == "s"
            with pytest.raises(SagaNotFoundError):
                await append(storage, "s", 1, None)
            with pytest.raises(SagaNotFoundError):
                await request(storage, "s")
            assert await storage.load(["s"]) == []

    @pytest.mark.asyncio
    async def test_a_refused_write_may_be_tried_again_under_its_id(self, clock: FakeClock) -> None:
        """Only what was stored has an answer to repeat."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            with pytest.raises(SagaVersionMovedError):
                await append(storage, "s", 7, None, write="w")
            assert (await append(storage, "s", 1, None, write="w")).version == 2

    @pytest.mark.asyncio
    async def test_what_is_neither_owner_visitor_nor_request_is_refused(self, clock: FakeClock) -> None:
        """A claim needs a row and a version; row and version go together."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"))
            for given, expected, held in ((RUNNING, None, None), (None, 1, None), (None, None, claim("t"))):
                with pytest.raises(SagaValidationError):
                    await storage.append(
                        "s", FACTS, row=given, expected_version=expected, claim=held, write_id=write_id()
                    )
            assert len((await stored(storage, "s")).entries) == 1
