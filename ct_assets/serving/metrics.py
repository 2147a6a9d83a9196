"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ct_assets.lake.releases import Release

_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
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
        self.swaps = Counter("ct_swaps", "Releases that replaced another one", ("model",), registry=self.registry)
        self.refusals = Counter(
            "ct_refusals", "Attempts to load a release that must not serve", ("model",), registry=self.registry
        )
        self.serving = Gauge(
            "ct_release_info",
            "The release that serves (always 1)",
            ("model", "version", "artifact_digest", "verdict"),
            registry=self.registry,
        )

    def served(self, old: Release | None, new: Release) -> None:
        """Note that `new` serves now; `old` is what it replaced."""
        if old is not None:
            self.swaps.labels(old.model).inc()
            self.serving.remove(old.model, old.version, old.artifact_digest, old.verdict)
        self.serving.labels(new.model, new.version, new.artifact_digest, new.verdict).set(1)
