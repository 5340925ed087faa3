"""What a learner knows of an item that was shown: which models the outcomes speak for, and what they were."""

from collections.abc import Mapping
from dataclasses import dataclass

from actors.content.vectors.entry import Outcomes


@dataclass(frozen=True)
class Served:
    """models: weights by name, which sum to one. outcomes: sums over all of the item's outcomes, without decay.

    It says how things are and not what changed, so that whoever is not sure whether it was heard says it again.
    """

    item_id: str
    models: Mapping[str, float]
    outcomes: Outcomes
