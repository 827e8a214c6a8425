"""The context: what one attempt knows, and what it never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from saga import SagaContext, SagaValidationError
from saga.types import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping


class Source:
    """Answers from what the test put in."""

    def __init__(self) -> None:
        """Know one key."""
        self.asked: list[tuple[str, ...]] = []

    def value(self, step: str, key: str, default: Any) -> Any:
        """Know one key."""
        self.asked.append((step, key))
        return [1] if key == "known" else default

    def result_of(self, step: str, other: str) -> Any:
        """Return both names."""
        return (step, other)

    def resource(self, name: str) -> Any:
        """Return the name."""
        return name

    def checked(self, step: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy."""
        return {key: list(value) if isinstance(value, list) else value for key, value in data.items()}


def context(phase: Phase = Phase.ACTION) -> SagaContext:
    """The context of an attempt."""
    return SagaContext(saga_id="o-1", step_name="pay", attempt=2, phase=phase, source=Source())


def test_keys_are_the_same_for_all_attempts_of_an_effect() -> None:
    """R5: an action's and a compensation's differ, and the compensation knows both."""
    assert context().idempotency_key == context().action_key == "o-1:pay:action"
    assert context(Phase.COMPENSATION).idempotency_key == "o-1:pay:compensation"
    assert context(Phase.COMPENSATION).action_key == "o-1:pay:action"


def test_what_ancestors_left_is_asked_of_the_source() -> None:
    """By the step that asks."""
    assert context().get("known") == [1]
    assert context().get("unknown") is None
    assert context().get("unknown", 7) == 7
    assert context().result_of("reserve") == ("pay", "reserve")
    assert context().resource("http") == "http"


def test_added_data_is_seen_at_once_and_leaves_the_original_alone() -> None:
    """The latest wins; each look gives a copy."""
    before = context()
    after = before.with_data({"a": [1], "b": 1}).with_data({"b": 2})
    after.get("a").append(2)
    assert (after.get("a"), after.get("b"), after.get("known")) == ([1], 2, [1])
    assert before.delta is None
    assert after.delta == {"a": [1], "b": 2}


@pytest.mark.parametrize("data", [None, [("a", 1)], "text"])
def test_only_a_mapping_can_be_added(data: Any) -> None:
    """The refusal names the step."""
    with pytest.raises(SagaValidationError, match="step 'pay'") as refused:
        context().with_data(data)
    assert (refused.value.saga_id, refused.value.step) == ("o-1", "pay")


def test_its_text_names_the_attempt_and_no_value() -> None:
    """Values may be secret."""
    text = repr(context().with_data({"password": "geheim"}))
    assert text == "SagaContext(saga_id='o-1', step='pay', action, attempt=2)"


def test_it_cannot_be_changed() -> None:
    """It is the record of what an attempt was given."""
    with pytest.raises(AttributeError):
        context().attempt = 3  # type: ignore[misc]
