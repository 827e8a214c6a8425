"""Keeps a text on one line."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return a text whose newlines and control characters are written as escapes, so that it cannot forge a record."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
