"""`Metrics` -> Ray's metrics, once a second, from a thread of its own.

Ray's agent on each node serves them in Prometheus' text form (`address`), with the prefix `ray_`, also without
the dashboard.
"""

import logging
import threading
from collections import defaultdict
from itertools import pairwise
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from serve.observed.metrics import CATALOGUE, Key, Metrics

logger = logging.getLogger(__name__)

_EVERY_S = 1.0


def address() -> str:
    """Where Prometheus reads this node's metrics."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


class Exporter:
    """Hands over what was added since the last time. For a process of Ray; it ends with the process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._families: dict[str, Any] = {}
        self._counts: defaultdict[Key, float] = defaultdict(float)
        self._buckets: dict[Key, list[int]] = {}
        self._failure = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hand over the rest and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Whatever fails is told once and tried again; the thread lives."""
        try:
            self._hand_over()
            self._failure = ""
        except Exception as error:  # a level may be anything's
            if str(error) != self._failure:
                logger.exception("metrics cannot be handed over")
            self._failure = str(error)

    def _hand_over(self) -> None:
        for (name, labels), value in self._metrics.counts.copy().items():
            added = value - self._counts[name, labels]
            if added > 0:
                self._family(name).inc(added, _tags(name, labels))
                self._counts[name, labels] = value
        for key, found in self._metrics.buckets.copy().items():
            self._observe(key, found.copy())
        for (name, labels), read in self._metrics.levels.copy().items():
            self._family(name).set(float(read()), _tags(name, labels))

    def _observe(self, key: Key, found: list[int]) -> None:
        """Ray keeps buckets, not values, and takes a bucket's middle for its sum; so the middle is what it gets."""
        name, labels = key
        before = self._buckets.get(key, [0] * len(found))
        bounds = CATALOGUE[name].bounds
        family, tags = self._family(name), _tags(name, labels)
        edges = (0.0, *bounds, 3 * bounds[-1])
        for (low, high), now, then in zip(pairwise(edges), found, before, strict=True):
            for _ in range(now - then):
                family.observe((low + high) / 2, tags)
        self._buckets[key] = found

    def _family(self, name: str) -> Any:
        if name not in self._families:
            about = CATALOGUE[name]
            if about.kind == "histogram":
                self._families[name] = Histogram(name, about.text, list(about.bounds), about.labels)
            else:
                kind = Counter if about.kind == "counter" else Gauge
                self._families[name] = kind(name, about.text, about.labels)
        return self._families[name]


def _tags(name: str, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(CATALOGUE[name].labels, labels, strict=True))
