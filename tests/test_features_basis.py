"""The basis of numbers, by hand."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from actors.features.basis import CLIP, fit_basis


def test_a_column_by_hand() -> None:
    """0..4: median 2, quartiles 1 and 3, scale 2/1.349; the linear term is (x − 2)/√2 after standardising."""
    basis = fit_basis(np.array([[0.0], [1.0], [2.0], [3.0], [4.0]]))
    assert basis.center_N.tolist() == [2.0]
    assert basis.scale_N.tolist() == pytest.approx([2 / 1.349])
    assert not basis.log_N.any()
    features = basis.features(np.array([[3.0], [np.nan], [4.0]]))
    names = basis.names(["x"])
    assert names[0] == "x"
    assert names.count("x×x") == 1
    assert [n for n in names if n.startswith("x=")] == ["x=0", "x=1", "x=2", "x=3", "x=4"]
    assert features[:, 0].tolist() == pytest.approx([1 / np.sqrt(2), 0.0, np.sqrt(2)])
    assert features[0, names.index("x=3")] == 1.0
    assert features[0, names.index("x=4")] == 0.0
    squares = np.array([4.0, 1, 0, 1, 4]) / (2 / 1.349) ** 2
    assert features[2, names.index("x×x")] == pytest.approx((squares[4] - squares.mean()) / squares.std())
    middle = [h for h in range(len(basis.knot_H)) if basis.knot_H[h] == 0.0]
    hinge = np.maximum(np.arange(5) - 2, 0) / (2 / 1.349)
    assert features[0, basis.sizes[0] + middle[0]] == pytest.approx((hinge[3] - hinge.mean()) / hinge.std())
    assert features[1].tolist() == [0.0] * len(names)


def test_missing_has_an_indicator_and_no_other_effect() -> None:
    basis = fit_basis(np.array([[0.0, 1.0], [np.nan, 2.0], [2.0, 4.0], [7.0, 3.0]]))
    names = basis.names(["a", "b"])
    features = basis.features(np.array([[np.nan, 2.0]]))[0]
    assert features[names.index("a=(missing)")] == 1.0
    assert "b=(missing)" not in names
    assert not features[[i for i, n in enumerate(names) if "a" in n and "missing" not in n]].any()
    assert features[names.index("b")] == pytest.approx((2 - 2.5) / np.std([1, 2, 3, 4]))


def test_heavy_tails_go_through_the_logarithm() -> None:
    """A lognormal of σ 2 is heavy, a normal is not; a column that is mostly one value scales by its other values."""
    rng = np.random.default_rng(0)
    spent = np.where(rng.random(4_000) < 0.9, 0.0, rng.lognormal(8, 1.5, 4_000))
    basis = fit_basis(np.stack([rng.lognormal(0, 2, 4_000), rng.normal(size=4_000), spent], axis=1))
    assert basis.log_N.tolist() == [True, False, True]
    assert basis.center_N[2] == 0.0
    assert basis.scale_N[2] == np.median(spent[spent > 0])
    z = basis.standard(np.array([[1.0, 0.0, basis.scale_N[2] * 3]]))
    assert z[0, 2] == pytest.approx(np.log(4))


def test_selecting_keeps_the_values() -> None:
    rng = np.random.default_rng(1)
    numbers = np.where(rng.random((200, 3)) < 0.1, np.nan, rng.integers(0, 9, (200, 3)).astype(float))
    basis = fit_basis(numbers)
    keep = rng.random(sum(basis.sizes)) < 0.5
    np.testing.assert_array_equal(basis.select(keep).features(numbers), basis.features(numbers)[:, keep])
    names = np.array(basis.names(["a", "b", "c"]))
    assert basis.select(keep).names(["a", "b", "c"]) == names[keep].tolist()


@given(
    arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.floats(allow_nan=True, width=64)),
    st.lists(st.floats(allow_nan=True), min_size=3, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_any_numbers_give_finite_features(numbers: np.ndarray, row: list[float]) -> None:
    numbers = np.where(np.abs(numbers) <= 1e100, numbers, np.nan)
    basis = fit_basis(numbers)
    features = basis.features(numbers)
    assert np.isfinite(features).all()
    t, h, q, _, _ = basis.sizes
    assert np.abs(features[:, : t + h + q].mean(axis=0) * len(numbers)).max(initial=0) < 1e-4 * len(numbers)
    new = np.array([row[: numbers.shape[1]]])
    new = np.where(np.abs(new) <= 1e100, new, np.nan)
    assert np.isfinite(basis.features(new)).all()
    assert (np.abs(basis.standard(new)[np.isfinite(new)]) <= CLIP).all()
