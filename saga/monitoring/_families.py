"""The metrics that are exported: names, labels, units and what they mean. No label holds an id or a user's text."""

from __future__ import annotations

from typing import Literal

import msgspec

STEP_BUCKETS = (0.01, 0.1, 1.0, 5.0, 25.0)
"""Upper bounds in seconds of OpenTelemetry's histograms; for Prometheus each one would be a series for each step."""

SAGA_BUCKETS = (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)


class Family(msgspec.Struct, frozen=True):
    """One exported metric.

    Attributes:
        name: Its Prometheus name, without the ``_total`` of counters and the ``_sum`` and ``_count`` of durations.
        otel: Its OpenTelemetry name.
        kind: How it behaves. Of a duration Prometheus gets the sum, and of a saga's the count.
        text: What it says.
        labels: The names of its labels.
        unit: The OpenTelemetry unit. Never "1": collectors would append ``_ratio`` to a gauge's name.
        buckets: The bounds of a duration's histogram in OpenTelemetry, in seconds.
    """

    name: str
    otel: str
    kind: Literal["counter", "gauge", "duration"]
    text: str
    labels: tuple[str, ...] = ()
    unit: str = "{saga}"
    buckets: tuple[float, ...] = ()


STARTED = Family(
    "saga_started", "saga.started", "counter", "Sagas that this process was the first to drive.", ("saga",)
)
FINISHED = Family(
    "saga_finished",
    "saga.finished",
    "counter",
    "Sagas that this process brought to completed, rolled_back or failed (a person must decide).",
    ("saga", "outcome"),
)
DURATION = Family(
    "saga_duration_seconds",
    "saga.duration",
    "duration",
    "From a saga's creation to its end, over all processes.",
    ("saga", "outcome"),
    "s",
    SAGA_BUCKETS,
)
ATTEMPTS = Family(
    "saga_step_attempts",
    "saga.step.attempts",
    "counter",
    "Attempts of actions and compensations that ended: succeeded, failed or unknown.",
    ("saga", "step", "phase", "outcome"),
    "{attempt}",
)
STEP_DURATION = Family(
    "saga_step_duration_seconds",
    "saga.step.duration",
    "duration",
    "How long the user's code of attempts ran; saga_step_attempts counts them.",
    ("saga", "step", "phase"),
    "s",
    STEP_BUCKETS,
)
RETRIES = Family(
    "saga_retries",
    "saga.retries",
    "counter",
    "Attempts that are repeated after a failure.",
    ("saga", "phase"),
    "{attempt}",
)
TAKEOVERS = Family(
    "saga_takeovers",
    "saga.takeovers",
    "counter",
    "Sagas that this process took over from one that gave no sign of life.",
    ("saga",),
)
LEASES_LOST = Family(
    "saga_leases_lost", "saga.leases_lost", "counter", "Sagas that another process took from this one."
)
RUNNING = Family("saga_running", "saga.running", "gauge", "Sagas that this process drives now.", ("saga",))
OBSERVER_ERRORS = Family(
    "saga_observer_errors",
    "saga.observer_errors",
    "counter",
    "Errors that observers raised; no saga feels them.",
    ("observer",),
    "{error}",
)
IN_FLIGHT = Family(
    "saga_in_flight",
    "saga.in_flight",
    "gauge",
    "Stored sagas that have neither ended nor FAILED, parked ones included, of all processes; read from the storage.",
    ("saga",),
)
ATTENTION = Family(
    "saga_attention",
    "saga.attention",
    "gauge",
    "Stored sagas that need attention, by name: FAILED, parked, or with a warning; read from the storage.",
    ("saga",),
)
NEEDS_ATTENTION = Family(
    "saga_needs_attention",
    "saga.needs_attention",
    "gauge",
    "Stored sagas that need attention, of all names; there whenever the storage answers.",
)
OLDEST = Family(
    "saga_oldest_unfinished_seconds",
    "saga.oldest_unfinished",
    "gauge",
    "Age of the oldest stored saga in flight, parked ones left out, 0 if there is none; read from the storage.",
    ("saga",),
    "s",
)
BUILD = Family(
    "saga_build_info", "saga.build_info", "gauge", "Always 1; the label says what runs.", ("version",), "{process}"
)

FAMILIES = (
    STARTED,
    FINISHED,
    DURATION,
    ATTEMPTS,
    STEP_DURATION,
    RETRIES,
    TAKEOVERS,
    LEASES_LOST,
    RUNNING,
    OBSERVER_ERRORS,
    IN_FLIGHT,
    ATTENTION,
    NEEDS_ATTENTION,
    OLDEST,
    BUILD,
)
