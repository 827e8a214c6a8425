"""Call a service so that the saga knows what to conclude from every way in which the call can end.

Clients come from the orchestrator's resources: ``SagaOrchestrator(resources={"payment": client("http://…")})``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from opentelemetry import propagate

from saga import OutcomeUnknownError, SagaContext
from sagas.errors import REFUSALS, RefusedError, ServiceUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0

_NOTHING_WAS_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Refusal(msgspec.Struct):
    code: str
    message: str


class _RefusalBody(msgspec.Struct):
    error: _Refusal


def client(base_url: str) -> httpx.AsyncClient:
    """Return a client of one service; close it, or use it with ``async with``."""
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
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
        RefusedError: The service answered 4xx: no effect.
        ServiceUnreachableError: Nothing was sent: no effect.
        OutcomeUnknownError: The answer is missing, is 5xx or cannot be read: the effect may have happened.
    """
    http: httpx.AsyncClient = ctx.resource(service)
    headers = {"Idempotency-Key": header_safe(ctx.idempotency_key)}
    try:
        response = await http.post(path, json=body, headers=headers)
    except _NOTHING_WAS_SENT as error:
        raise ServiceUnreachableError(service, f"no connection for {path}: {_text(error)}") from error
    except httpx.TransportError as error:
        message = f"{service}: no answer to {path}: {_text(error)}"
        raise OutcomeUnknownError(message, saga_id=ctx.saga_id, step=ctx.step_name) from error
    if response.is_client_error:
        raise _refusal(service, response)
    try:
        if not response.is_success:
            response.raise_for_status()
        return msgspec.json.decode(response.content, type=answer)
    except (httpx.HTTPStatusError, msgspec.MsgspecError) as error:
        message = f"{service}: {path} answered {response.status_code}: {response.text[:200]}"
        raise OutcomeUnknownError(message, saga_id=ctx.saga_id, step=ctx.step_name) from error


def header_safe(key: str) -> str:
    """Return the key as ASCII that can stand in a header; services see actions' keys only in this form."""
    return quote(key, safe=":")


def undoes(ctx: SagaContext) -> dict[str, str]:
    """Return the body of an undo: it names the action's key, so it works without the action's result as well."""
    return {"undoes": header_safe(ctx.action_key)}


def _refusal(service: str, response: httpx.Response) -> RefusedError:
    try:
        refusal = msgspec.json.decode(response.content, type=_RefusalBody).error
    except msgspec.MsgspecError:
        return RefusedError(service, f"http_{response.status_code}", response.text[:200])
    return REFUSALS.get(refusal.code, RefusedError)(service, refusal.code, refusal.message)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
