"""One thread in forked children.

A fork copies one thread of a process. The others, among which torch has divided its work so far,
are not in the child; torch does not know, and waits for them without end. With one thread it has
nobody to wait for. So importing flowalign sets one thread in each child that is forked afterwards,
as torch does in the workers of its ``DataLoader``; the number in the parent, which is its user's,
stays as it is. A child without torch has no threads to miss.
"""

from __future__ import annotations

import os
import sys


def _one_thread() -> None:
    # Also where there was one: torch makes its pool of threads anew when it is next told a number,
    # and two threads of the child that do so at the same time fail.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):  # where there is no fork, nothing is to be done
    os.register_at_fork(after_in_child=_one_thread)
