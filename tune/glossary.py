"""Words for the features of a map: their names, and for axes that have only a number what lies at their ends.

Shapes: I items, V item features, Q item axes, X context features, P context axes.
"""

import re
from collections.abc import Sequence

import numpy as np

from actors.features.feature_map import FeatureMap
from actors.features.features import Floats

AXIS = re.compile(r"\w+\[\d+\]")
LOADINGS = 2
"""Columns that a context axis is told by."""
LONGEST = 24


def words(feature_map: FeatureMap, titles: Sequence[str]) -> tuple[str, ...]:
    """A readable name of each feature, D.

    Args:
        titles: of the catalogue's items, in its order.
    """
    axes = _axes(feature_map, titles)
    return tuple(_told(name, axes) for name in feature_map.names)


def _told(name: str, axes: dict[str, str]) -> str:
    return AXIS.sub(lambda found: f"{found[0]} ({axes[found[0]]})" if found[0] in axes else found[0], name)


def _axes(feature_map: FeatureMap, titles: Sequence[str]) -> dict[str, str]:
    """Words by the name of an axis; none with parameters per item, whose features have names of their own."""
    joint, tables, encoder = feature_map.joint, feature_map.tables, feature_map.encoder
    if joint is None or tables is None or encoder is None:
        return {}
    item_IV = tables.whole()
    names = (*encoder.names, *tables.behaviour.names)
    told = {name: _ends(item_IV[:, v], titles) for v, name in enumerate(names) if AXIS.fullmatch(name)}
    axes_IQ = (item_IV - joint.item_mean_V) @ joint.item_VQ
    told |= {f"item[{q}]": _ends(axes_IQ[:, q], titles) for q in range(axes_IQ.shape[1])}
    columns = [_told(name, told) for name in feature_map.context_names]
    return told | {f"context[{p}]": _loadings(loading_X, columns) for p, loading_X in enumerate(joint.context_XP.T)}


def _ends(value_I: Floats, titles: Sequence[str]) -> str:
    """The items at both ends of an axis."""
    high, low = (titles[int(i)][:LONGEST] for i in (value_I.argmax(), value_I.argmin()))
    return f"more “{high}” than “{low}”"


def _loadings(loading_X: Floats, columns: Sequence[str]) -> str:
    most = np.argsort(-np.abs(loading_X), kind="stable")[:LOADINGS]
    return ", ".join(f"{'+' if loading_X[x] > 0 else '−'}{columns[x]}" for x in most if loading_X[x])
