"""The model of synthetic users, items and clients. Its importer and its world both use it.

The truth is fixed by the seed: P(reward | user, context, item, time) = sigmoid(taste for style and category (told
by the item's text) + hidden taste for hidden charm (seen only in behaviour) + quality + what of the hour and client
+ drift of styles + a part that is not linear in context and item). That part: the distance of the price from the
user's budget, squared; mobile or weekend but not both; and boredom with a category seen too often of late.

Browsing (`recent`) follows the user's own taste and not what is decided, so situations can be drawn in advance.

Shapes: N situations, K candidates, R recent items, I items, U users, T styles, G categories. Items and users are
indices; -1 pads. Times are seconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.config import DialSettings
from cluster.errors import DataError
from cluster.marketplace.people import DEVICES, People
from cluster.marketplace.situations import Situations, browse, moments, pick, table
from cluster.marketplace.wares import CATEGORIES, START, STYLES, Wares
from cluster.records import EVENTS, Value, decode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_S = 86_400.0
CANDIDATES = 20
MEAN_REWARD = 0.08
LOGGING_UNIFORM = 0.3
PROVIDER_SHARE = 0.75
FASHION_FROM = 0.6
"""Share of the days after which fashion turns."""


@dataclass(frozen=True)
class Truth:
    """What nobody sees: logits besides taste."""

    hour_G: Floats
    xor_G: Floats
    client_C: Floats
    phase_T: Floats
    offered_CI: NDArray[np.bool_]
    shown_I: Floats
    delay_G: Floats
    silent_U: NDArray[np.bool_]


class Marketplace:
    """Synthetic users, items and clients.

    Args:
        seed: decides everything.
        users, items, clients, providers: how many.
        days: length of the log; drift goes on after it.
        dials: what is harder than usual, as settings or as values that `facts` told.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        users: int = 2_000,
        items: int = 120,
        clients: int = 3,
        providers: int = 8,
        days: float = 28.0,
        dials: DialSettings | Mapping[str, Any] | None = None,
    ) -> None:
        self.seed, self.days = seed, days
        self.dials = DialSettings.model_validate(dials or {})
        self.wares = Wares.make(seed, items, providers, days, self.dials)
        self.people = People.make(seed, users, clients)
        self.providers = providers
        self.start_s = START.timestamp()
        self.truth = self._truth(np.random.default_rng([seed, 0x7207]))
        self.item_index = {item_id: i for i, item_id in enumerate(self.wares.ids())}
        self.user_index = {user_id: u for u, user_id in enumerate(self.people.ids())}
        self._cdf_UI = self._browsing()
        self._intercept = 0.0
        self._intercept = self._calibrated(np.random.default_rng([seed, 0xCA1]))

    @property
    def facts(self) -> dict[str, Any]:
        """The arguments that build this marketplace again."""
        dials = self.dials.model_dump(mode="json", exclude_defaults=True)
        return {
            "seed": self.seed,
            "users": len(self.people),
            "items": len(self.wares),
            "clients": self.people.clients,
            "providers": self.providers,
            "days": self.days,
            **({"dials": dials} if dials else {}),
        }

    @property
    def end_s(self) -> float:
        return self.start_s + self.days * DAY_S

    def items_table(self) -> pa.Table:
        return self.wares.table()

    def users_table(self) -> pa.Table:
        return self.people.table()

    def arrive(
        self, rng: np.random.Generator, n: int, start_s: float | None = None, end_s: float | None = None
    ) -> Situations:
        """N situations in time order between two moments (by default the days of the log)."""
        start_s = self.start_s if start_s is None else start_s
        end_s = self.end_s if end_s is None else end_s
        people = self.people
        time_N = moments(rng, n, start_s, end_s)
        user_N = pick(rng, people.activity_U, people.start_U, (time_N - self.start_s) / (self.days * DAY_S))
        device_N = (rng.random((n, 1)) > people.device_UD.cumsum(axis=1)[user_N]).sum(axis=1).clip(max=2)
        recent_NR = browse(rng, user_N, self._cdf_UI)
        return Situations(user_N, time_N, device_N, recent_NR, self._candidates(rng, user_N, time_N))

    def mean_rewards(self, situations: Situations, items_NK: Ints | None = None) -> Floats:
        """The probability of a reward, [N, K], where an item is looked at; of the situations' candidates where no
        items are given."""
        liked_NK = self._liked(situations, items_NK)
        return np.where(self.truth.silent_U[situations.user_N][:, None], 0.0, liked_NK)

    def looked_at(self, position_N: Ints) -> Floats:
        """The probability that these positions are looked at."""
        shares = np.array(self.dials.examination or (1.0,))
        return np.asarray(shares[np.minimum(position_N, len(shares) - 1)])

    def _liked(self, situations: Situations, items_NK: Ints | None = None) -> Floats:
        items_NK = situations.candidates_NK if items_NK is None else items_NK
        logits_NK = self._intercept + self._taste(situations.user_N, items_NK)
        logits_NK += self._situation(situations, items_NK) + self._odd(situations, items_NK)
        return np.asarray(1.0 / (1.0 + np.exp(-logits_NK)), np.float64)

    def mean_reward(self, user_index: int, context: Mapping[str, Value], item_indices: Ints, time: float) -> Floats:
        """The probability of a reward for K items.

        Args:
            user_index: of the user.
            context: `device` and `recent` count; hour and weekday are those of `time`.
            item_indices: K items.
            time: seconds since 1970.
        """
        means_1K = self.mean_rewards(self.situation(user_index, context, time), np.asarray(item_indices)[None, :])
        return np.asarray(means_1K[0], np.float64)

    def situation(self, user_index: int, context: Mapping[str, Value], time: float) -> Situations:
        """One situation from what a request says."""
        device = context.get("device")
        recent = context.get("recent")
        ids = recent if isinstance(recent, list) else []
        return Situations(
            np.array([user_index]),
            np.array([time]),
            np.array([DEVICES.index(device) if device in DEVICES else 0]),
            np.array([[self.item_index[i] for i in ids if i in self.item_index]], np.int64).reshape(1, -1),
            np.empty((1, 0), np.int64),
        )

    def situations(self, events: pa.Table) -> Situations:
        """The situations of logged events (EVENTS), padded with -1."""
        found = [
            self.situation(self.user_index[user], decode(context), time.timestamp())
            for user, context, time in zip(
                *(events[name].to_pylist() for name in ("user_id", "context", "timestamp")), strict=True
            )
        ]
        listed = [[self.item_index[i] for i in ids] for ids in events["candidates"].to_pylist()]
        return Situations(
            np.concatenate([s.user_N for s in found]),
            np.concatenate([s.time_N for s in found]),
            np.concatenate([s.device_N for s in found]),
            _padded([s.recent_NR[0].tolist() for s in found]),
            _padded(listed),
        )

    def delay_s(self, item_indices: Ints, uniform: Floats) -> Floats:
        """Seconds from decision to reward: Weibull with a shape below 1, so many come at once and a few very late.

        Args:
            item_indices: items that earned a reward; the median depends on the category.
            uniform: a number in (0, 1) for each.
        """
        scale = self.dials.delay_scale * self.truth.delay_G[self.wares.category_I[item_indices]]
        return np.asarray(scale * (-np.log(uniform)) ** (1 / self.dials.delay_shape), np.float64)

    def logging_policy(self, situations: Situations) -> Floats:
        """[N, K]: 30 % uniform, else by how much an item is promoted and whether it is like the last one seen."""
        items_NK = situations.candidates_NK
        last_N = situations.last()
        alike_NK = (self.wares.category_I[items_NK] == self.wares.category_I[last_N][:, None]) & (last_N >= 0)[:, None]
        scores_NK = np.where(items_NK >= 0, self.truth.shown_I[items_NK] + 0.7 * alike_NK, -np.inf)
        weights_NK = np.exp(scores_NK - scores_NK.max(axis=1, keepdims=True))
        count_N = (items_NK >= 0).sum(axis=1, keepdims=True)
        uniform_NK = (items_NK >= 0) / count_N
        promoted_NK = weights_NK / weights_NK.sum(axis=1, keepdims=True)
        return np.asarray((1 - LOGGING_UNIFORM) * promoted_NK + LOGGING_UNIFORM * uniform_NK, np.float64)

    def log(
        self, n_events: int, rng: np.random.Generator, start_s: float | None = None, end_s: float | None = None
    ) -> pa.Table:
        """EVENTS of a known logging policy, with its true propensities and drawn rewards."""
        situations = self.arrive(rng, n_events, start_s, end_s)
        policy_NK = self.logging_policy(situations)
        column_N = (rng.random((n_events, 1)) > policy_NK.cumsum(axis=1)).sum(axis=1)
        column_N = np.minimum(column_N, (situations.candidates_NK >= 0).sum(axis=1) - 1)
        mean_N = self.mean_rewards(situations)[np.arange(n_events), column_N]
        uniform_N = rng.random(n_events)
        position_N = self._positions(rng, n_events)
        if position_N is not None:
            mean_N = mean_N * self.looked_at(position_N)
        reward_N = (uniform_N < mean_N).astype(np.float64)
        propensity_N = policy_NK[np.arange(n_events), column_N]
        return table(situations, self.people, self.wares, column_N, position_N, propensity_N, reward_N).cast(EVENTS)

    def _positions(self, rng: np.random.Generator, n: int) -> Ints | None:
        """Where each logged item stood; None where there is one position only."""
        places = len(self.dials.examination)
        return rng.integers(places, size=n) if places else None

    def image(self, item: int) -> bytes:
        """PNG of an item."""
        return self.wares.image(item)

    def sound(self, item: int) -> bytes:
        """WAV of an item."""
        return self.wares.sound(item)

    def _truth(self, rng: np.random.Generator) -> Truth:
        g, items, clients = len(CATEGORIES), len(self.wares), self.people.clients
        carried_CP = rng.random((clients, self.providers)) < PROVIDER_SHARE
        carried_CP[np.arange(self.providers) % clients, np.arange(self.providers)] = True
        return Truth(
            rng.normal(0, 0.5, g),
            rng.choice([-0.5, 0.5], g),
            rng.normal(0, 0.2, clients),
            rng.uniform(0, 2 * np.pi, len(STYLES)),
            carried_CP[:, self.wares.provider_I],
            0.6 * self.wares.quality_I + rng.normal(0, 0.6, items),
            rng.choice([30.0, 120.0, 600.0], g),
            np.random.default_rng([self.seed, 0x511E]).random(len(self.people)) < self.dials.non_responders,
        )

    def _taste(self, user_N: Ints, items_NK: Ints) -> Floats:
        people, wares = self.people, self.wares
        logits_NK = people.style_UT[user_N[:, None], wares.style_I[items_NK]] + wares.quality_I[items_NK]
        logits_NK += people.category_UG[user_N[:, None], wares.category_I[items_NK]]
        return np.asarray(logits_NK + np.einsum("nh,nkh->nk", people.charm_UH[user_N], wares.charm_IH[items_NK]))

    def _situation(self, situations: Situations, items_NK: Ints) -> Floats:
        """What the hour, the client and the fashion of the day add."""
        share_N = (situations.time_N - self.start_s) / (self.days * DAY_S)
        evening_N = np.sin(2 * np.pi * (situations.hour_N - 9) / 24)
        drift_NT = self.dials.seasonal * np.sin(2 * np.pi * share_N[:, None] + self.truth.phase_T)
        gone_N = self.dials.fashion * np.clip((share_N - FASHION_FROM) / (self.dials.fashion_span or 1e-9), 0, 1)
        drift_NT[:, 0] += gone_N
        drift_NT[:, 1] -= gone_N
        category_NK, style_NK = self.wares.category_I[items_NK], self.wares.style_I[items_NK]
        logits_NK = evening_N[:, None] * self.truth.hour_G[category_NK]
        logits_NK += np.take_along_axis(drift_NT, style_NK, axis=1)
        return np.asarray(logits_NK + self.truth.client_C[self.people.client_U[situations.user_N]][:, None])

    def _odd(self, situations: Situations, items_NK: Ints) -> Floats:
        """The part that is not linear in features of context and item."""
        gap_NK = np.log(self.wares.price_I[items_NK]) - self.people.budget_U[situations.user_N][:, None]
        odd_N = np.where((situations.device_N == 0) ^ (situations.weekday_N >= 5), 1.0, -1.0)
        category_NK = self.wares.category_I[items_NK]
        seen_NR = np.where(situations.recent_NR >= 0, self.wares.category_I[situations.recent_NR], -1)
        met_NK = (seen_NR[:, None, :] == category_NK[:, :, None]).sum(axis=2)
        bored_NK = np.where(met_NK >= 4, -0.6, np.where(met_NK >= 1, 0.3, 0.0))
        return np.asarray(-0.6 * np.minimum(gap_NK**2, 3.0) + odd_N[:, None] * self.truth.xor_G[category_NK] + bored_NK)

    def _browsing(self) -> Floats:
        """[U, I] cumulative shares of what a user looks at."""
        users = np.arange(len(self.people))
        every = np.broadcast_to(np.arange(len(self.wares)), (len(users), len(self.wares)))
        weights_UI = np.exp(self._taste(users, every))
        cdf_UI = weights_UI.cumsum(axis=1)
        return np.asarray(cdf_UI / cdf_UI[:, -1:], np.float64)

    def _candidates(self, rng: np.random.Generator, user_N: Ints, time_N: Floats) -> Ints:
        """Up to 20 random items that the client offers and that are on sale then, [N, K]."""
        day_N1 = ((time_N - self.start_s) / DAY_S)[:, None]
        on_sale_NI = (self.wares.launch_I <= day_N1) & (day_N1 < self.wares.leave_I)
        eligible_NI = self.truth.offered_CI[self.people.client_U[user_N]] & on_sale_NI
        if not eligible_NI.any(axis=1).all():
            raise DataError(
                "the marketplace has moments without any item on offer; lower data.dials.late or data.dials.leaving, "
                "or raise data.marketplace_items"
            )
        keys_NI = np.where(eligible_NI, rng.random(eligible_NI.shape), 2.0)
        size = min(CANDIDATES, len(self.wares))
        chosen_NK = np.argpartition(keys_NI, size - 1, axis=1)[:, :size]
        order_NK = np.argsort(np.take_along_axis(keys_NI, chosen_NK, axis=1), axis=1)
        chosen_NK = np.take_along_axis(chosen_NK, order_NK, axis=1)
        return np.where(np.take_along_axis(eligible_NI, chosen_NK, axis=1), chosen_NK, -1)

    def _calibrated(self, rng: np.random.Generator) -> float:
        """The intercept at which uniform choice earns MEAN_REWARD of those who answer and look (bisection)."""
        situations = self.arrive(rng, 2_000)
        there_NK = situations.candidates_NK >= 0
        logits = (lambda p: np.log(p / (1 - p)))(self._liked(situations)[there_NK])
        low, high = -20.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            above = (1 / (1 + np.exp(-(logits + middle)))).mean() > MEAN_REWARD
            low, high = (low, middle) if above else (middle, high)
        return (low + high) / 2


def _padded(lists: list[list[int]]) -> Ints:
    width = max(map(len, lists), default=0)
    return np.array([row + [-1] * (width - len(row)) for row in lists], np.int64).reshape(len(lists), width)
