import numpy as np
from scipy import stats

from actors.bandits.noise import CHOICE, CODE, ITEM, ROW, TIE, Noise, _scramble

KEYS = np.array([7, 11, 2**63 + 5], np.uint64)


def test_finaliser_gives_the_published_outputs_of_splitmix64() -> None:
    """Reference outputs for seed 1234567 (Vigna's splitmix64.c)."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [_scramble(1234567, k) for k in (1, 2, 3)] == expected


def test_keyed_normals_are_standard_normal() -> None:
    """Kolmogorov-Smirnov over 200,000 numbers of 1,000 seeds, error rate 0.001; the same for squares of pairs."""
    drawn = np.stack([Noise(seed, 100).keyed(ITEM, KEYS[:2]) for seed in range(1000)])
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest((drawn[..., 0] ** 2 + drawn[..., 1] ** 2).ravel(), "chi2", args=(2,)).pvalue > 1e-3


def test_keys_particles_streams_and_seeds_are_uncorrelated() -> None:
    """20,000 pairs each; |r| > 4.5/√n has probability 7e-6."""
    noise, other = Noise(1, 20_000), Noise(2, 20_000)
    item = noise.keyed(ITEM, KEYS)
    pairs = [
        (item[:, 0], item[:, 1]),
        (item[:-1, 0], item[1:, 0]),
        (item[:10_000, 0], item[10_000:, 0]),
        (item[:, 0], noise.keyed(ROW, KEYS)[:, 0]),
        (item[:, 0], noise.keyed(CODE, KEYS)[:, 0]),
        (item[:, 0], other.keyed(ITEM, KEYS)[:, 0]),
        (item[:, 0], noise.theta(1, 2)[:, 0, 0]),
    ]
    for left, right in pairs:
        assert abs(np.corrcoef(left, right)[0, 1]) < 4.5 / np.sqrt(len(left))


def test_an_items_noise_is_the_same_in_every_list() -> None:
    whole, part = Noise(3, 64).keyed(ITEM, KEYS), Noise(3, 64).keyed(ITEM, KEYS[[2, 0]])
    assert np.array_equal(whole[:, [2, 0]], part)
    assert np.array_equal(Noise(3, 64).uniforms(TIE, KEYS)[[2, 0]], Noise(3, 64).uniforms(TIE, KEYS[[2, 0]]))


def test_odd_numbers_of_particles_begin_the_even_ones() -> None:
    assert Noise(3, 7).keyed(ITEM, KEYS).shape == (7, 3)
    assert np.array_equal(Noise(3, 7).keyed(ITEM, KEYS)[:4], Noise(3, 8).keyed(ITEM, KEYS)[:4])


def test_same_seed_same_numbers_and_theta_is_shared() -> None:
    noise = Noise(5, 16)
    assert noise.theta(2, 3) is noise.theta(2, 3)
    assert noise.keyed(ITEM, KEYS) is noise.keyed(ITEM, KEYS.copy())
    assert np.array_equal(noise.theta(2, 3), Noise(5, 16).theta(2, 3))
    assert not np.array_equal(noise.theta(2, 3), Noise(6, 16).theta(2, 3))


def test_seeds_are_taken_modulo_2_to_the_64() -> None:
    assert np.array_equal(Noise(-1, 4).keyed(ITEM, KEYS), Noise(2**64 - 1, 4).keyed(ITEM, KEYS))


def test_uniforms_fill_the_unit_interval() -> None:
    """Error rate 0.001 each."""
    by_seed = [Noise(seed, 1).uniform(CHOICE, 0) for seed in range(20_000)]
    by_key = [Noise(1, 1).uniform(CHOICE, key) for key in range(20_000)]
    ties = Noise(1, 1).uniforms(TIE, np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64))
    for drawn in (by_seed, by_key, ties):
        assert stats.kstest(drawn, "uniform").pvalue > 1e-3
        assert min(drawn) >= 0
        assert max(drawn) <= 1
