"""The daily look at providers: where a new one starts, and which one moves.

The models are whoever calls: they bring, for each provider, how well every cluster's model predicted its users.
Shapes: U users, C clusters in the order of `Groups.clusters`, R rivals, E size of an embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from actors.content.regrouping.groups import Groups
from actors.content.regrouping.trial import Trial
from actors.features.features import Floats
from cluster.errors import ModelError, RequestError


@dataclass(frozen=True)
class Regrouping:
    """Where providers are, and the evidence for where they should be."""

    groups: Groups
    alpha: float
    trials: Mapping[str, Trial] = field(default_factory=dict)

    def look(self, day: date, scores: Mapping[str, Floats]) -> "Regrouping":
        """With the outcomes that came since the last look; what moved are the last moves of `groups`.

        Args:
            scores: by provider, mean log-likelihood of each user's outcomes under each cluster's model, (U, C), nats,
                by models that had not seen them.

        Raises:
            ModelError: a provider that is in no cluster, or scores that are not finite or of other clusters.
        """
        groups, trials, today = self.groups, dict(self.trials), day.toordinal()
        for provider, scores_UC in sorted(scores.items()):
            own = self.groups.cluster_of.get(provider)
            fits = scores_UC.shape[1:] == (len(self.groups.clusters),) and np.isfinite(scores_UC).all()
            if own is None or not fits:
                raise ModelError(
                    f"provider {provider!r} in cluster {own!r} with scores {scores_UC.shape}: "
                    f"place it first; its scores must be finite, one for each of {len(self.groups.clusters)} clusters"
                )
            trial = self._look(provider, own, today, scores_UC)
            if (best := trial.winner(self.alpha)) is not None:
                groups = groups.move(provider, trial.rivals[best], day.isoformat(), *_why(trial, best, self.alpha))
                trial = trial.again(_rivals(groups, provider), today)
            trials[provider] = trial
        return Regrouping(groups, self.alpha, trials)

    def _look(self, provider: str, own: str, today: int, scores_UC: Floats) -> Trial:
        rivals = _rivals(self.groups, provider)
        trial = self.trials.get(provider) or Trial.begin(rivals, today)
        if trial.rivals != rivals:  # there is a new cluster
            trial = trial.again(rivals, today)
        clusters = self.groups.clusters
        gains_UR = scores_UC[:, [clusters.index(rival) for rival in rivals]] - scores_UC[:, [clusters.index(own)]]
        return trial.look(today, gains_UR)

    def undo(self, number: int, day: date) -> "Regrouping":
        """With a move taken back, and its provider watched anew at what is left of the year's error rate."""
        return self._anew(self.groups.undo(number, day.isoformat()), day)

    def move(self, provider: str, to: str, day: date) -> "Regrouping":
        """With a provider where somebody wants it, and watched anew there.

        Raises:
            RequestError: no such provider or cluster, or it is there already.
        """
        for kind, name, known in (
            ("provider", provider, self.groups.cluster_of),
            ("cluster", to, self.groups.clusters),
        ):
            if name not in known:
                raise RequestError((kind,), f"there is no {kind} {name!r}; there are {', '.join(sorted(known))}", 404)
        return self._anew(self.groups.move(provider, to, day.isoformat(), "moved by hand", {}), day)

    def _anew(self, groups: Groups, day: date) -> "Regrouping":
        """With a last move that nobody's evidence asked for."""
        provider = groups.moves[-1].provider
        trials = dict(self.trials)
        if (before := trials.get(provider)) is not None:
            trials[provider] = before.again(_rivals(groups, provider), day.toordinal())
        return Regrouping(groups, self.alpha, trials)

    def place(
        self, provider: str, day: date, content_E: Floats | None, centroids: Mapping[str, Floats]
    ) -> "Regrouping":
        """With a new provider in the cluster of the nearest content; without content, in the one with most providers.

        Args:
            content_E: mean of the provider's embeddings.
            centroids: mean embedding of each cluster that has any.
        """
        if content_E is not None and centroids:
            to = max(sorted(centroids), key=lambda name: cosine(content_E, centroids[name]))
            near = cosine(content_E, centroids[to])
            reason, facts = f"new; its content is nearest to that of {to}, cosine {near:.3f}", {"cosine": near}
        else:
            to = max(self.groups.clusters, key=lambda name: len(self.groups.members(name)))
            reason, facts = f"new and without embedded content; {to} has most providers", {}
        return Regrouping(self.groups.move(provider, to, day.isoformat(), reason, facts), self.alpha, dict(self.trials))


def cosine(left_E: Floats, right_E: Floats) -> float:
    """Of two vectors; 0 where one is zero."""
    size = float(np.linalg.norm(left_E) * np.linalg.norm(right_E))
    return float(left_E @ right_E) / size if size > 0 else 0.0


def _rivals(groups: Groups, provider: str) -> tuple[str, ...]:
    return tuple(name for name in groups.clusters if name != groups.cluster_of[provider])


def _why(trial: Trial, best: int, alpha: float) -> tuple[str, dict[str, float]]:
    start, gain, users = trial.since(best)
    evidence, needed = float(trial.log_e()[best]), trial.needed(alpha)
    reason = (
        f"since {date.fromordinal(start)} the models of {trial.rivals[best]} predicted {users} users better, by "
        f"{gain:+.4f} nats; evidence {evidence:.2f} of {needed:.2f} nats needed, test {trial.number} of the year"
    )
    return reason, {"gain": gain, "users": users, "evidence": evidence, "needed": needed, "test": trial.number}
