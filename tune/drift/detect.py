"""Whether rewards or contexts have drifted, which of them, and since when.

Shapes: T looks, S signals.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from actors.features.features import Floats
from cluster.config import DriftSettings
from tune.drift.alarm import Evidence
from tune.drift.signals import SIGNALS, Signals
from tune.drift.stream import Stream

SHAPE = SIGNALS.index("shape")
LEAST_BLOCKS = 10
"""Blocks of the first stretch, from which what is usual is known."""


@dataclass(frozen=True)
class Drift:
    """signal: which of SIGNALS spoke most for it. Times are seconds since 1970; first_s and last_s bound since_s.

    turned: "shape" raises the alarm alone: what was the better choice is no longer. Otherwise all rewards moved, or
    who asks, and the better choices may be what they were.
    """

    signal: str
    since_s: float
    first_s: float
    last_s: float
    alarm_s: float
    turned: bool


@dataclass(frozen=True)
class Found:
    """drift: the first alarm, and what the looks after it added. second_T: ends of the looks.

    log_evidence_T: natural logarithm, alarm at −ln alpha. z_TS: the looks themselves.
    """

    drift: Drift | None
    second_T: Floats
    log_evidence_T: Floats
    z_TS: Floats

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {
            "drift": None if self.drift is None else asdict(self.drift),
            "looks": len(self.second_T),
            "seconds": self.second_T.tolist(),
            "log_evidence": self.log_evidence_T.tolist(),
        }


def detect(
    stream: Stream, settings: DriftSettings, progress: Callable[[int, int], None] = lambda done, total: None
) -> Found:
    """Look at block after block until the alarm is raised and it is known that choices turned, or to the end.

    The result for a longer stream is the same as far as both go, so that a job may ask as often as it likes.
    """
    blocks = list(stream.blocks(settings.block_users))
    first = _first(stream, blocks, settings.warm_up_days * 86_400.0)
    if len(blocks) <= first:
        return Found(None, np.empty(0), np.empty(0), np.empty((0, len(SIGNALS))))
    signals = Signals(stream.take(slice(0, blocks[first - 1].stop)), blocks[:first], settings.tolerance)
    evidence, drift = Evidence(len(SIGNALS)), None
    looks, levels, ends = [], [], [float(stream.second_N[blocks[b].stop - 1]) for b in range(first - 2, first)]
    for number, rows in enumerate(blocks[first:], first):
        z_S, largest_S = signals.look(stream.take(rows))
        level_S = evidence.look(z_S, largest_S, ends[-1] - ends[-2])
        looks.append(z_S)
        levels.append(level_S.sum())
        ends.append(float(stream.second_N[rows.stop - 1]))
        progress(number + 1 - first, len(blocks) - first)
        turned = bool(level_S[SHAPE] >= 1 / settings.alpha)
        if turned or (drift is None and levels[-1] >= 1 / settings.alpha):
            alarm_s = ends[-1] if drift is None else drift.alarm_s
            signal = SIGNALS[int(np.argmax(level_S))] if drift is None else drift.signal
            at, earliest, latest = (float(stream.second_N[blocks[first + look].start]) for look in evidence.since())
            drift = Drift(signal, at, earliest, latest, alarm_s, turned)
            if turned:
                break
    return Found(drift, np.array(ends[2:]), np.log(np.maximum(levels, 1e-300)), np.stack(looks))


def _first(stream: Stream, blocks: list[slice], warm_up_s: float) -> int:
    """How many blocks the first stretch has: whole weeks are needed to know the calendar."""
    over = [b for b, rows in enumerate(blocks) if stream.second_N[rows.stop - 1] - stream.second_N[0] >= warm_up_s]
    return max(LEAST_BLOCKS, over[0] + 1 if over else len(blocks))
