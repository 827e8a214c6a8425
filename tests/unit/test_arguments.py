"""What a saga is rebuilt from: the constructor's arguments, and which constructors can be rebuilt."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import pytest

from saga import Saga, SagaDefinitionError, SagaPayloadTooLargeError, SagaSerializationError, SagaValidationError
from saga.arguments import differing, parameters_of
from saga.building import life_of

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Item:
    """An argument that is no plain JSON."""

    sku: str
    count: int = 1


class Order(Saga):
    """Takes arguments of every kind that can be stored."""

    def __init__(self, order_id: str, items: list[Item], *, gift: bool = False, note: Any = None) -> None:
        """Keep them."""
        self.given = (order_id, items, gift, note)


@dataclass
class Plain(Saga):
    """A saga that is a dataclass."""

    number: int
    tags: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Frozen(Saga):
    """A saga that refuses assignment."""

    number: int = 7


@dataclass(slots=True)
class Slotted(Saga):
    """A saga with slots."""

    number: int


def stored(saga: Saga) -> Any:
    """What is stored of a saga's arguments."""
    return msgspec.json.decode(life_of(saga).arguments)


def rebuilt(saga: Saga) -> Any:
    """The saga as another process makes it."""
    cls = type(saga)
    return cls(**parameters_of(cls).decode(life_of(saga).arguments))


def test_arguments_are_bound_by_name_with_defaults_applied() -> None:
    """However they were given."""
    one = Order("o-1", [Item("x")], gift=True)
    other = Order(items=[Item("x", 1)], order_id="o-1", gift=True, note=None)
    assert stored(one) == {"order_id": "o-1", "items": [{"sku": "x", "count": 1}], "gift": True, "note": None}
    assert bytes(life_of(one).arguments) == bytes(life_of(other).arguments)


def test_arguments_are_read_back_by_their_annotations() -> None:
    """Another process gets the same objects."""
    order = Order("o-1", [Item("x", 2)], note={"a": [1]})
    assert rebuilt(order).given == ("o-1", [Item("x", 2)], False, {"a": [1]})


@pytest.mark.parametrize("saga", [Plain(3), Frozen(), Frozen(8), Slotted(9)])
def test_dataclasses_are_sagas(saga: Any) -> None:
    """Plain, frozen and slotted ones."""
    assert rebuilt(saga) == saga
    assert stored(saga)["number"] == saga.number


def test_arguments_are_stored_at_once() -> None:
    """What changes afterwards is not the saga's business."""
    items = [Item("x")]
    order = Order("o-1", items)
    items.append(Item("y"))
    assert len(stored(order)["items"]) == 1


class Nothing(Saga):
    """Takes nothing."""


def test_a_saga_without_constructor_takes_nothing() -> None:
    """And says what to do instead."""
    assert stored(Nothing()) == {}
    assert rebuilt(Nothing()) is not None
    for wrong in (lambda: Nothing(1), lambda: Nothing(number=1)):  # type: ignore[call-arg]
        with pytest.raises(SagaDefinitionError, match="Nothing takes no arguments: define __init__"):
            wrong()


@pytest.mark.parametrize(
    "call",
    [
        Order,
        lambda: Order("o-1"),  # type: ignore[call-arg]
        lambda: Order("o-1", [], True),  # type: ignore[misc]  # noqa: FBT003
        lambda: Order("o-1", [], colour="red"),  # type: ignore[call-arg]
        lambda: Order("o-1", [], order_id="o-2"),  # type: ignore[misc]
    ],
    ids=["none", "too few", "too many", "unknown", "twice"],
)
def test_arguments_that_do_not_fit_are_pythons_own_error(call: Any) -> None:
    """As for any class."""
    with pytest.raises(TypeError):
        call()


def test_an_argument_that_does_not_fit_its_annotation_is_named() -> None:
    """With the saga, the argument and the path."""
    with pytest.raises(SagaSerializationError, match="saga 'Order', argument 'order_id': int does not fit"):
        Order(7, [])  # type: ignore[arg-type]
    with pytest.raises(SagaSerializationError, match="argument 'note'") as refused:
        Order("o-1", [], note={"a": [float("nan")]})
    assert refused.value.path == "$.a[0]"
    with pytest.raises(SagaPayloadTooLargeError, match="argument 'note'"):
        Order("o-1", [], note="x" * 2_000_000)


def test_a_stored_argument_that_fits_no_more_is_refused() -> None:
    """Rather than handed over as something else."""
    with pytest.raises(SagaSerializationError, match="does not read as"):
        parameters_of(Plain).decode(msgspec.Raw(b'{"number":"three"}'))


def make(constructor: Any) -> type[Saga]:
    """A saga class with this constructor."""
    return type("Made", (Saga,), {"__init__": constructor})


def positional_only(self: Any, a: int, /) -> None:
    """Take an argument that has no name."""


def star_args(self: Any, *args: int) -> None:
    """Take any number of arguments."""


def star_kwargs(self: Any, **kwargs: int) -> None:
    """Take any names."""


def own_id(self: Any, saga_id: str) -> None:
    """Take an id."""


def unresolved(self: Any, price: Decimal) -> None:
    """Use a name that exists for type checkers only."""


def unknown_attribute(self: Any, price: msgspec.Gone) -> None:  # type: ignore[name-defined]
    """Use a name that a module does not have."""


def nonsense(self: Any, price: Any) -> None:
    """Use what is not Python."""


nonsense.__annotations__["price"] = "int["


def unreadable(self: Any, client: Client) -> None:
    """Take what is no data."""


class Client:
    """No data."""


@pytest.mark.parametrize(
    ("constructor", "text"),
    [
        (positional_only, "parameter 'a' is positional-only"),
        (star_args, r"parameter 'args' is a \*args parameter"),
        (star_kwargs, r"parameter 'kwargs' is a \*\*kwargs parameter"),
        (own_id, "parameter 'saga_id' is called saga_id, which the library sets itself"),
        (unresolved, "an annotation cannot be resolved: name 'Decimal' is not defined; import it at module level"),
        (unknown_attribute, "an annotation cannot be resolved: module 'msgspec' has no attribute 'Gone'; import it"),
        (nonsense, r"an annotation cannot be resolved: Forward reference must be an expression -- got 'int\['"),
        (unreadable, "cannot be read back from JSON"),
    ],
)
def test_a_constructor_that_cannot_be_called_again_is_refused(constructor: Any, text: str) -> None:
    """Before the first effect: when the first instance is made."""
    with pytest.raises(SagaDefinitionError, match=text):
        make(constructor)(1)


@pytest.mark.parametrize("field_name", ["saga_name", "saga_version"])
@pytest.mark.parametrize("value", ["", 7, "a:b", "x" * 201])
def test_a_name_or_version_that_cannot_be_stored_is_refused(field_name: str, value: Any) -> None:
    """When the first instance is made."""
    with pytest.raises(SagaValidationError, match=f"^{field_name} must be"):
        type("Made", (Saga,), {field_name: value})()


def test_what_differs_is_named() -> None:
    """Also arguments that one of the two does not have."""
    before, after = msgspec.Raw(b'{"a":1,"b":2,"c":3}'), msgspec.Raw(b'{"a":1,"b":3,"d":4}')
    assert differing(before, after) == ["b", "c", "d"]
    assert differing(before, before) == []


def test_a_default_factory_makes_a_fresh_value_for_each_saga() -> None:
    """Of a dataclass: it is the value that is stored, not the factory's marker."""

    @dataclass
    class Fresh(Saga):
        tags: list[str] = field(default_factory=list)

    assert stored(Fresh()) == {"tags": []}
    assert rebuilt(Fresh(["a"])).tags == ["a"]


@dataclass
class Pay(Saga):
    """Draws a token that is no argument of its caller's."""

    order: str
    token: str = field(default_factory=lambda: uuid4().hex)
    tags: list[str] = field(default_factory=list, kw_only=True)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Derive one value, and change another."""
        self.key = f"pay-{self.token}"
        self.tags.append(self.order)


class Inherits(Pay):
    """Adds nothing to the constructor."""


@dataclass
class Extends(Pay):
    """Has a constructor of its own, made by the dataclass."""

    nonce: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True)
class Sealed(Saga):
    """Refuses assignment, and makes all its values."""

    token: str = field(default_factory=lambda: uuid4().hex)


@dataclass(slots=True)
class Narrow(Saga):
    """Has slots, and makes all its values."""

    token: str = field(default_factory=lambda: uuid4().hex)


@pytest.mark.parametrize("cls", [Pay, Inherits, Extends])
@pytest.mark.parametrize("again", [1, 2])
def test_a_saga_works_with_the_values_that_are_stored(cls: type[Pay], again: int) -> None:
    """Else it would go on with others after a takeover, and one effect would have two identities."""
    saga = cls("o-1")
    assert stored(saga)["token"] == saga.token
    assert stored(saga)["tags"] == []
    assert saga.key == f"pay-{saga.token}"
    assert saga.tags == ["o-1"]
    assert rebuilt(saga) == saga
    assert cls(f"o-{again}").token != saga.token


@pytest.mark.parametrize("cls", [Sealed, Narrow])
def test_frozen_and_slotted_sagas_work_with_the_values_that_are_stored(cls: Any) -> None:
    """They refuse to be changed afterwards. What copies them keeps their values."""
    saga = cls()
    assert stored(saga) == {"token": saga.token}
    assert rebuilt(saga) == saga
    for twin in (copy.copy(saga), copy.deepcopy(saga), pickle.loads(pickle.dumps(saga)), replace(saga)):  # noqa: S301
        assert twin == saga
    other = copy.copy(saga)
    type(other).__init__(other)
    assert other != saga


def test_a_given_value_needs_no_factory() -> None:
    """By position, by name, or none of them."""
    calls = []

    @dataclass
    class Counts(Saga):
        order: str
        tags: list[int] = field(default_factory=lambda: calls.append(1) or [len(calls)])  # type: ignore[func-returns-value]
        more: list[int] = field(default_factory=list)

    for saga in (Counts("o", [7]), Counts("o", tags=[7]), Counts("o", [7], [8])):
        assert saga.tags == stored(saga)["tags"] == [7]
    assert calls == []
    assert Counts("o").tags == [1]
    assert calls == [1]
    assert list(inspect.signature(Counts).parameters) == ["order", "tags", "more"]
    with pytest.raises(TypeError):
        Counts()  # type: ignore[call-arg]


def test_a_subclass_may_call_a_constructor_with_factories() -> None:
    """What it hands over is its own business; what its own parameters say is stored."""

    class Own(Pay):
        def __init__(self, order: str, tags: Any = None) -> None:
            """Choose the token."""
            super().__init__(order, f"token of {order}", tags=tags or [])

    Pay("o-0")
    saga = Own("o-1")
    assert stored(saga) == {"order": "o-1", "tags": None}
    assert (saga.token, saga.tags) == ("token of o-1", ["o-1"])
    assert rebuilt(saga) == saga


def test_a_constructor_can_be_called_where_no_saga_was_made() -> None:
    """A factory then makes the value, as for any dataclass."""
    Pay("o-0")
    bare = object.__new__(Pay)
    Pay.__init__(bare, "o-1")
    assert bare.key == f"pay-{bare.token}"
