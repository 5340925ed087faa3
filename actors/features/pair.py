"""Two items by what they have in common and by how they differ.

r = cᵀx + s·dᵀφ with s = 1 for the first item and −1 for the second; x the context's base features, φ those and the
map's. One row of parameters for both: what is seen of one item says as much of the other as the data
bear out, since the common part, the difference and the difference's map have prior scales of their own, fitted by
evidence (`actors/bandits/pooled.py`). Where one of the two is right, as in a table with two labels, the common part
goes to nothing and every reward tells of both items; where the two hardly differ, the difference does.

An item that came after the fit shares nothing with the two: r = u, a number that all later items have in common, with
the prior of an intercept. As the middle of the two it would never be drawn as the best, and what it earns would be
taken for theirs. The rows are orthogonal and so are the priors, hence its rewards teach u alone.

Shapes: B decisions, K items, C base features, F features of the context.
"""

from collections.abc import Sequence

import numpy as np

from actors.features.features import Floats, Ints

SIGNS = np.array([1.0, -1.0, 0.0])
"""Of the first item, the second, and, as -1 counts, a later one."""
LATER = "an item added later"


def paired(phi_BF: Floats, fitted_BK: Ints, common: int) -> Floats:
    """phi_BKD of the items' places in the fit, -1 for later ones; D = common + 1 + F."""
    b, k = fitted_BK.shape
    phi_BKD = np.empty((b, k, common + 1 + phi_BF.shape[1]))
    later_BK = fitted_BK < 0
    np.multiply(~later_BK[..., None], phi_BF[:, None, :common], out=phi_BKD[..., :common])
    phi_BKD[..., common] = later_BK
    np.multiply(SIGNS[fitted_BK][..., None], phi_BF[:, None], out=phi_BKD[..., common + 1 :])
    return phi_BKD


def names(base: Sequence[str], lifted: Sequence[str], items: Sequence[str]) -> tuple[str, ...]:
    """D names from those of the context's base features and of the map's."""
    return (*base, LATER, *(f"{name} ({items[0]}, not {items[1]})" for name in (*base, *lifted)))


def groups(common: int, lifted: int) -> Ints:
    """The group (D,) of each feature: in common (u too, of which the fit has no rows), different, and by the map."""
    return np.repeat(np.arange(3), [common + 1, common, lifted])
