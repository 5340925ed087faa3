"""Posterior scores of many generated priors along every user's logged sequence, in one vectorised pass.

A candidate's prior has kernel k_c = k + p_cᵀp_c (actors.bandits.mixture): k is shared, the rest has rank R. For one
user let G = k(Φ, Φ) + σ²I = LLᵀ over the whole sequence. A prefix of the sequence has the leading block of L as its
factor, so with B = L⁻¹k(Φ, φ), a_c = L⁻¹(r − Φm_c), A_c = L⁻¹P_c, all cut to the first t rows, and by Woodbury's
identity with h = (I + AᵀA)⁻¹Aᵀa,

    μ_tc(φ) = m_cᵀφ + p_cᵀh + Bᵀ(a − Ah):

one factorisation per user serves every event and every candidate. A particle is the same formula (Matheron's
rule): its prior draw takes the place of m_c, and r is less a draw of the noise.

Shapes: T tasks (users), N history rows, E events of a task, K items, C candidates, D features, R rank, P particles.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from actors.bandits.mixture import Mixture
from actors.features.features import FeatureBatch, Floats, Ints
from tune.log import Log


@dataclass(frozen=True)
class Draws:
    """Thompson sampling by `particles` posterior draws scaled by `scale` (α); none means the posterior mean."""

    particles: int = 0
    scale: float = 1.0
    seed: int = 0

    @property
    def width(self) -> int:
        return max(1, self.particles)


@dataclass(frozen=True)
class Piece:
    """Events scored together: rows_TE of the log, −1 where there is none, after the history rows_TN.

    growing: event e of a task sees the first e of the history rows (which then are the same events); otherwise
    every event sees all of them.
    """

    rows_TE: Ints
    history_TN: Ints
    growing: bool


def take(mixture: Mixture, candidates: Ints) -> Mixture:
    """The mixture with these candidates only."""
    return replace(
        mixture,
        means_CAD=mixture.means_CAD[candidates],
        ranks_CADR=mixture.ranks_CADR[candidates],
        prototypes_CH=mixture.prototypes_CH[candidates],
        names_C=tuple(mixture.names_C[int(c)] for c in candidates),
    )


def scores(
    mixture: Mixture, batch: FeatureBatch, log: Log, limit: int, draws: Draws, budget_bytes: int
) -> Iterator[tuple[Ints, Floats]]:
    """For blocks of events: their rows of the log, and scores (rows, K, C, P) before each event's own reward.

    P is 1 where there are no particles or the mixture's exploration factor makes them all alike.

    Args:
        log: in time order; an event's history are the last `limit` earlier events of its user.
        budget_bytes: size that the temporary arrays of a block stay near.
    """
    draws = _used(mixture, draws)
    c, k = len(mixture.means_CAD), log.mask_NK.shape[1]
    if limit == 0 and draws.particles == 0:
        fixed, each = _bytes_frozen(mixture, k)
        yield from _frozen(mixture, batch, len(log), budget_bytes // (fixed + c * each))
        return
    for piece in pieces(log.user_N, limit):
        fixed, each = _bytes(mixture, k, draws, piece.rows_TE.shape[1], piece.history_TN.shape[1])
        step = max(1, budget_bytes // (fixed + c * each))
        for start in range(0, len(piece.rows_TE), step):
            part = slice(start, start + step)
            block = Piece(piece.rows_TE[part], piece.history_TN[part], piece.growing)
            real_TE = block.rows_TE >= 0
            yield block.rows_TE[real_TE], _block(mixture, batch, log, block, draws)[real_TE]


def most(mixture: Mixture, log: Log, limit: int, draws: Draws, budget_bytes: int) -> int:
    """How many candidates can be scored together without the longest task alone taking more than the budget."""
    draws, k = _used(mixture, draws), log.mask_NK.shape[1]
    shapes = {(piece.rows_TE.shape[1], piece.history_TN.shape[1]) for piece in pieces(log.user_N, limit)}
    needs = [_bytes(mixture, k, draws, *shape) for shape in shapes]
    if limit == 0 and draws.particles == 0:
        needs = [_bytes_frozen(mixture, k)]
    return max(1, min(((budget_bytes - fixed) // each for fixed, each in needs), default=1))


def _used(mixture: Mixture, draws: Draws) -> Draws:
    """The draws as scaled by the mixture; none where they would all be alike."""
    draws = replace(draws, scale=draws.scale * mixture.exploration)
    return replace(draws, particles=0) if draws.scale == 0 else draws


def _bytes_frozen(mixture: Mixture, items: int) -> tuple[int, int]:
    """Memory that an event takes of candidates that do not learn: once, and again for every candidate."""
    return 8 * items * mixture.means_CAD.shape[-1], 8 * 4 * items


def _bytes(mixture: Mixture, items: int, draws: Draws, events: int, rows: int) -> tuple[int, int]:
    """The same of a task of so many events and history rows."""
    d, r, p, s = mixture.means_CAD.shape[-1], mixture.ranks_CADR.shape[-1], draws.width, events * items
    once = 3 * (s + rows) * d + 3 * rows * rows + 2 * s * rows
    each = s * (r + 4 * p) + rows * (2 * r + 4 * p) + 3 * events * rows * p + (rows + 3 * events) * r * (r + p)
    return 8 * once, 8 * each


def _frozen(mixture: Mixture, batch: FeatureBatch, events: int, step: int) -> Iterator[tuple[Ints, Floats]]:
    """Candidates that do not learn: one matrix product for all of them."""
    k, d = batch.phi_BKD.shape[1:]
    for start in range(0, events, max(1, step)):
        rows = np.arange(start, min(events, start + max(1, step)))
        phi_SD, arm_S = batch.phi_BKD[rows].reshape(-1, d), batch.arm_BK[rows].ravel()
        if len(mixture.factor_ADD) == 1:
            mean_SC = phi_SD @ mixture.means_CAD[:, 0].T
        else:
            mean_SC = np.empty((len(phi_SD), len(mixture.means_CAD)))
            for arm in np.unique(arm_S):
                mean_SC[arm_S == arm] = phi_SD[arm_S == arm] @ mixture.means_CAD[:, arm].T
        yield rows, mean_SC.reshape(len(rows), k, len(mixture.means_CAD), 1)


def pieces(user_N: Ints, limit: int) -> Iterator[Piece]:
    """The events in pieces of near equal history, so that little is padding.

    A user's first `limit` + 1 events grow from nothing; each later one has a window of its own.
    """
    order = np.argsort(user_N, kind="stable")
    starts = np.flatnonzero(np.diff(user_N[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    head = np.minimum(counts, limit + 1)
    edge = 1
    while (head >= edge).any():
        chosen = np.flatnonzero((head >= edge) & (head < 2 * edge))
        if len(chosen):
            width = int(head[chosen].max())
            places = np.arange(width)
            rows_TE = np.where(places < head[chosen, None], order[_inside(starts[chosen, None] + places, order)], -1)
            yield Piece(rows_TE, rows_TE[:, : width - 1], growing=True)
        edge *= 2
    late = [np.arange(s + limit + 1, s + n) for s, n in zip(starts, counts, strict=True) if n > limit + 1]
    if late:
        places = np.concatenate(late)
        yield Piece(order[places][:, None], order[places[:, None] + np.arange(-limit, 0)], growing=False)


def _inside(places: Ints, order: Ints) -> Ints:
    return np.minimum(places, len(order) - 1)


def _block(mixture: Mixture, batch: FeatureBatch, log: Log, piece: Piece, draws: Draws) -> Floats:
    """Scores of a block, (T, E, K, C, P)."""
    tasks, events = piece.rows_TE.shape
    k, c = log.mask_NK.shape[1], len(mixture.means_CAD)
    phi_TSD = batch.phi_BKD[piece.rows_TE].reshape(tasks, events * k, -1)
    arm_TS = batch.arm_BK[piece.rows_TE].reshape(tasks, events * k)
    noise = _noise(mixture, piece.rows_TE[:, 0], draws)
    point = _project(mixture, phi_TSD, arm_TS, noise)
    n = piece.history_TN.shape[1]
    mean = point.mean_TSCP.reshape(tasks, events, k, c, draws.width)
    if n == 0:
        return mean
    taken_TN = np.where(piece.history_TN >= 0, log.action_N[piece.history_TN], 0)
    arm_TN = batch.arm_BK[piece.history_TN, taken_TN]
    phi_TND = batch.phi_BKD[piece.history_TN, taken_TN]
    scale_TN = mixture.scale(phi_TND, arm_TN)
    past = _project(mixture, phi_TND / scale_TN[..., None], arm_TN, noise)
    half_TNN = _whitener(past, mixture.noise)
    cross_TSN = _kernel(point, past) @ half_TNN.swapaxes(1, 2)
    reward_TN = log.reward_N[piece.history_TN] / scale_TN
    reward_TN11 = reward_TN[:, :, None, None] - noise.errors(n, mixture.noise)
    a_TNCP = _apply(half_TNN, reward_TN11 - past.mean_TSCP)
    rank_TNCR = _apply(half_TNN, past.rank_TSCR)
    h_TECRP, last = _corrections(rank_TNCR, a_TNCP, events, piece.growing)
    weights_TENCP = a_TNCP[:, None] - _product(rank_TNCR, h_TECRP)
    if piece.growing:
        weights_TENCP *= (np.arange(n) < last[:, None])[None, :, :, None, None]
    cross_TEKN = cross_TSN.reshape(tasks, events, k, n)
    found = (cross_TEKN @ weights_TENCP.reshape(tasks, events, n, -1)).reshape(mean.shape)
    rank_TECKR = point.rank_TSCR.reshape(tasks, events, k, c, -1).swapaxes(2, 3)
    found += (rank_TECKR @ h_TECRP).swapaxes(2, 3)
    found += mean
    return np.asarray(found)


def _product(rank_TNCR: Floats, h_TECRP: Floats) -> Floats:
    """Ah for every event, (T, E, N, C, P)."""
    t, e, c, r, p = h_TECRP.shape
    wide_TCRE = h_TECRP.transpose(0, 2, 3, 1, 4).reshape(t, c, r, e * p)
    product_TCNEP = (rank_TNCR.swapaxes(1, 2) @ wide_TCRE).reshape(t, c, -1, e, p)
    return product_TCNEP.transpose(0, 3, 2, 1, 4)


@dataclass(frozen=True)
class _Rows:
    """Prior means (or draws) and kernel coordinates of S rows of each task."""

    mean_TSCP: Floats
    base_TSD: Floats
    rank_TSCR: Floats
    arm_TS: Ints | None


@dataclass(frozen=True)
class _Noise:
    """Normals of each task: of the shared part of θ, of its rank-R part, and the seeds of those of the rewards."""

    theta_TPD: Floats | None
    theta_PAD: Floats | None
    code_TPR: Floats | None
    first_T: Ints
    draws: Draws

    def errors(self, n: int, variance: float) -> Floats:
        """Draws of the reward noise times α, (T, n, 1, P); zeros without particles."""
        p = self.draws.particles
        if not p:
            return np.zeros((1, 1, 1, 1))
        rows = [np.random.default_rng([self.draws.seed, 2, int(t)]).standard_normal((n, p)) for t in self.first_T]
        return np.asarray(self.draws.scale * np.sqrt(variance) * np.stack(rows)[:, :, None, :])


def _noise(mixture: Mixture, first_T: Ints, draws: Draws) -> _Noise:
    """Keyed by the first event of a task, so that blocks of any size see the same numbers."""
    arms, d = mixture.factor_ADD.shape[:2]
    p, r = draws.particles, mixture.ranks_CADR.shape[-1]
    if not p:
        return _Noise(None, None, None, first_T, draws)
    drawn = [np.random.default_rng([draws.seed, 1, int(t)]).standard_normal((p, d + r)) for t in first_T]
    both_TPS = draws.scale * np.stack(drawn)
    if arms == 1:
        return _Noise(both_TPS[:, :, :d], None, both_TPS[:, :, d:], first_T, draws)
    theta_PAD = draws.scale * np.random.default_rng([draws.seed, 3]).standard_normal((p, arms, d))
    return _Noise(None, theta_PAD, both_TPS[:, :, d:], first_T, draws)


def _project(mixture: Mixture, phi_TSD: Floats, arm_TS: Ints, noise: _Noise) -> _Rows:
    t, s, d = phi_TSD.shape
    c, _, _, r = mixture.ranks_CADR.shape
    if len(mixture.factor_ADD) == 1:
        base_TSD = phi_TSD @ mixture.factor_ADD[0]
        mean_TSC = phi_TSD @ mixture.means_CAD[:, 0].T
        rank_TSCR = (phi_TSD @ mixture.ranks_CADR[:, 0].transpose(1, 0, 2).reshape(d, c * r)).reshape(t, s, c, r)
    else:
        base_TSD = np.empty((t, s, d))
        mean_TSC, rank_TSCR = np.empty((t, s, c)), np.empty((t, s, c, r))
        for arm in np.unique(arm_TS):
            here = arm_TS == arm
            rows_ND = phi_TSD[here]
            base_TSD[here] = rows_ND @ mixture.factor_ADD[arm]
            mean_TSC[here] = rows_ND @ mixture.means_CAD[:, arm].T
            rank_TSCR[here] = np.einsum("nd,cdr->ncr", rows_ND, mixture.ranks_CADR[:, arm], optimize=True)
    mean_TSCP = mean_TSC[..., None]
    if noise.code_TPR is not None:
        mean_TSCP = mean_TSCP + np.einsum("tscr,tpr->tscp", rank_TSCR, noise.code_TPR, optimize=True)
        mean_TSCP += _drawn(base_TSD, arm_TS, noise)[:, :, None, :]
    return _Rows(mean_TSCP, base_TSD, rank_TSCR, None if len(mixture.factor_ADD) == 1 else arm_TS)


def _drawn(base_TSD: Floats, arm_TS: Ints, noise: _Noise) -> Floats:
    """The shared part of each particle's prior draw, (T, S, P)."""
    if noise.theta_TPD is not None:
        return np.asarray(base_TSD @ noise.theta_TPD.swapaxes(1, 2))
    assert noise.theta_PAD is not None
    drawn_TSP = np.empty((*arm_TS.shape, len(noise.theta_PAD)))
    for arm in np.unique(arm_TS):
        drawn_TSP[arm_TS == arm] = base_TSD[arm_TS == arm] @ noise.theta_PAD[:, arm].T
    return drawn_TSP


def _kernel(one: _Rows, two: _Rows) -> Floats:
    """The part of the prior covariance that candidates share, (T, S, S')."""
    kernel = one.base_TSD @ two.base_TSD.swapaxes(1, 2)
    if one.arm_TS is not None and two.arm_TS is not None:
        kernel *= one.arm_TS[:, :, None] == two.arm_TS[:, None, :]
    return np.asarray(kernel)


def _whitener(past: _Rows, noise: float) -> Floats:
    """L⁻¹ of G = k(Φ, Φ) + σ²I = LLᵀ, (T, N, N); its leading blocks are those of the prefixes."""
    gram_TNN = _kernel(past, past)
    diagonal = np.arange(gram_TNN.shape[1])
    gram_TNN[:, diagonal, diagonal] += noise
    return np.asarray(np.linalg.inv(np.linalg.cholesky(gram_TNN)))


def _apply(half_TNN: Floats, values_TNXY: Floats) -> Floats:
    t, n = half_TNN.shape[:2]
    return np.asarray((half_TNN @ values_TNXY.reshape(t, n, -1)).reshape(values_TNXY.shape))


def _corrections(rank_TNCR: Floats, a_TNCP: Floats, events: int, growing: bool) -> tuple[Floats, Ints]:
    """h = (I + AᵀA)⁻¹Aᵀa for what each event sees, (T, E, C, R, P), and how many rows that is, (E,)."""
    t, n, c, r = rank_TNCR.shape
    square_TNCRR = rank_TNCR[..., :, None] * rank_TNCR[..., None, :]
    shift_TNCRP = rank_TNCR[..., :, None] * a_TNCP[..., None, :]
    last = np.arange(events) if growing else np.full(events, n)
    if growing:
        square_TECRR = np.zeros((t, events, c, r, r))
        shift_TECRP = np.zeros((t, events, *shift_TNCRP.shape[2:]))
        np.cumsum(square_TNCRR, axis=1, out=square_TECRR[:, 1:])
        np.cumsum(shift_TNCRP, axis=1, out=shift_TECRP[:, 1:])
    else:
        square_TECRR, shift_TECRP = square_TNCRR.sum(1)[:, None], shift_TNCRP.sum(1)[:, None]
    square_TECRR[..., np.arange(r), np.arange(r)] += 1.0
    return np.linalg.solve(square_TECRR, shift_TECRP), last
