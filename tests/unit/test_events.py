"""The facts: frozen, tagged with the number of their format, and strict when read."""

from __future__ import annotations

import re
import typing

import msgspec
import pytest

from saga import SagaCorruptStateError
from saga.codec import decode_events, encode_events
from saga.events import AttemptStarted, Began, CancelRequested, Created, Event, Fact
from saga.fold import _APPLY
from saga.types import Phase

FACTS: tuple[type[Fact], ...] = typing.get_args(Event)


def test_every_fact_has_the_number_of_its_format_in_its_tag() -> None:
    """A changed format is a new fact, so that old journals fold for ever."""
    tags = [fact.__struct_config__.tag for fact in FACTS]
    assert all(re.fullmatch(r"[a-z_]+\.[1-9][0-9]*", str(tag)) for tag in tags)
    assert len(set(tags)) == len(FACTS)


def test_every_fact_is_known_to_the_union_and_to_the_fold() -> None:
    """None can be stored that cannot be read, none read that has no meaning."""
    assert set(Fact.__subclasses__()) == set(FACTS)
    assert set(_APPLY) | {Created} == set(FACTS)


def test_a_fact_cannot_be_changed() -> None:
    """Nor can what was read of one."""
    with pytest.raises(AttributeError):
        AttemptStarted("a", Phase.ACTION, 1).attempt = 2  # type: ignore[misc]


def test_facts_are_stored_as_a_list_and_read_back() -> None:
    """With their defaults left out."""
    facts = (Began(), CancelRequested("why"))
    text = encode_events(facts)
    assert text == '[{"fact":"began.1"},{"fact":"cancel_requested.1","reason":"why"}]'
    assert decode_events(text, "o-1") == facts


@pytest.mark.parametrize(
    "text",
    [
        '[{"fact":"began.2"}]',
        '[{"fact":"unheard_of.1"}]',
        '[{"reason":"why"}]',
        '[{"fact":"cancel_requested.1"}]',
        '[{"fact":"cancel_requested.1","reason":7}]',
        "{}",
        "[",
        "",
    ],
)
def test_what_is_not_understood_is_never_skipped(text: str) -> None:
    """A newer format, an unknown fact, a missing field: the saga is named and left as it is."""
    with pytest.raises(
        SagaCorruptStateError, match="the journal of saga o-1 holds what this version does not"
    ) as error:
        decode_events(text, "o-1")
    assert error.value.saga_id == "o-1"
    assert isinstance(error.value.__cause__, msgspec.MsgspecError)
