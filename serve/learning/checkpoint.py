"""A learner's state as safetensors bytes and back, exactly: learning goes on from it bit-equal."""

import json
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from actors.bandits import learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.history import History
from actors.features.features import Floats
from cluster.errors import StateError

FORMAT = 1


def dump(state: learn.State) -> bytes:
    """What changed since `learn.start`: data statistics, own models, performance, items, histories, counts."""
    arrays: dict[str, NDArray[Any]] = {"performance": state.performance.sums_5M}
    for name, statistics in state.statistics.items():
        arrays[f"precision/{name}"] = statistics.data_precision_ADD
        arrays[f"shift/{name}"] = statistics.data_shift_AD
    if len(state.items):
        arrays |= {f"items/{name}": array for name, array in state.items.arrays().items()}
    for name, model in state.models.items():
        arrays |= {f"model/{name}/{key}": array for key, array in model.arrays().items()}
    base = state.ensemble.histories
    own = {user: past for user, past in state.histories.items() if past is not base.get(user)}
    for user, past in enumerate(own.values()):
        arrays |= {f"phi/{user}": past.phi_ND, f"arm/{user}": past.arm_N, f"reward/{user}": past.reward_N}
    facts = {
        "format": FORMAT,
        "fingerprint": state.ensemble.fingerprint,
        "count": state.count,
        "epoch": state.epoch,
        "users": list(own),
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    return safetensors.numpy.save(arrays)


def load(ensemble: Ensemble, data: bytes) -> learn.State:
    """The state that `dump` saw, of the same ensemble.

    Raises:
        StateError: the bytes are no checkpoint of this ensemble.
    """
    try:
        arrays = {name: array.copy() for name, array in safetensors.numpy.load(data).items()}
        facts = json.loads(arrays["facts"].tobytes())
        if (facts["format"], facts["fingerprint"]) != (FORMAT, ensemble.fingerprint):
            raise StateError("a learner's checkpoint is of another format or version; it is rebuilt from the journal")
        state = learn.start(ensemble)
        _copy(state.performance.sums_5M, arrays["performance"])
        for name, statistics in state.statistics.items():
            _copy(statistics.data_precision_ADD, arrays[f"precision/{name}"])
            _copy(statistics.data_shift_AD, arrays[f"shift/{name}"])
        if "items/rows" in arrays:  # else nothing was learned of them, or before Medley did
            state.items.load(_under("items/", arrays))
        for name, model in state.models.items():
            model.load(_under(f"model/{name}/", arrays))
        for n, user in enumerate(facts["users"]):
            state.histories[user] = History(arrays[f"phi/{n}"], arrays[f"arm/{n}"], arrays[f"reward/{n}"])
        state.count, state.epoch = facts["count"], facts["epoch"]
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise StateError(f"a learner's checkpoint cannot be read ({error}); it is rebuilt from the journal") from error
    return state


def _under(prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _copy(target: Floats, source: Floats) -> None:
    if target.shape != source.shape:
        raise ValueError(f"shape {source.shape} where {target.shape} was expected")
    target[...] = source
