"""Decisions and updates of one linear bandit, one event a call and in batches, against Vowpal Wabbit and MABWiser.

    python -m benchmarks.decide [--quick]

What is compared, all on one thread (BLAS too), ours and the peer's in turn within one process:

predict_single, vw_adf   One decision among 100 items with 32 dense features each, which come as a NumPy array.
    Ours is `law.decide` with one linear member at its defaults: 64 joint posterior draws, the exact propensity
    and the member's own beside it, an item drawn. VW is `--cb_explore_adf` with its first exploring setting
    (epsilon-greedy, the ε of ours), given what its Python interface takes, text with one line an item, made from the
    array in the timed loop as a user would make it; the item is drawn from the probabilities that it returns. Ours does
    more: VW explores uniformly, ours by the posterior.
update, vw_adf   One final reward a call, for the model above. Ours is `learn.step` (statistics, user's history,
    weights) with a publication after every 256, as much as a learner that is kept busy does. VW learns from the
    same text with the cost on the chosen line.
predict_batch, mabwiser   Thompson sampling in 10,000 contexts a call, 64 features, 10 arms with parameters of their
    own: one exact draw of every arm's score in each context, the best arm. MABWiser's LinTS does the same by `predict`,
    drawing 64 parameters where ours draws the score (the same law). `predict_batch_500` is 500 contexts a call.

The measures named `..._ready_...` are VW at its fastest, for those who can prepare beforehand: `ready_text` has the
text made before the timed loop, `ready_examples` examples parsed before it, so that only VW's arithmetic is left (32
multiplications an item where ours draws 64 times). `least to most` is the range of the repeats' ratios.
"""

import argparse
import itertools
import random
from bisect import bisect

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
import numpy as np
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.learn import Outcome
from actors.bandits.posterior import Statistics
from actors.features.features import Features
from benchmarks._pairs import Pair, finish, measure
from cluster.config import LawSettings, WeightSettings

ITEMS, FEATURES, DECISIONS = 100, 32, 200
ARMS, CONTEXT, CONTEXTS = 10, 64, 10_000
PUBLISH_EVERY = 256


class Events:
    """Logged events, the same for both: features, the chosen item, its propensity, the reward."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.phi_BKD = rng.normal(size=(DECISIONS, ITEMS, FEATURES))
        self.phi_BKD[:, :, 0] = 1
        theta_D = rng.normal(size=FEATURES) / 20
        self.chosen_B = rng.integers(0, ITEMS, DECISIONS)
        mean_B = 0.3 + self.phi_BKD[np.arange(DECISIONS), self.chosen_B] @ theta_D
        self.reward_B = (rng.random(DECISIONS) < mean_B).astype(float)
        self.keys_K = rng.integers(0, 2**63, ITEMS).astype(np.uint64)


class Ours:
    def __init__(self, events: Events) -> None:
        zeros, places = np.zeros(ITEMS, np.int64), np.arange(ITEMS)
        empty = np.empty(0)
        self.features = [Features(phi_KD, zeros, places, events.keys_K, empty) for phi_KD in events.phi_BKD]
        prior = Prior("linear", np.eye(FEATURES)[None], np.zeros((1, FEATURES)), 0.2, "features")
        self.state = learn.start(
            Ensemble((prior,), np.array([0.3]), LawSettings(), WeightSettings(), FEATURES, fingerprint="")
        )
        self.outcomes = [
            Outcome(f"user {b % 50}", phi_KD[chosen], 0, int(chosen), float(reward), 1 / ITEMS, np.array([1 / ITEMS]))
            for b, (phi_KD, chosen, reward) in enumerate(
                zip(events.phi_BKD, events.chosen_B, events.reward_B, strict=True)
            )
        ]
        self.learn(DECISIONS)
        self.published = learn.publish(self.state)

    def decide(self, count: int) -> None:
        for n in range(count):
            law.decide(self.published, self.features[n % DECISIONS], None, n)

    def learn(self, count: int) -> None:
        for n in range(count):
            learn.step(self.state, self.outcomes[n % DECISIONS])
            if self.state.count % PUBLISH_EVERY == 0:
                learn.publish(self.state)


class Vowpal:
    def __init__(self, events: Events) -> None:
        self.events = events
        self.vw = vowpalwabbit.Workspace(f"--cb_explore_adf --epsilon {LawSettings().epsilon} --quiet")
        self.labelled(DECISIONS)
        self.texts = [self.text(b) for b in range(DECISIONS)]
        self.labels = [self.label(b) for b in range(DECISIONS)]
        self.parsed = [self.vw.parse(text) for text in self.texts]
        self.parsed_labels = [self.vw.parse(text) for text in self.labels]

    def text(self, b: int) -> str:
        lines = self.events.phi_BKD[b].tolist()
        return "\n".join("|f " + " ".join([f"{d}:{v:.6g}" for d, v in enumerate(line)]) for line in lines)

    def label(self, b: int) -> str:
        lines = self.text(b).split("\n")
        chosen = self.events.chosen_B[b]
        lines[chosen] = f"0:{-self.events.reward_B[b]}:{1 / ITEMS} {lines[chosen]}"
        return "\n".join(lines)

    def choose(self, decision: object) -> int:
        edges = list(itertools.accumulate(self.vw.predict(decision)))
        return bisect(edges, random.random() * edges[-1])

    def decide(self, count: int) -> None:
        for n in range(count):
            self.choose(self.text(n % DECISIONS))

    def decide_text(self, count: int) -> None:
        for n in range(count):
            self.choose(self.texts[n % DECISIONS])

    def decide_parsed(self, count: int) -> None:
        for n in range(count):
            self.choose(self.parsed[n % DECISIONS])

    def labelled(self, count: int) -> None:
        for n in range(count):
            self.vw.learn(self.label(n % DECISIONS))

    def learn_text(self, count: int) -> None:
        for n in range(count):
            self.vw.learn(self.labels[n % DECISIONS])

    def learn_parsed(self, count: int) -> None:
        for n in range(count):
            self.vw.learn(self.parsed_labels[n % DECISIONS])


class Batches:
    """The same 2,000 rewarded contexts make both posteriors; `contexts` of them a call."""

    def __init__(self, rng: np.random.Generator, contexts: int) -> None:
        phi_ND, arm_N = rng.normal(size=(2000, CONTEXT)), rng.integers(0, ARMS, 2000)
        reward_N = (rng.random(2000) < 0.3).astype(float)
        self.rng, self.contexts_BD = rng, rng.normal(size=(contexts, CONTEXT))
        statistics = Statistics.start(np.tile(np.eye(CONTEXT), (ARMS, 1, 1)), np.zeros((ARMS, CONTEXT)), 1.0)
        statistics.learn_batch(phi_ND, arm_N, reward_N)
        self.belief = statistics.gaussian()
        self.mab = MAB(list(range(ARMS)), LearningPolicy.LinTS(alpha=1.0, l2_lambda=1.0), n_jobs=1, seed=1)
        self.mab.fit(arm_N, reward_N, phi_ND)

    def ours(self, count: int) -> None:
        for _ in range(0, count, len(self.contexts_BD)):
            self.belief.draw(self.contexts_BD, self.rng).argmax(0)

    def peer(self, count: int) -> None:
        for _ in range(0, count, len(self.contexts_BD)):
            self.mab.predict(self.contexts_BD)


def pairs(quick: bool) -> list[Pair]:
    rng = np.random.default_rng(0)
    events = Events(rng)
    ours, vw = Ours(events), Vowpal(events)
    large, small = Batches(rng, CONTEXTS), Batches(rng, 500)
    n = 1 if quick else 3
    single, update = "predictions/s", "updates/s"
    return [
        Pair("predict_single", "vw_adf", single, ours.decide, vw.decide, (500 * n, 100 * n)),
        Pair("predict_batch", "mabwiser", single, large.ours, large.peer, (4 * CONTEXTS * n, CONTEXTS)),
        Pair("update", "vw_adf", update, ours.learn, vw.labelled, (3000 * n, 100 * n)),
        Pair("predict_batch_500", "mabwiser", single, small.ours, small.peer, (20_000 * n, 1_000 * n)),
        Pair("predict_single_ready_text", "vw_adf", single, ours.decide, vw.decide_text, (500 * n, 300 * n)),
        Pair(
            "predict_single_ready", "vw_adf_ready_examples", single, ours.decide, vw.decide_parsed, (500 * n, 800 * n)
        ),
        Pair("update_ready_text", "vw_adf", update, ours.learn, vw.learn_text, (3000 * n, 300 * n)),
        Pair("update_ready_examples", "vw_adf", update, ours.learn, vw.learn_parsed, (3000 * n, 800 * n)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decide", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the same measures, fewer repeats, under a minute")
    quick = parser.parse_args().quick
    finish("decide", measure(pairs(quick), 5 if quick else 9))


if __name__ == "__main__":
    main()
