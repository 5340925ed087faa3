"""The synthetic world: fixed by its seed, worth learning, honest about its propensities."""

import io
import json
import struct
import wave
import zlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from cluster.marketplace.marketplace import MEAN_REWARD, Marketplace
from cluster.marketplace.situations import Situations, browse, moments, pick
from cluster.records import EVENTS, ITEMS, USERS, decode

MARKET = Marketplace(3, users=300, items=60)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_seed_decides_everything() -> None:
    again, other = Marketplace(3, users=300, items=60), Marketplace(4, users=300, items=60)
    assert MARKET.log(500, rng()).equals(again.log(500, rng()))
    assert MARKET.items_table().equals(again.items_table())
    assert not MARKET.log(500, rng()).equals(other.log(500, rng()))


def test_its_facts_build_it_again() -> None:
    again = Marketplace(**json.loads(json.dumps(MARKET.facts)))
    situations = MARKET.arrive(rng(), 50)
    assert (again.mean_rewards(situations) == MARKET.mean_rewards(situations)).all()


def test_tables_are_of_the_contract() -> None:
    events, items, users = MARKET.log(200, rng()), MARKET.items_table(), MARKET.users_table()
    assert (events.schema, items.schema, users.schema) == (EVENTS, ITEMS, USERS)
    assert len(set(items["item_id"].to_pylist())) == 60
    assert {len(c) for c in events["candidates"].to_pylist()} <= set(range(1, 21))
    assert all(a in c for a, c in zip(events["item_id"].to_pylist(), events["candidates"].to_pylist(), strict=True))
    assert events["timestamp"].to_pylist() == sorted(events["timestamp"].to_pylist())
    assert len(set(events["client_id"].to_pylist())) == 3
    assert {key for row in users["attributes"].to_pylist() for key, _ in row} == {"age", "region"}
    assert len(set(items["provider_id"].to_pylist())) == 8


def test_context_tells_what_a_request_would() -> None:
    events = MARKET.log(300, rng())
    for context, when in zip(events["context"].to_pylist(), events["timestamp"].to_pylist(), strict=True):
        told = decode(context)
        assert told.keys() == {"device", "hour", "weekday", "member", "recent"}
        assert (told["hour"], told["weekday"]) == (when.hour, when.strftime("%A"))
        recent = told["recent"]
        assert isinstance(recent, list)
        assert len(recent) == len(set(recent)) <= 10


def test_a_logged_event_is_the_situation_that_it_came_from() -> None:
    situations = MARKET.arrive(rng(5), 200)
    events = MARKET.log(200, rng(5))
    found = MARKET.situations(events)
    assert (
        found.candidates_NK[found.candidates_NK >= 0] == situations.candidates_NK[situations.candidates_NK >= 0]
    ).all()
    mean_NK = MARKET.mean_rewards(situations)
    assert np.allclose(MARKET.mean_rewards(found, situations.candidates_NK), mean_NK, atol=1e-9)
    one = MARKET.mean_reward(
        int(situations.user_N[7]),
        decode(events["context"][7].as_py()),
        situations.candidates_NK[7],
        events["timestamp"][7].as_py().timestamp(),
    )
    assert np.allclose(one, mean_NK[7], atol=1e-9)


def test_propensities_are_those_of_the_policy() -> None:
    situations = MARKET.arrive(rng(), 400)
    policy_NK = MARKET.logging_policy(situations)
    assert np.allclose(policy_NK.sum(axis=1), 1)
    assert (policy_NK[situations.candidates_NK >= 0] > 0).all()
    assert (policy_NK[situations.candidates_NK < 0] == 0).all()
    draws = 400
    same = Situations(*(np.repeat(part[:1], draws, axis=0) for part in vars(situations).values()))
    assert np.allclose(MARKET.logging_policy(same), policy_NK[0])
    events = MARKET.log(20_000, rng(1))
    weights = 1 / events["propensity"].to_numpy()
    sizes = np.array([len(c) for c in events["candidates"].to_pylist()])
    assert abs((weights / sizes).mean() - 1) < 4 * (weights / sizes).std() / np.sqrt(len(events))


def test_rewards_come_at_the_rate_of_their_mean() -> None:
    events = MARKET.log(20_000, rng(2))
    situations = MARKET.arrive(rng(2), 20_000)
    column = [c.index(a) for c, a in zip(events["candidates"].to_pylist(), events["item_id"].to_pylist(), strict=True)]
    mean_N = MARKET.mean_rewards(situations)[np.arange(20_000), column]
    error = np.sqrt((mean_N * (1 - mean_N)).sum()) / 20_000
    assert abs(events["reward"].to_numpy().mean() - mean_N.mean()) < 4 * error


def test_there_is_something_to_learn_and_more_in_knowing_the_user() -> None:
    market = Marketplace(0)
    situations = market.arrive(rng(), 10_000)
    there_NK = situations.candidates_NK >= 0
    mean_NK = np.where(there_NK, market.mean_rewards(situations), 0)
    uniform = mean_NK[there_NK].mean()
    seen_I = np.bincount(situations.candidates_NK[there_NK], minlength=120)
    popular_I = np.bincount(situations.candidates_NK[there_NK], mean_NK[there_NK], 120) / np.maximum(seen_I, 1)
    best = np.where(there_NK, popular_I[situations.candidates_NK], -1).argmax(axis=1)
    popularity, oracle = mean_NK[np.arange(10_000), best].mean(), mean_NK.max(axis=1).mean()
    assert abs(uniform - MEAN_REWARD) < 0.01
    assert popularity > 1.7 * uniform
    assert oracle > 1.5 * popularity


def test_the_truth_drifts_and_items_are_launched() -> None:
    situations = MARKET.arrive(rng(), 100)
    later = Situations(**{**vars(situations), "time_N": situations.time_N + 14 * 86_400.0})
    assert np.abs(MARKET.mean_rewards(later) - MARKET.mean_rewards(situations)).max() > 0.05
    launch_s = MARKET.start_s + MARKET.wares.launch_I * 86_400
    assert (launch_s > MARKET.start_s).any()
    items_NK = np.where(situations.candidates_NK >= 0, situations.candidates_NK, 0)
    assert (launch_s[items_NK] <= situations.time_N[:, None])[situations.candidates_NK >= 0].all()


def test_part_of_the_truth_is_not_linear_in_one_hot_features() -> None:
    """Device and weekend act on a category only together."""
    item = np.array([[0]])
    base = {"user_N": np.array([1]), "recent_NR": np.empty((1, 0), int), "candidates_NK": item}
    noon_s = MARKET.start_s + 12 * 3_600.0

    def logit(device: int, day: int) -> float:
        situations = Situations(**base, device_N=np.array([device]), time_N=np.array([noon_s + day * 86_400.0]))
        return float(MARKET._odd(situations, item)[0, 0])

    effect = [[logit(device, day) for day in (0, 5)] for device in (0, 1)]
    assert effect[0][0] == pytest.approx(effect[1][1])
    assert effect[0][1] == pytest.approx(effect[1][0])
    assert abs(effect[0][0] - effect[0][1]) == pytest.approx(1.0)


def test_delays_are_heavy_tailed() -> None:
    uniform = rng().random(20_000)
    delays = MARKET.delay_s(np.zeros(20_000, int), uniform)
    scale = MARKET.truth.delay_G[MARKET.wares.category_I[0]]
    assert np.median(delays) == pytest.approx(scale * np.log(2) ** (1 / 0.6), rel=0.05)
    assert delays.min() >= 0
    assert (delays > 5 * scale).mean() == pytest.approx(np.exp(-(5**0.6)), abs=0.01)


def test_newcomers_come_late() -> None:
    start_U = np.array([0.0, 0.5])
    share_N = np.array([0.1] * 500 + [0.9] * 5_000)
    users = pick(rng(), np.array([1.0, 3.0]), start_U, share_N)
    assert set(users[:500]) == {0}
    assert users[500:].mean() == pytest.approx(0.75, abs=0.03)


def test_moments_stay_between_the_ends_however_short() -> None:
    for start, end in ((1e9, 1e9 + 60), (1e9, 1e9 + 3 * 86_400)):
        found = moments(rng(), 5_000, start, end)
        assert start <= found[0] <= found[-1] <= end
        assert (np.diff(found) >= 0).all()
    hours = Counter((found % 86_400 // 3_600).astype(int).tolist())
    assert hours[18] > 2 * hours[6]


def test_browsing_follows_taste_and_keeps_the_last_ten_distinct() -> None:
    cdf_UI = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])  # user 0 sees only item 1, user 1 only item 2
    recent = browse(rng(), np.array([0, 1] * 50), cdf_UI)
    assert recent.shape == (100, 10)
    assert set(recent[::2].ravel()) <= {1, -1}
    assert set(recent[1::2].ravel()) <= {2, -1}
    assert (recent[:, 1:] == -1).all()
    many = browse(rng(), np.zeros(200, int), np.arange(1, 41)[None, :] / 40)
    for before, after in pairwise(many[50:]):
        assert len(set(after.tolist()) - set(before.tolist())) <= 2
        assert len(set(after.tolist())) == 10


def test_pictures_are_png() -> None:
    image = MARKET.image(4)
    assert image == MARKET.image(4) != MARKET.image(5)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, colour = struct.unpack(">IIBB", image[16:26])
    assert (width, height, depth, colour) == (24, 24, 8, 2)
    body = image[image.index(b"IDAT") + 4 : image.index(b"IEND") - 8]
    assert len(zlib.decompress(body)) == 24 * (1 + 24 * 3)
    assert len(image) < 3_000


def test_sounds_are_wav() -> None:
    with wave.open(io.BytesIO(MARKET.sound(4))) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (1, 8_000, 2_000)
    assert MARKET.sound(4) == MARKET.sound(4)


def test_text_tells_the_style() -> None:
    row = MARKET.items_table().to_pylist()[0]
    style = json.loads(dict(row["attributes"])["style"])
    assert style in row["description"]
    assert row["category"] in row["title"].lower()
    assert row["brand"] in row["description"]


def test_a_marketplace_is_written_as_parquet(tmp_path) -> None:
    pq.write_table(MARKET.log(50, rng()), tmp_path / "events.parquet")
    assert pq.read_table(tmp_path / "events.parquet").equals(MARKET.log(50, rng()))


def dialled(**dials: object) -> Marketplace:
    return Marketplace(3, users=300, items=60, dials=dials)


def test_with_its_dials_untouched_the_marketplace_is_what_it_was() -> None:
    """The figures were taken before there were dials."""
    events = MARKET.log(500, rng())
    assert events["item_id"][:5].to_pylist() == ["item-35", "item-23", "item-19", "item-1", "item-8"]
    assert events["reward"].to_numpy().sum() == 47
    assert MARKET.mean_rewards(MARKET.arrive(rng(), 50)).sum() == pytest.approx(79.5614801539918, rel=1e-12)
    assert MARKET.delay_s(np.arange(60), rng().random(60)).sum() == pytest.approx(8507.755629563822, rel=1e-12)
    assert events.equals(dialled(examination=(), leaving=0.0).log(500, rng()))
    assert "dials" not in MARKET.facts


def test_dials_are_among_its_facts() -> None:
    market = dialled(non_responders=0.2, examination=(1.0, 0.5), fashion=0.7)
    facts = json.loads(json.dumps(market.facts))
    assert facts["dials"] == {"non_responders": 0.2, "examination": [1.0, 0.5]}
    again = Marketplace(**facts)
    assert again.log(200, rng()).equals(market.log(200, rng()))


def test_some_users_never_answer() -> None:
    market = dialled(non_responders=0.3)
    situations = market.arrive(rng(), 4_000)
    silent = market.truth.silent_U[situations.user_N]
    assert abs(market.truth.silent_U.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 300)
    assert (market.mean_rewards(situations)[silent] == 0).all()
    assert (market.mean_rewards(situations)[~silent] == MARKET.mean_rewards(situations)[~silent]).all()


def test_logged_positions_earn_by_how_much_they_are_looked_at() -> None:
    market = dialled(examination=(1.0, 0.25))
    events, plain = market.log(30_000, rng()), MARKET.log(30_000, rng())
    position, reward = events["position"].to_numpy(), events["reward"].to_numpy()
    assert abs((position == 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(30_000)
    assert plain["position"].null_count == 30_000
    assert (reward[position == 0] == plain["reward"].to_numpy()[position == 0]).all()
    first, second = reward[position == 0].mean(), reward[position == 1].mean()
    assert second == pytest.approx(0.25 * first, abs=4 * np.sqrt(first / 4 / 15_000 + first / 16 / 15_000))
    assert market.looked_at(np.array([0, 1, 5])).tolist() == [1.0, 0.25, 0.25]


def test_items_leave() -> None:
    market = dialled(leaving=0.5)
    gone_s = market.start_s + market.wares.leave_I * 86_400
    assert abs(np.isfinite(gone_s).mean() - 0.5) < 4 * 0.5 / np.sqrt(60)
    situations = market.arrive(rng(), 500)
    items_NK, there_NK = np.maximum(situations.candidates_NK, 0), situations.candidates_NK >= 0
    assert (gone_s[items_NK] > situations.time_N[:, None])[there_NK].all()
    assert np.isin(np.flatnonzero(np.isfinite(gone_s)), situations.candidates_NK).any()  # there before they left
    with pytest.raises(DataError, match=r"lower data\.dials\.late or data\.dials\.leaving"):
        Marketplace(0, users=20, items=3, dials={"leaving": 1.0, "late": 0.9}).log(100, rng())


def test_tastes_drift_as_much_as_the_dials_say() -> None:
    still = dialled(seasonal=0.0, fashion=0.0)
    turned = dialled(seasonal=0.0, fashion=1.5, fashion_span=0.0)
    situations = still.arrive(rng(), 50)
    for market, day, moved in ((still, 20, 0.0), (turned, 0.5 * 28, 0.0), (turned, 0.61 * 28, 1.5)):
        moment = Situations(**{**vars(situations), "time_N": np.full(50, market.start_s + day * 86_400)})
        start = Situations(**{**vars(situations), "time_N": np.full(50, market.start_s + (day % 1) * 86_400)})
        change = market._situation(moment, situations.candidates_NK) - market._situation(
            start, situations.candidates_NK
        )
        assert np.abs(change).max() == pytest.approx(moved, abs=1e-9)


def test_delays_by_the_dials() -> None:
    uniform = np.full(60, np.exp(-1.0))  # −ln u = 1: the scale itself, whatever the shape
    items = np.arange(60)
    assert dialled(delay_scale=3.0, delay_shape=0.3).delay_s(items, uniform) == pytest.approx(
        3 * MARKET.delay_s(items, uniform)
    )
    late = np.full(60, np.exp(-8.0))  # 8^(1/0.3) against 8^(1/0.6)
    assert dialled(delay_shape=0.3).delay_s(items, late) == pytest.approx(
        MARKET.delay_s(items, late) * 8 ** (1 / 0.3 - 1 / 0.6)
    )
