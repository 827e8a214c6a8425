"""Redaction: which keys and values are secret, in data and in running text, and that nothing else is lost."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog

from saga import Saga, SagaContext, SagaValidationError
from saga.monitoring import Redaction
from saga.monitoring._lines import one_line

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
        "pinCode",
        "userPin",
        "ssn",
        "customerSsn",
        "ssnNumber",
        "dbpass",
        "security_code",
        "api key",
    ],
)
def test_what_stands_under_a_secret_key_is_masked_as_a_whole(key: str) -> None:
    """Whatever its type, and at any depth."""
    redaction = Redaction()
    assert redaction.is_secret(key)
    for value in (SECRET, [SECRET], {"inner": SECRET}, 4711):
        assert redaction.value(key, value) == "***"
    assert SECRET not in str(redaction.value("data", [{"deep": ({key: SECRET},)}]))


@pytest.mark.parametrize(
    "key",
    [
        "order_id",
        "discarded",
        "wildcard",
        "cardinality",
        "shipping",
        "opinion",
        "step",
        "businessName",
        "className",
        "processName",
        "PROCESSNAME",
        "ssName",
        "bypass",
        "compass",
        "PING",
    ],
)
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
        f"{{'password': b'{SECRET}'}}",
        f"password=SecretStr('{SECRET}')",
        f"Order(card=Card(number='{SECRET}', exp='12/30'))",
        f"Headers([(b'x-api-key', b'{SECRET}')])",
        f"{{'card': {{'exp': [12, 30], 'holder': '{SECRET}'}}}}",
        f"{{'card': {{'note': '}}', 'holder': '{SECRET}'",
        f"('card', {{'number': '{SECRET}'}})",
        f"Authorization: ApiKey {SECRET}",
        f"Authorization: Digest username=a, response={SECRET}",
        f"signed AWS4-HMAC-SHA256 SignedHeaders=host, Signature={SECRET}",
        f'Cookie: "a=1"; sid={SECRET}',
        f"password=ab,{SECRET}",
        f"password=it's,{SECRET}",
        f"dbpass={SECRET}",
        f"https://{SECRET}:x-oauth-basic@bank.example/pay",
        f"ssh://{SECRET}{SECRET}@bank.example",
        f'{{"name": "password", "value": "{SECRET}"}}',
        f'<input name="password" value="{SECRET}">',
        f"<password><value>{SECRET}</value></password>",
        f"password=<Secret '{SECRET}'>",
        f"&quot;password&quot;: &quot;{SECRET}&quot;",
        f"password\\u003d{SECRET}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}+/==;EndpointSuffix=b",
        f"https://store.example/blob?sv=1&sig={SECRET}%2F&se=2",
        f"https://store.example/blob?X-Goog-Signature={SECRET}",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{SECRET}\n-----END PGP PRIVATE KEY BLOCK-----",
        f"decrypted {JWT.partition('.')[0]}..{SECRET}.{SECRET}.{SECRET}",
        f"decrypted {JWT}.{SECRET}.{SECRET}",
        f"bearer: {SECRET}",
        f"bearer={SECRET}",
        f"password := {SECRET}",
        f"assert password == '{SECRET}'",
        f"HTTP_AUTHORIZATION=Digest username=a, response={SECRET}",
        f"Set-Cookie: a=1; sid={SECRET}",
        f"'Proxy-Authorization': Digest username=a, response={SECRET}",
        f"cvv\n  String too long [type=string_too_long, input_value='{SECRET}', input_type=str]\n    For further",
        f"card.cvv\n  Wrong [type=x, input_value='a, input_type={SECRET}', input_type=str]",
        f"n\n  Wrong [type=x, input_value=1, input_type=int]\ncvv\n  Wrong [type=y, input_value={SECRET}",
        f"  | cvv\r\n  |   Wrong [type=x, input_value='{SECRET}', input_type=str]",
        f"detail='2 errors\\ncvv\\n  Wrong [type=x, input_value={SECRET}, input_type=str]\\nn'",
        f"[{{'type': 'x', 'loc': ('body', 'password'), 'msg': 'too short', 'input': '{SECRET}'}}]",
        f'{{"loc":["password"],"msg":"a \\"b\\"","input":{{"n":1,"inner":["{SECRET}"]}},"ctx":{{}}}}',
        f"Key (card_token)=({SECRET}) already exists.",
        f'DETAIL:  Key (user_id, token)=(5, {SECRET}) is not present in table "users".',
        f"Key (lower(token::text))=(a) b\nc {SECRET}) already exists.",
        f'Key (token)=(a) is {SECRET}) is still referenced from table "cards".',
        f"Key (token)=(a) conflicts with existing key (token)=({SECRET}).",
        f"Schlüssel »(token)=({SECRET})« existiert bereits.",
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
    "card",
    [
        CARD,
        "4111111111111111",
        "4111-1111-1111-1111",
        "378282246310005",
        "6011000990139424",
        "6759649826438453",
        "30569309025904",
    ],
)
def test_a_card_number_is_known_by_its_check_digit(card: str) -> None:
    """With one digit changed it is some other number, and stays."""
    assert Redaction().text(f"card{card}!") == "card***!"
    wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
    assert Redaction().text(f"number {wrong}") == f"number {wrong}"
    number = int(card.replace(" ", "").replace("-", ""))
    assert Redaction().value("number", number) == "***"
    assert Redaction().value("number", float(number)) == "***"
    assert Redaction().value("number", {number: 1}) == {"***": 1}


@pytest.mark.parametrize("blank", ["", " ", "-", ".", "\u00a0", "\u2009", "\u2011", "%20", "+", " - "])
@pytest.mark.parametrize(
    ("around", "shown"),
    [
        ("{} 12/27 123", "*** 12/27 123"),
        ("declined {} 123", "declined *** 123"),
        ("attempt 2 {}", "attempt 2 ***"),
        ("{}, {}", "***, ***"),
        ("24{}99", "24***99"),
        ("order 1234567 {} 1234567", "order 1234567 *** 1234567"),
        ("overlapping 4354 5853 9041 9947 6268, nested 6744717641057589436", "overlapping ***, nested ***"),
    ],
)
def test_no_digit_beside_a_card_number_hides_it(blank: str, around: str, shown: str) -> None:
    """What stands beside it is most often its date and its check value."""
    card = blank.join(CARD.split())
    assert Redaction().text(around.format(card, card)) == shown


@pytest.mark.parametrize("number", [10**18, -4111111111111111, 10**30, 4111111111111111.5, float("nan"), float("inf")])
def test_other_numbers_stay(number: float) -> None:
    """Of any size, and those that are none."""
    assert Redaction().value("n", [number])[0] is number


@pytest.mark.parametrize(
    "text",
    [
        "step 'pay' failed: connection refused",
        "http://inventory:8080/reserve answered 503 for a@b.example",
        "order 1234567890123 of 2026-11-25T14:48:39Z took 12.5 s",
        "took 22.5 13.7 44.1 22.0 3.9 51.2 17.8 20.5 30.9 s",
        "from ssh://git@host.example/x",
        "ratio 0.4111 of 1111 and 1111",
        "token expired",
        "the password, the card, and the pin",
        "it may pass",
        "authorization_id=auth_1 authorizationStatus=ok amount=300 EUR reason=too much",
        "name\n  Too short [type=x, input_value='joe', input_type=str]\n    For further information visit https://a.b",
        "[{'type': 'x', 'loc': ('n',), 'input': 'a'}, {'type': 'x', 'loc': ('name',), 'input': 'b'}]",
        "Key (user_id, order_id)=(5, o-1) already exists.",
        "signature=4711 of https://a.example/?signal=2&design=3",
        "",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    """Masking is of use only if what remains can be read."""
    assert Redaction().text(text) == text


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Authorization: Digest",
        "x-amzn-remapped-authorization: Basic",
        "HTTP_PROXY_AUTHORIZATION=Digest",
        "authorization_header: Digest",
        "cookies: theme=dark;",
        "session_cookie: theme=dark;",
        "Set-Cookie: theme=dark;",
    ],
)
def test_a_header_is_masked_to_the_end_of_its_line(header: str) -> None:
    """Of a digest, or of cookies, each part is secret; the next line is another header."""
    shown = Redaction().text(f'{header} first="{SECRET}", second={SECRET}; third={SECRET}\nhost: a.example')
    assert SECRET not in shown
    assert "theme" not in shown
    assert shown.endswith("\nhost: a.example")


@pytest.mark.parametrize("text", ["authorization_code=abc123", "authorizationCode: abc123", "token >= abc123"])
def test_a_name_that_may_be_a_secret_is_one(text: str) -> None:
    """A code of OAuth 2 is exchanged for tokens."""
    assert "abc123" not in Redaction().text(text)


def test_what_is_secret_can_be_said() -> None:
    """Keys in place of the defaults, further patterns, another mask."""
    redaction = Redaction(keys=["salary"], patterns=[r"cust-\d+"], mask="[hidden]")
    assert redaction.text("salary=100 of cust-17, password=open") == "salary=[hidden] of [hidden], password=open"
    assert Redaction(keys=()).value("password", "open") == "open"
    with pytest.raises(SagaValidationError, match=r"'\(' is none"):
        Redaction(patterns=["("])


def test_a_long_text_is_masked_in_little_time() -> None:
    """An error's text may have 4 KiB, and a record of a user more: no form of it may take seconds."""
    begun = time.process_time()
    for hostile in (
        "a" * 50_000,
        "://" * 20_000,
        "password" * 8_000,
        "1 " * 30_000,
        "{" * 50_000,
        "eyJ" * 20_000,
        '"' * 50_000,
        "4 " * 30_000,
        "41" * 30_000,
        "password=" * 7_000,
        "password=(" * 6_000,
        "password>" * 7_000,
        "password='" * 6_000,
        "password," * 8_000,
        "cookie: a\n" * 6_000,
        "a," * 30_000,
        "http://a" * 8_000,
        "(" * 50_000,
        "(a)=(" * 10_000,
        "(token)=(" * 6_000,
        "a\n  input_value=" * 3_000,
        "input_value=\na\n" + " " * 50_000,
        "input_value=\\na\\n" + " " * 50_000,
        "cvv\n  input_value=" * 3_000,
        "cvv\\n  input_value=" * 3_000,
        "'loc': ('token',) 'input'" * 2_000,
        "eyJaaaa." * 6_000,
        "?sig=" * 10_000,
        "-----BEGIN PGP PRIVATE KEY" * 2_000,
        "\\" * 50_000,
    ):
        Redaction().text(hostile)
        Redaction().text("password=" + hostile)
    assert time.process_time() - begun < 4.0


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


def test_a_key_in_data_is_seen_in_whatever_form_it_comes() -> None:
    """Pairs, as headers and forms have them; bytes; a key that is itself a value; tuples and sets; keys of mappings."""
    redaction = Redaction()
    given: list[Any] = [
        [("x-api-key", SECRET), ("n", 1)],
        [(b"x-api-key", SECRET.encode())],
        [["password", SECRET]],
        {b"password": SECRET},
        {("user", "password"): SECRET},
        {"name": "password", "value": SECRET},
        {"value": SECRET, "Header": b"cookie"},
        {"type": "string_too_short", "loc": ("password",), "input": SECRET},
        {"loc": ["body", "password"], "msg": "too short", "input": {"inner": SECRET}},
        ["mysql", "--password", SECRET, "--verbose"],
        ("curl", "--oauth-token", SECRET),
        ({"password": SECRET},),
        {f"password={SECRET}"},
        frozenset({f"password={SECRET}"}),
        {f"token={SECRET}": 1},
        {"deep": {f"token={SECRET}": {"inner": 1}}},
        {(f"token={SECRET}", 1): 1},
    ]
    for value in given:
        shown = redaction.value("headers", value)
        assert SECRET not in repr(shown), shown
        assert "***" in repr(shown)
    assert redaction.value("x", {"name": "size", "value": 3}) == {"name": "size", "value": 3}
    assert redaction.value("x", {"loc": ["size"], "input": 3}) == {"loc": ["size"], "input": 3}
    assert redaction.value("x", ["a", "--password=1", "b"]) == ["a", "--password=***", "b"]
    assert redaction.value("x", [["password", 1], ["n", 2]]) == [["password", "***"], ["n", 2]]
    assert redaction.value("x", (1, ("a", "b"))) == (1, ("a", "b"))
    assert redaction.value("x", {"a"}) == ["a"]


class Broken(dict[str, str]):
    """Raises when it is looked at."""

    def items(self) -> Any:
        """Fail."""
        message = "changed size"
        raise RuntimeError(message)


class OddError(Exception):
    """Nothing that a library would raise."""


class UntrueError(Exception):
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise OddError


class Lazy(Mapping[str, Any]):
    """Reads when it is asked, and cannot."""

    def __getitem__(self, key: str) -> Any:
        """Fail."""
        raise OddError

    def __iter__(self) -> Iterator[str]:
        """Return a key."""
        return iter(("name",))

    def __len__(self) -> int:
        """Return one."""
        return 1


class Rows(list[Any]):
    """A query that has not run yet, and cannot."""

    def __iter__(self) -> Any:
        """Fail."""
        raise OddError


class Loud(str):
    """A text that cannot be looked at."""

    __slots__ = ()

    def __contains__(self, part: object) -> bool:
        raise OddError


class Pretending:
    """Cannot say what class it is of."""

    @property
    def __class__(self) -> Any:
        """Fail."""
        raise OddError


class Grouped(ExceptionGroup[Exception]):
    """Cannot say what is in it."""

    @property
    def exceptions(self) -> Any:
        """Fail."""
        raise OddError


UNSHOWN = [
    SyntaxError("m", ("f", 1, 1, b"x")),
    Grouped("g", [ValueError("v")]),
    UntrueError("u"),
]
"""Exceptions of which traceback makes no text."""


class Mute:
    """Cannot say what it is."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_the_processor_raises_nothing_where_user_code_logs() -> None:
    """Whatever is logged: keys that no JSON has, what cannot be read, and numbers of any length."""
    redaction = Redaction()
    event = {"event": "x", "a": {("a", "b"): 1}, "b": Broken(), "c": Mute(), "d": 10**5_000, "e": {frozenset({1}): 2}}
    shown = redaction(None, "info", event)
    assert shown["event"] == "x"
    assert shown["a"] == {"('a', 'b')": 1}
    assert shown["b"] == "***"
    assert "Mute" in shown["c"]
    assert shown["d"] is event["d"]
    event = {
        "event": "x",
        "a": Lazy(),
        "b": Rows([1]),
        "c": Loud("y"),
        "d": Pretending(),
        "name": Pretending(),
        "value": 1,
    }
    shown = redaction(None, "info", {**event, "in": {"name": Pretending(), "value": 1}, "saga_id": "o-1"})
    assert (shown["event"], shown["a"], shown["b"], shown["c"], shown["d"]) == ("x", "***", "***", "y", "***")
    assert (shown["value"], shown["in"], shown["saga_id"]) == ("***", {"name": "***", "value": "***"}, "o-1")


def test_an_exception_that_cannot_be_shown_is_told_by_its_type() -> None:
    """And one whose truth raises is one all the same; what only looks like one raises nothing."""
    redaction = Redaction()
    for error in UNSHOWN:
        shown = redaction(None, "error", {"event": "x", "exc_info": error})
        assert shown == {"event": "x", "exception": f"{type(error).__name__} could not be shown"}
    assert redaction(None, "error", {"event": "x", "exc_info": Pretending()}) == {"event": "x"}
    assert redaction(None, "error", {"event": "x", "stack_info": Pretending()})["event"] == "x"


class Unable(Redaction):
    """Cannot mask."""

    def text(self, text: str) -> str:
        """Fail."""
        raise OddError(text)

    def is_secret(self, key: str) -> bool:
        """Fail."""
        raise OddError(key)


def test_a_redaction_of_the_users_that_raises_masks_all_it_is_given() -> None:
    """What structlog's processors need, and identifiers, stay."""
    record = {"event": f"password={SECRET}", "n": 1, "saga_id": "o-1", "_record": 3, "exc_info": ValueError("x")}
    shown = Unable()(None, "info", record)
    assert {"event": "***", "saga_id": "o-1", "_record": 3, "exception": "***"}.items() <= shown.items()
    assert SECRET not in str(shown)


@pytest.mark.parametrize(
    "renderer",
    [
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
    ],
)
@pytest.mark.parametrize("first", [(), (structlog.dev.set_exc_info,), (structlog.processors.format_exc_info,)])
def test_no_renderer_shows_the_exception_as_it_is(renderer: Any, first: Any) -> None:
    """The processor makes masked text of it, in whichever form it was given, and of the stack."""
    text = io.StringIO()
    log = structlog.wrap_logger(structlog.WriteLogger(text), processors=[*first, Redaction(), renderer])
    error = ValueError(f"password={SECRET}")
    log.error("failed", exc_info=error)
    log.error("failed", exc_info=(type(error), error, error.__traceback__))
    try:
        raise error
    except ValueError:
        assert SECRET not in Redaction()(None, "exception", {"event": "failed"})["exception"]
        log.exception("failed")
        log.warning("failed", exc_info=True, stack_info=True)
    shown = text.getvalue()
    assert SECRET not in shown
    assert shown.count("ValueError: password=***") == 4
    assert shown.count("in test_no_renderer_shows_the_exception_as_it_is") >= 3
    assert "Stack (most recent call last)" in shown
    assert "structlog/" not in shown


def test_what_says_that_there_is_no_exception_shows_none() -> None:
    """And the order of a record's keys stays, and identifiers do."""
    redaction = Redaction()
    record = {"step": "a", "n": 1, "event": "x", "saga_id": "o-1", "exc_info": None, "stack_info": False}
    assert list(redaction(None, "info", record)) == ["step", "n", "event", "saga_id"]
    assert redaction(None, "info", {"saga_id": "4111111111111111"}) == {"saga_id": "4111111111111111"}
    assert "exception" not in redaction(None, "error", {"event": "x", "exc_info": True})
    assert "exception" not in redaction(None, "error", {"event": "x", "exc_info": (None, None, None)})
    assert redaction(None, "error", {"event": "x", "stack_info": f"token={SECRET}"})["stack"] == "token=***"


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
