"""Many sagas at random, with random faults, while their workers are killed: the books add up in the end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from saga import SagaStatus
from sagas.demo.domains import DOMAINS
from sagas.demo.load import Load, run_load
from sagas.demo.stage import staged

pytestmark = pytest.mark.asyncio

STORAGES = ("sqlite", "postgresql")


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty storage."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sagas.db'}"
    url: str = request.getfixturevalue("postgres_database")
    return url


async def mayhem(name: str, storage: str, sagas: int, kills: int, seed: int) -> None:
    """Run a load, and check that it did what it is meant to do."""
    told = io.StringIO()
    load = Load(sagas, kills, f"{name}-{seed}", seed)
    async with staged(DOMAINS[name], storage, 0.0) as stage:
        good = await run_load(Console(file=told, soft_wrap=True), stage, load)
        records = (await stage.records()).values()
        books = await stage.books()
    assert good, told.getvalue()
    assert f"killed in the middle of their work: {kills}" in told.getvalue()
    assert min(books.repeats.values()) > 0, "answers were lost at every service"
    assert sum(row["operation"] == "tombstone" for ledger in books.ledgers.values() for row in ledger) > 0
    mine = [record for record in records if record.saga_id.startswith(f"{load.prefix}-")]
    assert len(mine) == sagas
    assert {record.status for record in mine} == {SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK}
    assert max(record.fence for record in mine) > 1, "a kill met a saga that was driven"


@pytest.mark.timeout(180)
async def test_random_orders_with_random_faults_and_kills_end_with_clean_books(storage: str) -> None:
    """The short form; `make chaos` has a thousand of them."""
    await mayhem("order", storage, sagas=80, kills=2, seed=1)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_thousand_random_orders_end_with_clean_books(storage: str, seed: int) -> None:
    """With a dozen workers killed."""
    await mayhem("order", storage, sagas=1_000, kills=12, seed=seed)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["payment", "trade", "travel"])
async def test_random_sagas_of_the_other_domains_end_with_clean_books(name: str, tmp_path: Path) -> None:
    """Three hundred of each."""
    await mayhem(name, f"sqlite:///{tmp_path / 'sagas.db'}", sagas=300, kills=6, seed=1)
