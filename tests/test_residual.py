import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits.residual import INPUT_MOST, RESIDUAL_MOST, Residual, observe
from cluster.errors import ModelError

REDUCED, NEIGHBOURS, MEMBERS, WIDTH = 4, 3, ("uniform", "pooled", "generated"), 64
INPUTS = REDUCED + NEIGHBOURS + 4 * len(MEMBERS)


def residual(seed: int = 0, last: float = 1.0) -> Residual:
    rng = np.random.default_rng(seed)
    return Residual(
        MEMBERS,
        REDUCED,
        NEIGHBOURS,
        rng.normal(size=INPUTS),
        rng.uniform(0.5, 2, INPUTS),
        rng.normal(size=(WIDTH, INPUTS)) / np.sqrt(INPUTS),
        rng.normal(size=WIDTH),
        rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH),
        rng.normal(size=WIDTH),
        last * rng.normal(size=(3, WIDTH)),
        last * rng.normal(size=3),
    )


def asked(items: int, seed: int = 1) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(items, REDUCED)),
        rng.uniform(size=(items, NEIGHBOURS)),
        rng.dirichlet(np.ones(3), items),
        rng.dirichlet(np.ones(3)),
        rng.uniform(size=3),
        rng.uniform(0, 0.1, 3),
    )


def in_torch(network: Residual, observed_KN: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """The same by torch's own layers."""
    layers = [
        torch.nn.Linear(*weight.shape[::-1], dtype=dtype)
        for weight in (network.first_WN, network.second_WW, network.last_MW)
    ]
    pairs = [
        (network.first_WN, network.first_W),
        (network.second_WW, network.second_W),
        (network.last_MW, network.last_M),
    ]
    for layer, (weight, bias) in zip(layers, pairs, strict=True):
        layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    standard = (torch.tensor(observed_KN) - torch.tensor(network.shift_N)) / torch.tensor(network.scale_N)
    run = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    out = run(standard.clamp(-INPUT_MOST, INPUT_MOST).to(dtype))
    return (RESIDUAL_MOST * torch.tanh(out / RESIDUAL_MOST)).detach().numpy()


def test_equals_torch() -> None:
    network, parts = residual(last=0.1), asked(50)
    found = network(*parts)
    np.testing.assert_allclose(found, in_torch(network, observe(*parts), torch.float64), atol=1e-12)
    np.testing.assert_allclose(found, in_torch(network, observe(*parts), torch.float32), atol=1e-6)
    assert np.abs(found).max() > 0.5


def test_observation_by_hand() -> None:
    """Uniform shares and weights are 0; twice a uniform share is log 2; no neighbour is similarity 0."""
    observed = observe(
        np.array([[0.6, -0.8]]),
        np.array([[0.9, np.nan]]),
        np.array([[0.5, 0.25, 0.125, 0.125]]),
        np.full(4, 0.25),
        np.array([0.1, 0.2, 0.3, 0.4]),
        np.array([0.01, 0.02, 0.03, 0.04]),
    )
    log_2 = 0.6931471805599453
    share, weights = [log_2, 0, -log_2, -log_2], [0, 0, 0, 0]
    expected = [0.6, -0.8, 0.9, 0, *share, *weights, 0.1, 0.2, 0.3, 0.4, 0.01, 0.02, 0.03, 0.04]
    np.testing.assert_allclose(observed, [expected], atol=1e-15)


def test_one_neuron_by_hand() -> None:
    """f = 2·max(max(x, 0), 0) = 1: x = (3 − 1)/4 of the only content number, all other weights zero."""
    flat = residual(last=0)
    shift, scale = np.zeros(INPUTS), np.ones(INPUTS)
    shift[0], scale[0] = 1.0, 4.0
    first, second, last = np.zeros((WIDTH, INPUTS)), np.zeros((WIDTH, WIDTH)), np.zeros((3, WIDTH))
    first[0, 0], second[0, 0], last[1, 0] = 1.0, 1.0, 2.0
    none = np.zeros(WIDTH)
    network = replace(
        flat, shift_N=shift, scale_N=scale, first_WN=first, first_W=none, second_WW=second, second_W=none, last_MW=last
    )
    observed = np.zeros((1, INPUTS))
    observed[0, 0] = 3.0
    np.testing.assert_allclose(network.logits(observed), [[0, 3 * np.tanh(1 / 3), 0]], atol=1e-15)
    observed[0, 0] = -1.0
    assert not network.logits(observed).any()


def test_untrained_changes_nothing() -> None:
    assert not residual(last=0)(*asked(7)).any()


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(1, 1e6))
def test_bounded_whatever_it_reads(seed: int, size: float) -> None:
    network = residual(seed, last=10)
    found = network.logits(size * np.random.default_rng(seed).normal(size=(9, INPUTS)))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= RESIDUAL_MOST


def test_decisions_together_have_the_bits_that_they_have_alone() -> None:
    network = residual()
    alone = [asked(10, seed) for seed in range(6)]
    together = network(*(np.stack(parts) for parts in zip(*alone, strict=True)))
    for found, parts in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, network(*parts))


def test_saved_and_loaded() -> None:
    network, parts = residual(), asked(5)
    arrays = safetensors.numpy.load(safetensors.numpy.save(network.arrays()))
    again = Residual.load(arrays, json.loads(json.dumps(network.facts())))
    np.testing.assert_array_equal(again(*parts), network(*parts))


@pytest.mark.parametrize(
    "change",
    [
        {"last_M": np.zeros(2)},
        {"reduced": REDUCED + 1},
        {"first_W": np.full(WIDTH, np.nan)},
        {"scale_N": np.zeros(INPUTS)},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="train"):
        replace(residual(), **change)


def test_other_sizes_of_what_is_read_are_refused() -> None:
    reduced, similarity, *rest = asked(5)
    with pytest.raises(ModelError, match="4 content numbers, 3 neighbours and 3 members"):
        residual()(np.hstack([reduced, similarity]), np.empty((5, 0)), *rest)
