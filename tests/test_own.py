"""Priors of a user's own context against a mixture of the same candidates written out."""

import copy
import gc
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits import law
from actors.bandits.decoder import SMALL
from actors.bandits.ensemble import Ensemble
from actors.bandits.history import History
from actors.bandits.mixture import Follow, Mixture
from actors.bandits.noise import Noise
from actors.features.features import Floats
from cluster.errors import ModelError
from tests import bandit_cases as cases


def member(rng: np.random.Generator, arms: int = 1, dimension: int = 3, **changes: object) -> Mixture:
    plain = cases.mixture(rng, 3, arms, dimension)
    return replace(plain, **({"decoder": cases.decoder(rng, arms, dimension)} | changes))


def written_out(model: Mixture, code_H: Floats) -> Mixture:
    """The decoder's priors of this code as the candidates of a mixture, by the formulas with loops."""
    decoder = model.decoder
    assert decoder is not None
    means, ranks = [], []
    for s in range(decoder.first_WI.shape[1] - len(code_H)):
        inputs = np.concatenate([code_H, np.eye(decoder.first_WI.shape[1] - len(code_H))[s]])
        h, g = np.split(decoder.last_OW @ np.tanh(decoder.first_WI @ inputs) + decoder.direct_OI @ inputs, 2)
        means.append(decoder.mean_AD + decoder.shift_ADR @ h)
        ranks.append(decoder.spread_ADR @ np.diag(np.exp(SMALL + 2 * np.tanh(g / 2))))
    return replace(
        model,
        means_CAD=np.stack(means),
        ranks_CADR=np.stack(ranks),
        prototypes_CH=np.tile(code_H, (len(means), 1)),
        names_C=tuple(f"z{s}" for s in range(len(means))),
        decoder=None,
    )


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.integers(0, 9), st.booleans(), st.booleans())
def test_own_priors_are_those_written_out(seed: int, arms: int, n: int, binomial: bool, told: bool) -> None:
    """With any history; the code is the encoder's, or one that is told."""
    rng = np.random.default_rng(seed)
    model, past = member(rng, arms, personal="all"), cases.history(rng, n, arms, 3)
    if binomial:
        model = replace(model, base_AD=0.3 * rng.normal(size=(arms, 3)))
    decision = replace(cases.features(rng, 4, 3), arm_K=rng.integers(0, arms, 4))
    code_H = rng.normal(size=2) if told else None
    found = model.condition(past, decision.context_X, 0.8, code_H)
    plain = written_out(model, model.encoder_HX @ decision.context_X if code_H is None else code_H)
    expected = plain.condition(past, decision.context_X, 0.8, code_H)
    np.testing.assert_allclose(found.responsibilities_C, expected.responsibilities_C, atol=1e-9)
    one, two = (each.scores(decision, Noise(seed, 33)) for each in (found, expected))
    np.testing.assert_allclose(one.mean_K, two.mean_K, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(one.deviation_PK, two.deviation_PK, rtol=1e-6, atol=1e-7)


def test_codes_are_equally_likely_before_a_history() -> None:
    rng = np.random.default_rng(0)
    model, decision = member(rng), cases.features(rng, 4, 3)
    np.testing.assert_allclose(model.condition(History.empty(3), decision.context_X).responsibilities_C, 1 / 3)


def test_unknown_users_have_their_own_and_known_ones_the_candidates() -> None:
    rng = np.random.default_rng(1)
    model, decision, past = member(rng), cases.features(rng, 4, 3), cases.history(rng, 2, 1, 3)
    plain = replace(model, decoder=None)
    for one, history, same in ((model, past, True), (model, History.empty(3), False)):
        own, shared = (m.condition(history, decision.context_X).scores(decision, Noise(1, 8)) for m in (one, plain))
        assert np.array_equal(own.mean_K, shared.mean_K) == same
    everyone = replace(model, personal="all").condition(past, decision.context_X)
    assert not np.allclose(everyone.means(decision).mean(0), plain.condition(past, decision.context_X).means(decision))


def test_what_is_learned_moves_the_mean() -> None:
    """m = aμ_t + U h: by 0.5 of what the followed member moved."""
    rng = np.random.default_rng(2)
    model = member(rng, follow=Follow("linear", np.zeros((1, 3)), 0.5))
    decision, nothing = cases.features(rng, 4, 3), History.empty(3)
    learned_AD = rng.normal(size=(1, 3))
    before, after = (
        m.condition(nothing, decision.context_X).means(decision) for m in (model, model.following(learned_AD))
    )
    moved_K = 0.5 * decision.phi_KD @ learned_AD[0]
    np.testing.assert_allclose(after - before, np.tile(moved_K, (3, 1)), atol=1e-12)


def test_a_history_is_taken_in_once_whatever_the_contexts() -> None:
    rng = np.random.default_rng(3)
    model, past = member(rng, personal="all"), cases.history(rng, 4, 1, 3)
    first = model.known(past)
    for _ in range(3):
        model.condition(past, rng.normal(size=cases.CONTEXT)).means(cases.features(rng, 2, 3))
    assert model.known(past) is first
    assert "_known" not in copy.deepcopy(model).__dict__
    del past, first
    gc.collect()
    assert len(model._known) == 0


@pytest.mark.parametrize("arms", [1, 6])
@pytest.mark.parametrize("personal", ["unknown", "all"])
def test_a_saved_decoder_decides_the_same(arms: int, personal: str) -> None:
    rng = np.random.default_rng(4)
    ensemble = cases.ensemble(rng, arms=arms)
    generated = replace(ensemble.members[-1], decoder=cases.decoder(rng, arms, 4), personal=personal)
    ensemble = replace(ensemble, members=(*ensemble.members[:-1], generated))
    again = Ensemble.load(ensemble.arrays(), json.loads(json.dumps(ensemble.facts())))
    loaded = again.members[-1]
    assert isinstance(loaded, Mixture)
    assert loaded.personal == personal
    decision = cases.features(rng, 5, 4, arms > 1)
    for past in (None, cases.history(rng, 3, arms, 4)):
        one, two = (law.probabilities(cases.published(m, dimension=4), decision, past, 5) for m in (generated, loaded))
        assert one.pi_K.tobytes() == two.pi_K.tobytes()
        assert one.mean_K.tobytes() == two.mean_K.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_WI": np.ones((5, 2))}, "does not fit codes of 2"),
        ({"last_OW": np.ones((4, 6))}, "does not fit codes of 2"),
        ({"mean_AD": np.ones((2, 3))}, r"parameters of \(1, 3\)"),
        ({"spread_ADR": np.full((1, 3, 2), np.nan)}, "must be finite; generate again"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(change: dict[str, Floats], message: str) -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(ModelError, match=message):
        member(rng, decoder=replace(cases.decoder(rng, 1, 3), **change))
