"""What rehearsals of a drift came to: reward and weights over time, and how long until it was regained.

Shapes: S seeds, T spans of equally many situations, M members.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from actors.features.features import Floats
from tune.rehearsal import Rehearsal
from tune.results import LEVEL
from tune.service import Done

SPANS = 40
LAST = 0.25
"""Share of the traffic after the change whose mean is where a service ended up."""
SMOOTH = 400
"""Situations over which reward counts as regained."""


def facts(runs: Sequence[Rehearsal], drift_at: float) -> dict[str, Any]:
    """Curves and figures over the seeds, in reward per 1,000 decisions."""
    services = {"replaced": [run.replaced for run in runs], "alone": [run.alone for run in runs]}
    figures = [_figures(run, drift_at) for run in runs]
    return {
        "seeds": len(runs),
        "drift_at": drift_at,
        "curves": {name: _curve(done) for name, done in services.items()},
        "weights": {name: _weights(done[0]) for name, done in services.items()},
        "published": [
            {"share": look["decisions"] / len(runs[0].replaced), "action": look["action"], "version": look["version"]}
            for look in runs[0].looks
            if "version" in look
        ],
        "uniform": _per_1000([run.uniform for run in runs]),
        "told": _per_1000([run.told for run in runs]),
        "figures": {name: _interval([each[name] for each in figures]) for name in figures[0]},
        "by_seed": figures,
    }


def _figures(run: Rehearsal, drift_at: float) -> dict[str, float | None]:
    """Levels per 1,000 decisions, and decisions from the change to each step of the recovery; None where it never
    came."""
    change = int(np.searchsorted(run.at_N, drift_at))
    one_N, other_N = (np.array([each.expected for each in done]) for done in (run.replaced, run.alone))
    last = max(1, round(LAST * (len(one_N) - change)))
    told = run.told[1]
    fallen = float(other_N[change : change + SMOOTH].mean())
    new = [n for n, each in enumerate(run.replaced) if n >= change and each.version != run.replaced[change].version]
    return {
        "before": 1_000 * float(other_N[max(0, change - last) : change].mean()),
        "fallen to": 1_000 * fallen,
        "in the end, replaced": 1_000 * float(one_N[-last:].mean()),
        "in the end, alone": 1_000 * float(other_N[-last:].mean()),
        "after the change, replaced − alone": 1_000 * float((one_N - other_N)[change:].mean()),
        "decisions until replaced": float(new[0] - change) if new else None,
        "decisions until half regained, replaced": _regained(one_N[change:], fallen, told),
        "decisions until half regained, alone": _regained(other_N[change:], fallen, told),
    }


def _regained(reward_N: Floats, fallen: float, told: float) -> float | None:
    """Decisions until the mean of the next SMOOTH is half way from where reward fell to what features can tell."""
    if len(reward_N) < SMOOTH:
        return None
    mean_N = np.convolve(reward_N, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    over = np.flatnonzero(mean_N >= (fallen + told) / 2)
    return float(over[0]) if len(over) else None


def _interval(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean over the seeds that have a value, with Student's interval; how many have one."""
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return {"mean": None, "interval": [None, None], "of": 0}
    mean = float(known.mean())
    reach = _reach(known[:, None])[0] if len(known) > 1 else None
    bounds = [None, None] if reach is None else [mean - float(reach), mean + float(reach)]
    return {"mean": mean, "interval": bounds, "of": len(known)}


def _reach(value_ST: Floats) -> Floats:
    """Half width of Student's interval over seeds, (T,)."""
    seeds = len(value_ST)
    error_T = value_ST.std(axis=0, ddof=1) / np.sqrt(seeds)
    return np.asarray(float(stats.t.ppf((1 + LEVEL) / 2, seeds - 1)) * error_T)


def _curve(runs: Sequence[Sequence[Done]]) -> dict[str, Any]:
    """Mean expected reward of each span, over the seeds."""
    value_ST = np.array(
        [[1_000 * np.mean([each.expected for each in done[a:b]]) for a, b in _edges(len(done))] for done in runs]
    )
    mean_T = value_ST.mean(axis=0)
    reach_T = _reach(value_ST) if len(runs) > 1 else np.zeros(len(mean_T))
    ends = [(a + b) / 2 / len(runs[0]) for a, b in _edges(len(runs[0]))]
    return {
        "share": ends,
        "mean": mean_T.tolist(),
        "low": (mean_T - reach_T).tolist(),
        "high": (mean_T + reach_T).tolist(),
    }


def _weights(done: Sequence[Done]) -> dict[str, Any]:
    """The members' mean weights in each span of the first seed."""
    names = sorted({name for each in done for name in each.weights})
    rows = [
        [float(np.mean([each.weights.get(name, 0.0) for each in done[a:b]])) for name in names]
        for a, b in _edges(len(done))
    ]
    return {"share": [(a + b) / 2 / len(done) for a, b in _edges(len(done))], "names": names, "weights": rows}


def _edges(count: int) -> list[tuple[int, int]]:
    edges = np.unique(np.linspace(0, count, SPANS + 1).astype(int)).tolist()
    return list(itertools.pairwise(edges))


def _per_1000(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return (1_000 * np.mean(pairs, axis=0)).tolist()  # type: ignore[no-any-return]
