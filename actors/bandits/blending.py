"""How members are blended: with the weights of them all, or where items have kin, with weights of each item's own.

    ℓ_km = ℓ_m + β·log share_km + g_km,    w_km = softmax, then the floor for predefined members, then normalised

with ℓ_m of the members' performance, share_km what the item's neighbours say of them (actors.bandits.shares), and g_km
the residual where there is one. Hence w_km ∝ softmax(ℓ)_m · (M·share_km)^β · e^g, which needs no logarithm.

Shapes: B decisions, M members, S those of them that have scores, K items, H pairs of particles, T the particles of a
pair (or the first alone, where the second has the negatives).
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.bandits.published import Published
from actors.bandits.weights import floored
from actors.features.features import Floats
from actors.features.kin import Kin

ItemWeighing: TypeAlias = tuple[Floats, NDArray[np.bool_]]
"""w_BMK, and of which decisions they tell items apart (B,)."""


def item_weights(published: Published, kins: Sequence[Kin | None]) -> ItemWeighing | None:
    """The members' weights of each item; None where those of the publication hold for all.

    Args:
        kins: of decisions over as many items each, all with kin or all without.

    Raises:
        ModelError: a residual does not fit.
    """
    residual, settings = published.residual, published.weights
    there = [kin for kin in kins if kin is not None]
    if not there or not published.tells:
        return None
    tilt_BKM = tilts(published, there)
    told_B = np.asarray(tilt_BKM.any((1, 2))) if residual is None else np.ones(len(there), np.bool_)
    if not told_B.any():
        return None
    odds_BKM = 1 + tilt_BKM
    if settings.neighbour_scale != 1:
        odds_BKM **= settings.neighbour_scale
    if residual is not None and published.values_M is not None and published.errors_M is not None:
        seen = _stacked([kin.reduced_KQ for kin in there]), _stacked([kin.similarity_KJ for kin in there])
        standing = published.weights_M, published.values_M, published.errors_M
        odds_BKM *= np.exp(residual(*seen, (1 + tilt_BKM) / len(published.members), *standing))
    odds_BMK = np.multiply(odds_BKM.swapaxes(1, 2), published.odds_M[:, None], order="C")
    odds_BMK /= odds_BMK.sum(1, keepdims=True)
    return floored(odds_BMK, published.predefined_M[:, None], settings.predefined_floor, 1), told_B


def tilts(published: Published, kins: Sequence[Kin]) -> Floats:
    """M·share_km − 1 (B, K, M)."""
    alpha_BKJ = _stacked([kin.alpha_KJ for kin in kins])
    if published.items is None:
        return np.zeros((*alpha_BKJ.shape[:2], len(published.members)))
    return published.items.tilts(_stacked([kin.near_KJ for kin in kins]), alpha_BKJ)


def _stacked(arrays: Sequence[Any]) -> Any:
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]


def blend_means(mean_BSK: Floats, parts: Floats) -> Floats:
    """Blended means (B, K); parts, as `Published.parts` has them, (S,) of all items or (B, S, K) of each."""
    return np.asarray(parts @ mean_BSK if parts.ndim == 1 else np.einsum("bsk,bsk->bk", parts, mean_BSK))


def blend_deviations(deviation_BTSHK: Floats, parts: Floats) -> Floats:
    """Blended deviations (B, T, H, K), with the weighted mean of the members' spreads; parts as in `blend_means`.

    The mean of independent draws would shrink with the number of members and switch exploration off, so the
    blended deviations are scaled back to Σ w_m s_m, whether or not the members' draws are coupled. Spreads are
    root mean squares over the particles, hence a blend of one member is that member.
    """
    decisions, each, members, pairs, items = deviation_BTSHK.shape
    parts = parts.astype(deviation_BTSHK.dtype)
    if parts.ndim == 1:
        blended_BTN: Floats = np.matmul(parts, deviation_BTSHK.reshape(decisions, each, members, -1))
        blended_BTHK = blended_BTN.reshape(decisions, each, pairs, items)
    else:
        blended_BTHK = np.einsum("btshk,bsk->bthk", deviation_BTSHK, parts)
    spread_BSK = np.sqrt(np.einsum("btshk,btshk->bsk", deviation_BTSHK, deviation_BTSHK))
    found_BK = np.sqrt(np.einsum("bthk,bthk->bk", blended_BTHK, blended_BTHK))
    wanted_BK = blend_means(spread_BSK, parts)
    scale_BK = np.divide(wanted_BK, found_BK, out=np.zeros_like(found_BK), where=found_BK > 0)
    blended_BTHK *= scale_BK[:, None, None]
    return blended_BTHK
