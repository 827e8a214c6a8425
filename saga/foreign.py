"""Looks at objects that users made: attributes, lengths and texts are code, too, and may raise anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def tried(look: Callable[..., T], *arguments: Any) -> tuple[T | None, Exception | None]:
    """Return what the call returns and None, or None and what it raised."""
    try:
        return look(*arguments), None
    except Exception as error:  # noqa: BLE001 - documented place 1: user code raised
        return None, error


def read(look: Callable[..., T], *arguments: Any, otherwise: T) -> T:
    """Return what the call returns, or this otherwise if it raises: what tells of an object must not fail with it."""
    found, error = tried(look, *arguments)
    return otherwise if error is not None else cast("T", found)
