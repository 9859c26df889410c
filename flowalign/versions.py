"""What a bug report should say."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = (
    "flowalign",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchdiffeq",
    "safetensors",
    "joblib",
    "pandas",
    "matplotlib",
    "open_clip_torch",
    "transformers",
)


def show_versions() -> None:
    """Print the versions of Python, of the packages that flowalign uses, and of the machine.

    Examples
    --------
    >>> import flowalign
    >>> flowalign.show_versions()  # doctest: +ELLIPSIS
    python: 3...
    """
    print(f"python: {sys.version.split()[0]}")
    for name in PACKAGES:
        try:
            print(f"{name}: {version(name)}")
        except PackageNotFoundError:
            print(f"{name}: not installed")
    print(f"machine: {platform.platform()}")
    print(f"torch threads: {torch.get_num_threads()}, CUDA: {torch.cuda.is_available()}")
