"""Strict, bounded JSON: what is stored reads back as it was, or is refused before anything changes.

msgspec writes the bytes; a walk of ours goes first, since msgspec alone writes NaN as null and integer keys as
strings. Values without an annotation are plain JSON only; with one, msgspec's types are allowed and the decoded
form must equal what was given.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from saga.events import Event
from saga.exceptions import (
    SagaCorruptStateError,
    SagaDefinitionError,
    SagaPayloadTooLargeError,
    SagaSerializationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DEPTH_MAX = 100
_SCALARS = frozenset({str, int, bool, type(None)})
_NOTHING = type(None)
_INT_MAX = 2**63

_encoder = msgspec.json.Encoder()
_events_decoder = msgspec.json.Decoder(list[Event])
_plain_decoder = msgspec.json.Decoder()


def encode_events(events: tuple[Event, ...] | list[Event]) -> str:
    """Return the facts of one append as a JSON array.

    Raises:
        SagaSerializationError: If a text in them is no Unicode, or a value is no fact.
    """
    try:
        return _encoder.encode(events).decode()
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        message = f"these facts cannot be stored: {error}"
        raise SagaSerializationError(message) from error


def decode_events(text: str | bytes, saga_id: str) -> tuple[Event, ...]:
    """Return the facts of one append.

    Raises:
        SagaCorruptStateError: If they are not understood by this version of the library.
    """
    try:
        return tuple(_events_decoder.decode(text))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        message = f"the journal of saga {saga_id} holds what this version does not understand: {error}"
        raise SagaCorruptStateError(message, saga_id=saga_id) from error


def encode(value: Any, hint: Any = Any, *, limit: int) -> bytes:
    """Return the value as JSON after checking that ``decode`` gives it back.

    Args:
        value: What to store.
        hint: The type to decode it as; ``Any`` for plain JSON.
        limit: The most bytes it may take.

    Raises:
        SagaSerializationError: If it would not read back as it was; the message says where and why.
        SagaPayloadTooLargeError: If it takes more than ``limit`` bytes.
    """
    if value is None and (hint is Any or hint is _NOTHING):
        return b"null"
    if hint is Any or (type(value) is hint and hint in _SCALARS):
        check_plain(value)
        data = _encoder.encode(value)
    else:
        data = _encode_typed(value, hint)
    if len(data) > limit:
        message = (
            f"the value takes {len(data)} bytes of JSON and the limit is {limit}: store it elsewhere and keep a key"
        )
        raise SagaPayloadTooLargeError(message)
    return data


def decode(data: bytes | msgspec.Raw, hint: Any = Any) -> Any:
    """Return the stored value as a fresh object.

    Raises:
        SagaSerializationError: If it does not fit the type.
    """
    if hint is Any:
        return _plain_decoder.decode(data)
    try:
        return decoder_of(hint).decode(data)
    except msgspec.MsgspecError as error:
        message = f"what is stored does not read as {hint!r}: {error}; correct the annotation or leave it out"
        raise SagaSerializationError(message) from error


@lru_cache(maxsize=1024)
def decoder_of(hint: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a type.

    Raises:
        SagaDefinitionError: If values of this type cannot be read back from JSON.
    """
    try:
        decoder = msgspec.json.Decoder(hint)
        unreadable = _custom_type(msgspec.inspect.type_info(hint))
    except (TypeError, NameError) as error:
        message = f"{hint!r} cannot be read back from JSON: {error}"
        raise SagaDefinitionError(message) from error
    if unreadable is not None:
        message = (
            f"{unreadable!r} cannot be read back from JSON: annotate a dataclass, a TypedDict, a msgspec.Struct or "
            f"a plain type, or leave the annotation out"
        )
        raise SagaDefinitionError(message)
    return decoder


def _custom_type(info: Any) -> Any:
    """Return the first type inside that msgspec does not know, or None."""
    seen: set[int] = set()
    waiting = [info]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, msgspec.inspect.CustomType | msgspec.inspect.RawType):
            return getattr(item, "cls", msgspec.Raw)
        for name in ("item_type", "item_types", "key_type", "value_type", "types", "fields"):
            inner = getattr(item, name, ())
            waiting.extend(inner if isinstance(inner, tuple) else (inner,))
        if isinstance(item, msgspec.inspect.Field):
            waiting.append(item.type)
    return None


def _encode_typed(value: Any, hint: Any) -> bytes:
    decoder = decoder_of(hint)
    try:
        data = _encoder.encode(value)
        check_plain(_plain_decoder.decode(data))
        back = decoder.decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError) as error:
        message = f"{type(value).__name__} does not fit its annotation {hint!r}: {error}"
        raise SagaSerializationError(message) from error
    changed = _difference(value, back, "$")
    if changed is not None:
        path, was, becomes = changed
        message = f"{path} is a {was} and the annotation {hint!r} would read back a {becomes}: annotate what is there"
        raise SagaSerializationError(message, path=path)
    return data


def _difference(given: Any, back: Any, path: str) -> tuple[str, str, str] | None:
    """Return where, from which type and to which a value changes on its way through JSON; None if it does not.

    Under ``Any`` inside of an annotation nothing else would notice a set that becomes a list, or a NaN None.
    """
    kind = type(given)
    if kind is int and type(back) is float and given == back:
        # PEP 484: an int fits where a float is annotated; later steps see the float.
        return None
    if kind is not type(back):
        return path, kind.__name__, type(back).__name__
    inner: Iterable[tuple[str, Any, Any]] = ()
    if isinstance(given, dict):
        inner = ((f"{path}.{key}", item, back.get(key)) for key, item in given.items())
    elif isinstance(given, list | tuple):
        inner = ((f"{path}[{place}]", *pair) for place, pair in enumerate(zip(given, back, strict=True)))
    elif isinstance(given, msgspec.Struct) or is_dataclass(given):
        names = given.__struct_fields__ if isinstance(given, msgspec.Struct) else [each.name for each in fields(given)]
        inner = ((f"{path}.{name}", getattr(given, name), getattr(back, name)) for name in names)
    elif given != back and _encoder.encode(given) != _encoder.encode(back):
        return path, kind.__name__, f"different {kind.__name__}"
    for place, item, other in inner:
        changed = _difference(item, other, place)
        if changed is not None:
            return changed
    return None


def check_plain(value: Any) -> None:
    """Check that the value is plain JSON: None, bool, int, finite float, str, list, dict with string keys.

    Raises:
        SagaSerializationError: Naming the path and the culprit.
    """
    if type(value) is dict:
        # Most payloads are flat: one pass over the values decides without a walk.
        for key, item in value.items():
            if type(key) is not str or type(item) not in _SCALARS:
                break
        else:
            _check_scalars(value)
            return
    _walk(value, "$", 0)


def _check_scalars(value: dict[str, Any]) -> None:
    for key, item in value.items():
        _check_text(key, "$")
        _check_leaf(item, f"$.{key}")


def _walk(value: Any, path: str, depth: int) -> None:
    if depth > DEPTH_MAX:
        _refuse(value, path[:80] + "…", f"nested deeper than {DEPTH_MAX} levels, or contains itself")
    if type(value) is list:
        for place, item in enumerate(value):
            _walk(item, f"{path}[{place}]", depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                _refuse(key, path, "a key that is not a string")
            _check_text(key, path)
            _walk(item, f"{path}.{key}", depth + 1)
    else:
        _check_leaf(value, path)


def _check_leaf(value: Any, path: str) -> None:
    kind = type(value)
    if kind is str:
        _check_text(value, path)
    elif kind is int:
        if not -_INT_MAX <= value < _INT_MAX:
            _refuse(value, path, "an integer beyond 64 bits; store it as a string")
    elif kind is float:
        if not math.isfinite(value):
            _refuse(value, path, "not a finite number")
    elif kind not in _SCALARS:
        _refuse(
            value, path, "not plain JSON; return str, int, float, bool, None, list or dict, or annotate the return type"
        )


def _check_text(text: str, path: str) -> None:
    if text.isascii():
        if "\x00" in text:
            _refuse(text, path, "text with a NUL character, which not every storage can keep")
        return
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        _refuse(text, path, "text with a NUL character or a lone surrogate, which not every storage can keep")


def _refuse(value: Any, path: str, why: str) -> None:
    message = f"{path} cannot be stored: a {type(value).__name__} that is {why}"
    raise SagaSerializationError(message, path=path)
