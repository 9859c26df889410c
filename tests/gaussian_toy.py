"""A Gaussian model whose every quantity is known, and the exact field of its flow."""

import numpy as np
import torch
from scipy.stats import ortho_group

from flowalign import path
from flowalign.fields import GaussianField


class Model:
    """Gaussian classes with one covariance, their targets, and the field of their flow."""

    def __init__(
        self, d, n_classes=4, noise_std=0.0, seed=0, separation=1.0, reach=2.0, prior=None
    ):
        rng = np.random.default_rng(seed)
        self.means = separation * rng.normal(size=(n_classes, d))
        self.targets = reach * rng.normal(size=(n_classes, d))
        self.basis = ortho_group.rvs(d, random_state=seed) if d > 1 else np.eye(1)
        self.variances = np.geomspace(0.3, 1.5, d)
        self.covariance = self.basis * self.variances @ self.basis.T
        self.prior = rng.dirichlet(np.full(n_classes, 5.0)) if prior is None else np.array(prior)
        self.noise_std = noise_std

    def field(self, **changes):
        noise_std = changes.pop("noise_std", self.noise_std)
        values = vars(self) | changes
        basis = values["basis"]
        arrays = (
            basis, values["variances"], values["means"] @ basis, values["targets"] @ basis,
            np.log(values["prior"]),
        )  # fmt: skip
        options = {k: v for k, v in changes.items() if k in ("text_weight", "tail")}
        return GaussianField(
            *(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays),
            noise_std=noise_std,
            **options,
        )

    def sample(self, n, seed=1):
        """Classes and features."""
        rng = np.random.default_rng(seed)
        codes = rng.choice(len(self.prior), size=n, p=self.prior)
        root = self.basis * np.sqrt(self.variances)
        return codes, self.means[codes] + rng.normal(size=(n, len(root))) @ root.T

    def path(self, t, n=100_000, seed=1):
        """Points on the path at time t and their targets of regression, as tensors."""
        codes, x0 = self.sample(n, seed)
        x0, x1 = torch.from_numpy(x0), torch.from_numpy(self.targets[codes])
        generator = torch.Generator().manual_seed(seed)
        eps = torch.randn(x0.shape, dtype=x0.dtype, generator=generator)
        return (
            path.point(time(t), x0, x1, eps, self.noise_std),
            path.derivative(time(t), x0, x1, eps, self.noise_std),
        )


def time(t):
    return torch.tensor(t, dtype=torch.float64)
