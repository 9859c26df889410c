"""Pictures of every kind come out upright and RGB."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from flowalign.encoders.pictures import (
    CROP_AREA,
    LONGEST,
    doubt,
    random_crop,
    read_picture,
    without_ends,
)

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
    with pytest.raises(ValueError, match="no picture, or a damaged one") as error:
        read_picture(content)
    assert "0x" not in str(error.value)  # an address in memory tells nobody anything


def test_what_has_no_known_range_is_refused():
    for mode in ("F", "I"):
        with pytest.raises(ValueError, match=f"mode {mode} have no known range"):
            read_picture(Image.new(mode, (4, 4)))
    for shape in ((3, 40, 40), (4, 4, 1), (4, 4, 2), (1, 4, 4, 3), (0, 4, 3), (4, 0), (4,)):
        with pytest.raises(ValueError, match=r"^no picture: arrays must be of shape .*got \("):
            read_picture(np.ones(shape, dtype=np.uint8))
    with pytest.raises(TypeError, match="must be uint8, got float64"):
        read_picture(np.ones((4, 4, 3)))
    with pytest.raises(TypeError, match="paths, PIL images or uint8 arrays, got int"):
        read_picture(3)


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "jpeg"), ("1", "png"), ("P", "gif"), ("RGBA", "webp")]
)
def test_pictures_beyond_the_limit_are_called_too_large(mode, kind, monkeypatch):
    content = _file(Image.new(mode, (50, 50)), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)  # Pillow refuses more than twice as many
    with pytest.raises(ValueError, match=r"^it is too large .*2500 pixels.*MAX_IMAGE_PIXELS"):
        read_picture(content)
    with pytest.raises(ValueError, match=r"^it is too large .*MAX_IMAGE_PIXELS"):
        random_crop(Image.new("RGB", (90, 90)), np.random.default_rng(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_picture(content).size == (50, 50)


def test_pictures_near_the_limit_are_read_with_a_warning(monkeypatch):
    content = _file(Image.new("RGB", (50, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000)
    with pytest.warns(Image.DecompressionBombWarning, match="2500 pixels"):
        assert read_picture(content).size == (50, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"^it is too large .*2500 pixels"):
            read_picture(content)


def test_running_out_of_memory_is_no_damage(monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(MemoryError):
        read_picture(b"any")


def _colours_of_sixteen_bits(values):
    """A PNG file, which Pillow does not write with such colours."""

    def chunk(kind, content):
        length, check = len(content), zlib.crc32(kind + content)
        return struct.pack(">I", length) + kind + content + struct.pack(">I", check)

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">2I5B", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [10, 12, 13, 16])
def test_data_of_fewer_bits_in_sixteen_are_doubted(bits):
    grey = np.linspace(0, 2**bits - 1, 48).reshape(6, 8).astype(np.uint16)
    picture = Image.fromarray(grey)
    colours = _colours_of_sixteen_bits(np.stack([grey] * 3, axis=2))
    files = [_file(picture), _file(picture, "tiff"), colours, picture]
    for item in files:
        assert np.asarray(read_picture(item)).max() == (2**bits - 1) >> 8
        assert (doubt(item) is not None) == (bits <= 12)
    if bits <= 12:
        assert f"end at {2**bits - 1} of" in doubt(picture)


def test_what_is_black_or_has_eight_bits_is_not_doubted():
    black = Image.fromarray(np.zeros((4, 4), dtype=np.uint16))
    dark = Image.new("RGB", (4, 4), (1, 2, 3))
    for item in (_file(black), black, _file(dark), dark, np.asarray(dark), _file(dark, "jpeg")):
        read_picture(item)
        assert doubt(item) is None


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (30, 20), (LONGEST, 1), (3, 3 * LONGEST + 1)])
def test_ordinary_pictures_keep_their_ends(size):
    picture = Image.new("RGB", size)
    assert without_ends(picture) is picture


@pytest.mark.parametrize("size", [(1_000, 1), (1_001, 1), (2, 999), (30, 5_000), (1, 20_000)])
def test_of_long_pictures_the_middle_stays(size):
    position = np.arange(max(size))
    pixels = position if size[0] > size[1] else position[:, None]
    pixels = np.broadcast_to(pixels, size[::-1]).astype(np.int32)
    kept = np.asarray(without_ends(Image.fromarray(pixels)))
    along = kept[0] if size[0] > size[1] else kept[:, 0]
    assert LONGEST * min(size) <= len(along) <= LONGEST * min(size) + 1
    assert along[0] + along[-1] == max(size) - 1  # as much is gone at one end as at the other
    assert (np.diff(along) == 1).all()
    assert min(kept.shape) == min(size)


def test_crops_have_half_of_the_area_or_more_and_sides_of_three_to_four_at_most():
    picture = Image.new("RGB", (400, 400))
    sizes = [random_crop(picture, np.random.default_rng(seed)).size for seed in range(400)]
    width, height = np.array(sizes).T
    areas, ratios = width * height / 400**2, width / height
    np.testing.assert_allclose([areas.min(), areas.max()], [0.5, 1], atol=0.04)
    np.testing.assert_allclose([ratios.min(), ratios.max()], [3 / 4, 4 / 3], rtol=0.02)
    assert abs(np.median(ratios) - 1) < 0.05


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
