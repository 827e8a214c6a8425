"""Fleets of real processes on each shared storage: killed, terminated and paused, and every saga ends once."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.fleet import Fleet
from tests.crash.fleet_app import Plan, Transfer

STORAGES = ("sqlite", "postgresql", "redis")
AMOUNT = 7
WORKERS_ARE_BUSY = 20
"""Steps that are running or have run when the first worker is killed."""


@pytest.fixture(params=STORAGES)
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    """A storage that is empty, and a ledger."""
    ledger = str(tmp_path / "ledger.db")
    if request.param == "sqlite":
        return Plan(f"sqlite:///{tmp_path / 'sagas.db'}", {}, ledger)
    if request.param == "redis":
        return Plan(request.getfixturevalue("redis_url"), {"prefix": request.getfixturevalue("prefix")}, ledger)
    return Plan(request.getfixturevalue("postgres_url"), {"schema": request.getfixturevalue("schema")}, ledger)


@pytest.fixture
def fleet(plan: Plan) -> Iterator[Fleet]:
    """A fleet without workers."""
    with Fleet(plan) as fleet:
        yield fleet


def test_sagas_of_workers_that_are_killed_at_random_all_end_once(fleet: Fleet) -> None:
    """Money adds up."""
    mayhem(fleet, sagas=200, kills=3, seed=1)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_two_thousand_sagas_survive_a_dozen_kills(fleet: Fleet, seed: int) -> None:
    """The long form."""
    mayhem(fleet, sagas=2_000, kills=12, seed=seed)


def mayhem(fleet: Fleet, sagas: int, kills: int, seed: int) -> None:
    """Let two workers run the sagas, and kill the one that is at it, and then one after the other."""
    chance = random.Random(seed)  # noqa: S311 - who is killed when
    for _ in range(2):
        fleet.start()
    fleet.put(Transfer(number, AMOUNT, chance.uniform(0.0, 1.0)) for number in range(1, sagas + 1))
    fleet.until(lambda: fleet.called("hold:action") >= WORKERS_ARE_BUSY)
    fleet.kill(fleet.who_called_last("hold:action"))
    fleet.start()
    for _ in range(kills - 1):
        time.sleep(chance.uniform(0.1, 0.6))
        fleet.kill(chance.choice(fleet.living()))
        fleet.start()
    fleet.until(lambda: fleet.unfinished() == 0, 300.0)
    fleet.audit(sagas, AMOUNT)
    assert max(fleet.fences().values()) > 1, "a kill met a saga that was driven"


def test_another_worker_takes_over_in_time(fleet: Fleet) -> None:
    """At most lease and sweep interval after the death of the first, and two seconds for everything else."""
    took = takeover(fleet)
    assert took <= fleet.plan.ttl + fleet.plan.sweep + 2.0


@pytest.mark.chaos
def test_another_worker_takes_over_in_time_as_it_comes(plan: Plan) -> None:
    """With the library's own lease and sweep interval: 22 seconds."""
    default = Plan(plan.url, plan.options, plan.ledger, ttl=15.0, sweep=5.0)
    with Fleet(default) as fleet:
        assert takeover(fleet) <= 22.0


def takeover(fleet: Fleet) -> float:
    """Return how many seconds after a worker's death another one is in the step that it was killed in."""
    fleet.start()
    fleet.start()
    fleet.put([Transfer(1, AMOUNT, 1.0)])
    fleet.until(lambda: fleet.called("hold:action") == 1)
    fleet.kill(fleet.who_called_last("hold:action"))
    took = fleet.until(lambda: fleet.called("hold:action") == 2)
    print(f"\ntaken over after {took:.2f} s (lease {fleet.plan.ttl} s, sweep every {fleet.plan.sweep} s)")  # noqa: T201
    fleet.until(lambda: fleet.unfinished() == 0)
    fleet.audit(1, AMOUNT)
    return took


def test_a_worker_that_is_terminated_lets_steps_end_and_hands_over_the_rest(fleet: Fleet) -> None:
    """Others need not wait for the lease: within a second of their next sweep they have what it released."""
    plan = Plan(fleet.plan.url, fleet.plan.options, fleet.plan.ledger, ttl=60.0, sweep=1.0)
    fleet.plan = plan
    fleet.start()
    fleet.start()
    fleet.put([Transfer(1, AMOUNT, 1.0)])
    fleet.until(lambda: fleet.called("hold:action") == 1)
    first = fleet.who_called_last("hold:action")
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(10) == 0
    assert fleet.called("hold:action") == 1
    took = fleet.until(lambda: fleet.called("credit:action") == 1)
    assert took <= plan.sweep + 1.0
    fleet.until(lambda: fleet.unfinished() == 0)
    assert fleet.called("hold:action") == 1, "its step had ended, so nobody repeats it"
    fleet.audit(1, AMOUNT)


def test_a_step_that_outlasts_the_drain_is_interrupted_and_repeated_by_another(fleet: Fleet) -> None:
    """Under the same key, without waiting for the lease."""
    fleet.plan = Plan(fleet.plan.url, fleet.plan.options, fleet.plan.ledger, ttl=60.0, sweep=1.0, drain=0.2)
    fleet.start()
    fleet.start()
    fleet.put([Transfer(1, AMOUNT, 1.5)])
    fleet.until(lambda: fleet.called("hold:action") == 1)
    first = fleet.who_called_last("hold:action")
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(10) == 0
    assert fleet.until(lambda: fleet.called("hold:action") == 2) <= 2.0
    fleet.until(lambda: fleet.unfinished() == 0)
    fleet.audit(1, AMOUNT)


def test_a_worker_that_was_paused_past_its_lease_changes_nothing_when_it_wakes(fleet: Fleet) -> None:
    """Neither rows nor journals: its claim token is refused in the statement that writes."""
    first = fleet.start()
    fleet.put([Transfer(number, AMOUNT, 1.0) for number in range(1, 9)])
    fleet.until(lambda: fleet.called("hold:action") == 8)
    os.kill(first.pid, signal.SIGSTOP)
    fleet.start()
    fleet.until(lambda: fleet.unfinished() == 0)
    before = fleet.versions()
    calls = fleet.ledger.ask("SELECT count(*) FROM calls")
    os.kill(first.pid, signal.SIGCONT)
    time.sleep(2.5)
    assert fleet.versions() == before
    assert fleet.ledger.ask("SELECT count(*) FROM calls") == calls, "it began nothing more"
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(10) == 0
    assert fleet.versions() == before
    fleet.audit(8, AMOUNT)
