"""The generator: contexts -> language model -> head -> priors of users' tasks.

Everything here is plain: `tune.compose` may route the embedding of texts through Ray actors (`actor.py`).

Shapes: U tasks, N rows, J contexts, S codes, C = J * S, Q code dimensions, A arms, D features, R rank.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from actors.bandits.decoder import Decoder
from actors.bandits.mixture import LEAST_VARIANCE
from actors.features.features import Floats
from actors.generator.backbone import Backbone, Floats32
from actors.generator.candidates import Candidates, Parameters, Prototypes, check
from actors.generator.contexts import ContextMap
from actors.generator.fitting import HeadTraining
from actors.generator.head import Head
from actors.generator.people import People
from actors.generator.pretrain import Training
from actors.generator.serialise import Serialiser
from actors.generator.tasks import Source, Tasks, Traffic
from cluster.config import GeneratorSettings
from cluster.errors import ModelError, RegistryError

log = logging.getLogger(__name__)
FORMAT = 2
Embedding: TypeAlias = Callable[[Sequence[str]], Floats32]


@dataclass(frozen=True)
class Report:
    """What a training did, for the version's metrics."""

    backbone: Training | None
    head: HeadTraining
    tasks: int
    tasks_left_out: int
    stop_tasks: int
    encoder_fit: float


@dataclass(frozen=True)
class Generator:
    """A trained generator. mean_AD is a μ₀ and covariance_ADD S(τ) + diag(v), both of the fit on all users.

    least_variance: of rewards that are clicks, None of others.
    backbone: None where contexts are read by their features alone (`generator.reader: numeric`), and then people are.
    """

    serialiser: Serialiser
    backbone: Backbone | None
    contexts: ContextMap
    head: Head
    mean_AD: Floats
    covariance_ADD: Floats
    fingerprint: str
    report: Report
    least_variance: float | None = None
    people: People | None = None

    def codes(self, seen: Tasks | Traffic, embed: Embedding | None = None) -> Floats:
        """The code of each context, (U, Q); `embed` reads the texts in place of the own language model."""
        if self.backbone is None:
            return self.contexts.codes(seen.context_UX)
        return self.contexts.codes((embed or self.backbone.embed)(seen.texts))

    def text_codes(self, texts: Sequence[str]) -> Floats:
        """The code of each text, (J, Q). Raises ModelError where no language model reads."""
        if self.backbone is None:
            raise ModelError("this generator reads no text (generator.reader: numeric); give it context features")
        return self.contexts.codes(self.backbone.embed(texts))

    def generate(self, code_JQ: Floats) -> Parameters:
        """The priors of all contexts with all codes in one pass; candidate j * S + s is context j, code s."""
        with torch.no_grad():
            h_JSR, g_JSR = (x.numpy() for x in self.head.outputs(torch.from_numpy(code_JQ)))
            known_A = self.head.known_A.numpy()[:, None, None]
            shift_ADR = self.head.shift_ADR.numpy() * known_A
            spread_ADR = self.head.spread_ADR.numpy() * known_A
            noise = self.head.noise.item()
        count, rank = len(code_JQ) * self.head.codes, self.head.rank
        arms, dimension = self.mean_AD.shape
        shift = h_JSR.reshape(count, rank) @ shift_ADR.reshape(-1, rank).T
        means_CAD = self.mean_AD + shift.reshape(count, arms, dimension)
        ranks_CADR = spread_ADR * np.exp(g_JSR).reshape(count, 1, 1, rank)
        return Parameters(means_CAD, ranks_CADR, self.covariance_ADD, noise, self.fingerprint)

    @property
    def decoder(self) -> Decoder:
        """The head as members decide with it."""
        own, known_A = self.head, self.head.known_A[:, None, None]
        with torch.no_grad():
            shift_ADR, spread_ADR = (own.shift_ADR * known_A).numpy(), (own.spread_ADR * known_A).numpy()
            first_WI, last_OW, direct_OI = (array.numpy().copy() for array in (own.first, own.last, own.direct))
        return Decoder(first_WI, last_OW, direct_OI, shift_ADR, spread_ADR, self.mean_AD)

    def candidates(
        self,
        traffic: Traffic,
        source: Source,
        settings: GeneratorSettings,
        seed: int,
        embed: Embedding | None = None,
    ) -> Candidates:
        """One candidate per prototype of the traffic's contexts and code.

        Args:
            traffic: the users to generate for.
            source: the feature map that the candidates will be used with; another one drops them all.
        """
        code_UQ = self.codes(traffic, embed)
        prototypes = Prototypes.of(code_UQ, settings.prototypes, seed)
        parameters = self.generate(prototypes.centre_JQ)
        kept, dropped = check(parameters, source.arms, source.dimension, source.fingerprint)
        prototype_C = kept // self.head.codes
        keys = np.asarray(traffic.keys, object)
        domains = [tuple(keys[prototypes.nearest_U == j]) for j in range(len(prototypes.centre_JQ))]
        return Candidates(
            names=tuple(f"p{c // self.head.codes}z{c % self.head.codes}" for c in kept),
            means_CAD=parameters.means_CAD[kept],
            factor_ADD=np.linalg.cholesky(self.covariance_ADD) if len(kept) else self.covariance_ADD,
            ranks_CADR=parameters.ranks_CADR[kept],
            noise=parameters.noise,
            base_AD=None if self.least_variance is None else self.mean_AD,
            least_variance=self.least_variance or LEAST_VARIANCE,
            prototype_C=prototype_C,
            prototypes_CQ=prototypes.centre_JQ[prototype_C],
            encoder_QX=self.contexts.encoder_QX,
            temperature=settings.context_temperature,
            domains=tuple(domains[j] for j in prototype_C),
            texts=tuple(traffic.texts[prototypes.example_J[j]] for j in prototype_C),
            examples=tuple(traffic.keys[prototypes.example_J[j]] for j in prototype_C),
            dropped=dict(dropped),
            fingerprint=self.fingerprint,
        )

    def save(self, folder: Path) -> None:
        """`backbone/`, if any, as transformers writes it, `generator.safetensors`, and last `generator.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "generator.json").unlink(missing_ok=True)
        if self.backbone is not None:
            self.backbone.save(folder / "backbone")
        if self.people is not None:
            self.people.save(folder)
        arrays = {f"head/{k}": v.detach().numpy() for k, v in self.head.state_dict().items()}
        arrays |= {"mean_AD": self.mean_AD, "covariance_ADD": self.covariance_ADD}
        arrays |= {f"contexts/{k}": getattr(self.contexts, k) for k in ("mean_H", "turn_HQ", "encoder_QX")}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "generator.safetensors")
        facts = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "backbone": self.backbone and {"tokens": self.backbone.tokens, "batch": self.backbone.batch},
            "serialiser": self.serialiser.facts(),
            "report": asdict(self.report),
            "shape": self.head.shape,
            "least_variance": self.least_variance,
        }
        (folder / "generator.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Generator":
        """Raises RegistryError where the folder is no finished generator of this format."""
        try:
            facts = json.loads((folder / "generator.json").read_text())
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}, this release reads {FORMAT}")
            arrays = load_file(folder / "generator.safetensors")
            head = Head(**facts["shape"], noise=1.0, seed=0)
            head.load_state_dict({k[5:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("head/")})
            context_map = ContextMap(
                arrays["contexts/mean_H"],
                arrays["contexts/turn_HQ"],
                arrays["contexts/encoder_QX"],
                facts["report"]["encoder_fit"],
            )
            report, serialiser = _report(facts["report"]), Serialiser.load(facts["serialiser"])
            people = People.load(folder) if facts["backbone"] else None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise RegistryError(
                f"{folder}: no finished generator here ({error}); run `medley compose` to train one"
            ) from error
        backbone = Backbone.load(str(folder / "backbone"), **facts["backbone"]) if facts["backbone"] else None
        return cls(
            serialiser,
            backbone,
            context_map,
            head,
            arrays["mean_AD"],
            arrays["covariance_ADD"],
            facts["fingerprint"],
            report,
            _least_variance(facts),
            people,
        )


def _least_variance(facts: dict[str, Any]) -> float | None:
    """Generators saved before it was fitted say only whether rewards are clicks."""
    least: float | None = facts.get("least_variance", LEAST_VARIANCE)
    return least if facts.get("binomial", True) else None


def _report(facts: dict[str, Any]) -> Report:
    known = {f.name: facts[f.name] for f in fields(Report)}
    backbone = Training(**facts["backbone"]) if facts["backbone"] else None
    return Report(**known | {"backbone": backbone, "head": HeadTraining(**facts["head"])})
