"""Sums by user: all that an estimate needs of a log, in memory that grows with its users, not its events.

Shapes: N events, K candidates (padded), U users, C columns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError
from tune.log import Log
from tune.offpolicy.slope import grid
from tune.offpolicy.terms import TUNED, Method, Scored, check_parameter

_COUNT, _REWARD, _RATIO = range(3)
Key = tuple[Method, float | None]


@dataclass(frozen=True)
class Sums:
    """One method's terms, added up by user.

    above_U, below_U: the estimate is Σ above / Σ below. count_U: events. weight_U: Σw. ratio_U: Σρ, None without
    propensities. square: Σw² over events. largest: 1 / the least logged propensity, a bound on ρ.
    """

    method: Method
    parameter: float | None
    above_U: Floats
    below_U: Floats
    count_U: Floats
    weight_U: Floats
    ratio_U: Floats | None
    square: float
    largest: float

    @property
    def value(self) -> float:
        """NaN where nothing is below."""
        below = float(self.below_U.sum())
        return float(self.above_U.sum()) / below if below > 0 else float("nan")


class Totals:
    """Adds up one policy's terms of several methods in one pass, with every parameter of their grids.

    Args:
        methods: which; each that needs a comparison (tune.offpolicy.estimate) brings it along.
        parameters: fixed parameters of methods; the others get their grid (tune.offpolicy.slope).
    """

    def __init__(self, methods: Iterable[Method], parameters: Mapping[Method, float] | None = None) -> None:
        self.methods = tuple(dict.fromkeys(methods))
        keys = [key for method in self.methods for key in _keys(method, (parameters or {}).get(method))]
        self._columns = {key: 3 + 3 * i for i, key in enumerate(dict.fromkeys(keys))}
        self._room_UC = np.zeros((0, 3 + 3 * len(self._columns)))
        self._users = 0
        self._square = dict.fromkeys(self._columns, 0.0)
        self._least, self._known = np.inf, True

    def add(self, user_N: Ints, log: Log, policy_NK: Floats, q_NK: Floats | None = None) -> None:
        """Add a block of events; `user_N` are numbers of users over all blocks.

        Raises EvidenceError as `tune.offpolicy.terms.terms` does.
        """
        if not len(log):
            return
        scored = Scored.of(log, policy_NK, q_NK)
        self._grow(int(user_N.max()) + 1)
        self._put(user_N, _COUNT, np.ones(len(log)))
        self._put(user_N, _REWARD, log.reward_N)
        self._known &= scored.ratio_N is not None
        if scored.ratio_N is not None and log.propensity_N is not None:
            self._put(user_N, _RATIO, scored.ratio_N)
            self._least = min(self._least, float(log.propensity_N.min()))
        for key, column in self._columns.items():
            if scored.ratio_N is None and key[0] not in self.methods:
                continue  # what dm is compared with
            found = scored.terms(*key)
            for offset, values_N in enumerate((found.above_N, found.below_N, found.weight_N)):
                self._put(user_N, column + offset, values_N)
            self._square[key] += float(found.weight_N @ found.weight_N)

    @property
    def events(self) -> int:
        return int(self._sums_UC[:, _COUNT].sum())

    @property
    def known(self) -> bool:
        """Whether every event so far has a propensity."""
        return self._known and self.events > 0

    def parameters(self, method: Method) -> tuple[float, ...]:
        """What was added up for a method that has a parameter, greatest first."""
        return tuple(sorted((p for m, p in self._columns if m == method and p is not None), reverse=True))

    def sums(self, method: Method, parameter: float | None = None) -> Sums:
        """Raises EvidenceError where this was not added up, or no event was."""
        if (column := self._columns.get((method, parameter))) is None:
            raise EvidenceError(f"{method} with parameter {parameter} was not added up; name it when totals begin")
        if not self.events:
            raise EvidenceError("no event to estimate from; use more data, or a larger part of it")
        above_U, below_U, weight_U = self._sums_UC[:, column : column + 3].T
        ratio_U = self._sums_UC[:, _RATIO] if self._known else None
        count_U, square = self._sums_UC[:, _COUNT], self._square[method, parameter]
        return Sums(method, parameter, above_U, below_U, count_U, weight_U, ratio_U, square, 1 / self._least)

    def logged(self) -> Sums:
        """What the logging policy earned: the mean reward."""
        count_U = self._sums_UC[:, _COUNT]
        reward_U = self._sums_UC[:, _REWARD]
        return Sums("ips", None, reward_U, count_U, count_U, count_U, count_U, float(count_U.sum()), 1.0)

    @property
    def _sums_UC(self) -> Floats:
        return self._room_UC[: self._users]

    def _grow(self, users: int) -> None:
        if users > len(self._room_UC):
            more = np.zeros((max(users, 2 * self._users) - len(self._room_UC), self._room_UC.shape[1]))
            self._room_UC = np.concatenate([self._room_UC, more])
        self._users = max(self._users, users)

    def _put(self, user_N: Ints, column: int, values_N: Floats) -> None:
        np.add.at(self._room_UC[:, column], user_N, values_N)


_BESIDE_DM: Key = ("dr", None)


def _keys(method: Method, parameter: float | None) -> list[Key]:
    """The method, and what its interval is compared with (tune.offpolicy.estimate)."""
    if method in TUNED:
        return [(method, value) for value in (grid(method) if parameter is None else (np.inf, parameter))]
    check_parameter(method, parameter)
    return [(method, None), _BESIDE_DM] if method == "dm" else [(method, None)]
