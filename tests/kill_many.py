"""Kill writers and learners of a journal by -9, many times: `make faults`, or `python -m tests.kill_many 1000`.

The last line of standard output is JSON: how many were killed, what was acknowledged, and nothing of it lost.
"""

import argparse
import json
import tempfile
from pathlib import Path

from cluster.journal.journal import journal_url
from tests.journal_faults import Harness, rows, settings_of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kills", type=int, help="at how many moments the writer, the learner or both are killed")
    parser.add_argument("--folder", type=Path, help="where the journal lies; default the folder for temporary files")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the events")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        harness = Harness(settings_of(Path(folder)), arguments.seed)
        killed = harness.run(arguments.kills)
        harness.check(killed)
        outcomes = rows(journal_url(harness.settings), "SELECT count(*) FROM journal_outcomes")[0][0]
    facts = {"writers": killed.writers, "learners": killed.learners}
    seen = {"decisions": len(killed.client.decided), "rewards": len(killed.client.rewarded)}
    print(json.dumps({"killed": facts, "acknowledged": seen, "lost": 0, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
