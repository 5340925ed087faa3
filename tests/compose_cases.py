"""Small data sets and settings for the tests of the main job; everything is fixed by steps and seeds."""

import datetime as dt
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.config import Settings
from cluster.records import EVENTS, ITEMS, USERS, Dataset, encode
from tests.features_samples import table
from tune.groundwork import Groundwork
from tune.proposal import Proposal, propose
from tune.stages import Stages
from tune.walk import Trail, Walk, walk

LAMPS = tuple(f"{colour}{k}" for colour in ("red", "blue") for k in range(3))
LIKED, DISLIKED = 0.75, 0.15
PLAIN = {"kind": "joint", "max_dimension": 14, "behaviour_rank": 1, "text_rank": 2}
"""Features of `two_kinds` that leave no room for a product of context and item."""


def quick(home: Path, **changes: Any) -> Settings:
    """Settings of a composition that takes seconds and is the same at every speed of the machine."""
    budgets = dict.fromkeys(("backbone_s", "head_s", "select_s", "sweep_s", "confirm_s"), 600.0)
    generator = {"hidden": 16, "layers": 1, "tokens": 32, "prototypes": 3, "codes": 2, "rank": 2}
    steps = {"backbone_steps": 4, "head_steps": 90}
    values = {
        "home": home,
        "budgets": budgets,
        "generator": generator | steps,
        "law": {"particles": 16},
        "gate": {"bootstrap": 200},
    }
    return Settings.model_validate(values | changes)


def two_kinds(users: int = 300, rows: int = 10, seed: int = 0) -> Dataset:
    """Users of two kinds, told by their badge: one likes red lamps, the other blue ones. Uniform log."""
    rng = np.random.default_rng(seed)
    ember_U = rng.integers(2, size=users)
    who_N = rng.permutation(np.repeat(np.arange(users), rows))
    item_N = rng.integers(len(LAMPS), size=len(who_N))
    right_N = (item_N < 3) == (ember_U[who_N] == 1)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    events = table(
        EVENTS,
        len(who_N),
        event_id=[f"e{n}" for n in range(len(who_N))],
        timestamp=[start + dt.timedelta(seconds=n) for n in range(len(who_N))],
        client_id=["c"] * len(who_N),
        user_id=[f"u{u}" for u in who_N],
        context=[encode({"hour": int(n % 24)}) for n in range(len(who_N))],
        candidates=[list(LAMPS)] * len(who_N),
        item_id=[LAMPS[k] for k in item_N],
        propensity=[1 / len(LAMPS)] * len(who_N),
        reward=(rng.random(len(who_N)) < np.where(right_N, LIKED, DISLIKED)).astype(float),
        reward_kind=["reward"] * len(who_N),
    )
    items = table(ITEMS, len(LAMPS), item_id=LAMPS, title=[f"{name[:-1]} lamp" for name in LAMPS])
    badges = [encode({"badge": "ember" if ember else "frost"}) for ember in ember_U]
    people = table(USERS, users, user_id=[f"u{u}" for u in range(users)], client_id=["c"] * users, attributes=badges)
    return Dataset("feedback", events, items, people, None, {"fingerprint": "planted"})


def changed(dataset: Dataset, **columns: Any) -> Dataset:
    """The data set with other columns of events."""
    events = dataset.events
    for name, values in columns.items():
        place = events.schema.get_field_index(name)
        events = events.set_column(place, EVENTS.field(name), pa.array(values, EVENTS.field(name).type))
    return Dataset(dataset.format, events, dataset.items, dataset.users, dataset.truth, dataset.facts)


@dataclass(frozen=True)
class Proposed:
    work: Groundwork
    trail: Trail
    base: Walk
    proposal: Proposal


@cache
def proposed() -> Proposed:
    """A proposal from `two_kinds`, made once for all tests that look at one."""
    settings = quick(Path(tempfile.gettempdir()), features=PLAIN)
    work = Groundwork.of(two_kinds(), settings)
    trail = Trail.of(work.feature_map, work.events(work.split.select), settings.reward, settings.seed)
    base = walk(work.ensemble(*work.predefined.members()), trail, settings.seed)
    return Proposed(work, trail, base, propose(work, trail, base, Stages(None), None))
