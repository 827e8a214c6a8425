"""Shows readings to prometheus-client, whose extra must be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from saga.monitoring._families import DURATION, FAMILIES, FINISHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from saga.monitoring._families import Family
    from saga.monitoring._readings import Labels, Reading


class _Collector(Collector):
    """Reads when it is scraped."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Say which metrics there are, so that a registry refuses a second collector of the same names."""
        yield from (_metric_of(family) for family in FAMILIES)

    def collect(self) -> Iterator[Metric]:
        """Read."""
        reading = self._read()
        for family in FAMILIES:
            metric = _metric_of(family)
            for labels, value in reading.get(family.name, {}).items():
                _add(metric, family, labels, value)
            if family is DURATION:
                for labels, value in reading.get(FINISHED.name, {}).items():
                    _add_sample(metric, family, "count", labels, value)
            yield metric


def register(read: Callable[[], Reading], registry: CollectorRegistry | None) -> None:
    """Let a registry read, the default one if none is given."""
    (REGISTRY if registry is None else registry).register(_Collector(read))


def _metric_of(family: Family) -> CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily:
    match family.kind:
        case "counter":
            return CounterMetricFamily(family.name, family.text, labels=family.labels)
        case "gauge":
            return GaugeMetricFamily(family.name, family.text, labels=family.labels)
        case "duration":
            return SummaryMetricFamily(family.name, family.text, labels=family.labels)


def _add(
    metric: CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily, family: Family, labels: Labels, value: float
) -> None:
    if isinstance(metric, SummaryMetricFamily):
        # A step's has no count, which both formats allow: attempts are counted by a family of their own.
        _add_sample(metric, family, "sum", labels, value)
    else:
        metric.add_metric(labels, value)


def _add_sample(metric: Metric, family: Family, what: str, labels: Labels, value: float) -> None:
    metric.add_sample(f"{family.name}_{what}", dict(zip(family.labels, labels, strict=True)), value)
