"""What a version holds: members with their priors, where their values start, and the settings of the law.

Shapes: M members, A arms, D features.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.bandits.decoder import Decoder
from actors.bandits.history import History
from actors.bandits.members import Custom, Uniform, View, custom
from actors.bandits.mixture import LEAST_VARIANCE, Follow, Mixture
from actors.bandits.residual import Residual
from actors.bandits.shares import ItemWeights
from actors.features.features import Floats
from cluster.config import LawSettings, WeightSettings
from cluster.errors import ModelError


@dataclass(frozen=True)
class Prior:
    """A shared member before any of a client's traffic: N(Λ₀⁻¹b₀, Λ₀⁻¹), usually the pooled posterior.

    precision_ADD (Λ₀), shift_AD (b₀), noise: σ². half_life: outcomes after which data count half, None for
    no forgetting.
    """

    name: str
    precision_ADD: Floats
    shift_AD: Floats
    noise: float
    view: View
    half_life: float | None = None
    predefined: bool = True


@dataclass(frozen=True)
class Admission:
    """Where a member decides: at the `clients` that have a verdict of their own as that says, elsewhere as `others`."""

    others: bool
    clients: dict[str, bool] = field(default_factory=dict)

    def admits(self, client: str) -> bool:
        return self.clients.get(client, self.others)

    @property
    def anywhere(self) -> bool:
        return self.others or any(self.clients.values())

    @property
    def everywhere(self) -> bool:
        return self.others and all(self.clients.values())


BEFORE_WORTH = {"least_worth": 1.0}
"""Settings of the law for a version from before members were asked alone by worth: all of δ."""
Part: TypeAlias = Uniform | Prior | Custom | Mixture


@dataclass(frozen=True)
class Ensemble:
    """values_M: each member's starting value in scaled reward, [0, 1]. low, high: the reward's declared range.

    errors_M: standard errors of how far these values lie from the best; None makes each of them worth
    `weights.prior_count` decisions.
    histories: rows of users that the generated priors have not been trained on. history: rows kept per user.
    admissions: by name, of members that do not decide everywhere. items: what items say of the members already, None
    for nothing. residual: what is added to the blend's logits of items that have kin.
    """

    members: tuple[Part, ...]
    values_M: Floats
    law: LawSettings
    weights: WeightSettings
    dimension: int
    fingerprint: str
    low: float = 0.0
    high: float = 1.0
    history: int = 64
    histories: dict[str, History] = field(default_factory=dict)
    admissions: dict[str, Admission] = field(default_factory=dict)
    items: ItemWeights | None = None
    residual: Residual | None = None
    errors_M: Floats | None = None

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names or len(set(names)) < len(names):
            raise ModelError(f"an ensemble needs members of different names, not {names}")
        if self.values_M.shape != (len(names),) or not np.isfinite(self.values_M).all():
            raise ModelError(f"{len(names)} members need as many finite starting values")
        if self.errors_M is not None and not (
            self.errors_M.shape == self.values_M.shape and (self.errors_M >= 0).all()
        ):
            raise ModelError(f"{len(names)} members need as many standard errors, of 0 or more")
        if not self.low < self.high:
            raise ModelError(f"rewards from {self.low} to {self.high} have no range; declare low < high")
        for member in self.members:
            found = _dimension(member)
            if found not in (None, self.dimension):
                raise ModelError(
                    f"member {member.name!r} of {found} features does not fit {self.dimension}; make it anew"
                )
        if self.items is not None and self.items.weights_NM.shape[1] != len(names):
            raise ModelError(f"weights of items for {self.items.weights_NM.shape[1]} members do not fit {names}")
        if self.residual is not None and self.residual.members != self.names:
            raise ModelError(f"a residual for {self.residual.members} does not fit members {names}; train it anew")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @property
    def scored_M(self) -> NDArray[np.bool_]:
        """Which members have scores: all but uniform."""
        return np.array([not isinstance(member, Uniform) for member in self.members])

    def only(self, *names: str) -> "Ensemble":
        """The same ensemble with these members alone; a residual is for all of them, or for none.

        Raises ModelError for an unknown name.
        """
        unknown = set(names) - set(self.names)
        if unknown:
            raise ModelError(f"no member {sorted(unknown)}; there are {list(self.names)}")
        keep = [m for m, name in enumerate(self.names) if name in names]
        members = tuple(self.members[m] for m in keep)
        admissions = {name: admission for name, admission in self.admissions.items() if name in names}
        return replace(
            self,
            members=members,
            values_M=self.values_M[keep],
            errors_M=None if self.errors_M is None else self.errors_M[keep],
            admissions=admissions,
            items=self.items and self.items.only(np.array(keep)),
            residual=self.residual if len(keep) == len(self.names) else None,
        )

    def of(self, client: str) -> "Ensemble":
        """The members that decide for a client."""
        out = {name for name, admission in self.admissions.items() if not admission.admits(client)}
        return self.only(*(name for name in self.names if name not in out)) if out else self

    def arrays(self) -> dict[str, Any]:
        """Every array by a flat name, for safetensors."""
        out: dict[str, Any] = {"values": self.values_M}
        if self.errors_M is not None:
            out["errors"] = self.errors_M
        for m, member in enumerate(self.members):
            for name, array in _arrays(member).items():
                out[f"member/{m}/{name}"] = array
        if self.histories:
            pasts = list(self.histories.values())
            out["history/phi"] = np.concatenate([past.phi_ND for past in pasts])
            out["history/arm"] = np.concatenate([past.arm_N for past in pasts])
            out["history/reward"] = np.concatenate([past.reward_N for past in pasts])
            out["history/length"] = np.array([len(past) for past in pasts])
        if self.items is not None:
            out |= {"items/rows": self.items.rows_N, "items/weights": self.items.weights_NM}
        if self.residual is not None:
            out |= {f"residual/{name}": array for name, array in self.residual.arrays().items()}
        return {name: np.ascontiguousarray(array) for name, array in out.items()}

    def facts(self) -> dict[str, Any]:
        """All else, as JSON."""
        return {
            "members": [_facts(member) for member in self.members],
            "law": self.law.model_dump(),
            "weights": self.weights.model_dump(),
            "dimension": self.dimension,
            "fingerprint": self.fingerprint,
            "low": self.low,
            "high": self.high,
            "history": self.history,
            "users": list(self.histories),
            "admissions": {name: asdict(admission) for name, admission in self.admissions.items()},
            "residual": self.residual and self.residual.facts(),
        }

    @classmethod
    def load(cls, arrays: dict[str, Any], facts: dict[str, Any]) -> "Ensemble":
        """The inverse of `arrays` and `facts`."""
        return cls(
            members=tuple(_member(about, _under(f"member/{m}/", arrays)) for m, about in enumerate(facts["members"])),
            values_M=arrays["values"],
            errors_M=arrays.get("errors"),
            law=LawSettings(**BEFORE_WORTH | facts["law"]),
            weights=WeightSettings(**facts["weights"]),
            admissions={name: Admission(**about) for name, about in facts.get("admissions", {}).items()},
            histories=dict(zip(facts["users"], _histories(_under("history/", arrays)), strict=True)),
            items=ItemWeights(arrays["items/rows"], arrays["items/weights"]) if "items/rows" in arrays else None,
            residual=Residual.load(_under("residual/", arrays), facts["residual"]) if facts.get("residual") else None,
            **{key: facts[key] for key in ("dimension", "fingerprint", "low", "high", "history")},
        )


def _dimension(member: Part) -> int | None:
    """Features that a member's parameters are for, None where it has none of the feature map's."""
    match member:
        case Prior() if member.view != "items":
            return int(member.shift_AD.shape[-1])
        case Mixture():
            return int(member.means_CAD.shape[-1])
        case _:
            return None


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _histories(arrays: dict[str, Any]) -> list[History]:
    if not arrays:
        return []
    edges = np.cumsum(arrays["length"])[:-1]
    columns = [np.split(arrays[name], edges) for name in ("phi", "arm", "reward")]
    return [History(*rows) for rows in zip(*columns, strict=True)]


def _arrays(member: Part) -> dict[str, Any]:
    match member:
        case Uniform():
            return {}
        case Prior():
            return {"precision": member.precision_ADD, "shift": member.shift_AD}
        case Custom():
            return member.model.arrays()
        case Mixture():
            arrays = {
                "means": member.means_CAD,
                "factor": member.factor_ADD,
                "ranks": member.ranks_CADR,
                "encoder": member.encoder_HX,
                "prototypes": member.prototypes_CH,
                "base": member.base_AD,
                "follow": member.follow and member.follow.mean_AD,
            }
            if member.decoder is not None:
                arrays |= {f"decoder/{name}": array for name, array in vars(member.decoder).items()}
            return {name: array for name, array in arrays.items() if array is not None}


def _facts(member: Part) -> dict[str, Any]:
    about = {"kind": type(member).__name__.lower(), "name": member.name, "predefined": member.predefined}
    match member:
        case Prior():
            about |= {"noise": member.noise, "view": member.view, "half_life": member.half_life}
        case Custom():
            about |= {"source": member.source, "shape": list(member.shape)}
        case Mixture():
            about |= {"noise": member.noise, "temperature": member.temperature, "names": list(member.names_C)}
            about |= {"exploration": member.exploration, "least_variance": member.least_variance}
            if member.decoder is not None:
                about |= {"personal": member.personal}
            if member.follow is not None:
                about |= {"follow": {"name": member.follow.name, "scale": member.follow.scale}}
    return about


def _member(about: dict[str, Any], arrays: dict[str, Any]) -> Part:
    name, predefined = about["name"], about["predefined"]
    match about["kind"]:
        case "uniform":
            return Uniform(name, predefined)
        case "prior":
            return Prior(
                name,
                arrays["precision"],
                arrays["shift"],
                about["noise"],
                about["view"],
                about["half_life"],
                predefined,
            )
        case "custom":
            return custom(about["source"], tuple(about["shape"]), arrays, name, predefined)
        case "mixture":
            return Mixture(
                name,
                arrays["means"],
                arrays["factor"],
                arrays["ranks"],
                about["noise"],
                arrays["encoder"],
                arrays["prototypes"],
                about["temperature"],
                tuple(about["names"]),
                predefined,
                about["exploration"],
                arrays.get("base"),
                Follow(mean_AD=arrays["follow"], **about["follow"]) if "follow" in about else None,
                Decoder(**_under("decoder/", arrays)) if "personal" in about else None,
                about.get("personal", "unknown"),
                about.get("least_variance", LEAST_VARIANCE),
            )
    raise ModelError(f"member {name!r} is of unknown kind {about['kind']!r}; this version is from a later Medley")
