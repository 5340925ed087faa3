"""How much of the gate's error rate a composition may use: what was seen of confirm data cannot be unseen.

The k-th different member that is tested on the same data is tested at α/(k(k + 1)): α/2, α/6, α/12, ... These sum to
α, so over however many compositions the chance that any worthless member passes stays below α (union bound). The
same member tested again is the same test. What was tested travels with the versions, from each to the next.
"""

import hashlib
import json
from dataclasses import dataclass, field

from actors.bandits.ensemble import Ensemble
from cluster.config import MetricSettings
from cluster.errors import RegistryError
from cluster.registry import Registry

UNKNOWN = "unknown"
"""Data sets without a fingerprint count as one."""


@dataclass(frozen=True)
class Spending:
    """tests: by fingerprint of the data, keys of the tests made on it, in order."""

    tests: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, registry: Registry, name: str) -> "Spending":
        """What the newest readable version carries; nothing where there is none."""
        for number in reversed(registry.versions(name)):
            try:
                about = json.loads((registry.fetch(name, number) / "version.json").read_text())
                return cls(dict(about["facts"].get("tests", {})))
            except (OSError, ValueError, KeyError, RegistryError):
                continue  # damaged: the one before it knows all but the last
        return cls()

    def number(self, data: str | None, key: str) -> int:
        """Which test on this data it is, from 1 on."""
        before = self.tests.get(data or UNKNOWN, [])
        return before.index(key) + 1 if key in before else len(before) + 1

    def share(self, data: str | None, key: str) -> float:
        """The share of α that this test may use."""
        k = self.number(data, key)
        return 1 / (k * (k + 1))

    def spent(self, data: str | None, key: str) -> "Spending":
        """With this test made."""
        before = self.tests.get(data or UNKNOWN, [])
        return self if key in before else Spending(self.tests | {data or UNKNOWN: [*before, key]})


def key_of(tested: Ensemble, against: str, metric: MetricSettings) -> str:
    """A name of the test of these members: equal for equal parameters, rival and metric."""
    digest = hashlib.sha256(json.dumps([tested.facts(), against, metric.model_dump(mode="json")]).encode())
    for name, array in sorted(tested.arrays().items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:16]
