"""What does one worker process do? `python -m tidelog.app.worker MOD:APP DESCRIPTOR`, started by `workers.supervise`.

Floor 8: may import loading, workers. Thread rule: a program.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from tidelog.app.loading import load
from tidelog.app.workers import STOPPED, run_as_worker

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code says whether it makes sense to start it again."""
    target, descriptor = argv
    try:
        run_as_worker(load(target), int(descriptor))
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
