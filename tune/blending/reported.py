"""The learning curve of PPO as a picture, and its part of the report."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from actors.features.features import Floats
from tune import page
from tune.plots import STYLE

Facts = dict[str, Any]
OURS, OTHER, GREY = "#c2185b", "#0072b2", "#7a8b99"
SMOOTH = 9
"""Batches, an odd number."""
ACTIONS = {
    "publish": "Version {version} is version {running} with the residual.",
    "keep": "The blend stays as it is: {waits}.",
    "wait": "Nothing was tried: {waits}.",
}


def draw(curve: Sequence[Mapping[str, float]], plain: float, batch: int, path: Path) -> None:
    """Reward of each batch over the decisions drawn, and how far the policy is from the plain blend.

    Args:
        plain: expected reward of the plain blend on the same decisions. batch: decisions of a batch.
    """
    decisions = batch * np.arange(1, len(curve) + 1) / 1_000
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        rewards = np.array([row["reward"] for row in curve])
        above.plot(decisions, rewards, color=OURS, lw=0.9, alpha=0.35, label="PPO, each batch")
        above.plot(decisions, smooth(rewards), color=OURS, lw=2.2, label=f"PPO, mean of {SMOOTH} batches")
        above.axhline(plain, color=GREY, lw=1.4, ls=(0, (4, 3)), label="plain blend, expected")
        above.set(ylabel="reward per decision")
        above.legend(frameon=False, loc="best")
        below.plot(decisions, [row["kl"] for row in curve], color=OURS, lw=1.6, label="KL from the plain blend")
        below.plot(decisions, [row["entropy"] for row in curve], color=OTHER, lw=1.6, label="entropy")
        below.plot(
            decisions,
            [row["plain_entropy"] for row in curve],
            color=GREY,
            lw=1.4,
            ls=(0, (4, 3)),
            label="plain blend's",
        )
        below.set(xlabel="thousands of decisions drawn", ylabel="nats", ylim=(0, None))
        below.legend(frameon=False, ncols=3, loc="best")
        figure.savefig(path, dpi=130)


def smooth(values: Floats) -> Floats:
    """Each with those before and after it, SMOOTH in all; fewer at the ends, and as many on either side."""
    found = []
    for place in range(len(values)):
        reach = min(SMOOTH // 2, place, len(values) - 1 - place)
        found.append(values[place - reach : place + reach + 1].mean())
    return np.array(found)


def sections(found: Facts, picture: bytes | None) -> Iterator[str]:
    """Of what `tune.ppo` left; nothing where it left nothing.

    Args:
        found: ppo.json. picture: ppo.png.
    """
    if "action" in found:
        yield page.section("The blend's residual (PPO)", *_parts(found, picture))


def _parts(found: Facts, picture: bytes | None) -> Iterator[str]:
    yield page.say(ACTIONS[found["action"]].format(**found))
    if "effective" in found:
        yield page.say(f"The log's decisions are worth {found['effective']:.0%} of their number to the policy.")
    if bounds := found.get("bounds"):
        shrunk = "" if bounds["factor"] == 1 else f", shrunk to {bounds['factor']:.0%} to stay within bounds"
        yield page.say(
            f"It is {bounds['kl']:.2f} nats away from the plain blend and has {bounds['entropy']:.0%} of its entropy"
            f"{shrunk}."
        )
    if proof := found.get("proof"):
        plain = proof["plain"]
        yield page.say(
            f"With the residual less the plain blend, on events of users who were not trained on: "
            f"{_signed(plain['difference'])} per decision, at least {_signed(plain['low'])} ({plain['users']:,} users)."
        )
    if picture is not None:
        yield page.picture(picture, "reward, KL and entropy over the decisions drawn")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
