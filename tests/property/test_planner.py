"""Random sagas on the pure core: whatever happens, the planner's decisions keep the rules and come to an end."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.plans import Plan, plans
from tests.property.simulation import Simulation

simulated = given(plans(script_max=0), st.integers(0, 2**32), st.integers(0, 25))
anything = settings(max_examples=400, suppress_health_check=list(HealthCheck))


def play(plan: Plan, seed: int, troubles: int) -> None:
    """Play a saga and check it."""
    simulation = Simulation(plan, random.Random(seed), troubles)  # noqa: S311 - repeatable
    simulation.run()
    simulation.check()


@anything
@simulated
def test_every_decision_keeps_the_rules(plan: Plan, seed: int, troubles: int) -> None:
    """R2, R3, R6 to R10, R13 to R15: checked fact by fact, and every saga comes to rest."""
    play(plan, seed, troubles)


@pytest.mark.chaos
@pytest.mark.timeout(3_600)
@settings(anything, max_examples=8_000)
@simulated
def test_every_decision_keeps_the_rules_at_length(plan: Plan, seed: int, troubles: int) -> None:
    """The same with twenty times as many sagas."""
    play(plan, seed, troubles)
