"""The long lane: thousands of kills of each recipe, with another seed each time.

python -m tests.database.run --kills 5000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.database import cluster, ledgers, outboxes

KILLS_A_RUN = 250


def main() -> int:
    """1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=5000, help="of each recipe and database (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others count on from it")
    options = parser.parse_args()
    failed = 0
    with cluster.server() as server:
        for seed in range(options.seed, options.seed + max(options.kills // KILLS_A_RUN, 1)):
            for kind in ledgers.MODULES:
                for name, killed in (("ledger", ledgers.killed), ("outbox", outboxes.killed)):
                    conninfo = "" if kind == "sqlite" else cluster.database(server)
                    with tempfile.TemporaryDirectory(prefix="tidelog-db-") as folder:
                        told, _, wrong = killed(kind, Path(folder), conninfo, kills=KILLS_A_RUN, seed=seed)
                    failed += bool(wrong)
                    outcome = "; ".join(wrong) if wrong else "as it must be"
                    print(f"{name}, {kind}, seed {seed}: {told.kills} kills: {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
