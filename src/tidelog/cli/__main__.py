"""Does `python -m tidelog.cli` do the same as the program `tidelog`? Yes: this hands over to `main`.

Floor 9: imports the package it stands in.
"""

from __future__ import annotations

import sys

from tidelog.cli import main

if __name__ == "__main__":
    sys.exit(main())
