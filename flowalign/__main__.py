"""The command: ``python -m flowalign``, the same as ``flowalign``."""

import sys

from flowalign.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m flowalign"))
