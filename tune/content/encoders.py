"""Which encoder reads a catalogue: the model of the settings, or the embedded CLIP, trained or as published before."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from actors.content.actor import Source
from actors.content.contents import Modality
from actors.content.contrastive import train
from actors.content.embedded import build
from actors.content.encoder import Encoder
from actors.content.examples import Examples
from actors.content.published import ENCODER
from cluster.clock import Clock
from cluster.config import Settings
from cluster.registry import Registry
from tune.content.catalogue import Catalogue

ABOUT = "encoder.json"


@dataclass(frozen=True)
class Chosen:
    """A published encoder and what is said of it; `training` of an embedded one, `wanted` the settings it is for."""

    source: Source
    fingerprint: str
    dimension: int
    modalities: tuple[Modality, ...]
    wanted: dict[str, Any]
    training: dict[str, Any] | None

    def facts(self) -> dict[str, Any]:
        return {
            "encoder": {"name": self.source.name, "version": self.source.version},
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "modalities": list(self.modalities),
            "training": self.training,
        }


def choose(catalogue: Catalogue, settings: Settings, name: str, *, retrain: bool, progress: bool) -> Chosen:
    """The encoder of `name`, published where it is new.

    The embedded CLIP is trained once: while its settings stay, the one that was published is taken again, so that the
    vectors of unchanged items stay what they are; `retrain` trains it anew on the catalogue as it is now.

    Raises:
        ModelError: content.model cannot be used, or there is nothing to train on.
        RegistryError: it cannot be published.
    """
    registry = Registry(settings.registry_uri)
    registry.ensure(ENCODER.format(name))
    last, wanted = _last(settings, name), _wanted(settings)
    training = None
    torch.set_num_threads(settings.content.threads)
    if settings.content.model is not None:
        encoder = Encoder.load(settings.content.model, settings.content)
        if last is not None and last.fingerprint == encoder.fingerprint:
            return last
    elif last is not None and last.wanted == wanted and not retrain:
        return last
    else:
        encoder, training = _trained(catalogue, settings, progress)
    about = {
        "fingerprint": encoder.fingerprint,
        "dimension": encoder.dimension,
        "modalities": list(encoder.modalities),
        "wanted": wanted,
        "training": training,
    }
    return _chosen(settings, name, registry.publish(ENCODER.format(name), lambda at: _write(encoder, about, at)), about)


def _trained(catalogue: Catalogue, settings: Settings, progress: bool) -> tuple[Encoder, dict[str, Any]]:
    own, seed = settings.content, settings.seed
    examples = Examples(catalogue.sample(own.pairs, seed), own.pixels)
    encoder = build([text for text in examples.texts if text], own, seed)
    training = train(encoder, examples, Clock(own.train_s, own.train_steps), seed=seed, progress=progress)
    return encoder, asdict(training)


def _wanted(settings: Settings) -> dict[str, Any]:
    """The settings that decide what the embedded CLIP is, and how parts are read; of a given model, its name."""
    own = settings.content
    embedded = ("dimension", "hidden", "layers", "pixels", "pairs", "train_s", "train_steps")
    of = own.model_dump(include={"model", "tokens", "frames", "window_s", *(() if own.model else embedded)})
    return of | ({} if own.model else {"seed": settings.seed})


def _last(settings: Settings, name: str) -> Chosen | None:
    """The encoder that was published last."""
    registry = Registry(settings.registry_uri)
    versions = registry.versions(ENCODER.format(name))
    if not versions:
        return None
    about = json.loads((registry.fetch(ENCODER.format(name), versions[-1]) / ABOUT).read_text())
    return _chosen(settings, name, versions[-1], about)


def _chosen(settings: Settings, name: str, version: int, about: dict[str, Any]) -> Chosen:
    source = Source(settings.registry_uri, ENCODER.format(name), version)
    return Chosen(
        source,
        about["fingerprint"],
        about["dimension"],
        tuple(about["modalities"]),
        about["wanted"],
        about["training"],
    )


def _write(encoder: Encoder, about: dict[str, Any], folder: Path) -> None:
    encoder.save(folder)
    (folder / ABOUT).write_text(json.dumps(about, indent=1))
