"""The built-in synthetic marketplace: a log of it, so that everything runs with no data at all.

`facts["marketplace"]` holds the arguments that build the truth again. Shapes: E events.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.importers.imported import Imported, Options, Progress
from cluster.marketplace.marketplace import Marketplace
from cluster.records import QUARANTINE, Dataset


def read_marketplace(
    paths: Sequence[Path], options: Options, settings: DataSettings, seed: int, progress: Progress | None = None
) -> Imported:
    """Log `marketplace_events` events, the most recent `max_events` of which are kept.

    Raises SchemaError where files or column options are given: the marketplace has neither.
    """
    if paths or options != Options():
        raise SchemaError(
            "the marketplace is built in and takes no --data, --map, --exclude or --client; "
            "for your own files say which --format they have"
        )
    size = {"users": settings.marketplace_users, "items": settings.marketplace_items}
    market = Marketplace(seed, **size, dials=settings.dials)
    n = settings.marketplace_events
    events = market.log(n, np.random.default_rng([seed, 0x106]))
    kept = events.slice(max(0, n - settings.max_events))
    if progress:
        progress(n, n)
    facts = {
        "source": ["marketplace"],
        "fingerprint": hashlib.sha256(json.dumps([market.facts, n]).encode()).hexdigest(),
        "seed": seed,
        "marketplace": market.facts,
        "rows": n,
        "rejected": 0,
        "events": len(kept),
        "notes": [],
    }
    dataset = Dataset("marketplace", kept, market.items_table(), market.users_table(), None, facts)
    return Imported(dataset, QUARANTINE.empty_table(), {"context": "device, hour, weekday, member, recent"})
