"""Redis's scripts, each a file of its name after the part that all share."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files

from saga.checks import refuse

PREFIX_LENGTH_MAX = 64

_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")


def check_prefix(prefix: object) -> str:
    """Return a key prefix if it is a plain one.

    Raises:
        SagaValidationError: Otherwise.
    """
    if not isinstance(prefix, str) or not _PLAIN.fullmatch(prefix) or len(prefix) > PREFIX_LENGTH_MAX:
        refuse("prefix", prefix, f"1 to {PREFIX_LENGTH_MAX} of the characters A-Z a-z 0-9 . _ : -")
    return prefix


@cache
def script(name: str) -> tuple[str, str]:
    """Return the script of this name, and the digest by which the server knows it."""
    folder = files("saga.storage").joinpath("lua")
    text = "\n".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("shared", name))
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()
