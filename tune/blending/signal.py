"""One number for what came of a decision: clicks, likes, shares and time spent by the weights of `ppo.signal`.

Shapes: N rows of the log, E decisions.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.metric import Outcomes


def apply(dataset: Dataset, settings: Settings) -> Dataset:
    """The data set with one row per decision, whose reward is its signal, on the range of the reward that models learn.

    Several rewards of a kind are the greatest of them; a kind that a decision has no reward of counts as its default.

    Raises:
        EvidenceError: a kind is not declared in `rewards`, or the log has none of it.
    """
    weights = settings.ppo.signal
    if not weights:
        return dataset
    outcomes = Outcomes.of(dataset.events)
    _check(weights, settings, set(dataset.events["reward_kind"].unique().drop_null().to_pylist()))
    code_N, kind_N = outcomes.code_N, np.array(dataset.events["reward_kind"].to_pylist(), object)
    value_N = np.asarray(pc.fill_null(dataset.events["reward"], np.nan), np.float64)
    total_E = np.zeros(len(outcomes.decisions))
    for name, weight in weights.items():
        kind = settings.rewards[name]
        mine_N = (kind_N == name) & np.isfinite(value_N)
        best_E = np.full(len(total_E), -np.inf)
        np.maximum.at(best_E, code_N[mine_N], value_N[mine_N])
        value_E = np.clip(np.where(np.isfinite(best_E), best_E, kind.default), kind.low, kind.high)
        total_E += weight * (value_E - kind.low) / (kind.high - kind.low)
    scaled_E = settings.reward.low + (settings.reward.high - settings.reward.low) * total_E / sum(weights.values())
    events = outcomes.decisions
    for column, values in (("reward", pa.array(scaled_E)), ("reward_kind", pa.repeat("signal", len(events)))):
        events = events.set_column(events.schema.get_field_index(column), events.schema.field(column), values)
    return replace(dataset, format="feedback", events=events, truth=None)


def _check(weights: Mapping[str, float], settings: Settings, there: set[str]) -> None:
    undeclared, absent = sorted(set(weights) - set(settings.rewards)), sorted(set(weights) - there)
    if undeclared:
        raise EvidenceError(f"ppo.signal names {undeclared[0]!r}, which is not declared in the section `rewards`")
    if absent:
        raise EvidenceError(
            f"the log has no rewards of kind {absent[0]!r}, which ppo.signal names; it has {sorted(there)}"
        )
