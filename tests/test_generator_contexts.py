"""Codes of contexts: whitened components, and an encoder that is exact where no language model reads."""

import numpy as np
import pytest

from actors.generator.contexts import ContextMap


def features(rows: int, seed: int = 0) -> np.ndarray:
    """Two numbers, and a column of four levels of which the third is rare."""
    rng = np.random.default_rng(seed)
    level = rng.choice(4, size=rows, p=[0.5, 0.3, 0.01, 0.19])
    return np.column_stack([rng.normal(size=(rows, 2)) * [1, 3], np.eye(4)[level]])


def test_numeric_codes_are_centred_uncorrelated_and_the_encoder_itself() -> None:
    context = features(2_000)
    found = ContextMap.numeric(context, rank=3)
    code = found.codes(context)
    np.testing.assert_allclose(code, context @ found.encoder_QX.T, atol=1e-12)
    assert found.fit == 1.0
    # Levels add up to one, so the features can say a constant (but for the ridge) and the codes are centred.
    np.testing.assert_allclose(code.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.cov(code.T), np.eye(3), atol=5e-3)


def test_numeric_components_are_those_of_the_standardised_features() -> None:
    context = features(2_000)[:, :4]
    standard = (context - context.mean(0)) / context.std(0)
    values, vectors = np.linalg.eigh(standard.T @ standard)
    found = ContextMap.numeric(context, rank=4).turn_HQ * context.std(0)[:, None]
    for q in range(4):
        cosine = vectors[:, 3 - q] @ found[:, q] / np.linalg.norm(found[:, q])
        assert abs(cosine) == pytest.approx(1, abs=0.02), "but for the constant, which these features cannot say"
    assert values[3] > values[0]


def test_a_rare_level_is_no_outlier() -> None:
    context = features(2_000)
    code = ContextMap.numeric(context, rank=6).codes(context)
    rare = np.abs(code[context[:, 4] == 1]).max()
    assert rare < 12, "1 % of the rows: in units of its own deviation it would be 10 from the centre alone"


@pytest.mark.parametrize("context", [np.zeros((5, 0)), np.ones((5, 3))], ids=["no columns", "one context"])
def test_contexts_that_are_all_alike_have_the_code_zero(context: np.ndarray) -> None:
    found = ContextMap.numeric(context, rank=4)
    np.testing.assert_array_equal(found.codes(context), np.zeros((5, 1)))
    assert found.encoder_QX.shape == (1, context.shape[1])
