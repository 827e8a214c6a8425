"""The one place where secrets are masked before anything leaves the process: in records, spans and texts of errors.

It looks at keys (``password``, ``card_number`` and their like) and at values (card numbers, JWTs, passwords in URLs),
also where both stand in running text. What it cannot know, such as a bare password in a sentence, it cannot mask:
rather keep secrets out of error texts. Identifiers (saga ids, names of sagas and steps) are shown as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from saga.exceptions import SagaValidationError

SECRET_KEYS = (
    "pass(?:word|wd|phrase|code)",
    "(?<![a-z])pass(?![a-z])",
    "pwd",
    "secret",
    "token",
    "(?:api|access|private|signing|encryption)[_-]?key",
    "authorization",
    "credential",
    "cookie",
    "session[_-]?id",
    "(?<!dis)(?<!wild)card(?!inal)",
    "cv[vc]",
    "iban",
    "account[_-]?number",
    "ssn",
    "(?<![a-z])(?:pin|otp)(?![a-z])",
)
"""Regular expressions, searched for without regard to case: a key in which one is found holds a secret."""

MASK = "***"
DEPTH_MAX = 16
"""Deeper values are masked as a whole."""

# Bounded, so that no text makes the search start everywhere and run to its end each time.
_JWT = re.compile(r"(?<!eyJ)eyJ[\w-]{4,2048}\.[\w-]+\.[\w-]*")
_URL_PASSWORD = re.compile(r"(://[^/\s:@]{0,256}:)\S{0,2048}@")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|$)", re.DOTALL
)
_BEARER = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
_CARD = re.compile(r"(?<!\d)[2-6](?:[ -]?\d){12,18}(?!\d)")
_SCHEME = r"(?:(?:bearer|basic|digest|token)\s+)?"
_QUOTED = r"""(?P<quote>\\{0,3}["'])(?:(?!(?P=quote))(?:\\.|.))*(?:(?P=quote)|$)"""
_BRACKETED = r"[\[({][^\])}]*[\])}]?"
_BARE = r"""[^\s,;&)}\]"'<]+"""
_BETWEEN = r"""(?:\s{0,8}(?:=>|[:=>]|%3[AD])\s{0,8}|(?<=["'])\s{0,8},\s{0,8}(?=\\{0,3}["']))"""
"""What stands between a key and its value; a comma only in a pair of quoted ones."""

_NO_TYPE = "(?<!error)(?<!exception)"
"""What names an exception, such as CardDeclinedError, is no key: behind it stands what it says."""

_VALUE = f"{_SCHEME}(?:{_QUOTED}|{_BRACKETED}|{_BARE})"
"""What may stand behind a key in running text: in quotes, in brackets, or up to the next blank or separator."""

LUHN_BASE = 10
CARD_DIGITS_MIN = 13
CARD_DIGITS_MAX = 19
CARD_FIRST = "23456"


class Redaction:
    """Masks secrets.

    Also a structlog processor: put it before the renderer, and it masks what your own code logs.

    Attributes:
        default: Masks wherever nothing else is said, also in the texts of the library's errors that quote yours. Put
            your own there when the program begins, and every sink has it.
    """

    default: ClassVar[Redaction]

    def __init__(
        self, *, keys: Collection[str] = SECRET_KEYS, patterns: Collection[str] = (), mask: str = MASK
    ) -> None:
        """Say what is secret beside card numbers, JWTs, bearer tokens, private keys and passwords in URLs.

        Args:
            keys: Regular expressions for keys whose values are secret, in place of ``SECRET_KEYS``.
            patterns: Regular expressions for further secret values.
            mask: What stands in their place.

        Raises:
            SagaValidationError: If one is no regular expression.
        """
        self.mask = mask
        words = "|".join(f"(?:{key})" for key in keys) or "(?!)"
        try:
            self._keys = re.compile(words, re.IGNORECASE)
            self._assigned = re.compile(
                rf"((?:{words})[\w-]{{0,64}}{_NO_TYPE}\\{{0,3}}[\"']?{_BETWEEN}){_VALUE}",
                re.IGNORECASE | re.DOTALL,
            )
            self._patterns = [re.compile(pattern) for pattern in patterns]
        except re.error as error:
            message = f"Redaction takes regular expressions: {error.pattern!r} is none, {error}"
            raise SagaValidationError(message) from error

    def is_secret(self, key: str) -> bool:
        """Return whether what stands under this key is masked as a whole."""
        return self._keys.search(key) is not None

    def text(self, text: str) -> str:
        """Return a text with the secrets in it masked."""
        mask = self.mask
        if "://" in text:
            text = _URL_PASSWORD.sub(lambda found: f"{found[1]}{mask}@", text)
        if "-----BEGIN" in text:
            text = _PRIVATE_KEY.sub(lambda _: mask, text)
        if "eyJ" in text:
            text = _JWT.sub(lambda _: mask, text)
        text = self._assigned.sub(lambda found: f"{found[1]}{mask}", text)
        text = _BEARER.sub(lambda found: f"{found[1]}{found[2]}{mask}", text)
        text = _CARD.sub(lambda found: mask if _is_card(found[0]) else found[0], text)
        for pattern in self._patterns:
            text = pattern.sub(lambda _: mask, text)
        return text

    def value(self, key: str, value: Any) -> Any:
        """Return what may be shown of a value that stands under this key."""
        return self.mask if self.is_secret(key) else self._shown(value, 0)

    def _shown(self, value: Any, depth: int) -> Any:
        if depth >= DEPTH_MAX:
            return self.mask
        if isinstance(value, Mapping):
            return {
                self._shown(key, depth + 1): (
                    self.mask if isinstance(key, str) and self.is_secret(key) else self._shown(inner, depth + 1)
                )
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._shown(inner, depth + 1) for inner in value]
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return self.mask if _is_card(str(value)) else value
        # Of anything else only the text is known, which is what a renderer would show of it.
        return self.text(repr(value))

    def __call__(self, _logger: Any, _method: str, event_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Mask a structlog record; ``exc_info`` is left to the processor that renders it, which must stand before."""
        return {key: value if key in _OF_STRUCTLOG else self.value(key, value) for key, value in event_dict.items()}


Redaction.default = Redaction()

_OF_STRUCTLOG = frozenset({"exc_info", "stack_info", "_record", "_from_structlog", "saga_id", "saga", "step"})
"""What structlog's own processors look at, and identifiers."""


def one_line(text: str) -> str:
    """Return a text whose newlines and control characters are written as escapes, so that it cannot forge a record."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _is_card(text: str) -> bool:
    """Return whether the digits are a card number by length, first digit and Luhn's check."""
    digits = [int(char) for char in text if char.isdecimal()]
    if not CARD_DIGITS_MIN <= len(digits) <= CARD_DIGITS_MAX or str(digits[0]) not in CARD_FIRST:
        return False
    doubled = [2 * digit for digit in digits[-2::-2]]
    total = sum(digits[-1::-2]) + sum(digit // LUHN_BASE + digit % LUHN_BASE for digit in doubled)
    return total % LUHN_BASE == 0
