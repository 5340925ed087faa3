"""What the generator changed, readable: whom a candidate was made for, and where it leaves the pooled model.

    python -m tune.explain [CANDIDATE] [--version N] [--top 10] [--json] [--name medley] [--config settings.yaml]

Without a candidate: those that the version has. A candidate's name (p3z1: prototype 3, code 1) is one version's own.
Where the gate did not admit the generated member: of what was tested, and why it is not served.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.explain", description=__doc__.splitlines()[0])
    parser.add_argument("candidate", nargs="?", help="such as p3z1; without one, a list of them")
    parser.add_argument("--version", type=int, help="number of the version; default the newest")
    parser.add_argument("--top", type=int, default=10, help="features and items to show")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of tables")
    parser.add_argument("--name", default="medley", help="name of the versions in the registry")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    arguments = parser.parse_args()
    if arguments.top < 1:
        parser.error("--top must be at least 1")

    from actors.bandits.version import Version
    from cluster import config
    from cluster.errors import MedleyError
    from cluster.registry import Registry
    from tune.explained import show, show_all
    from tune.explanation import Explainer
    from tune.keeping import explained

    try:
        registry = Registry(config.load(arguments.config).registry_uri)
        version = Version.load(registry.fetch(arguments.name, arguments.version))
        explainer = Explainer.of(explained(registry, version))
        if arguments.candidate is None:
            every = [explainer.explain(name, 1) for name in explainer.names]
            print(json.dumps({"candidates": [each.facts() for each in every]})) if arguments.json else show_all(every)
        else:
            found = explainer.explain(arguments.candidate, arguments.top)
            print(json.dumps(found.facts())) if arguments.json else show(found)
    except MedleyError as error:
        print(f"explain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
