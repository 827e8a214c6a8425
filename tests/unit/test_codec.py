"""What is stored reads back as it was, or is refused before anything changes."""

import dataclasses
import datetime as dt
import decimal
import json
import math
import uuid
from enum import StrEnum
from typing import Any, NamedTuple, TypedDict, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga import codec
from saga.events import AttemptSucceeded, AttentionSet, Began, CancelRequested, Completed, Created, Event
from saga.exceptions import (
    SagaCorruptStateError,
    SagaDefinitionError,
    SagaPayloadTooLargeError,
    SagaSerializationError,
)
from saga.graph import StepShape
from saga.types import AttentionCode, Phase

LIMIT = 10_000

_texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts
)
plain_values = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(_texts, inner), max_leaves=20)


class Point(msgspec.Struct):
    """A struct that users might return."""

    x: int
    y: float = 0.0


@dataclasses.dataclass
class Order:
    """A dataclass that users might return."""

    order_id: str
    lines: tuple[Point, ...]
    placed: dt.date


class Colour(StrEnum):
    """An enumeration that users might return."""

    RED = "red"


class Options(TypedDict, total=False):
    """A dictionary with known keys."""

    gift: bool


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: str


class Opaque:
    """A class that JSON knows nothing of."""

    def __repr__(self) -> str:
        """The same in every process that collects these tests."""
        return "Opaque()"


@given(value=plain_values)
def test_plain_json_reads_back_as_it_was(value: Any) -> None:
    """Types and values, at any depth, without an annotation; and it is JSON that anybody can read."""
    data = codec.encode(value, limit=10**9)
    back = codec.decode(data)
    assert back == value
    assert repr(back) == repr(value)
    assert json.loads(data) == value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Point(1, 2.5), Point),
        (Order("o-1", (Point(1),), dt.date(2024, 2, 29)), Order),
        ([Point(1)], list[Point]),
        ((1, "a"), tuple[int, str]),
        ({1, 2}, set[int]),
        (frozenset({"a"}), frozenset[str]),
        (b"\x00\xff", bytes),
        (decimal.Decimal("1.10"), decimal.Decimal),
        (uuid.UUID(int=7), uuid.UUID),
        (dt.datetime(2024, 1, 2, 3, 4, 5, 600, tzinfo=dt.UTC), dt.datetime),
        (dt.timedelta(seconds=1.5), dt.timedelta),
        (Colour.RED, Colour),
        ({"gift": True}, Options),
        (Pair(1, "a"), Pair),
        ({1: "a"}, dict[int, str]),
        (None, type(None)),
        (None, int | None),
        (3, int | None),
        ({"a": [1]}, dict[str, list[int]]),
        ("text", str),
        (1.5, float),
    ],
    ids=repr,
)
def test_an_annotated_value_reads_back_as_what_it_was(value: Any, hint: Any) -> None:
    """The type that was given, not just an equal one."""
    back = codec.decode(codec.encode(value, hint, limit=LIMIT), hint)
    assert back == value
    assert type(back) is type(value)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (math.nan, "$"),
        (math.inf, "$"),
        ({"a": -math.inf}, "$.a"),
        ({1: "a"}, "$"),
        ({"a": {None: 1}}, "$.a"),
        ((1, 2), "$"),
        ({1, 2}, "$"),
        (b"bytes", "$"),
        ({"a": [0, {"b": (1,)}]}, "$.a[1].b"),
        (2**63, "$"),
        ({"a": -(2**63) - 1}, "$.a"),
        ([2**64], "$[0]"),
        ("a\x00b", "$"),
        ({"a\x00": 1}, "$"),
        ({"a": "\ud800"}, "$.a"),
        (["é\x00"], "$[0]"),
        ({"a": Opaque()}, "$.a"),
        (dt.date(2024, 1, 1), "$"),
        (decimal.Decimal(1), "$"),
        (Colour.RED, "$"),
    ],
    ids=repr,
)
def test_what_is_not_plain_json_is_refused_and_the_place_is_named(value: Any, path: str) -> None:
    """By itself msgspec would write NaN as null, integer keys as strings and tuples as lists."""
    with pytest.raises(SagaSerializationError) as caught:
        codec.encode(value, limit=LIMIT)
    assert caught.value.path == path
    assert path in str(caught.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    """Instead of running out of stack."""
    with pytest.raises(SagaSerializationError, match="contains itself"):
        codec.encode(CYCLE, limit=LIMIT)


def test_depth_is_bounded() -> None:
    """At the named limit it is stored, one deeper it is not."""
    value: Any = 0
    for _ in range(codec.DEPTH_MAX):
        value = [value]
    assert codec.decode(codec.encode(value, limit=LIMIT)) == value
    with pytest.raises(SagaSerializationError, match=str(codec.DEPTH_MAX)):
        codec.encode([value], limit=LIMIT)


def test_an_int_fits_where_a_float_is_annotated() -> None:
    """As type checkers have it (PEP 484); what is read back is the float."""
    back = codec.decode(codec.encode(5, float, limit=LIMIT), float)
    assert (back, type(back)) == (5.0, float)


def test_size_is_bounded_in_bytes_of_json() -> None:
    """Not in characters; the message names both numbers."""
    assert codec.encode("é" * 9, limit=20) == ('"' + "é" * 9 + '"').encode()
    with pytest.raises(SagaPayloadTooLargeError, match=r"22 bytes .* limit is 20"):
        codec.encode("é" * 10, limit=20)
    with pytest.raises(SagaPayloadTooLargeError):
        codec.encode([1] * 20, list[int], limit=20)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1", int),
        (1, str),
        (Point(1), Order),
        ((1, 2), list[int]),
        ([1, 2], tuple[int, int]),
        (math.nan, float),
        ({"a": math.nan}, dict[str, float]),
        ({1, 2}, list[int]),
        (True, int),
        (Opaque(), Point),
        ([{1}], list[Any]),
        ({"a": (1,)}, dict[str, Any]),
    ],
    ids=repr,
)
def test_a_value_that_its_annotation_would_change_is_refused(value: Any, hint: Any) -> None:
    """What later steps see must be what was returned."""
    with pytest.raises(SagaSerializationError):
        codec.encode(value, hint, limit=LIMIT)


@pytest.mark.parametrize("hint", [Opaque, list[Opaque], dict[str, Opaque | None], msgspec.Raw], ids=repr)
def test_an_annotation_that_cannot_be_read_back_is_refused_by_itself(hint: Any) -> None:
    """Before any value of it exists."""
    with pytest.raises(SagaDefinitionError, match="cannot be read back"):
        codec.decoder_of(hint)


def test_what_no_longer_fits_its_annotation_is_a_named_error() -> None:
    """A stored result whose annotation changed since."""
    with pytest.raises(SagaSerializationError, match="annotation"):
        codec.decode(b'{"x":"no number"}', Point)


def test_each_decoding_gives_a_fresh_value() -> None:
    """Changing what was read changes nothing that is stored."""
    data = codec.encode({"a": [1]}, limit=LIMIT)
    codec.decode(data)["a"].append(2)
    assert codec.decode(data) == {"a": [1]}


def test_facts_read_back_as_they_were() -> None:
    """One JSON array an append, each fact with the number of its format."""
    facts: tuple[Event, ...] = (
        Created(
            name="order",
            version="1",
            shape=(StepShape("a"), StepShape("b", ("a",), pivot=True, compensable=False)),
            arguments=msgspec.Raw(b'{"order_id":"o-1"}'),
            headers={"traceparent": "00-1-2-3"},
        ),
        Began(),
        AttemptSucceeded("a", Phase.ACTION, 1, msgspec.Raw(b'{"n":1}')),
        AttentionSet(AttentionCode.PARKED, "look — bitte\n", blocking=True),
        Completed(),
    )
    text = codec.encode_events(facts)
    assert codec.decode_events(text, "s") == facts
    assert [fact["fact"] for fact in json.loads(text)] == [
        "created.1",
        "began.1",
        "attempt_succeeded.1",
        "attention_set.1",
        "completed.1",
    ]


def test_every_fact_carries_a_tag_of_its_own_with_the_number_of_its_format() -> None:
    """So that a changed format can be a new fact, and old journals fold for ever."""
    tags = [kind.__struct_config__.tag for kind in get_args(Event)]
    assert len(set(tags)) == len(tags)
    assert all(str(tag).rpartition(".")[2].isdigit() for tag in tags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[",
        '[{"fact":"began.1"}',
        '[{"fact":"began.2"}]',
        '[{"fact":"cancel_requested.1"}]',
        '[{"fact":"cancel_requested.1","reason":7}]',
        '[{"reason":"x"}]',
        b'[{"fact":"cancel_requested.1","reason":"\xff"}]',
    ],
)
def test_a_journal_that_is_not_understood_is_an_error_that_names_the_saga(text: str | bytes) -> None:
    """An unknown fact is never skipped."""
    with pytest.raises(SagaCorruptStateError, match="saga s-7") as caught:
        codec.decode_events(text, "s-7")
    assert caught.value.saga_id == "s-7"


def test_facts_that_are_no_unicode_are_refused() -> None:
    """Before they reach a storage."""
    with pytest.raises(SagaSerializationError):
        codec.encode_events([CancelRequested("\ud800")])
