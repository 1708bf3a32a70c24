"""What there is to measure, in Prometheus' format. Knows no model and no request's content."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..models.prefixes import Prefixes

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKENS = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Meters:
    """One set for each server, in a registry of its own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        here = self.registry = CollectorRegistry()
        self.requests = Counter("unmask_requests", "Requests answered.", ("endpoint", "status"), registry=here)
        self.cancelled = Counter("unmask_cancelled", "Requests whose client went away.", registry=here)
        self.failed_steps = Counter("unmask_failed_steps", "Steps that raised an error.", registry=here)
        self.waiting = Gauge("unmask_queue_rows", "Texts that wait for their turn.", registry=here)
        self.writing = Gauge("unmask_batch_rows", "Texts in the batch.", registry=here)
        self.rows = Histogram("unmask_batch_occupancy", "Texts that shared a pass.", registry=here, buckets=TOKENS)
        self.tokens = Counter("unmask_tokens", "Tokens of prompts and of answers.", ("kind",), registry=here)
        self.passes = Counter("unmask_forward_passes", "Network passes.", registry=here)
        self.per_pass = Histogram(
            "unmask_tokens_per_pass", "Tokens of a text that one pass wrote, on average.", registry=here, buckets=TOKENS
        )
        self.prefixes = Gauge(
            "unmask_prefix_positions",
            "Token positions of prompts: kept now; that could have been found, and that were, of all requests so far.",
            ("what",),
            registry=here,
        )
        self.step = Histogram("unmask_step_seconds", "One pass and what follows.", registry=here, buckets=SECONDS)
        self.latency = Histogram(
            "unmask_request_seconds",
            "From a request to the end of its answer.",
            ("endpoint",),
            registry=here,
            buckets=SECONDS,
        )
        self.drafted = _seconds("unmask_time_to_first_draft_seconds", "From a request to its first pass.", here)
        self.settled = _seconds(
            "unmask_time_to_first_settled_seconds", "From a request to its first settled text.", here
        )

    def watch(self, prefixes: Prefixes) -> None:
        """What of prompts is kept for others."""
        for what in ("kept", "sought", "found"):
            self.prefixes.labels(what).set_function(partial(getattr, prefixes, what))

    def text(self) -> bytes:
        return generate_latest(self.registry)


def _seconds(name: str, what: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, what, registry=registry, buckets=SECONDS)
