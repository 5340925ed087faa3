"""What fitting a feature map decides.

Shapes: T tastes (item axes of recent items, and their number).
"""

from dataclasses import dataclass, replace

from actors.features import store
from actors.features.catalogue import ItemEncoder
from actors.features.context import ContextBlock
from actors.features.features import Floats
from actors.features.hashed import Hashed
from actors.features.joint import Joint, Tables
from actors.features.lift import Lift


@dataclass(frozen=True)
class Fitted:
    """The fields of a FeatureMap that fitting decides."""

    kind: str
    context: ContextBlock
    fitted_ids: tuple[str, ...]
    encoder: ItemEncoder | None
    joint: Joint | None
    tables: Tables | None
    taste_mean_T: Floats
    taste_scale_T: Floats
    lift: Lift | None = None
    hashed: Hashed | None = None


def parameters_fingerprint(fitted: Fitted) -> str:
    """SHA-256 of all that maps a decision to numbers, the catalogue's own rows left out."""
    behaviour = fitted.tables.behaviour if fitted.tables else None
    arrays, facts = store.pack(replace(fitted, tables=None))
    if behaviour is not None:
        more = store.pack(behaviour, "behaviour.")
        arrays, facts = arrays | more[0], facts | more[1]
    return store.fingerprint(arrays, facts)
