"""Redaction: which keys and values are secret, in data and in running text, and that nothing else is lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from saga import Saga, SagaContext, SagaValidationError
from saga.monitoring import Redaction
from saga.redaction import one_line

SECRET = "canary-7f3a"  # noqa: S105 - what the tests look for
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "db_password",
        "userPassword",
        "passwd",
        "pwd",
        "client_secret",
        "TOKEN",
        "refreshToken",
        "api_key",
        "api-key",
        "apiKey",
        "access_key",
        "Authorization",
        "card",
        "card_number",
        "creditCard",
        "cvv",
        "cvc2",
        "iban",
        "cookie",
        "pin",
    ],
)
def test_what_stands_under_a_secret_key_is_masked_as_a_whole(key: str) -> None:
    """Whatever its type, and at any depth."""
    redaction = Redaction()
    assert redaction.is_secret(key)
    for value in (SECRET, [SECRET], {"inner": SECRET}, 4711):
        assert redaction.value(key, value) == "***"
    assert SECRET not in str(redaction.value("data", [{"deep": ({key: SECRET},)}]))


@pytest.mark.parametrize("key", ["order_id", "discarded", "wildcard", "cardinality", "shipping", "opinion", "step"])
def test_a_key_that_only_looks_like_a_secret_one_is_left_alone(key: str) -> None:
    """Or nobody could read the records."""
    assert Redaction().value(key, SECRET) == SECRET


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET}",
        f"password: {SECRET}",
        f"PASSWORD = {SECRET}, retry",
        f"login failed for token {JWT}",
        f'{{"api_key": "{SECRET}", "n": 1}}',
        f"{{'card': {{'number': '{SECRET}'}}}}",
        f"{{'tokens': ['{SECRET}', 'b']}}",
        f'body was "{{\\"secret\\": \\"{SECRET}\\"}}"',
        f"Authorization: Bearer {SECRET}",
        f"sent Bearer {SECRET} to it",
        f"Authorization: Basic {SECRET}==",
        f"postgresql://saga:{SECRET}@db/app is away",
        f"redis://:{SECRET}@cache:6379/0",
        f"amqp://u:p@{SECRET}@host/",
        f"https://api.example/?user=a&token={SECRET}&page=2",
        f"<password>{SECRET}</password>",
        f"password => {SECRET}",
        f'password="two words {SECRET}"',
        f"password='it\\'s {SECRET}', n=1",
        f"[('password', '{SECRET}'), ('n', 1)]",
        f"password%3D{SECRET}%26n%3D1",
        f"pass={SECRET} otp={SECRET}",
        f"it is -----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_secret_in_a_text_is_masked_where_its_form_or_its_key_tells(text: str) -> None:
    """Texts of errors carry bodies, headers and URLs."""
    shown = Redaction().text(text)
    assert SECRET not in shown
    assert JWT not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "card", [CARD, "4111111111111111", "4111-1111-1111-1111", "378282246310005", "6011000990139424"]
)
def test_a_card_number_is_known_by_its_check_digit(card: str) -> None:
    """With one digit changed it is some other number, and stays."""
    assert Redaction().text(f"card{card}!") == "card***!"
    wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
    assert Redaction().text(f"number {wrong}") == f"number {wrong}"
    assert Redaction().value("number", int(card.replace(" ", "").replace("-", ""))) == "***"


@pytest.mark.parametrize(
    "text",
    [
        "step 'pay' failed: connection refused",
        "http://inventory:8080/reserve answered 503 for a@b.example",
        "order 1234567890123 of 2026-11-25T14:48:39Z took 12.5 s",
        "token expired",
        "the password, the card, and the pin",
        "it may pass",
        "",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    """Masking is of use only if what remains can be read."""
    assert Redaction().text(text) == text


def test_what_is_secret_can_be_said() -> None:
    """Keys in place of the defaults, further patterns, another mask."""
    redaction = Redaction(keys=["salary"], patterns=[r"cust-\d+"], mask="[hidden]")
    assert redaction.text("salary=100 of cust-17, password=open") == "salary=[hidden] of [hidden], password=open"
    assert Redaction(keys=()).value("password", "open") == "open"
    with pytest.raises(SagaValidationError, match=r"'\(' is none"):
        Redaction(patterns=["("])


def test_a_long_text_is_masked_in_little_time() -> None:
    """An error's text may have 4 KiB, and a record of a user more: no form of it may take seconds."""
    begun = time.perf_counter()
    for hostile in (
        "a" * 50_000,
        "://" * 20_000,
        "password" * 8_000,
        "1 " * 30_000,
        "{" * 50_000,
        "eyJ" * 20_000,
        '"' * 50_000,
    ):
        Redaction().text(hostile)
        Redaction().text("password=" + hostile)
    assert time.perf_counter() - begun < 4.0


def test_values_that_are_no_text_are_shown_as_text_or_left() -> None:
    """Numbers and booleans stay; an object is what it says of itself, masked; endless nesting ends."""

    class Login:
        def __repr__(self) -> str:
            return f"Login(password={SECRET!r})"

    redaction = Redaction()
    assert redaction.value("n", [1, 2.5, True, None]) == [1, 2.5, True, None]
    assert redaction.value("login", Login()) == "Login(password=***)"
    nested: list[object] = []
    nested.append(nested)
    assert "***" in str(redaction.value("nested", nested))


@pytest.mark.parametrize("char", ["\n", "\r", "\x1b", "\x00", "\x85", "\u2028", "\u2029", "\u202e", "\ud800"])
def test_no_text_can_begin_a_new_line_or_hide_what_follows(char: str) -> None:
    """Control characters, line separators and marks that turn the writing around become escapes."""
    shown = one_line(f"a{char}b")
    assert char not in shown
    assert shown.isprintable()
    assert (shown[0], shown[-1]) == ("a", "b")
    assert one_line("größer als 3 €") == "größer als 3 €"


def test_the_name_of_an_exception_is_no_key() -> None:
    """What stands behind CardDeclinedError is what went wrong; behind card, the card."""
    text = "CardDeclinedError: payment: the bank declined; TokenException: late; card: 12; token_error_code: 7"

    assert Redaction().text(text) == (
        "CardDeclinedError: payment: the bank declined; TokenException: late; card: ***; token_error_code: ***"
    )


class Refused(Saga):
    """A saga whose error quotes what nobody else may see."""

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("ask", self._ask)

    async def _ask(self, _ctx: SagaContext) -> None:
        message = "no such customer: cust-17, password=hunter2"
        raise ValueError(message)


def test_one_redaction_serves_wherever_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the texts of errors, too, where none can be given."""
    monkeypatch.setattr(Redaction, "default", Redaction(patterns=[r"cust-\d+"]))
    result = asyncio.run(Refused().execute())

    assert str(result.error).endswith("failed: ValueError: no such customer: ***, password=***")
