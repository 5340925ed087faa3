"""What would these policies have earned on this log? One table with intervals, and a plot.

    python -m tune.what_if --policy uniform --policy version:12 --data NAME_OR_FOLDER [--plot FILE] [--json]

Files that are not imported yet are read by their importer: `--format`, `--map`, `--exclude` and `--client` are as
`medley import` takes them. With --json the last line of standard output is JSON, and the table goes to stderr.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    sys.path.append(os.getcwd())  # the user's own policies; last, so that no file there hides a module
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy; products this small lose by more threads

    from rich.console import Console

    from cluster import config
    from cluster.errors import MedleyError
    from cluster.progress import bar
    from tune.whatif import data, output
    from tune.whatif.answers import Bounds
    from tune.whatif.counterfactual import Question, ask

    stderr = Console(stderr=True)
    try:
        settings = config.load(options.config)
        bounds = Bounds(options.interval, options.alpha, settings.gate.bootstrap, settings.seed)
        question = Question(
            tuple(options.policy), tuple(options.estimator), bounds, options.learn, options.group_by, options.name
        )
        judged = data.judged(options, settings, stderr)
        with bar(stderr, "what if") as progress:
            answers = ask(judged, question, settings, progress)
        output.write(answers, question, options, Console(stderr=options.json))
    except (MedleyError, OSError) as error:
        print(f"what-if: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    from tune.offpolicy.terms import METHODS

    found = argparse.ArgumentParser(prog="tune.what_if", description=(__doc__ or "").splitlines()[0])
    add = found.add_argument
    add(
        "--policy",
        action="append",
        required=True,
        help="uniform, popularity, item:ID, version:N, greedy:N, module:Class",
    )
    add("--data", action="append", type=Path, default=[], help="an import's folder or name, or files; may repeat")
    add("--format", help="how to read files that are not imported yet; default native")
    add("--map", action="append", default=[], help="ours=theirs; may repeat")
    add("--exclude", action="append", default=[], help="column to leave out; may repeat")
    add("--client", help="column that names the tenant")
    add("--part", choices=("all", "confirm", "world"), default="all", help="rows that are judged (DESIGN, Proof)")
    add("--estimator", action="append", default=[], choices=METHODS, help="may repeat; default dr and snips, or dm")
    add("--interval", choices=("bootstrap", "bernstein", "sequence"), default="bootstrap", help="kind of interval")
    add("--alpha", type=float, default=0.05, help="error rate of an interval")
    add("--learn", action="store_true", help="policies that can learn do so along the log")
    add("--group-by", help="a column of events, or a key of the context")
    add("--name", default="medley", help="name of the versions in the registry")
    add(
        "--plot",
        type=Path,
        help="where the plot goes: .png, .svg or .pdf; default none, of `medley what-if` what_if.png",
    )
    add("--table", type=Path, help="Parquet file of the table")
    add("--json", action="store_true", help="end with one JSON line on stdout")
    add("--config", type=Path, help="settings in YAML")
    return found


if __name__ == "__main__":
    sys.exit(main())
