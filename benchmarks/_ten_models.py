"""A version of ten models on all events of a data set: what the benchmarks of serving decide by."""

import numpy as np

from actors.bandits import pooled
from actors.bandits.ensemble import Ensemble, Part
from actors.bandits.members import Uniform
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from benchmarks._pairs import CONSOLE
from cluster.config import FeatureSettings, LawSettings, WeightSettings
from cluster.records import Dataset

LINEAR = 8


def version(dataset: Dataset, dimension: int) -> Version:
    """uniform, popularity and eight linear ones of different memory, on at most `dimension` features."""
    rows = np.arange(len(dataset.events))
    settings = FeatureSettings(kind="joint", max_dimension=dimension)
    feature_map = FeatureMap.fit(dataset, rows, settings, 0)
    place = {item_id: i for i, item_id in enumerate(feature_map.item_ids)}
    item_N = np.array([place[item_id] for item_id in dataset.events["item_id"].to_pylist()])
    everything = dataset.events.set_column(
        dataset.events.schema.get_field_index("candidates"),
        "candidates",
        [[[item_id] for item_id in dataset.events["item_id"].to_pylist()]],
    )
    batch = feature_map.batch(everything.cast(dataset.events.schema))
    reward_N = dataset.events["reward"].to_numpy().astype(np.float64)
    linear = pooled.fit(batch.phi_BKD[:, 0], batch.arm_BK[:, 0], reward_N, feature_map.arms)
    popular = pooled.popularity(item_N, reward_N, len(place))
    members: tuple[Part, ...] = (
        Uniform(),
        popular.prior("popularity", "items"),
        *(linear.prior(f"linear-{n}", "features", 10_000.0 * 2**n) for n in range(LINEAR)),
    )
    ensemble = Ensemble(
        members=members,
        values_M=np.full(len(members), float(reward_N.mean())),
        law=LawSettings(),
        weights=WeightSettings(),
        dimension=feature_map.dimension,
        fingerprint=feature_map.fingerprint,
    )
    CONSOLE.print(f"{len(members)} models, {len(place)} items, {feature_map.dimension} features")
    return Version(feature_map, ensemble, dataset.items, {"name": "benchmark"})
