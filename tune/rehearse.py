"""Rehearse a drift: the same traffic with and without replacement, in this process.

    python -m tune.rehearse --run FOLDER [--config settings.yaml] [--data FOLDER] [--seeds 3] [--looks 40]

`world.drift` in the settings says what changes (`abrupt`, at `world.drift_at` of the traffic, unless it is set).
Without --data every seed has a marketplace of its own. Leaves rehearse.json for `python -m tune.report`. The last line
of standard output is JSON.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.rehearse", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder for rehearse.json")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--data", type=Path, help="folder of a finished import; default is the built-in marketplace")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions, from the settings' seed on")
    parser.add_argument("--looks", type=int, default=40, help="refinements in the course of the traffic")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy; products this small lose by more threads

    from cluster import config
    from cluster.errors import MedleyError
    from cluster.importers.imported import Options
    from cluster.importers.marketplace import read_marketplace
    from cluster.records import Dataset
    from tune import recovery
    from tune.rehearsal import rehearse
    from tune.stages import Stages

    try:
        settings = config.load(arguments.config)
        if settings.world.drift == "none":
            settings = config.changed(settings, {"world.drift": "abrupt"})
        stages, runs = Stages(arguments.run / "rehearse.json"), []
        stages.write()
        for seed in range(settings.seed, settings.seed + arguments.seeds):
            stages.console.rule(f"seed {seed}")
            with tempfile.TemporaryDirectory(dir=settings.folder("scratch")) as scratch:
                mine = config.changed(settings, {"seed": seed, "registry": f"{scratch}/registry"})
                if arguments.data is None:
                    dataset = read_marketplace([], Options(), mine.data, seed).dataset
                else:
                    dataset = Dataset.load(arguments.data.expanduser().absolute())
                runs.append(rehearse(dataset, mine, arguments.looks, Stages(None, stages.console), "rehearsal"))
            stages.write(rehearsal=recovery.facts(runs, mine.world.drift_at))
    except (MedleyError, OSError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"seeds": len(runs), **stages.facts["rehearsal"]["figures"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
