"""The proof of a residual: the same version with it and without, on fresh events of users who were not trained on.

Both know what the learners of the version in service know by now, and walk the events in order of time; the differences
of their doubly robust scores pair by event and sum by user.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from actors.bandits import learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.residual import Residual
from cluster.config import GateSettings
from tune.gate import Verdict, admit
from tune.walk import Trail, walk


@dataclass(frozen=True)
class Proof:
    """plain: of the new residual against none. running: against the one in service, None where there is none."""

    plain: Verdict
    running: Verdict | None

    @property
    def publish(self) -> bool:
        """Better than the plain blend for sure; where a residual is in service, better than it too, as far as one can
        see, and not worse for sure."""
        before = self.running
        return self.plain.admitted and (before is None or (before.kept and before.difference > 0))

    def facts(self) -> dict[str, Any]:
        return {"plain": self.plain.facts(), "running": self.running and self.running.facts()}


def prove(
    ensemble: Ensemble,
    residual: Residual,
    trail: Trail,
    gate: GateSettings,
    seed: int,
    left_s: Callable[[], float] = lambda: float("inf"),
    progress: Callable[[int, int], None] = lambda done, total: None,
    learned: Callable[[Ensemble], learn.State] = learn.start,
) -> Proof:
    """Walk the trail without a residual, with the new one, and with the one in service.

    Args:
        ensemble: of the version in service. gate: with the error rate of this try.
        learned: what an ensemble knows where the trail begins.
    """
    without, other = replace(ensemble, residual=None), replace(ensemble, residual=residual)
    plain = walk(without, trail, seed, left_s, progress, learned(without))
    trail = trail.first(len(plain.log))
    new = walk(other, trail, seed, progress=progress, state=learned(other))
    before = None
    if ensemble.residual is not None:
        running = walk(ensemble, trail, seed, progress=progress, state=learned(ensemble))
        before = admit(new.over(running), gate, seed)
    return Proof(admit(new.over(plain), gate, seed), before)
