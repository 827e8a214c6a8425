"""What a saga is rebuilt from: its constructor's arguments, bound, encoded and decoded again."""

from __future__ import annotations

import functools
import inspect
import typing
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from saga import codec
from saga.checks import check_name
from saga.exceptions import SagaDefinitionError, SagaSerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REFUSED_KINDS: dict[Any, str] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional-only, but a saga is rebuilt with keyword arguments",
    inspect.Parameter.VAR_POSITIONAL: "a *args parameter, but a saga is rebuilt with named arguments",
    inspect.Parameter.VAR_KEYWORD: "a **kwargs parameter, but a saga is rebuilt with named arguments",
}
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_sample = make_dataclass("_sample", [("made", list, field(default_factory=list))])
_MADE = inspect.signature(_sample).parameters["made"].default
"""What stands as the default of a parameter whose value a dataclass makes with a factory."""


class Parameters:
    """The checked parameters of a saga class's constructor.

    Attributes:
        hints: Each parameter's type; ``Any`` where it has no annotation.
    """

    def __init__(self, cls: type) -> None:
        """Read and check the signature.

        Raises:
            SagaDefinitionError: If a saga could not be rebuilt from such arguments.
        """
        self._name = cls.__name__
        check_name("saga_name", getattr(cls, "saga_name", self._name))
        check_name("saga_version", getattr(cls, "saga_version", "1"))
        self.hints: dict[str, Any] = {}
        constructor: Any = inspect.getattr_static(cls, "__init__")
        if constructor is object.__init__:
            return
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        for parameter in parameters:
            why = _REFUSED_KINDS.get(parameter.kind)
            if parameter.name == "saga_id":
                why = "called saga_id, which the library sets itself; give ids to execute() or start()"
            if why is not None:
                message = f"{self._name}.__init__: parameter {parameter.name!r} is {why}"
                raise SagaDefinitionError(message, saga_name=self._name)
        try:
            hints = typing.get_type_hints(constructor, include_extras=True)
        except (AttributeError, NameError, SyntaxError, TypeError) as error:
            message = f"{self._name}.__init__: an annotation cannot be resolved: {error}; import it at module level"
            raise SagaDefinitionError(message, saga_name=self._name) from error
        self.hints = {parameter.name: hints.get(parameter.name, Any) for parameter in parameters}
        for hint in self.hints.values():
            codec.decoder_of(hint)
        self._bind = inspect.Signature(parameters).bind
        made = getattr(cls, "__dataclass_fields__", {})
        self._factories = {p.name: made[p.name].default_factory for p in parameters if p.default is _MADE}
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.default is not _MADE}
        if self._factories:
            # Else the constructor would call the factories again, and the saga would not be what is stored of it.
            setattr(cls, "__init__", _filled(constructor))  # noqa: B010 - mypy refuses the plain assignment
        self._positions = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> tuple[msgspec.Raw, dict[str, Any]]:
        """Return the arguments as JSON, defaults applied, and those among them that factories made.

        Raises:
            TypeError: If the arguments do not fit the constructor.
            SagaDefinitionError: If arguments are given where no ``__init__`` takes any.
            SagaSerializationError: Naming the argument that cannot be stored.
        """
        if not self.hints:
            if args or kwargs:
                message = f"{self._name} takes no arguments: define __init__ (or make it a dataclass) to accept some"
                raise SagaDefinitionError(message, saga_name=self._name)
            return msgspec.Raw(b"{}"), {}
        given = {**self._defaults, **dict(zip(self._positions, args, strict=False)), **kwargs}
        made: dict[str, Any] = {}
        if self._factories:
            made = {name: make() for name, make in self._factories.items() if name not in given}
            given.update(made)
        if len(args) > len(self._positions) or given.keys() != self.hints.keys():
            # The standard library says best what is wrong, but binds too slowly for every saga.
            self._bind(*args, **kwargs)
        encoded = {name: self._encode_one(name, given[name], limit) for name in self.hints}
        return msgspec.Raw(_encode(encoded)), made

    def decode(self, arguments: msgspec.Raw) -> dict[str, Any]:
        """Return the keyword arguments that rebuild the saga.

        Raises:
            SagaSerializationError: If a stored argument does not fit its annotation any more.
        """
        return {name: codec.decode(raw, self.hints.get(name, Any)) for name, raw in _raws.decode(arguments).items()}

    def _encode_one(self, name: str, value: Any, limit: int) -> msgspec.Raw:
        try:
            return msgspec.Raw(codec.encode(value, self.hints[name], limit=limit))
        except SagaSerializationError as error:
            message = f"saga {self._name!r}, argument {name!r}: {error}"
            raise type(error)(message, path=error.path, saga_name=self._name) from error.__cause__


def _filled(constructor: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that takes what factories made from what the library keeps with the saga, once."""

    @functools.wraps(constructor)
    def construct(saga: Any, *args: Any, **kwargs: Any) -> None:
        life: Any = getattr(saga, "_life", None)
        if life is not None:
            kwargs.update(life.made)
            life.made = {}
        constructor(saga, *args, **kwargs)

    return construct


def parameters_of(cls: type) -> Parameters:
    """Return the checked parameters of a saga class.

    Raises:
        SagaDefinitionError: If sagas of this class could not be rebuilt.
    """
    return _parameters_of(cls)


@functools.lru_cache(maxsize=1024)
def _parameters_of(cls: type) -> Parameters:
    return Parameters(cls)


def differing(stored: msgspec.Raw, given: msgspec.Raw) -> list[str]:
    """Return the names of the arguments that differ."""
    before: Mapping[str, Any] = codec.decode(stored)
    after: Mapping[str, Any] = codec.decode(given)
    missing = object()
    return [name for name in {**before, **after} if before.get(name, missing) != after.get(name, missing)]
