"""Encoders: pictures, sounds and texts to features, as scikit-learn transformers.

`OpenCLIPEncoder` needs ``pip install "flowalign[clip]"`` and `ClapEncoder` needs ``pip install
"flowalign[audio]"``, when they are used, not when they are imported. `CallableEncoder` wraps any
function.
"""

from flowalign.encoders.callables import CallableEncoder
from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder

__all__ = ["CallableEncoder", "ClapEncoder", "OpenCLIPEncoder"]
