"""The storage contract: lists, pages, counts, pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from saga.exceptions import SagaNotFoundError, SagaValidationError
from saga.storage.base import QUERY_LIMIT_MAX
from saga.testing.contract_kit import (
    ANYTHING,
    FACTS,
    ContractBase,
    all_ids,
    append,
    at_rest,
    attention,
    claim,
    create,
    record,
    request,
    row,
    stored,
)
from saga.types import AT_REST, SagaFilter, SagaStatus

if TYPE_CHECKING:
    from saga.testing.clock import FakeClock

BAD_LIMITS = (0, -1, QUERY_LIMIT_MAX + 1, 1.5, "5", True, None)
BAD_CURSORS = ("", "x", "!", "AAAA", "bnVsbA==", "é", "W10=", "WyJyb3dzLjEiXQ==", 7)
EVERY_STATUS = tuple(SagaStatus)


class Loading(ContractBase):
    """What ``load`` promises."""

    @pytest.mark.asyncio
    async def test_unknown_ids_are_left_out(self, clock: FakeClock) -> None:
        """Each saga comes once, however often its id is given."""
        async with self.storage(clock) as storage:
            await create(storage, "a")
            await create(storage, "b")
            found = await storage.load(["a", "x", "b", "a"])
            assert sorted(saga.record.saga_id for saga in found) == ["a", "b"]
            assert await storage.load([]) == []

    @pytest.mark.asyncio
    async def test_many_sagas_are_loaded_with_their_own_journals(self, clock: FakeClock) -> None:
        """More than fit one statement."""
        async with self.storage(clock) as storage:
            ids = [f"s{place}" for place in range(150)]
            for place, saga_id in enumerate(ids):
                await create(storage, saga_id)
                if place % 2:
                    await append(storage, saga_id, 1, None)
            found = await storage.load(ids)
            assert {saga.record.saga_id: len(saga.entries) for saga in found} == {
                saga_id: 1 + place % 2 for place, saga_id in enumerate(ids)
            }


class Querying(ContractBase):
    """What ``query`` promises."""

    @pytest.mark.asyncio
    async def test_the_newest_come_first_a_page_at_a_time(self, clock: FakeClock) -> None:
        """Every page but the last has a cursor; a page that is just full is the last."""
        async with self.storage(clock) as storage:
            for place in range(6):
                await create(storage, f"s{place}")
                clock.advance(1)
            first = await storage.query(ANYTHING, limit=4)
            assert [item.saga_id for item in first.items] == ["s5", "s4", "s3", "s2"]
            assert first.items[0] == await record(storage, "s5")
            second = await storage.query(ANYTHING, first.cursor, 2)
            assert ([item.saga_id for item in second.items], second.cursor) == (["s1", "s0"], None)

    @pytest.mark.asyncio
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    async def test_every_saga_is_seen_exactly_once_also_those_of_one_instant(
        self, clock: FakeClock, limit: int
    ) -> None:
        """Sagas that were created at the same moment don't hide each other."""
        async with self.storage(clock) as storage:
            ids = [f"s{place}" for place in range(8)]
            for place, saga_id in enumerate(ids):
                await create(storage, saga_id)
                clock.advance(place % 4 // 3)
            assert sorted(await all_ids(storage, limit=limit)) == ids

    @pytest.mark.asyncio
    async def test_sagas_that_come_go_and_change_between_pages_hide_no_other(self, clock: FakeClock) -> None:
        """What exists throughout is seen exactly once."""
        async with self.storage(clock) as storage:
            ids = [f"s{place}" for place in range(9)]
            for saga_id in ids:
                await create(storage, saga_id)
                clock.advance(0.25)
            await create(storage, "old", first_row=at_rest())
            clock.advance(1000)
            seen: list[str] = []
            cursor = None
            for place in range(20):
                page = await storage.query(ANYTHING, cursor, 2)
                seen.extend(item.saga_id for item in page.items)
                cursor = page.cursor
                if cursor is None:
                    break
                await create(storage, f"new{place}")
                await request(storage, ids[place])
                await storage.prune(900.0, AT_REST, 10)
            assert cursor is None
            assert [saga_id for saga_id in seen if saga_id in ids] == ids[::-1]

    @pytest.mark.asyncio
    async def test_filters_select_by_name_status_and_attention(self, clock: FakeClock) -> None:
        """Alone and together; FAILED needs attention without a note of its own."""
        async with self.storage(clock) as storage:
            for status in EVERY_STATUS:
                await create(storage, f"a-{status}", name="a", first_row=row(status))
            await create(storage, "b", name="b", first_row=row(attention=attention(blocking=False)))
            every = {f"a-{status}" for status in EVERY_STATUS}
            running = frozenset({SagaStatus.EXECUTING, SagaStatus.PENDING})

            async def ids(**chosen: Any) -> set[str]:
                return set(await all_ids(storage, SagaFilter(**chosen), 2))

            assert await ids(name="a") == every
            assert await ids(name="c") == set()
            assert await ids(statuses=running) == {"a-executing", "a-pending", "b"}
            assert await ids(statuses=frozenset()) == set()
            assert await ids(attention=True) == {"a-failed", "b"}
            assert await ids(attention=False) == every - {"a-failed"}
            assert await ids(name="b", statuses=running, attention=True) == {"b"}
            assert await ids(name="a", statuses=running, attention=True) == set()

    @pytest.mark.asyncio
    @pytest.mark.parametrize("limit", BAD_LIMITS)
    async def test_a_limit_out_of_range_is_refused(self, clock: FakeClock, limit: Any) -> None:
        """By both lists, and the message names it."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            for ask in (storage.query(ANYTHING, None, limit), storage.history("s", None, limit)):
                with pytest.raises(SagaValidationError, match="limit"):
                    await ask

    @pytest.mark.asyncio
    @pytest.mark.parametrize("cursor", BAD_CURSORS)
    async def test_a_cursor_that_was_not_given_out_is_refused(self, clock: FakeClock, cursor: Any) -> None:
        """By both lists, and the message names it."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            for ask in (storage.query(ANYTHING, cursor), storage.history("s", cursor)):
                with pytest.raises(SagaValidationError, match="cursor"):
                    await ask

    @pytest.mark.asyncio
    async def test_the_cursor_of_one_list_is_refused_by_the_other(self, clock: FakeClock) -> None:
        """And so is one with something added."""
        async with self.storage(clock) as storage:
            for saga_id in ("a", "b"):
                await create(storage, saga_id)
                await append(storage, saga_id, 1, None)
            of_rows = (await storage.query(ANYTHING, limit=1)).cursor
            of_entries = (await storage.history("a", limit=1)).cursor
            assert of_rows is not None
            assert of_entries is not None
            for ask in (
                storage.query(ANYTHING, of_entries),
                storage.history("a", of_rows),
                storage.query(ANYTHING, of_rows + "A"),
                storage.history("a", of_entries + "\n"),
            ):
                with pytest.raises(SagaValidationError):
                    await ask


class History(ContractBase):
    """What ``history`` promises."""

    @pytest.mark.asyncio
    async def test_a_journal_is_read_oldest_first_a_page_at_a_time(self, clock: FakeClock) -> None:
        """The pages together are the journal, also where it grows meanwhile."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            await create(storage, "neighbour")
            for version in range(1, 5):
                clock.advance(1)
                await append(storage, "s", version, None)
            first = await storage.history("s", limit=2)
            await append(storage, "s", 5, None)
            second = await storage.history("s", first.cursor, 2)
            third = await storage.history("s", second.cursor, 2)
            assert [len(page.items) for page in (first, second, third)] == [2, 2, 2]
            assert third.cursor is None
            assert (*first.items, *second.items, *third.items) == (await stored(storage, "s")).entries
            assert first.items[0].events == FACTS

    @pytest.mark.asyncio
    async def test_the_journal_of_an_unknown_saga_is_not_found(self, clock: FakeClock) -> None:
        """An empty page would say that it exists."""
        async with self.storage(clock) as storage:
            with pytest.raises(SagaNotFoundError) as caught:
                await storage.history("s")
            assert caught.value.saga_id == "s"


class Counting(ContractBase):
    """What ``statistics`` promises."""

    @pytest.mark.asyncio
    async def test_an_empty_storage_counts_nothing(self, clock: FakeClock) -> None:
        """And no saga is unfinished."""
        async with self.storage(clock) as storage:
            counts = await storage.statistics()
        assert (dict(counts.by_status), counts.needs_attention, counts.oldest_unfinished_at) == ({}, 0, None)

    @pytest.mark.asyncio
    async def test_sagas_are_counted_by_name_and_status(self, clock: FakeClock) -> None:
        """FAILED and attention need a person; what rests is not unfinished, however old."""
        async with self.storage(clock) as storage:
            await create(storage, "rest", first_row=at_rest())
            await create(storage, "parked", first_row=row(due_in=None, attention=attention(blocking=True)))
            clock.advance(5)
            oldest = await create(storage, "a1", name="a")
            clock.advance(5)
            await create(storage, "a2", name="a", first_row=row(attention=attention(blocking=False)))
            await create(storage, "a3", name="a", first_row=at_rest(SagaStatus.FAILED))
            await append(storage, "a1", 1, None)
            counts = await storage.statistics()
        assert counts.by_status == {
            "order": {SagaStatus.COMPLETED: 1, SagaStatus.EXECUTING: 1},
            "a": {SagaStatus.EXECUTING: 2, SagaStatus.FAILED: 1},
        }
        assert counts.needs_attention == 3
        assert counts.oldest_unfinished_at == oldest.at

    @pytest.mark.asyncio
    async def test_attention_and_age_are_told_by_name(self, clock: FakeClock) -> None:
        """Else nobody would see which sagas wait; a name of which none does is left out."""
        async with self.storage(clock) as storage:
            empty = await storage.statistics()
            first = await create(storage, "a1", name="a")
            clock.advance(5)
            await create(storage, "a2", name="a", first_row=row(attention=attention(blocking=False)))
            await create(storage, "a3", name="a", first_row=at_rest(SagaStatus.FAILED))
            second = await create(storage, "b1", name="b")
            await create(storage, "c1", name="c", first_row=row(due_in=None, attention=attention(blocking=True)))
            await create(storage, "d1", name="d", first_row=at_rest())
            counts = await storage.statistics()
        assert (dict(empty.needs_attention_by_name), dict(empty.oldest_unfinished_by_name)) == ({}, {})
        assert counts.needs_attention_by_name == {"a": 2, "c": 1}
        assert counts.oldest_unfinished_by_name == {"a": first.at, "b": second.at}

    @pytest.mark.asyncio
    async def test_an_ended_saga_that_gets_attention_is_still_one_saga(self, clock: FakeClock) -> None:
        """An effect that came late is noted on sagas that have ended (R7)."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=at_rest())
            noted = row(SagaStatus.COMPLETED, due_in=None, attention=attention(blocking=False))
            await append(storage, "s", 1, None, new_row=noted)
            counts = await storage.statistics()
        assert (counts.by_status, counts.needs_attention) == ({"order": {SagaStatus.COMPLETED: 1}}, 1)


class Pruning(ContractBase):
    """What ``prune`` promises."""

    @pytest.mark.asyncio
    async def test_sagas_go_when_their_journal_last_grew_long_ago(self, clock: FakeClock) -> None:
        """With their journals, so that the id is free again."""
        async with self.storage(clock) as storage:
            for saga_id in ("old", "touched", "young"):
                await create(storage, saga_id, first_row=at_rest(), write="w")
                clock.advance(10)
            await request(storage, "touched")
            assert await storage.prune(15.0, [SagaStatus.COMPLETED], 10) == 1
            assert sorted(await all_ids(storage)) == ["touched", "young"]
            assert await storage.load(["old"]) == []
            with pytest.raises(SagaNotFoundError):
                await storage.history("old")
            again = await create(storage, "old", first_row=at_rest(), write="w")
            assert again.at == pytest.approx(clock.now())
            assert len((await stored(storage, "old")).entries) == 1

    @pytest.mark.asyncio
    async def test_only_the_statuses_that_are_named_go(self, clock: FakeClock) -> None:
        """FAILED stays unless it is named; what is not at rest stays always, parked or not."""
        async with self.storage(clock) as storage:
            for status in EVERY_STATUS:
                await create(storage, status.value, first_row=row(status, attention=attention(blocking=True)))
            clock.advance(1e6)
            assert await storage.prune(0.0, [SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK], 10) == 2
            assert await storage.prune(0.0, [], 10) == 0
            assert await storage.prune(0.0, [SagaStatus.FAILED], 10) == 1
            assert sorted(await all_ids(storage)) == ["compensating", "executing", "pending"]

    @pytest.mark.asyncio
    async def test_no_more_go_than_the_limit(self, clock: FakeClock) -> None:
        """Until nothing is left."""
        async with self.storage(clock) as storage:
            for place in range(5):
                await create(storage, f"s{place}", first_row=at_rest())
            clock.advance(1)
            assert [await storage.prune(0.5, AT_REST, 2) for _ in range(4)] == [2, 2, 1, 0]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("status", sorted(frozenset(SagaStatus) - AT_REST))
    async def test_a_status_that_is_not_at_rest_is_refused(self, clock: FakeClock, status: SagaStatus) -> None:
        """And nothing is deleted, whatever else is named."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=at_rest())
            clock.advance(10)
            with pytest.raises(SagaValidationError, match=status.value):
                await storage.prune(1.0, [SagaStatus.COMPLETED, status], 10)
            assert await all_ids(storage) == ["s"]

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("older_than", "limit"),
        [(-1.0, 10), (float("nan"), 10), (float("inf"), 10), (True, 10), (1.0, 0), (1.0, -5), (1.0, 2.5), (1.0, True)],
    )
    async def test_a_number_out_of_range_is_refused(self, clock: FakeClock, older_than: Any, limit: Any) -> None:
        """Before anything is deleted."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=at_rest())
            clock.advance(10)
            with pytest.raises(SagaValidationError):
                await storage.prune(older_than, AT_REST, limit)
            assert await all_ids(storage) == ["s"]

    @pytest.mark.asyncio
    async def test_a_saga_that_was_pruned_is_gone_for_its_writers_too(self, clock: FakeClock) -> None:
        """Neither append nor renewal brings it back."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"), first_row=row(SagaStatus.COMPLETED, due_in=None))
            clock.advance(10)
            assert await storage.prune(1.0, AT_REST, 10) == 1
            with pytest.raises(SagaNotFoundError):
                await append(storage, "s", 1, claim("t"))
            assert await storage.renew({"s": "t"}, 15.0) == {}
            assert await all_ids(storage) == []
