"""Own policies, right and wrong, that tests name as `tests.policy_samples:Class`."""

import numpy as np


class First:
    def probabilities(self, context, items, user_id):
        return [1.0] + [0.0] * (len(items) - 1)


class ByDevice:
    """On a mobile the first item, else the last, three times in four; known users get that for certain."""

    def probabilities(self, context, items, user_id):
        likely = 1.0 if user_id is not None else 0.75
        shares = np.full(len(items), (1 - likely) / (len(items) - 1))
        shares[0 if context["device"] == "mobile" else -1] = likely
        return shares


class Counts:
    """Learns: the item with the most rewards so far."""

    def __init__(self):
        self.total = {}

    def probabilities(self, context, items, user_id):
        best = max(items, key=lambda item: self.total.get(item, 0.0))
        return [float(item == best) for item in items]

    def learn(self, context, items, user_id, item, reward):
        self.total[item] = self.total.get(item, 0.0) + reward


class Wrong:
    def __init__(self):
        self.calls = 0

    def answer(self, items):
        return [1 / len(items)] * len(items)

    def probabilities(self, context, items, user_id):
        self.calls += 1
        return self.answer(items) if self.calls == 4 else [1 / len(items)] * len(items)


class Nan(Wrong):
    def answer(self, items):
        return [float("nan")] * len(items)


class Heavy(Wrong):
    def answer(self, items):
        return [0.5] * len(items)


class Short(Wrong):
    def answer(self, items):
        return [1.0]


class Negative(Wrong):
    def answer(self, items):
        return [-0.5, *[1.5 / (len(items) - 1)] * (len(items) - 1)]


class Raises(Wrong):
    def answer(self, items):
        return items[99]


class Exits(Wrong):
    def answer(self, items):
        raise SystemExit(3)


class Words(Wrong):
    def answer(self, items):
        return ["much"] * len(items)


class NoMethod:
    pass


class NeverMade:
    def __init__(self):
        raise SystemExit("no licence")


class NeedsArguments:
    def __init__(self, size):
        self.size = size
