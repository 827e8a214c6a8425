"""The storage contract: claiming, renewing, releasing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from saga.events import Claimed
from saga.testing.contract_kit import (
    DEFINITIONS,
    FACTS,
    TTL,
    ContractBase,
    append,
    at_rest,
    claim,
    claim_due,
    create,
    record,
    request,
    row,
    stored,
)

if TYPE_CHECKING:
    from saga.testing.clock import FakeClock


class Claiming(ContractBase):
    """What ``claim_due`` promises."""

    @pytest.mark.asyncio
    async def test_a_claim_is_a_fact_and_comes_with_the_journal(self, clock: FakeClock) -> None:
        """Token, owner, fence and version change in one write, and the answer holds the Claimed fact too."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            clock.advance(1)
            (claimed,) = await storage.claim_due("host-2", "t", TTL, 10, definitions=DEFINITIONS, exclude=())
            assert claimed == await stored(storage, "s")
            assert (claimed.record.owner, claimed.record.fence, claimed.record.recoveries) == ("host-2", 1, 0)
            assert claimed.record.version == 2
            assert claimed.record.updated_at == pytest.approx(clock.now())
            assert [entry.events for entry in claimed.entries] == [FACTS, (Claimed("host-2", 1, 0, expired=False),)]
            assert claimed.entries[1].at == claimed.record.updated_at
            assert (await append(storage, "s", 2, claim("t"))).version == 3

    @pytest.mark.asyncio
    async def test_the_oldest_due_come_first_and_no_more_than_the_limit(self, clock: FakeClock) -> None:
        """What is left is claimed by the next call."""
        async with self.storage(clock) as storage:
            for saga_id, due_in in (("c", 3.0), ("a", 1.0), ("d", 4.0), ("b", 2.0), ("later", 60.0)):
                await create(storage, saga_id, first_row=row(due_in=due_in))
            clock.advance(10)
            assert await claim_due(storage, "none", limit=0) == []
            assert await claim_due(storage, "t1", limit=3) == ["a", "b", "c"]
            assert await claim_due(storage, "t2", limit=3) == ["d"]

    @pytest.mark.asyncio
    async def test_each_claimed_saga_comes_with_its_own_journal(self, clock: FakeClock) -> None:
        """In bulk, also where journals differ in length."""
        async with self.storage(clock) as storage:
            ids = [f"s{place:03}" for place in range(80)]
            for place, saga_id in enumerate(ids):
                await create(storage, saga_id)
                clock.advance(0.01)
                for version in range(1, 1 + place % 3):
                    await append(storage, saga_id, version, None)
            claimed = await storage.claim_due("h", "t", TTL, 100, definitions=DEFINITIONS, exclude=())
            assert {saga.record.saga_id: len(saga.entries) for saga in claimed} == {
                saga_id: 2 + place % 3 for place, saga_id in enumerate(ids)
            }
            assert all(saga.record.version == len(saga.entries) for saga in claimed)

    @pytest.mark.asyncio
    async def test_a_live_claim_is_not_taken_and_an_expired_one_is(self, clock: FakeClock) -> None:
        """The claim stands for its ttl by the storage's clock and not a moment longer."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine", ttl=20))
            clock.advance(19.5)
            assert await claim_due(storage, "early") == []
            clock.advance(0.5)
            assert await claim_due(storage, "late") == ["s"]

    @pytest.mark.asyncio
    async def test_a_sleeper_whose_claim_expired_sleeps_on(self, clock: FakeClock) -> None:
        """It is claimed when its due time has come, not when its owner died."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t0"))
            await append(storage, "s", 1, claim("t0"), new_row=row(due_in=4 * TTL))
            clock.advance(2 * TTL)
            assert await claim_due(storage, "t1") == []
            clock.advance(3 * TTL)
            assert await claim_due(storage, "t2") == ["s"]
            assert (await record(storage, "s")).recoveries == 1

    @pytest.mark.asyncio
    async def test_a_recovery_counts_only_when_a_claim_expired(self, clock: FakeClock) -> None:
        """Not after a release, not after the first claim; the fact says which it was; the fence always grows."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            for fence, expired in enumerate((False, True, False, True), 1):
                token = f"t{fence}"
                if expired:
                    clock.advance(TTL)
                else:
                    await storage.release({"s": f"t{fence - 1}"})
                assert await claim_due(storage, token) == ["s"]
                found = await stored(storage, "s")
                recoveries = (0, 0, 1, 1, 2)[fence]
                assert (found.record.fence, found.record.recoveries) == (fence, recoveries)
                assert found.entries[-1].events == (Claimed("host-1", fence, recoveries, expired=expired),)

    @pytest.mark.asyncio
    async def test_the_same_token_again_returns_what_it_got_and_nothing_else(self, clock: FakeClock) -> None:
        """A call whose answer was lost is repeated; what came due since waits for the next token."""
        async with self.storage(clock) as storage:
            await create(storage, "a")
            await create(storage, "b")
            first = await storage.claim_due("h", "t", TTL, 10, definitions=DEFINITIONS, exclude=())
            await create(storage, "c")
            clock.advance(1)
            again = await storage.claim_due("h", "t", TTL, 10, definitions=DEFINITIONS, exclude=())
            assert again == first
            assert await claim_due(storage, "next") == ["c"]

    @pytest.mark.asyncio
    async def test_a_token_never_claims_a_saga_a_second_time(self, clock: FakeClock) -> None:
        """A call that comes again after its claim was given up returns nothing of it."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            assert await claim_due(storage, "t") == ["s"]
            await storage.release({"s": "t"})
            assert await claim_due(storage, "t") == []
            assert await claim_due(storage, "fresh") == ["s"]

    @pytest.mark.asyncio
    async def test_a_saga_is_claimed_by_those_who_have_its_code_only(self, clock: FakeClock) -> None:
        """Name and version must both fit, as a pair."""
        async with self.storage(clock) as storage:
            await create(storage, "a1", name="a", version="1")
            await create(storage, "a2", name="a", version="2")
            await create(storage, "b1", name="b", version="1")
            assert await claim_due(storage, "none", definitions=[]) == []
            assert await claim_due(storage, "other", definitions=[("b", "2"), ("c", "1")]) == []
            fitting = await claim_due(storage, "some", definitions=[("a", "2"), ("b", "1")])
            assert sorted(fitting) == ["a2", "b1"]

    @pytest.mark.asyncio
    async def test_excluded_sagas_are_left_alone(self, clock: FakeClock) -> None:
        """A process does not take over what it still runs itself."""
        async with self.storage(clock) as storage:
            for saga_id in ("a", "b", "c"):
                await create(storage, saga_id)
            assert await claim_due(storage, "none", exclude=dict.fromkeys("abc").keys()) == []
            assert sorted(await claim_due(storage, "some", exclude={"b", "x"})) == ["a", "c"]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("suspects", [0, 1, 2])
    async def test_no_more_suspects_are_claimed_than_asked_for(self, clock: FakeClock, suspects: int) -> None:
        """A saga that would have crashed its process twice is held with few others like it; healthy ones don't wait."""
        async with self.storage(clock) as storage:
            for place in range(3):
                await create(storage, f"bad{place}", held=claim("gone"), first_row=row(recoveries=1))
                clock.advance(0.01)
            await create(storage, "released", first_row=row(recoveries=1))
            clock.advance(0.01)
            await create(storage, "crashed-once", held=claim("gone"))
            clock.advance(TTL)
            bad = [f"bad{place}" for place in range(suspects)]
            assert await claim_due(storage, "t", suspects=suspects) == [*bad, "released", "crashed-once"]

    @pytest.mark.asyncio
    async def test_two_calls_at_once_never_claim_the_same_saga(self, clock: FakeClock) -> None:
        """And together they claim all."""
        async with self.storage(clock) as storage:
            ids = [f"s{place}" for place in range(20)]
            for saga_id in ids:
                await create(storage, saga_id)
            claimed = await asyncio.gather(*(claim_due(storage, f"t{place}", limit=7) for place in range(3)))
            assert sorted(saga_id for part in claimed for saga_id in part) == sorted(ids)


class KeepingClaims(ContractBase):
    """What ``renew`` and ``release`` promise."""

    @pytest.mark.asyncio
    async def test_a_renewal_extends_claims_and_tells_the_versions(self, clock: FakeClock) -> None:
        """The new ttl counts from the renewal; a sleeping owner learns of requests by the version."""
        async with self.storage(clock) as storage:
            await create(storage, "a", held=claim("ta"))
            await create(storage, "b", held=claim("tb"))
            await request(storage, "b")
            clock.advance(TTL - 1)
            assert await storage.renew({"a": "ta", "b": "tb"}, 30.0) == {"a": 1, "b": 2}
            clock.advance(29)
            assert await claim_due(storage, "early") == []
            clock.advance(1)
            assert sorted(await claim_due(storage, "late")) == ["a", "b"]

    @pytest.mark.asyncio
    async def test_a_renewal_leaves_out_what_is_not_held(self, clock: FakeClock) -> None:
        """Taken over, released, never claimed, unknown; and it changes nothing for whoever holds it."""
        async with self.storage(clock) as storage:
            for saga_id in ("taken", "released", "mine"):
                await create(storage, saga_id, held=claim(saga_id))
            await create(storage, "free", first_row=at_rest())
            await storage.release({"released": "released"})
            clock.advance(TTL)
            await storage.renew({"mine": "mine"}, TTL)
            assert sorted(await claim_due(storage, "theirs")) == ["released", "taken"]
            clock.advance(TTL - 1)
            claims = {"taken": "taken", "released": "released", "mine": "mine", "free": "x", "unknown": "y"}
            assert await storage.renew(claims, 1000.0) == {"mine": 1}
            clock.advance(1)
            assert sorted(await claim_due(storage, "third")) == ["released", "taken"]
            assert await storage.renew({}, TTL) == {}

    @pytest.mark.asyncio
    async def test_an_expired_claim_that_nobody_took_can_be_renewed(self, clock: FakeClock) -> None:
        """After an outage a process renews first."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL * 10)
            assert await storage.renew({"s": "mine"}, TTL) == {"s": 1}
            assert await claim_due(storage, "theirs") == []

    @pytest.mark.asyncio
    async def test_many_claims_are_renewed_and_released_at_once(self, clock: FakeClock) -> None:
        """One process may hold more sagas than fit one statement."""
        async with self.storage(clock) as storage:
            claims = {f"s{place}": f"t{place}" for place in range(700)}
            await asyncio.gather(
                *(create(storage, saga_id, held=claim(token), facts=()) for saga_id, token in claims.items())
            )
            assert await storage.renew(claims, TTL) == dict.fromkeys(claims, 1)
            await storage.release(claims)
            assert await storage.renew(claims, TTL) == {}

    @pytest.mark.asyncio
    async def test_a_released_saga_is_free_at_once_and_not_crashed(self, clock: FakeClock) -> None:
        """Also where the claim had expired before; row and journal stay as they are."""
        async with self.storage(clock) as storage:
            await create(storage, "a", held=claim("ta"))
            await create(storage, "b", held=claim("tb"))
            clock.advance(TTL)
            await storage.release({"a": "ta", "b": "tb"})
            found = await stored(storage, "a")
            assert (found.record.owner, found.record.version, found.record.fence) == (None, 1, 1)
            assert sorted(await claim_due(storage, "t")) == ["a", "b"]
            assert (await record(storage, "a")).recoveries == 0

    @pytest.mark.asyncio
    async def test_a_release_passes_over_what_is_not_held(self, clock: FakeClock) -> None:
        """An old token, a wrong one, an unknown id: nobody loses a claim by them."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("old"))
            clock.advance(TTL)
            assert await claim_due(storage, "new") == ["s"]
            await storage.release({"s": "old", "unknown": "new"})
            await storage.release({})
            assert (await append(storage, "s", 2, claim("new"))).version == 3

    @pytest.mark.asyncio
    async def test_a_released_sleeper_is_due_when_it_was(self, clock: FakeClock) -> None:
        """A release does not wake."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"), first_row=row(due_in=90.0))
            await storage.release({"s": "t"})
            assert await claim_due(storage, "early") == []
            clock.advance(90)
            assert await claim_due(storage, "late") == ["s"]


class HostClockContract(ContractBase):
    """What holds where leases are judged by this host's time since its boot. Mix it in beside ``StorageContract``."""

    @pytest.mark.asyncio
    async def test_the_wall_clock_does_not_judge_claims(self, clock: FakeClock) -> None:
        """An administrator who sets the clock takes nobody's saga away."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.set_wall_time(clock.now() + 1e6)
            assert await claim_due(storage, "theirs") == []
