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
    drawn = np.stack([Noise(seed, 200).keyed(ITEM, KEYS[:2]) for seed in range(1000)])
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest((drawn[..., 0] ** 2 + drawn[..., 1] ** 2).ravel(), "chi2", args=(2,)).pvalue > 1e-3


def test_keys_pairs_streams_and_seeds_are_uncorrelated() -> None:
    """20,000 numbers each; |r| > 4.5/√n has probability 7e-6."""
    noise, other = Noise(1, 40_000), Noise(2, 40_000)
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


def test_neighbouring_keys_and_seeds_are_uncorrelated() -> None:
    """Keys 0 to 19 of streams that are numbered, 20,000 seeds one after the other: the numbers, their squares, and a
    number with that of the next seed. The greatest of 780, 780 and 40 |r| is above 5.5/√n with probability 6e-5."""
    seeds, bound = 20_000, 5.5 / np.sqrt(20_000)
    drawn = np.stack([Noise(seed, 4).keyed(ROW, np.arange(20)).ravel() for seed in range(seeds)])
    assert drawn.shape == (seeds, 40)
    for numbers in (drawn, drawn**2):
        found = np.corrcoef(numbers.T) - np.eye(40)
        assert abs(found).max() < bound
    assert abs((drawn[1:] * drawn[:-1]).mean(0)).max() < bound


def test_an_items_noise_is_the_same_in_every_list() -> None:
    whole, part = Noise(3, 64).keyed(ITEM, KEYS), Noise(3, 64).keyed(ITEM, KEYS[[2, 0]])
    assert np.array_equal(whole[:, [2, 0]], part)
    assert np.array_equal(Noise(3, 64).uniforms(TIE, KEYS)[[2, 0]], Noise(3, 64).uniforms(TIE, KEYS[[2, 0]]))


def test_particles_come_in_pairs() -> None:
    """The last pair of an odd number is drawn too; three pairs begin as four do."""
    assert Noise(3, 1).keyed(ITEM, KEYS).shape == (1, 3)
    assert np.array_equal(Noise(3, 7).keyed(ITEM, KEYS), Noise(3, 8).keyed(ITEM, KEYS))
    assert np.array_equal(Noise(3, 6).keyed(ITEM, KEYS)[:2], Noise(3, 8).keyed(ITEM, KEYS)[:2])


def test_same_seed_same_numbers_and_theta_is_shared() -> None:
    noise = Noise(5, 16)
    assert np.shares_memory(noise.theta(2, 3), noise.theta(2, 3))
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
