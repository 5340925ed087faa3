"""Small bandits for the tests of actors.bandits.

Shapes as in actors/features/features.py and actors/bandits.
"""

from dataclasses import replace
from typing import cast

import numpy as np

from actors.bandits.decoder import Decoder
from actors.bandits.ensemble import Ensemble, Part, Prior
from actors.bandits.history import History
from actors.bandits.learn import Outcome
from actors.bandits.members import Member, Shared, Uniform, View
from actors.bandits.mixture import Follow, Mixture
from actors.bandits.posterior import Gaussian, gaussian
from actors.bandits.published import Published
from actors.features.features import Features, Floats
from actors.features.kin import Kin, alphas
from cluster.config import LawSettings, WeightSettings

CONTEXT = 3


def features(rng: np.random.Generator, items: int, dimension: int, arms: bool = False) -> Features:
    phi_KD = rng.normal(size=(items, dimension))
    phi_KD[:, 0] = 1
    places = np.arange(items)
    return Features(
        np.broadcast_to(phi_KD[0], phi_KD.shape) if arms else phi_KD,
        places if arms else np.zeros(items, np.int64),
        places,
        rng.integers(0, 2**63, items).astype(np.uint64),
        rng.normal(size=CONTEXT),
    )


def kin(rng: np.random.Generator, items: int, providers: int = 3, clusters: int = 2, neighbours: int = 2) -> Kin:
    """Of K items of the catalogue's first: a provider and its cluster, or none; one item in two has neighbours."""
    provider_K = rng.integers(-1, providers, items)
    near_KJ = np.where(rng.random((items, 1)) < 0.5, rng.integers(0, items, (items, neighbours)), -1)
    similarity_KJ = np.where(near_KJ >= 0, rng.random(near_KJ.shape), 0.0)
    level_K = np.where(near_KJ[:, 0] >= 0, rng.integers(1, 4, items), 0)
    alpha_KJ = alphas(similarity_KJ, near_KJ, 0.2)
    cluster_K = np.where(provider_K >= 0, provider_K % clusters, -1)
    return Kin(provider_K, cluster_K, near_KJ, similarity_KJ, alpha_KJ, level_K, rng.normal(size=(items, 2)))


def content(rng: np.random.Generator, dimension: int, providers: int = 3, clusters: int = 2) -> tuple[Prior, Prior]:
    """The members "cluster" and "provider"."""
    made = []
    for view, arms in (("cluster", clusters + 1), ("provider", providers + clusters + 1)):
        parts = precision(rng, arms, dimension), rng.normal(size=(arms, dimension))
        made.append(Prior(view, *parts, 0.2, cast(View, view)))
    return made[0], made[1]


def precision(rng: np.random.Generator, arms: int, dimension: int, rows: int = 8) -> Floats:
    rows_AND = rng.normal(size=(arms, rows, dimension))
    return np.asarray(np.eye(dimension) + rows_AND.swapaxes(1, 2) @ rows_AND)


def posterior(rng: np.random.Generator, arms: int, dimension: int) -> Gaussian:
    return gaussian(precision(rng, arms, dimension), rng.normal(size=(arms, dimension)))


def shared(rng: np.random.Generator, arms: int, dimension: int, name: str = "linear") -> Shared:
    return Shared(name, posterior(rng, arms, dimension), "features")


def mixture(
    rng: np.random.Generator, candidates: int, arms: int, dimension: int, rank: int = 2, noise: float = 0.3
) -> Mixture:
    return Mixture(
        name="generated",
        means_CAD=rng.normal(size=(candidates, arms, dimension)),
        factor_ADD=np.linalg.cholesky(np.linalg.inv(precision(rng, arms, dimension))),
        ranks_CADR=0.5 * rng.normal(size=(candidates, arms, dimension, rank)),
        noise=noise,
        encoder_HX=rng.normal(size=(2, CONTEXT)),
        prototypes_CH=rng.normal(size=(candidates, 2)),
        temperature=0.7,
        names_C=tuple(f"c{c}" for c in range(candidates)),
    )


def decoder(
    rng: np.random.Generator, arms: int, dimension: int, codes: int = 3, rank: int = 2, width: int = 2
) -> Decoder:
    """For codes of `width`, as `mixture` has them."""
    return Decoder(
        first_WI=rng.normal(size=(5, width + codes)),
        last_OW=rng.normal(size=(2 * rank, 5)),
        direct_OI=rng.normal(size=(2 * rank, width + codes)),
        shift_ADR=0.5 * rng.normal(size=(arms, dimension, rank)),
        spread_ADR=rng.normal(size=(arms, dimension, rank)),
        mean_AD=rng.normal(size=(arms, dimension)),
    )


def history(rng: np.random.Generator, rows: int, arms: int, dimension: int) -> History:
    phi_ND = rng.normal(size=(rows, dimension))
    return History(phi_ND, rng.integers(0, arms, rows), rng.random(rows))


def published(*members: Member, dimension: int, weights: Floats | None = None, **law: float) -> Published:
    weights_M = np.full(len(members), 1 / len(members)) if weights is None else weights
    return Published(tuple(members), weights_M, weights_M, LawSettings.model_validate(law), dimension)


def ensemble(
    rng: np.random.Generator, arms: int = 1, dimension: int = 4, items: int = 5, **changes: object
) -> Ensemble:
    """Uniform, popularity, linear, one that forgets, and a mixture."""
    half_life = 300.0
    members: tuple[Part, ...] = (
        Uniform(),
        Prior("popularity", np.full((items + 1, 1, 1), 4.0), rng.random((items + 1, 1)), 0.2, "items"),
        Prior("linear", precision(rng, arms, dimension), rng.normal(size=(arms, dimension)), 0.2, "features"),
        Prior("forgetting", precision(rng, arms, dimension), np.ones((arms, dimension)), 0.2, "features", half_life),
        replace(
            mixture(rng, 3, arms, dimension),
            exploration=0.7,
            base_AD=rng.normal(size=(arms, dimension)),
            follow=Follow("nobody", rng.normal(size=(arms, dimension)), 0.9),
            least_variance=0.03,
        ),
    )
    values = {
        "members": members,
        "values_M": np.array([0.4, 0.5, 0.6, 0.5, 0.7]),
        "law": LawSettings(),
        "weights": WeightSettings(),
        "dimension": dimension,
        "fingerprint": "f" * 64,
        "history": 6,
    }
    return Ensemble(**(values | changes))  # type: ignore[arg-type]


def outcomes(
    rng: np.random.Generator, count: int, members: int = 5, dimension: int = 4, items: int = 5
) -> list[Outcome]:
    """Joint features; one item in eight is unknown, one user in four is not known."""
    return [
        Outcome(
            user=None if rng.random() < 0.25 else f"u{rng.integers(3)}",
            phi_D=rng.normal(size=dimension),
            arm=0,
            item=int(rng.integers(-1, items)) if rng.random() < 0.5 else int(rng.integers(items)),
            reward=float(rng.random() < 0.3),
            propensity=float(rng.uniform(0.1, 1)),
            member_propensities_M=rng.dirichlet(np.ones(members)),
        )
        for _ in range(count)
    ]
