"""What a run learns from: the log, its rewards, what a decision earns."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from cluster.settings.section import Count, Positive, Section, Share


class DialSettings(Section):
    """What makes the truth of the built-in marketplace harder, in its log and in its world (docs/worlds.md)."""

    seasonal: float = Field(0.5, ge=0, description="logits by which tastes for styles sway over the days")
    fashion: float = Field(0.7, ge=0, description="logits that one style gains and another loses at 60 % of the days")
    fashion_span: Share = Field(0.1, description="share of the days that this takes; 0 is at once")
    late: Share = Field(0.15, description="share of items launched within the days")
    leaving: Share = Field(0.0, description="share of items withdrawn within the days")
    non_responders: Share = Field(0.0, description="share of users who never answer")
    examination: tuple[Share, ...] = Field(
        (),
        description="probability that position 0, 1, ... is looked at; logged events then stand at one of them, drawn "
        "uniformly; empty is one position, always looked at",
    )
    delay_scale: float = Field(1.0, ge=0, description="factor on delays of rewards")
    delay_shape: Positive = Field(0.6, description="Weibull shape of delays: the smaller, the heavier the tail")


class DataSettings(Section):
    max_events: Count = Field(50_000, description="events kept for a run: the most recent; of a table a sample")
    max_line_bytes: Count = Field(1_000_000, description="longest line accepted in a text file, bytes")
    candidates: Annotated[int, Field(ge=2)] | Literal["all"] = Field(
        10, description="candidates per decision made from transactions; all is the whole catalogue"
    )
    marketplace_users: Count = Field(2_000, description="synthetic users of the built-in marketplace")
    marketplace_items: Count = Field(120, description="synthetic items of the built-in marketplace")
    marketplace_events: Count = Field(30_000, description="logged events of the built-in marketplace")
    dials: DialSettings = DialSettings()


class RewardKind(Section):
    window_s: Positive = Field(1_800.0, description="wait before an unanswered decision is final, seconds")
    default: float = Field(0.0, description="reward when the window closes without one")
    reducer: Literal["first", "last", "sum", "mean", "max", "min"] = Field(
        "first", description="how several rewards of one decision become one"
    )
    low: float = Field(0.0, description="least possible reward")
    high: float = Field(1.0, description="greatest possible reward")

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "RewardKind":
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class MetricSettings(Section):
    """What a decision earns (docs/metric.md). All but `reward` give values in [0, 1]."""

    kind: Literal["reward", "click_through", "conversion", "session_length", "mix"] = Field(
        "reward", description="the log's reward as it is, or what is made of its rows"
    )
    clicks: tuple[str, ...] = Field(("click",), min_length=1, description="reward kinds of the log that are clicks")
    conversions: tuple[str, ...] = Field(
        ("purchase",), min_length=1, description="reward kinds of the log that are conversions"
    )
    gap_minutes: Annotated[float, Field(gt=0, le=10_080)] = Field(
        30.0, description="pause of a user that ends a session where the log names none, minutes"
    )
    weights: dict[Literal["click_through", "conversion", "session_length"], Positive] = Field(
        {"click_through": 1.0, "conversion": 1.0},
        min_length=1,
        description="what a mix is made of; the weights are scaled to sum to 1",
    )
