"""Retry policies, definitions, and which shapes can replace which."""

from __future__ import annotations

import pytest

from saga import RetryPolicy, SagaDefinitionError, SagaSerializationError, SagaStep
from saga.definition import AFTER_PIVOT_RETRY, COMPENSATION_RETRY, ONCE, incompatibility
from saga.graph import Shape, StepShape
from tests.unit.play import a_definition, a_step

# ------------------------------------------------------------------------------------------------------------- policies


def test_the_defaults_are_those_of_the_documentation() -> None:
    """One attempt, ten of a compensation, and no end after a pivot."""
    assert (ONCE.max_attempts, ONCE.initial_interval, ONCE.backoff, ONCE.max_interval) == (1, 0.5, 2.0, 60.0)
    assert (COMPENSATION_RETRY.max_attempts, COMPENSATION_RETRY.initial_interval) == (10, 0.2)
    assert COMPENSATION_RETRY.max_interval == 30.0
    assert (AFTER_PIVOT_RETRY.max_attempts, AFTER_PIVOT_RETRY.max_interval) == (None, 3_600.0)
    step = SagaStep(name="a", action=a_step("a").action)
    assert (step.timeout, step.compensation_timeout) == (30.0, 30.0)


def test_the_interval_grows_up_to_its_maximum() -> None:
    """However often it is asked for."""
    policy = RetryPolicy(initial_interval=1, backoff=3, max_interval=20, jitter="none")
    assert [policy.delay(retries, 0.5) for retries in (0, 1, 2, 3, 4, 10_000)] == [1, 3, 9, 20, 20, 20]


def test_a_constant_interval_stays() -> None:
    """With a backoff of 1."""
    policy = RetryPolicy(initial_interval=2, backoff=1, jitter="none")
    assert [policy.delay(retries, 0.5) for retries in (0, 1, 10_000)] == [2, 2, 2]


def test_full_jitter_draws_between_nothing_and_the_interval() -> None:
    """So that many processes do not come back at once."""
    policy = RetryPolicy(initial_interval=4, jitter="full")
    assert [policy.delay(0, draw) for draw in (0.0, 0.25, 1.0)] == [0.0, 1.0, 4.0]


def test_programming_errors_are_not_retried_by_default() -> None:
    """R11: and no_retry_on wins over retry_on."""
    policy = RetryPolicy()
    assert policy.retries(ValueError)
    assert not any(policy.retries(kind) for kind in (TypeError, AttributeError, NameError, SagaSerializationError))
    chosen = RetryPolicy(retry_on=(OSError,), no_retry_on=(PermissionError,))
    assert [chosen.retries(kind) for kind in (OSError, PermissionError, ValueError)] == [True, False, False]


# ---------------------------------------------------------------------------------------------------------- definitions


def test_a_step_without_a_policy_gets_the_one_of_its_place() -> None:
    """Before a pivot, at it, and after it."""
    own = RetryPolicy(max_attempts=7)
    definition = a_definition(
        a_step("before"),
        a_step("pivot", "before", pivot=True),
        a_step("after", "pivot"),
        a_step("x", "after", retry=own),
    )
    chosen = [definition.retry_of(definition.steps[name]) for name in ("before", "pivot", "after", "x")]
    assert chosen == [ONCE, ONCE, AFTER_PIVOT_RETRY, own]


def test_a_definition_names_the_saga_in_what_its_graph_refuses() -> None:
    """And the step, as a field."""
    with pytest.raises(SagaDefinitionError, match="saga 'Sample': step 'a' depends on 'x'") as refused:
        a_definition(a_step("a", "x"))
    assert (refused.value.saga_name, refused.value.step) == ("Sample", "a")
    with pytest.raises(SagaDefinitionError, match="saga 'Sample' has no steps"):
        a_definition()


def test_the_shape_is_what_is_stored_of_a_step() -> None:
    """Its name, dependencies, whether it is the pivot and whether it can be undone."""
    steps = [a_step("a", compensation=None), a_step("b", "a", pivot=True)]
    assert a_definition(*steps).shape == (StepShape("a", compensable=False), StepShape("b", ("a",), pivot=True))


# -------------------------------------------------------------------------------------------------------- compatibility

CHAIN: Shape = (StepShape("a"), StepShape("b", ("a",)), StepShape("c", ("b",)))


@pytest.mark.parametrize(
    ("started", "current", "why"),
    [
        ({"a", "b"}, CHAIN, None),
        ({"a"}, (StepShape("a"), StepShape("new", ("a",))), None),
        ({"a"}, (*CHAIN, StepShape("new", ("c",))), None),
        (set(), (StepShape("new"),), None),
        ({"a", "b"}, (StepShape("a"), StepShape("c", ("a",))), "step 'b' has started and the code has it no more"),
        ({"a"}, (StepShape("a", compensable=False),), "step 'a' has started and its dependencies, pivot or comp"),
        ({"a"}, (StepShape("a", pivot=True),), "step 'a' has started and its dependencies, pivot or compensation"),
        ({"b"}, (StepShape("a"), StepShape("b")), "step 'b' has started and its dependencies"),
        (
            {"b"},
            (StepShape("new"), StepShape("a", ("new",)), StepShape("b", ("a",))),
            "the new step 'new' comes before step 'b', which has started",
        ),
    ],
)
def test_which_shapes_can_go_on_with_a_started_saga(started: set[str], current: Shape, why: str | None) -> None:
    """R20: what has started stays as it was, and nothing new comes before it."""
    said = incompatibility(frozenset(started), CHAIN, current)
    assert said is None if why is None else (said is not None and why in said)
