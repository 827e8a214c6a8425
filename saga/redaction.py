"""The one place where secrets are masked before anything leaves the process: in records, spans and texts of errors.

It looks at keys (``password``, ``card_number`` and their like) and at values (card numbers, JWTs, passwords in URLs),
also where both stand in running text. What it cannot know, such as a bare password in a sentence, it cannot mask:
rather keep secrets out of error texts. Identifiers (saga ids, names of sagas and steps) are shown as they are.
"""

from __future__ import annotations

import inspect
import re
import reprlib
import sys
import traceback
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, ClassVar

from saga.exceptions import SagaValidationError
from saga.foreign import read

SECRET_KEYS = (
    "pass(?:wor[dt]|wd|phrase|code)",
    "(?<!com)(?<!by)(?<!sur)(?<!tres)pass(?![a-z])",
    "pwd",
    "secret",
    "token",
    "(?<![a-z])bearer(?![a-z])",
    "(?:api|access|account|private|signing|encryption)[ _-]?key",
    # What a payment's approval is called is an identifier.
    "authorization(?![ _-]?(?:id|status)(?![a-z]))",
    "credential",
    "cookie",
    "session[_-]?id",
    "(?<!dis)(?<!wild)card(?!inal)",
    "cv[vc]",
    "security[_-]?code",
    "(?:amz|goog|hmac)[_-]?signature",
    "iban",
    "account[_-]?number",
    # Words this short stand in others (businessName, PING): they count as whole words, also in camel case.
    "(?<![a-z])(?:pin|otp|ssn)(?![a-z])",
    "(?-i:(?<=[a-z])(?:Pin|PIN|Otp|OTP|Ssn|SSN)(?![a-z]))",
    "(?-i:(?<![A-Za-z])(?:pin|otp|ssn)(?=[A-Z]))",
)
"""Regular expressions, searched for without regard to case: a key in which one is found holds a secret."""

MASK = "***"
DEPTH_MAX = 16
"""Deeper values are masked as a whole."""

# Bounded, so that no text makes the search start everywhere and run to its end each time.
_FORMS = tuple(
    (hint, re.compile(form, flags))
    for hint, form, flags in (
        ("://", r"(://[^/\s:@]{0,256}:)\S{0,2048}(@)", 0),
        # Who calls by HTTP puts a token where the user's name stands; elsewhere only its length tells them apart.
        ("://", r"(https?://)[^/\s:@?#]{1,256}(?::[^/\s:@]{0,256})?(@)", re.IGNORECASE),
        ("://", r"(://)[^/\s:@?#]{20,256}(@)", 0),
        ("=", r"([?&;](?:x-[a-z]{1,16}-)?sig(?:nature)?=)[^\s&#;\"'<>]+()", re.IGNORECASE),
        ("-----BEGIN", r"()-----BEGIN [A-Z ]{0,32}PRIVATE KEY.*?(?:-----END [A-Z ]{0,64}-----|$)()", re.DOTALL),
        # Of three parts, or of five where it is encrypted; the second may be empty there.
        ("eyJ", r"()(?<!eyJ)eyJ[\w-]{4,2048}\.[\w-]*\.[\w-]*(?:\.[\w-]+){0,2}()", 0),
        ("AWS4-", r"(\bAWS4-[A-Z0-9-]{1,40}\s)[^\r\n]+()", 0),
    )
)
"""What a text has in it where a secret may be; what stands before a secret, the secret, and what stands behind it."""
_BEARER = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE)

_BETWEEN = (
    r"""(?:(?<=["'])\s{0,8},?\s{0,8}b?\\{0,3}["']?val(?:ue)?\\{0,3}["']?\s{0,8}[:=]\s{0,8}"""
    r"""|\s{0,8}(?:[:=<>!]=|=>|[:=>]|%3[AD]|\\u003[ad]|&\#(?:61|x3d);)\s{0,8}"""
    r"""|(?<=["'])\s{0,8},\s{0,8}(?=[bru]{0,2}\\{0,3}["']|[\[({\d]))"""
)
"""What stands between a key and its value: also a comma in a pair, or ``"value":`` where the key is itself a value."""

_NO_TYPE = "(?<!error)(?<!exception)"
"""What names an exception, such as CardDeclinedError, is no key: behind it stands what it says."""

_LEAD = re.compile(r"""(?i)(?:(?:bearer|basic|digest|token)\s+)?(?:[bruf]{1,2}(?=\\{0,3}["'])|&quot;|%22)?""")
_QUOTED = re.compile(r"""(?P<quote>\\{0,3}["'])(?:(?!(?P=quote))(?:\\.|.))*(?:(?P=quote)|\Z)""", re.DOTALL)
_OPENED = re.compile(r"[\w.]{0,128}[\[({]")
_BRACKETS = re.compile(rf"(?P<open>[\[({{])|(?P<close>[\])}}])|{_QUOTED.pattern}", re.DOTALL)
_BARE = re.compile(r"""(?:[^\s,;&)}\]"'<]|["'](?=\w)|,(?=[^\s,"'])(?![\w.-]{0,64}[=:]))+""")
"""Up to a blank or separator; a comma or quote inside a word belongs to it, unless behind it stands the next key."""
_ANGLED = re.compile(r"<(?!/)[^>]{0,2048}>?")
_HEADER = re.compile(r"(?:authorization|cookies?)(?:[_-]header)?(?![\w-])", re.IGNORECASE)
_REST = re.compile(r"[^\r\n]*")
_ELEMENT_MAX = 2_048

_BLANK = r"(?:%20|\\xa0|&nbsp;|[ \t\xa0\u2007-\u200a\u202f._+/\u2010-\u2015\u2212-]{1,3})"
_DIGITS = re.compile(rf"\d(?:{_BLANK}?\d){{12,}}")
_DIGIT = re.compile(r"%20|\d")
_ISSUED = re.compile(r"4\d{15}|5[1-5]\d{14}|2[2-7]\d{14}|35\d{14}|6[0245]\d{14}|3[47]\d{13}")
"""What the large issuers' numbers look like: known also inside of a longer number."""
LUHN_BASE = 10
CARD_DIGITS_MIN, CARD_DIGITS_MAX = 13, 19
CARD_FIRST, CARD_GROUP_MIN = "23456", 3

_NAMING = frozenset({"name", "key", "field", "header", "loc"})
_NAMED = frozenset({"value", "values", "val", "input"})
"""``{"name": "password", "value": ...}`` says its key in a value; pydantic says ``loc`` and ``input``."""

_NEWLINE = r"(?:\r?\n|\\{1,2}n)"
_SAID = tuple(
    (hint, re.compile(key, re.MULTILINE), re.compile(value) if value else None)
    for hint, key, value in (
        # pydantic: a line with the field, and below it ``what is wrong [type=..., input_value=..., input_type=...]``.
        (
            "input_value=",
            rf"(?:^|{_NEWLINE})([^\r\n\\]{{1,256}}){_NEWLINE}[ \t][^\r\n]{{0,1024}}?\binput_value=",
            r"(?:[^\r\n]*|(?s:.{0,512}?))(?=, input_type=)|[^\r\n]*",
        ),
        # The same as data.
        (
            "input",
            r"""loc\\{0,3}["']\s?:\s?[\[(]([^\])]{1,256})[\])](?s:(?!["']loc\b).){0,1024}?["']input\\{0,3}["']\s?:\s?""",
            "",
        ),
        # PostgreSQL: ``Key (user_id, token)=(5, ...) already exists``.
        (
            ")=(",
            r"\(([^=\r\n]{1,256}?)\)=\(",
            r"(?:[^\r\n]*|(?s:.{0,1024}?))(?=\) (?:already|is (?:not|still)|conflicts) )|[^\r\n]*(?=\))|[^\r\n]*",
        ),
    )
)
"""Texts that name a secret first: a part of them, the names (group 1) up to the value, the value if it is special."""

_REPR = reprlib.Repr()
_REPR.maxother = sys.maxsize
"""Says what kind of object it is whose ``repr`` raises; cuts nothing, since a cut can part a key from its value."""


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
                rf"(?:{words})[\w-]{{0,64}}{_NO_TYPE}(?:\\{{0,3}}[\"']|&quot;|%22)?{_BETWEEN}", re.IGNORECASE
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
        for hint, form in _FORMS:
            if hint in text:
                text = form.sub(lambda found: f"{found[1]}{mask}{found[2]}", text)
        for hint, key, value in _SAID:
            if hint in text:
                text = self._without(text, key, value)
        text = self._without(text, self._assigned)
        text = _BEARER.sub(lambda found: f"{found[1]}{mask}", text)
        text = _DIGITS.sub(lambda found: _without_cards(found[0], mask), text)
        for pattern in self._patterns:
            text = pattern.sub(lambda _: mask, text)
        return text

    def value(self, key: str, value: Any) -> Any:
        """Return what may be shown of a value that stands under this key."""
        return self.mask if self._names(key) else self._shown(value, 0)

    def _without(self, text: str, key: re.Pattern[str], value: re.Pattern[str] | None = None) -> str:
        """Return a text without what stands behind the keys in it; each part of it is looked at once."""
        parts: list[str] = []
        done = at = 0
        while found := key.search(text, at):
            at = found.end()
            if key is self._assigned or self.is_secret(found[1]):
                said = value.match(text, at) if value else None
                at = said.end() if said else _end_of_value(text, found)
            if at > found.end():
                parts += (text[done : found.end()], self.mask)
                done = at
        return "".join((*parts, text[done:])) if parts else text

    def _shown(self, value: Any, depth: int) -> Any:
        # Whatever is logged may be of the user's own making, and raise what it likes.
        return self.mask if depth >= DEPTH_MAX else read(self._looked_at, value, depth + 1, otherwise=self.mask)

    def _looked_at(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if not isinstance(value, list | tuple | set | frozenset):
            return self._plain(value)
        inside = list(value)
        shown = [self._shown(inner, depth) for inner in inside]
        if isinstance(value, list | tuple):
            # Headers and fields of forms come as pairs, a command's option and its value side by side.
            if len(inside) == len(("key", "value")) and self._names(inside[0]):
                return [shown[0], self.mask]
            for place, option in enumerate(inside[:-1], start=1):
                if isinstance(option, str) and option.startswith("-") and "=" not in option and self._names(option):
                    shown[place] = self.mask
        # A tuple stays one: processors after this one may format a text with it.
        return tuple(shown) if isinstance(value, tuple) else shown

    def _mapping(self, value: Mapping[Any, Any], depth: int, kept: Collection[str] = ()) -> dict[Any, Any]:
        items = list(value.items())
        naming = (inner for key, inner in items if _text_of(key).lower() in _NAMING)
        named = any(self._names(tuple(inner) if type(inner) is list else inner) for inner in naming)
        shown = {}
        for key, inner in items:
            hidden = self._names(key) or (named and _text_of(key).lower() in _NAMED)
            shown_key = self._shown(key, depth)
            if isinstance(shown_key, list | tuple | dict):
                shown_key = self.text(_REPR.repr_instance(key, 0))
            if key in kept:
                shown[key] = inner
            else:
                shown[shown_key] = self.mask if hidden else self._shown(inner, depth)
        return shown

    def _names(self, key: Any) -> bool:
        """Return whether this is the name of a secret, or has one in it; what cannot be looked at may be one."""
        return read(self._has_name, key, otherwise=True)

    def _has_name(self, key: Any) -> bool:
        if isinstance(key, tuple | frozenset):
            return any(self._has_name(part) for part in key if isinstance(part, str | bytes))
        return isinstance(key, str | bytes | bytearray) and self.is_secret(_text_of(key))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self.mask if _is_card_number(value) else value
        # Of anything else only the text is known, which is what a renderer would show of it.
        return self.text(_REPR.repr_instance(value, 0))

    def __call__(self, _logger: Any, method: str, event_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Mask a structlog record, and never raise.

        Exceptions and stacks become masked text here, as ``exception`` and ``stack``, since a renderer after this
        processor would show them as they are.
        """
        given = {key: value for key, value in event_dict.items() if key not in ("exc_info", "stack_info")}
        least = {key: given[key] for key in _LEFT_ALONE & given.keys()} | {"event": self.mask}
        shown = read(self._mapping, given, 0, _LEFT_ALONE, otherwise=least)
        if "event" in given:
            shown.setdefault("event", self.mask)
        error = read(_error_of, event_dict.get("exc_info", method == "exception"), otherwise=None)
        if error is not None and "exception" not in shown:
            shown["exception"] = self._shown(traceback_of(error), 0)
        stack = event_dict.get("stack_info")
        if "stack" not in shown and read(bool, stack, otherwise=False):
            shown["stack"] = self._shown(stack if type(stack) is str else _stack(), 0)
        return shown


Redaction.default = Redaction()

_LEFT_ALONE = frozenset({"_record", "_from_structlog", "saga_id", "saga", "step"})
"""What structlog's own processors look at, and identifiers."""


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, which may be one that cannot be shown."""
    lines = read(traceback.format_exception, error, otherwise=[f"{type(error).__name__} could not be shown"])
    return "".join(lines).rstrip("\n")


def _text_of(key: Any) -> str:
    if isinstance(key, bytes | bytearray):
        return key.decode("latin-1")
    return key if isinstance(key, str) else ""


def _end_of_value(text: str, key: re.Match[str]) -> int:
    """Return where the value ends whose key was found: in quotes, in brackets, or bare."""
    begin = key.end()
    lead = _LEAD.match(text, begin)
    at = begin if lead is None else lead.end()
    header = _HEADER.search(text, key.start(), begin) is not None
    quoted = _QUOTED.match(text, at)
    if quoted and not (header and text.startswith(";", quoted.end())):
        return quoted.end()
    if opened := _OPENED.match(text, at):
        return _end_of_brackets(text, opened.end() - 1)
    # Of a header, quotes may hold the first part alone.
    if header and (line := _REST.match(text, begin)):
        return line.end()
    if text[begin - 1] == ">" and (closed := text.find("</", begin, begin + _ELEMENT_MAX)) >= 0:
        return closed
    found = _ANGLED.match(text, at) or _BARE.match(text, at)
    return begin if found is None else found.end()


def _end_of_brackets(text: str, begin: int) -> int:
    """Return where the bracket closes that opens here; the end of the text if it never does: it may be cut."""
    depth = 0
    for found in _BRACKETS.finditer(text, begin):
        depth += (found["open"] is not None) - (found["close"] is not None)
        if depth == 0:
            return found.end()
    return len(text)


def _without_cards(run: str, mask: str) -> str:
    """Return digits, with blanks between them, without the card numbers in them.

    Every window of 13 to 19 digits is tried, so that no digit beside a card number hides it. Sums from the beginning
    of the run make each trial a subtraction.
    """
    # The digits of an escape are none of the number.
    places = [found.start() for found in _DIGIT.finditer(run) if found[0] != "%20"]
    digits = "".join(str(int(run[at])) for at in places)
    sums = [[0], [0]]
    for index, char in enumerate(digits):
        digit = int(char)
        doubled = 2 * digit // LUHN_BASE + 2 * digit % LUHN_BASE
        for parity in (0, 1):
            sums[parity].append(sums[parity][-1] + (digit if index % 2 == parity else doubled))
    parts: list[str] = []
    done = end = 0
    for first, char in enumerate(digits):
        if char not in CARD_FIRST:
            continue
        for last in range(min(first + CARD_DIGITS_MAX, len(digits)) - 1, first + CARD_DIGITS_MIN - 2, -1):
            total = sums[last % 2][last + 1] - sums[last % 2][first]
            if last >= end and total % LUHN_BASE == 0 and _looks_like_card(digits, places, first, last):
                if first >= end:
                    parts += (run[done : places[first]], mask)
                end = last + 1
                done = places[last] + 1
                break
    return "".join((*parts, run[done:])) if parts else run


def _looks_like_card(digits: str, places: list[int], first: int, last: int) -> bool:
    """Return whether digits that pass the check stand like a card number: alone or an issuer's, in fair groups."""
    inside = places[first : last + 1]
    if inside[-1] - inside[0] >= len(inside):
        gaps = [0, *(n for n in range(1, len(inside)) if inside[n] - inside[n - 1] > 1)]
        groups = {after - before for before, after in pairwise(gaps)}
        if len(groups) > 1 and min(groups) < CARD_GROUP_MIN:
            return False
    begins = first == 0 or places[first] - places[first - 1] > 1
    ends = last + 1 == len(places) or places[last + 1] - places[last] > 1
    return (begins and ends) or _ISSUED.fullmatch(digits, first, last + 1) is not None


def _is_card_number(number: float) -> bool:
    """Return whether a number is that of a card, also where it came through a spreadsheet as a float."""
    if not LUHN_BASE ** (CARD_DIGITS_MIN - 1) <= number < LUHN_BASE**CARD_DIGITS_MAX or number != int(number):
        return False
    return _without_cards(str(int(number)), "") == ""


def _error_of(exc_info: Any) -> BaseException | None:
    """Return the exception that structlog would render for this."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1] if len(exc_info) > 1 else None
    elif not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1] if exc_info else None
    return exc_info if isinstance(exc_info, BaseException) else None


def _stack() -> str:
    """Return the stack of who logs."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith((__name__, "structlog")):
        frame = frame.f_back
    return "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)).rstrip("\n")
