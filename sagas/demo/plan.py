"""What a worker process of the demo is told to do: sagas to run, calls to break, and where to die. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec

from saga import Phase


class StepFault(msgspec.Struct, frozen=True, kw_only=True):
    """Break the next calls of one step.

    Attributes:
        step: The step's name.
        fault: What ``sagas.services.faults`` knows, such as ``reply-lost`` or ``slow=2``.
        times: How many calls in a row.
        phase: Whether the calls of its action or of its compensation.
    """

    step: str
    fault: str
    times: int = 1
    phase: Phase = Phase.ACTION


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """Kill the worker by SIGKILL while it runs a step, as often as it runs it.

    Attributes:
        step: The step's name.
        when: Before the step's code runs, or after it has run and before its outcome is recorded.
        phase: Whether in its action or in its compensation.
    """

    step: str
    when: Literal["before", "after"] = "after"
    phase: Phase = Phase.ACTION


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One saga to run.

    Attributes:
        case: The domain's case, as JSON.
        faults: Calls to break.
        crash: Where to die, if anywhere.
        saga_id: The saga's id, if it is not the case's number.
        how: Whether it is started, or waited for because another worker has left it, or first said to be tried again
            because it waits for a person.
    """

    case: msgspec.Raw
    faults: tuple[StepFault, ...] = ()
    crash: Crash | None = None
    saga_id: str = ""
    how: Literal["start", "carry_on", "retry"] = "start"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's work.

    Attributes:
        parent: The process that starts the worker. It is told, since a worker that is still starting cannot see any
            more who that was if it is gone already.
        domain: The name of the domain.
        storage: The URL of the sagas' storage.
        services: The address of each service.
        jobs: The sagas to run.
        at_once: How many jobs run side by side.
        answer_seconds: How long a service's answer is waited for.
        lease_seconds: The lease of the sagas that it drives.
        told: Whether the facts are printed as they become durable.
    """

    parent: int
    domain: str
    storage: str
    services: dict[str, str]
    jobs: tuple[Job, ...] = ()
    at_once: int = 32
    answer_seconds: float = 5.0
    lease_seconds: float = 2.0
    told: bool = False
