"""Call a service so that the saga knows what to conclude from every way in which the call can end.

Clients come from the orchestrator's resources: ``SagaOrchestrator(resources={"payment": client("http://…")})``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from opentelemetry import propagate

from saga import OutcomeUnknownError, SagaContext
from sagas.errors import REFUSALS, RefusedError, ServiceUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0

_NOTHING_WAS_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_NO_REFUSALS = ("bad_request", "key_reused", "no_key", "unknown_fault")
"""What a service answers to a call that it cannot judge: this one was not understood, or its key was used otherwise.

None of them says that there was no effect: an earlier call under the key may have had one.
"""


class _Refusal(msgspec.Struct):
    code: str
    message: str


class _RefusalBody(msgspec.Struct):
    error: _Refusal


def client(base_url: str, answer_seconds: float = ANSWER_SECONDS) -> httpx.AsyncClient:
    """Return a client of one service; close it, or use it with ``async with``.

    Args:
        base_url: Where the service listens.
        answer_seconds: How long an answer is waited for; shorter than the timeout of the steps that call.
    """
    timeout = httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS)
    # Proxies of the environment are left out: the services listen on loopback.
    return httpx.AsyncClient(
        base_url=base_url, timeout=timeout, trust_env=False, event_hooks={"request": [_say_who_calls]}
    )


async def _say_who_calls(request: httpx.Request) -> None:
    """Hand the trace context of the running step on; without a trace there is nothing to say."""
    propagate.inject(request.headers)


async def call(ctx: SagaContext, service: str, path: str, body: Mapping[str, object], answer: type[T]) -> T:
    """Post the body under the context's idempotency key and return the decoded answer.

    Args:
        ctx: The attempt on whose behalf the service is called.
        service: The name of the client among the orchestrator's resources.
        path: The path of the call.
        body: What is asked for, as JSON values.
        answer: The type that the answer is decoded as.

    Raises:
        RefusedError: The service said no, in its own words: no effect.
        ServiceUnreachableError: Nothing was sent: no effect of this call. An earlier attempt may have had one.
        OutcomeUnknownError: The answer is missing, is an error of the service or of something before it, or cannot be
            read: the effect may have happened.
    """
    http: httpx.AsyncClient = ctx.resource(service)
    headers = {"Idempotency-Key": header_safe(ctx.idempotency_key)}
    try:
        response = await http.post(path, json=body, headers=headers)
    except _NOTHING_WAS_SENT as error:
        raise ServiceUnreachableError(service, f"no connection for {path}: {_text(error)}") from error
    except httpx.RequestError as error:
        raise _unknown(ctx, f"{service}: no answer to {path}: {_text(error)}") from error
    logger.debug("%s: %s %s answered %d", ctx.idempotency_key, service, path, response.status_code)
    if response.is_success:
        try:
            return msgspec.json.decode(response.content, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _unknown(ctx, f"{service}: the answer to {path} cannot be read: {error}") from error
    refusal = _refusal(service, response)
    if refusal is not None and response.is_client_error and refusal.code not in _NO_REFUSALS:
        raise refusal
    told = response.text[:200] if refusal is None else refusal.reason
    raise _unknown(ctx, f"{service}: {path} answered {response.status_code}: {told}")


def header_safe(key: str) -> str:
    """Return the key as ASCII that can stand in a header; services see actions' keys only in this form."""
    return quote(key, safe=":")


def undoes(ctx: SagaContext) -> dict[str, str]:
    """Return the body of an undo: it names the action's key, so it works without the action's result as well."""
    return {"undoes": header_safe(ctx.action_key)}


def _unknown(ctx: SagaContext, message: str) -> OutcomeUnknownError:
    logger.warning("%s, whose outcome is unknown: %s", ctx.idempotency_key, message)
    return OutcomeUnknownError(message, saga_id=ctx.saga_id, step=ctx.step_name)


def _refusal(service: str, response: httpx.Response) -> RefusedError | None:
    """Return what the service says against it; None if these are not the service's words, but a proxy's, say."""
    try:
        refusal = msgspec.json.decode(response.content, type=_RefusalBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return REFUSALS.get(refusal.code, RefusedError)(service, refusal.code, refusal.message)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
