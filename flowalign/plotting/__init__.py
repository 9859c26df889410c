"""Displays in scikit-learn's manner. They need matplotlib: ``pip install "flowalign[plot]"``."""

from flowalign.plotting.modality_gap import ModalityGapDisplay
from flowalign.plotting.novelty import NoveltyDisplay
from flowalign.plotting.reliability import ReliabilityDisplay
from flowalign.plotting.stop import StopDisplay
from flowalign.plotting.trajectory import TrajectoryDisplay
from flowalign.plotting.unlabeled import UnlabeledDisplay
from flowalign.plotting.views import ViewsDisplay

__all__ = [
    "ModalityGapDisplay",
    "NoveltyDisplay",
    "ReliabilityDisplay",
    "StopDisplay",
    "TrajectoryDisplay",
    "UnlabeledDisplay",
    "ViewsDisplay",
]
