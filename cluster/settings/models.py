"""The learned parts: law, weights, features, bandits, generator."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from cluster.settings.section import Count, Positive, Section, Share


class LawSettings(Section):
    """The law of a decision (docs/law.md)."""

    particles: Count = Field(64, description="joint posterior draws per decision")
    exploration_scale: Positive = Field(1.0, description="alpha, factor on posterior standard deviations")
    epsilon: Annotated[float, Field(gt=0, lt=1)] = Field(0.01, description="share of uniform choices")
    delta: Share = Field(0.1, description="share given to members one by one rather than blended")
    floor: Share = Field(0.1, description="F, uniform share among members in the delta part")
    least_worth: Share = Field(
        0.5,
        description="of its part of delta, the share for which a member other than uniform is asked alone even where "
        "that can gain nothing; less costs less reward, and finds a member that gets better later",
    )


class WeightSettings(Section):
    """The weight of a model (docs/law.md)."""

    eta: Positive = Field(3.0, description="logit per standard error of performance")
    least_error: Positive = Field(0.01, description="se_min, in units of the reward's range")
    prior_count: Positive = Field(1_000.0, description="decisions that a starting value counts for at most")
    half_life_decisions: Positive = Field(10_000.0, description="age at which an outcome counts half")
    predefined_floor: Share = Field(0.01, description="least weight of each predefined member")
    neighbour_scale: float = Field(1.0, ge=0, le=100, description="beta, logit per log neighbour share (system B)")


class FeatureSettings(Section):
    kind: Literal["auto", "joint", "arms"] = Field(
        "auto",
        description="joint features of context and item, or context features with parameters per item",
    )
    map: Literal["auto", "linear", "quadratic", "fourier", "kernel", "neural", "hashed"] = Field(
        "auto", description="what stands beside or in place of the base features (docs/features.md)"
    )
    map_width: Count | None = Field(None, description="features that the map makes; null takes its own default")
    map_bytes: Count = Field(
        4 * 2**20, description="posterior precision at most, 8 bytes x parameter rows x features squared; caps the map"
    )
    max_dimension: Count = Field(96, description="largest number of features of a decision's row, before the map's")
    levels: Count = Field(24, description="levels kept of a categorical column; the rest share one")
    text_rank: Count = Field(12, description="dimensions of item text after truncated SVD")
    behaviour_rank: Count = Field(12, description="dimensions of item co-occurrence after truncated SVD")


class BanditSettings(Section):
    predefined: tuple[Literal["uniform", "popularity", "linear", "forgetting", "cluster", "provider"], ...] = Field(
        ("uniform", "popularity", "linear", "forgetting", "cluster", "provider"),
        min_length=1,
        description="trusted models of every ensemble; one of each provider, or cluster of providers, only where items "
        "name two or more",
    )
    content_bytes: Count = Field(
        16 * 2**20,
        description="posterior precision of the member cluster or provider at most, 8 bytes x its parameter rows x "
        "features squared; a larger one is left out",
    )
    custom: tuple[str, ...] = Field((), description="own models as module:Class")
    forgetting_half_life: Positive = Field(20_000.0, description="outcomes after which data counts half")
    prior_strength: Positive = Field(
        1.0, description="factor on the weight of the pooled posterior that shared models start from"
    )
    least_noise: Positive = Field(
        1e-3, description="least noise variance of the pooled model, share of the squared range of rewards"
    )
    history: int = Field(64, ge=0, description="final rewards of a user that a generated prior reads")

    @pydantic.model_validator(mode="after")
    def _named_once(self) -> "BanditSettings":
        names = [*self.predefined, *(source.rpartition(":")[2].lower() for source in self.custom), "generated"]
        again = sorted({name for name in names if names.count(name) > 1})
        if again:
            raise ValueError(
                f"two members named {again[0]!r}; list each predefined model once, and give own classes other names"
            )
        return self


class GeneratorSettings(Section):
    reader: Literal["language", "numeric"] = Field(
        "language", description="who reads a context: a language model its text, or nobody: the context's features"
    )
    model: str | None = Field(None, description="transformers folder or hub id; null builds the embedded default")
    lora: bool = Field(True, description="tune a given model by LoRA rather than leave it frozen")
    codes: Count = Field(4, description="S, fixed codes per context")
    rank: Count = Field(8, description="rank of the shift U and of the covariance factor V")
    prototypes: Count = Field(12, description="contexts that candidates are generated for")
    tokens: Count = Field(128, description="token budget of a serialised context")
    hidden: Count = Field(96, multiple_of=2, description="width of the embedded default, even")
    layers: Count = Field(2, description="layers of the embedded default")
    batch: Count = Field(32, description="texts per forward pass")
    accumulate: Count = Field(1, description="forward passes that an update of the language model adds up")
    patience: Count = Field(8, description="held-out checks without gain before the head stops")
    workers: Count = Field(
        1, description="workers that train the language model together on Ray, each with a GPU where gpus is above 0"
    )
    actors: Count = Field(1, description="generation actors")
    gpus: float = Field(0.0, ge=0, description="GPU share per generation actor, 0 for CPU")
    personal: Literal["nobody", "unknown", "all"] = Field(
        "unknown",
        description="whose priors are made of their own context: nobody's, those of users without a history, or all; "
        "the others' are the candidates",
    )
    exploration: float = Field(
        0.0, ge=0, description="factor on the member's deviations; 0 leaves exploring to the shared members"
    )
    context_temperature: Positive = Field(0.1, description="tau_c of context similarity in the mixture")
    context_rank: Count = Field(16, description="dimensions of context embeddings in head and mixture")
    tasks: Count = Field(4_000, description="users (rows of a table) that head and language model train on")
    threads: Count = Field(1, description="torch threads of a generation process; more than idle cores costs tenfold")
    backbone_steps: Count | None = Field(
        None, description="language model steps at most, repeats a run's bits; null goes by time alone"
    )
    head_steps: Count | None = Field(
        None, description="head steps at most, repeats a run's bits; null goes by time alone"
    )
