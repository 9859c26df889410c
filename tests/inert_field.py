"""A kind of velocity field that the package does not know: rows are drawn straight to one point."""

import torch

from flowalign.fields import Fitted, Kind, VelocityField


class InertField(VelocityField):
    """Draws every row to the mean of the targets, at a pace."""

    def __init__(self, centre, pace):
        super().__init__()
        self.config = {"pace": pace}
        self.register_buffer("centre", centre)

    def velocity(self, t, x):
        return self.config["pace"] * (self.centre - x)

    @property
    def row_size(self):
        return len(self.centre)

    @classmethod
    def check(cls, config, weights, n_classes, width):
        if set(config) != {"pace"} or type(config["pace"]) is not float:
            raise ValueError(f"field.config is {config}.")
        cls.check_shapes(weights, {"centre": (width,)})

    def _rebuild(self, config, weights):
        self.__init__(**weights, **config)


def fit(coupling, *, noise, device):
    centre = torch.tensor(coupling.targets.mean(axis=0), dtype=torch.float32, device=device)
    return Fitted(InertField(centre, pace=1.0 - noise), [])


KIND = Kind(InertField, fit, one_shot_stop=0.3)
