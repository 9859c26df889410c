"""Pictures of every kind come out upright and RGB."""

import io

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from flowalign.encoders.pictures import CROP_AREA, random_crop, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def _file(picture, kind="png", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_files_pictures_and_arrays_are_the_same():
    picture = Image.fromarray(PIXELS)
    for item in (_file(picture), picture, PIXELS):
        result = read_picture(item)
        assert result.mode == "RGB"
        np.testing.assert_array_equal(result, PIXELS)


def test_transparent_parts_are_white_whatever_they_hide():
    alpha = np.full((6, 8, 1), 255, dtype=np.uint8)
    alpha[:, 4:] = 0
    picture = Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))
    expected = np.where(alpha, PIXELS, 255)
    np.testing.assert_array_equal(read_picture(_file(picture)), expected)
    palette = picture.convert("P")
    palette.info["transparency"] = int(np.asarray(palette)[0, 7])
    assert (np.asarray(read_picture(_file(palette)))[0, 7] == 255).all()


def test_cmyk_becomes_rgb():
    red = Image.new("RGB", (8, 8), (200, 30, 30))
    result = np.asarray(read_picture(_file(red.convert("CMYK"), "jpeg")), dtype=int)
    assert abs(result - [200, 30, 30]).max() < 12


def test_grey_of_sixteen_bits_is_scaled_not_clipped():
    grey = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    result = np.asarray(read_picture(_file(Image.fromarray(grey))))
    np.testing.assert_array_equal(result, np.repeat((grey >> 8)[..., None], 3, axis=2))
    np.testing.assert_array_equal(
        read_picture((grey >> 8).astype(np.uint8)), np.repeat((grey >> 8)[..., None], 3, axis=2)
    )


def test_pictures_are_turned_upright():
    lying = Image.fromarray(np.rot90(PIXELS))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    np.testing.assert_array_equal(read_picture(_file(lying, exif=exif)), PIXELS)


@pytest.mark.parametrize("content", [b"", b"text", _file(Image.fromarray(PIXELS))[:100]])
def test_damaged_files_are_refused(content):
    with pytest.raises(ValueError, match="no picture, or a damaged one"):
        read_picture(content)


def test_what_has_no_known_range_is_refused():
    for mode in ("F", "I"):
        with pytest.raises(ValueError, match=f"mode {mode} have no known range"):
            read_picture(Image.new(mode, (4, 4)))
    with pytest.raises(ValueError, match="no picture"):
        read_picture(np.ones((3, 40, 40), dtype=np.uint8))
    with pytest.raises(TypeError, match="must be uint8, got float64"):
        read_picture(np.ones((4, 4, 3)))
    with pytest.raises(TypeError, match="paths, PIL images or uint8 arrays, got int"):
        read_picture(3)


def test_crops_are_parts_of_the_picture_of_the_promised_size():
    rows, columns = np.mgrid[0:100, 0:200]
    picture = Image.fromarray(np.dstack([rows, columns, rows * 0]).astype(np.uint8))
    areas, mirrored, starts = [], [], []
    for seed in range(300):
        crop = np.asarray(random_crop(picture, np.random.default_rng(seed))).astype(int)
        areas.append(crop.shape[0] * crop.shape[1] / 20_000)
        step = np.diff(crop[0, :, 1])
        mirrored.append(step[0] == -1)
        assert (step == step[0]).all()
        assert (np.diff(crop[:, 0, 0]) == 1).all()
        starts.append(crop[0, 0, 1])
    assert min(areas) > 0.3  # the ratio of the sides may cost some of the area of a long picture
    assert max(areas) <= CROP_AREA[1]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert len(set(starts)) > 10
    one = Image.new("RGB", (1, 1))
    assert random_crop(one, np.random.default_rng(0)).size == (1, 1)
