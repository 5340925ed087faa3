"""A version after a change of what is the better choice: the trusted models, on the events since then alone.

A running version that is certain of what was true before tries little else, so its log cannot prove another one (at
8,000 decisions after an abrupt change the interval of the difference was still 0.3 wide, where rewards were 0.05). What
proves that its rows no longer hold is the alarm, whose false ones have a stated rate: restarting on a detected change
is what keeps the regret of bandits small whose rewards change now and then (Liu, Lee & Shroff 2018; Cao, Wen, Kveton &
Xie 2019). Generated members are not trusted: they come in again through the gate.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from actors.bandits.ensemble import Ensemble
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster.config import Settings
from tune.predefined import Design, Predefined


def restarted(running: Version, before: pa.Table, since: pa.Table, items: pa.Table, settings: Settings) -> Version:
    """The running version's features, and the predefined members as `since` leaves them, all at its mean reward.

    Args:
        before: events before the change, which tell the scales of effects and of noise.
        since: events from the change on.
        items: the catalogue now.
    """
    feature_map = running.over(items)
    earlier = _predefined(feature_map, before, settings, None)
    fitted = _predefined(feature_map, since, settings, earlier)
    members = fitted.members()
    ensemble = Ensemble(
        members=members,
        values_M=np.full(len(members), float(np.clip(fitted.design.reward_N.mean(), 0.0, 1.0))),
        law=settings.law,
        weights=settings.weights,
        dimension=feature_map.dimension,
        fingerprint=feature_map.fingerprint,
        low=settings.reward.low,
        high=settings.reward.high,
        history=settings.bandits.history,
    )
    return replace(running, feature_map=feature_map, ensemble=ensemble, items=items)


def _predefined(feature_map: FeatureMap, events: pa.Table, settings: Settings, before: Predefined | None) -> Predefined:
    return Predefined(Design.of(feature_map, events, settings.reward), feature_map, settings.bandits, before)
