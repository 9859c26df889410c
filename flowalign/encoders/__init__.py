"""Encoders: pictures, sounds and texts to features, as scikit-learn transformers.

`OpenCLIPEncoder` needs ``pip install "flowalign[clip]"`` and `ClapEncoder` needs ``pip install
"flowalign[audio]"``; both can be imported without. `CallableEncoder` wraps any function.
"""

from flowalign.encoders.callables import CallableEncoder
from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder

__all__ = ["CallableEncoder", "ClapEncoder", "OpenCLIPEncoder"]
