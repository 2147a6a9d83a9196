"""What the server counts, for Prometheus."""

from collections import Counter as Counted
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ct_assets.lake.releases import Release

if TYPE_CHECKING:
    from ct_assets.serving.live import Outcome

_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics(Collector):
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        asked = ("model", "status")
        self.requests = Counter("ct_requests", "Prediction requests", asked, registry=self.registry)
        self.latency = Histogram(
            "ct_request_seconds", "Duration of prediction requests", asked, buckets=_BUCKETS, registry=self.registry
        )
        self.predictions = Counter("ct_predictions", "Instances predicted", ("model",), registry=self.registry)
        self.absent = Counter(
            "ct_feature_rows_absent",
            "Feature rows that a prediction had to do without",
            ("model", "view", "reason"),
            registry=self.registry,
        )
        self.failures = Counter(
            "ct_instances_failed", "Instances without a prediction", ("model", "reason"), registry=self.registry
        )
        self.fallbacks = Counter(
            "ct_fallbacks", "Instances that got the declared fallback", ("model",), registry=self.registry
        )
        self.online_store_up = Gauge(
            "ct_online_store_up", "Whether the last read of the online store succeeded", registry=self.registry
        )
        self.registry_up = Gauge(
            "ct_registry_up", "Whether a registry is there and the same", ("registry",), registry=self.registry
        )
        self.alias_mismatch = Gauge(
            "ct_alias_mismatch",
            "Aliases of a model and its segments that do not name what the ledger names",
            ("model",),
            registry=self.registry,
        )
        self.swaps = Counter("ct_swaps", "Releases that replaced another one", ("model",), registry=self.registry)
        self.refusals = Counter(
            "ct_refusals", "Attempts to load a release that must not serve", ("model",), registry=self.registry
        )
        self.event_rows = Counter("ct_event_rows", "Rows taken from events", ("source",), registry=self.registry)
        self.repeated_events = Counter(
            "ct_repeated_events", "Events that had been delivered before", registry=self.registry
        )
        self._serving: dict[str, Release] = {}
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What serves at the moment of a scrape; a release that was replaced is gone from the next one."""
        labels = ("model", "version", "artifact_digest", "verdict")
        info = GaugeMetricFamily("ct_release_info", "The release that serves (always 1)", labels=labels)
        for release in list(self._serving.values()):
            info.add_metric([str(getattr(release, label)) for label in labels], 1)
        yield info

    def answered(self, model: str, outcome: "Outcome") -> None:
        """Count what became of the instances of a request."""
        failed = Counted("features" if p.of_features else "instance" for p in outcome.problems.values())
        for reason, instances in failed.items():
            self.failures.labels(model, reason).inc(instances)
        self.fallbacks.labels(model).inc(len(outcome.fallbacks))
        self.predictions.labels(model).inc(len(outcome.predictions) - len(outcome.problems) - len(outcome.fallbacks))
        for (view, reason), rows in outcome.features.absent.items():
            self.absent.labels(model, view, reason).inc(rows)

    def gone(self, line: str) -> None:
        """Note that a segment is served by its model's champion again."""
        self._serving.pop(line, None)

    def served(self, release: Release) -> None:
        """Note what serves now."""
        if release.model in self._serving:
            self.swaps.labels(release.model).inc()
        self._serving[release.model] = release
