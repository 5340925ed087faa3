"""Tuning, proof and simulation, and the time each may take."""

from typing import Annotated, Literal

from pydantic import Field

from cluster.settings.section import Count, Positive, Section, Share


class Budgets(Section):
    """Seconds a stage of `medley run` may take; a stage says what it left out when its time is spent."""

    import_s: Positive = Field(20, description="import, seconds")
    backbone_s: Positive = Field(60, description="language model pre-training, seconds")
    head_s: Positive = Field(30, description="generator head, seconds")
    select_s: Positive = Field(20, description="predefined members' walk along the select part, seconds")
    sweep_s: Positive = Field(60, description="Ray Tune sweep over candidates, seconds")
    confirm_s: Positive = Field(15, description="confirmation walk, seconds")
    drive_s: Positive = Field(45, description="traffic over HTTP, seconds")


class SweepSettings(Section):
    batch: Count = Field(16, description="candidates per Ray Tune trial")
    concurrent: Count = Field(1, description="trials at a time")
    top_k: Count = Field(10, description="candidates of the member")
    max_agreement: Share = Field(0.95, description="two members of the top K agree on at most this share")
    particles: int = Field(0, ge=0, description="posterior draws per event of a candidate; 0 chooses greedily")
    trial_cpus: Positive = Field(1.0, description="CPUs of a Ray Tune trial")
    ground_bytes: Count = Field(
        192 * 2**20, description="features that candidates are valued on at most, bytes; whole users are left out"
    )


class TuneSettings(Section):
    """The sweep over settings, `medley tune`."""

    trials: Count = Field(64, description="trials of a search; a grid may have this many points at most")
    events: Count = Field(4_000, description="events of the select part that a trial is scored on, whole users")
    concurrent: Count = Field(2, description="trials at a time")
    trial_cpus: Positive = Field(1.0, description="CPUs of a trial")
    trial_gpus: float = Field(0.0, ge=0, description="GPU share of a trial, 0 for CPU")
    budget_s: Positive | None = Field(
        None, description="time of a sweep, seconds; what it did not reach is left for the same command; null: no limit"
    )
    max_failures: int = Field(3, ge=0, description="times a trial starts again after its worker was lost")


class GateSettings(Section):
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="one-sided error rate of admission, over all ever tested on a data set"
    )
    margin: float = Field(0.01, ge=0, description="loss tolerated before a member is dropped, share of range")
    bootstrap: Count = Field(1_000, description="resamples by user")
    least_users: Count = Field(30, description="confirm users below which nothing is admitted")
    client_users: Count = Field(
        300, description="confirm users from which a client has a verdict of its own; all others share the pooled one"
    )


class DriftSettings(Section):
    """When a change of rewards or contexts is an alarm (docs/refine.md)."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="chance of a false alarm in a year of traffic, however often one looks"
    )
    tolerance: float = Field(0.05, ge=0, description="shift that is no drift, in standard deviations of an event")
    block_users: Annotated[int, Field(ge=30)] = Field(100, description="different users that one look takes in")
    warm_up_days: float = Field(
        7.0, ge=0, description="first stretch, from which what is usual is known, days; less than 7 misses weekdays"
    )


class WorldSettings(Section):
    """How the world that answers simulated traffic departs from its plain form (docs/worlds.md)."""

    drift: Literal["none", "gradual", "abrupt", "seasonal"] = Field(
        "none", description="how the tastes of the world's users move to others while traffic goes on"
    )
    drift_at: Share = Field(0.5, description="moment of an abrupt drift, share of the world's time")
    drift_cycles: Positive = Field(2.0, description="times that a seasonal drift goes there and back")
    churn: Share = Field(0.0, description="share of items that are away for half of the time")
    non_responders: Share = Field(0.0, description="share of users who never answer")
    examination: tuple[Share, ...] = Field(
        (), description="probability that slot 0, 1, ... is looked at, the last for all after it; empty is always"
    )
    slots: Annotated[int, Field(ge=1, le=100)] = Field(1, description="items asked for in each situation")
    delay_median_s: float = Field(0.0, ge=0, description="median of delays added to rewards, seconds; 0 adds none")
    delay_tail: Positive = Field(1.5, description="index of the delays' tail: the smaller, the heavier")
