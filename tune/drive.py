"""Traffic from a world over HTTP, and what it came to beside the baselines.

    python -m tune.drive --data FOLDER --run FOLDER --url http://127.0.0.1:8000 --keys keys.json --config settings.yaml

Every situation of the world is asked once. Leaves drive.json and drive.parquet in the run's folder. The last line
on stdout is the figures as JSON; a terminal gets a table before it.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tune.drive", description="Drive traffic over HTTP.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the imported data")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with compose.json")
    parser.add_argument("--url", required=True, help="where the server listens")
    parser.add_argument("--keys", type=Path, required=True, help="JSON file: API key by client id")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy; products this small lose by more threads

    from cluster import config
    from cluster.errors import MedleyError
    from tune.account import last_line, table
    from tune.driving import Drive, read_json
    from tune.stages import Stages

    started = time.monotonic()
    stages = Stages(options.run / "drive.json")
    try:
        (options.run / "drive.json").unlink(missing_ok=True)
        drive = Drive.opened(options.data, options.run, config.load(options.config))
        keys = read_json(options.keys, "start the run again: it makes the keys")
        figures = drive.go(options.url, keys, stages)
    except MedleyError as error:
        print(f"drive: {error}", file=sys.stderr)
        return 1
    if sys.stdout.isatty():
        stages.console.print(table(figures))
    print(json.dumps(last_line(figures, time.monotonic() - started)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
