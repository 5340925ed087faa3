"""The members of an ensemble as they decide: each gives the scores of a decision's items, for one user.

Uniform has none. Shared members are one posterior for all of a client's users. Mixtures read the user's history.

Shapes: K items, P particles, A arms, D features.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from actors.bandits import sharing
from actors.bandits.history import History
from actors.bandits.mixture import Mixture
from actors.bandits.noise import ITEM, Noise
from actors.bandits.posterior import Gaussian, Scores
from actors.features.features import Features, Floats, Ints
from cluster.errors import ModelError

View = Literal["features", "items", "cluster", "provider"]

SHARING: tuple[View, ...] = ("cluster", "provider")
"""Views whose items share parameters with some of the others, not with all or none."""


@dataclass(frozen=True)
class Uniform:
    """No scores; every eligible item with the same probability."""

    name: str = "uniform"
    predefined: bool = True


@dataclass(frozen=True)
class Shared:
    """One posterior, on the feature map ("features"), on item one-hots ("items": popularity), or on the feature map
    with parameters of each cluster of providers or each provider, which their items share ("cluster", "provider")."""

    name: str
    posterior: Gaussian
    view: View
    predefined: bool = True


@runtime_checkable
class Model(Protocol):
    """What a user's own model (`module:Class`) must offer; made by `Class(arms, dimension, items)`.

    Rewards come scaled to [0, 1]. `learn` changes the model; a copy of it decides, so `scores` must not.
    """

    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        """Means and standard deviations of the K items' rewards."""

    def learn(self, phi_D: Floats, arm: int, item: int, reward: float) -> None: ...

    def arrays(self) -> dict[str, Any]: ...

    def load(self, arrays: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Custom:
    """The user's own model; its particles are independent per item."""

    name: str
    model: Model
    source: str
    shape: tuple[int, int, int]
    predefined: bool = True


def custom(
    source: str,
    shape: tuple[int, int, int],
    arrays: dict[str, Any] | None = None,
    name: str | None = None,
    predefined: bool = True,
) -> Custom:
    """The member of `module:Class`, made for (arms, dimension, items) and loaded from `arrays`.

    Raises ModelError where the class cannot be imported or lacks a method of `Model`.
    """
    module, _, attribute = source.partition(":")
    try:
        model = getattr(importlib.import_module(module), attribute)(*shape)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"own model {source!r}: {type(error).__name__}: {error}; "
            "expected an importable module:Class(arms, dimension, items)"
        ) from error
    if not isinstance(model, Model):
        missing = [m for m in ("scores", "learn", "arrays", "load") if not hasattr(model, m)]
        raise ModelError(f"own model {source!r} lacks {missing}; see actors.bandits.members.Model")
    if arrays is not None:
        model.load(arrays)
    return Custom(name or attribute.lower(), model, source, shape, predefined)


Member: TypeAlias = Uniform | Shared | Custom | Mixture


def followed(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The members, each mixture moved to where the shared member that it follows is."""
    means = {m.name: m.posterior.mean_AD for m in members if isinstance(m, Shared)}
    return tuple(
        m.following(means[m.follow.name]) if isinstance(m, Mixture) and m.follow and m.follow.name in means else m
        for m in members
    )


def view(features: Features, kind: View) -> tuple[Floats, Ints]:
    """The rows and parameter rows that a shared member sees."""
    match kind:
        case "items":
            return np.ones((len(features), 1)), features.item_K
        case "features":
            return features.phi_KD, features.arm_K
    if features.kin is None:
        return features.phi_KD, np.full(len(features), -1)
    return features.phi_KD, features.kin.cluster_K if kind == "cluster" else features.kin.provider_K


def joint(member: Member) -> Gaussian | None:
    """The posterior of a shared member on joint features, else None."""
    if isinstance(member, Shared) and member.view == "features" and len(member.posterior.mean_AD) == 1:
        return member.posterior
    return None


def scores(member: Member, features: Features, history: History, noise: Noise, scale: float) -> Scores:
    """A member's scores of the K items. `scale` is α, the factor on deviations. Uniform has none."""
    match member:
        case Uniform():
            raise ModelError("uniform has no scores; the law gives it 1/K")
        case Shared():
            phi_KD, arm_K = view(features, member.view)
            if member.view in SHARING:
                return sharing.scores(member.posterior, phi_KD, arm_K, features.key_K, noise, scale)
            return member.posterior.scores(phi_KD, arm_K, features.key_K, noise, scale)
        case Mixture():
            return member.condition(history, features.context_X, scale, features.code_H).scores(features, noise)
        case Custom():
            try:
                mean_K, spread_K = member.model.scores(features.phi_KD, features.arm_K, features.item_K)
            except Exception as error:  # the user's code may raise anything
                raise ModelError(f"own model {member.source!r}: scores: {type(error).__name__}: {error}") from error
            if not np.shape(mean_K) == np.shape(spread_K) == (len(features),) or not np.all(
                np.greater_equal(spread_K, 0)
            ):
                raise ModelError(
                    f"own model {member.source!r}: expected {len(features)} means and as many standard deviations "
                    f"of 0 or more, found shapes {np.shape(mean_K)} and {np.shape(spread_K)}"
                )
            return Scores(mean_K, noise.keyed(ITEM, features.key_K) * (scale * spread_K))
