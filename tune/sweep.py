"""The sweep over settings: which would have served this data best?

    python -m tune.sweep --data FOLDER [--space space.yaml] [--set law.delta=0.05,0.1] [--search random] [--name NAME]

The last line of standard output is JSON: {"name": ..., "best": {...}, "config": "best.yaml", ...}.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of a finished import")
    parser.add_argument("--space", type=Path, help="YAML of settings and their values or ranges")
    parser.add_argument("--set", action="append", default=[], help="path=values, such as law.delta=uniform(0, 0.3)")
    parser.add_argument("--search", choices=("grid", "random", "optuna"), default="random", help="how it is searched")
    parser.add_argument("--asha", action="store_true", help="stop trials early that fall behind")
    parser.add_argument("--trials", type=int, help="number of trials; of a grid the most; default tune.trials")
    parser.add_argument("--by", choices=("world", "replay"), help="what scores a trial; default what suits the data")
    parser.add_argument("--name", help="folder under home/sweeps; the same name goes on with a sweep cut short")
    parser.add_argument("--config", type=Path, help="settings in YAML, which the sweep varies")
    parser.add_argument("--check", action="store_true", help="only say what cannot be; reads no data, needs no Ray")
    arguments = parser.parse_args()

    from cluster import config
    from cluster.errors import MedleyError
    from tune.sweeps import space
    from tune.sweeps.request import Request, check_name

    try:
        settings = config.load(arguments.config)
        texts = space.read(arguments.space, arguments.set)
        request = Request(texts, arguments.search, arguments.by, arguments.trials, arguments.asha)
        if arguments.name is not None:
            check_name(arguments.name)
        request.space(settings)
        if arguments.check:
            return 0
        from cluster import session
        from cluster.records import Dataset

        dataset = Dataset.load(arguments.data.expanduser().absolute())
        session.prepare(settings)
        from cluster.registry import DEFAULT_NAME, Registry
        from tune.specialise import Content
        from tune.stages import Stages
        from tune.sweeps import output
        from tune.sweeps.sweeper import Sweeper

        content = Content.of(Registry(settings.registry_uri), DEFAULT_NAME)
        sweeper = Sweeper.of(dataset, settings, request, content)
        with sweeper.taken(arguments.name) as folder, session.opened(settings):
            figures = sweeper.go(folder, Stages(None))
    except (MedleyError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 1
    output.show(figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
