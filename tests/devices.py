"""A device to try things on. That of the system would be lost if a test failed and root ran it."""

import os
import stat
from pathlib import Path

import pytest


def null_device(path):
    """Make a device of one's own that swallows what is written, as root may."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        pytest.skip("only root may make devices")
    return Path(path)
