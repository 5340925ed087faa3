"""PPO: the residual of the blend."""

from typing import Annotated

from pydantic import Field

from cluster.settings.section import Count, Positive, Section, Share


class PpoSettings(Section):
    """How the blend's residual is trained (docs/ppo.md)."""

    signal: dict[str, Positive] = Field(
        {},
        description="weights of the reward kinds that make a decision's signal, such as {click: 1, like: 2, share: 3, "
        "time_s: 1}: each kind's reward is scaled by its declared range, and the weights to sum to 1; empty is the "
        "reward as it is",
    )
    items: Annotated[int, Field(ge=2)] = Field(
        50, description="items of a decision above which it is not trained on; they are padded to the widest"
    )
    decisions: Count = Field(10_000, description="decisions walked to train on at most, the newest")
    batches: Count = Field(60, description="batches of 4,096 draws from a world")
    budget_s: Positive = Field(120.0, description="training in a world, seconds")
    checkpoint_batches: Count = Field(10, description="batches between two checkpoints")
    rate: Positive = Field(1e-3, description="learning rate of Adam")
    hidden: Count = Field(64, description="width of the network's two layers")
    particles: Annotated[int, Field(ge=2, multiple_of=2)] = Field(
        16, description="normals per item of the smoothed law, in pairs"
    )
    temperature: Positive = Field(
        0.25, description="of the smoothed law's softmax, in units of the plain blend's spread; 0 would be the law"
    )
    kl_most: Positive = Field(1.0, description="greatest mean KL divergence of the policy from the plain blend, nats")
    entropy_least: Share = Field(0.5, description="least mean entropy of the policy, share of the plain blend's")
    least_effective: Share = Field(
        0.3, description="effective sample size below which the journal's decisions are refused, share of their number"
    )
    judged: Share = Field(0.4, description="share of the users of fresh events who judge, and are not trained on")
