"""Embed a data set's items: train or load the encoder, encode what is new, publish the vectors.

    python -m tune.embed --data FOLDER [--config settings.yaml] [--retrain] [--write]

The last line of standard output is JSON: {"version": 1, "items": 120, "embedded": 120, ...}.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.embed", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of a finished import")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--name", default="medley", help="name of the versions that the items belong to")
    parser.add_argument("--retrain", action="store_true", help="train the embedded CLIP again; all items are encoded")
    parser.add_argument("--write", action="store_true", help="write the vectors into the data set's items as well")
    arguments = parser.parse_args()

    from cluster import config, session
    from cluster.errors import MedleyError

    try:
        settings = config.load(arguments.config)
        folder = arguments.data.expanduser().absolute()
        with session.opened(settings):
            from tune.content.embedder import embed

            facts = embed(
                folder, settings, arguments.name, retrain=arguments.retrain, write=arguments.write, progress=True
            )
    except (MedleyError, OSError) as error:
        print(f"embed: {error}", file=sys.stderr)
        return 1
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
