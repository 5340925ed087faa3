"""A regrouping as an artifact: `regroup.json`, readable, and the bettors' wealth as `wealth.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from actors.content.regrouping.groups import Groups
from actors.content.regrouping.regrouping import Regrouping
from actors.content.regrouping.trial import Trial
from cluster.errors import StateError

NAME = "{}-regrouping"
"""In the registry, of the regroupings that belong to versions of a name."""
FILE, WEALTH = "regroup.json", "wealth.safetensors"
ARRAYS = ("wealth_RSL", "users_S", "gain_RS")


def save(state: Regrouping, about: Mapping[str, Any], folder: Path) -> None:
    """Write both files; `about` is what else the job knows."""
    trials = {
        name: {
            "rivals": trial.rivals,
            "began": trial.began,
            "opened": trial.opened,
            "number": trial.number,
            "place": place,
        }
        for place, (name, trial) in enumerate(state.trials.items())
    }
    arrays = {f"{trials[n]['place']}/{a}": getattr(trial, a) for n, trial in state.trials.items() for a in ARRAYS}
    safetensors.numpy.save_file(arrays, folder / WEALTH)
    clusters = {cluster: state.groups.members(cluster) for cluster in state.groups.clusters}
    facts = {**state.groups.facts(), "alpha": state.alpha, "clusters": clusters, "trials": trials, "about": about}
    (folder / FILE).write_text(json.dumps(facts, indent=1))


def load(folder: Path) -> tuple[Regrouping, dict[str, Any]]:
    """What `save` wrote. Raises StateError where there is none, or one that cannot be read."""
    try:
        facts = json.loads((folder / FILE).read_text())
        arrays = safetensors.numpy.load_file(folder / WEALTH)
        trials = {
            name: Trial(
                tuple(row["rivals"]),
                row["began"],
                row["opened"],
                row["number"],
                **{array: arrays[f"{row['place']}/{array}"] for array in ARRAYS},
            )
            for name, row in facts["trials"].items()
        }
        return Regrouping(Groups.of(facts), facts["alpha"], trials), facts["about"]
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise StateError(f"{folder}: no regrouping can be read here ({error}); take an earlier version") from error
