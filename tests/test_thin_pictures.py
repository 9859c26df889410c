"""Very long pictures cost no more than others, and the model sees what it would have seen."""

import numpy as np
import pytest
import torch
from encoder_models import write_clip

from flowalign.encoders import OpenCLIPEncoder

open_clip = pytest.importorskip("open_clip")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def preprocess(tmp_path_factory):
    """The preprocessing of an encoder, and the plain one of its model."""
    backbone = OpenCLIPEncoder(write_clip(tmp_path_factory.mktemp("models") / "clip"))._load()
    settings = open_clip.transform.PreprocessCfg(**backbone.model.visual.preprocess_cfg)
    return backbone.preprocess, open_clip.transform.image_transform_v2(settings, is_train=False)


def _waves(width, height):
    """Bright and dark along the longer side; some four waves in the square of the middle."""
    along = np.arange(width) if width > height else np.arange(height)[:, None]
    step = 25 * along / min(width, height)
    colours = 128 + 90 * np.sin(step[..., None] + [0, 1, 2])
    return Image.fromarray(np.broadcast_to(colours, (height, width, 3)).astype(np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (40, 30), (1, 1), (16, 1), (20, 300), (1600, 100)])
def test_ordinary_pictures_are_prepared_as_ever(size, preprocess):
    ours, plain = preprocess
    assert torch.equal(ours(_waves(*size)), plain(_waves(*size)))


@pytest.mark.parametrize("size", [(400, 1), (1, 401), (999, 7), (20, 900), (4001, 150)])
def test_of_long_pictures_the_model_sees_the_same_middle(size, preprocess):
    ours, plain = (one(_waves(*size)) for one in preprocess)
    assert plain.std() > 0.1
    # To no more than half a pixel of the result, by which rounding may move the middle.
    shifted = [torch.roll(plain, shift, dim)[:, 1:-1, 1:-1] for shift in (-1, 1) for dim in (1, 2)]
    low = torch.stack([*shifted, plain[:, 1:-1, 1:-1]]).amin(dim=0)
    high = torch.stack([*shifted, plain[:, 1:-1, 1:-1]]).amax(dim=0)
    inner = ours[:, 1:-1, 1:-1]
    assert (inner >= low - 0.02).all()
    assert (inner <= high + 0.02).all()


@pytest.mark.parametrize("size", [(20_000, 1), (1, 60_000), (40_000, 2)])
def test_long_pictures_do_not_grow(size, preprocess, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def resized(self, new, *args, **kwargs):
        sizes.append(max(new))
        return resize(self, new, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", resized)
    assert preprocess[0](_waves(*size)).shape == (3, 64, 64)
    assert max(sizes) <= 64 * 17


def test_a_model_that_sees_the_whole_picture_sees_its_ends(tmp_path):
    name = write_clip(tmp_path / "clip", resize_mode="squash")
    backbone = OpenCLIPEncoder(name)._load()
    ends = _waves(500, 5)
    ends.paste((255, 255, 255), (0, 0, 100, 5))
    assert (backbone.preprocess(ends)[:, :, :10] > 1.5).all()
