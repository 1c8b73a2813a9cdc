from __future__ import annotations

import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from qsci_plugins.data.images import image_size, read_image, read_photo, write_image
from qsci_plugins.errors import UserError


def pixels(height: int = 9, width: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file of raw rows, each led by its filter byte: Pillow cannot write 16 bits per colour."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_module_needs_no_torch() -> None:
    code = "import sys, qsci_plugins.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))), st.booleans())
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray, clear: bool) -> None:
    file = tmp_path_factory.mktemp("images") / "image.png"
    alpha = None if clear else image[..., 1]
    write_image(file, image, alpha)
    photo = read_photo(file)
    np.testing.assert_array_equal(photo.rgb, image)
    assert (photo.alpha is None) == clear
    if alpha is not None:
        np.testing.assert_array_equal(photo.alpha, alpha)
    assert [child.name for child in file.parent.iterdir()] == ["image.png"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", pixels())
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), pixels())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_stay_close(tmp_path: Path, suffix: str) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)[..., None].repeat(3, 2)
    write_image(tmp_path / f"a{suffix}", smooth)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - smooth).max() < 8


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
def test_modes_without_transparency(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(pixels()).convert(mode)
    file = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(file)
    photo = read_photo(file)
    np.testing.assert_array_equal(photo.rgb, np.asarray(image.convert("RGB")))
    assert photo.alpha is None
    assert photo.mode == mode


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_alpha_is_kept_apart(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putalpha(Image.fromarray(pixels(seed=1)[..., 0]))
    if mode == "PA":  # a palette with one transparent entry
        image = Image.fromarray(pixels()).convert("P")
        image.info["transparency"] = int(np.asarray(image)[0, 0])
    elif mode == "LA":
        image = image.convert("LA")
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGBA"))
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.rgb, expected[..., :3])
    np.testing.assert_array_equal(photo.alpha, expected[..., 3])
    assert photo.alpha is not None
    assert photo.alpha.min() < 255


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 25700, 40000, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    grey = read_image(tmp_path / f"a{suffix}")
    assert grey[0, :, 0].tolist() == [0, 0, 1, 1, 100, 156, 255, 255]
    assert (grey == grey[..., :1]).all()


def test_sixteen_bit_big_endian_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[257, 65535]], np.uint16), byteorder=">")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [1, 255]


def test_sixteen_bit_colour_png_is_scaled(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 20 * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(2, 2, 16, 2, rows))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), (values // 257).astype(np.uint8))


def test_sixteen_bit_colour_tiff_is_scaled(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 20 * 257
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), (values // 257).astype(np.uint8))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_of_unknown_range_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.full((4, 4), 2, kind)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="range is not known"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putalpha(Image.fromarray(pixels(seed=1)[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a{suffix}", exif=exif)
    image.getexif()[0x0112] = orientation
    # in memory, because Pillow garbles a turned RGBA TIFF that it opens by name
    expected = np.asarray(ImageOps.exif_transpose(image))
    photo = read_photo(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(photo.rgb, expected[..., :3])
    np.testing.assert_array_equal(photo.alpha, expected[..., 3])
    assert photo.rgb.shape[:2] == ((7, 9) if orientation >= 5 else (9, 7))


def test_damaged_exif_costs_no_pixel(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels())


def test_pillow_warns_nobody_of_damaged_metadata(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(200)
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + content)
    (tmp_path / "b.tif").write_bytes(b"II*\0\x08\0\0\0" + content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.jpg").shape == pixels().shape
        with pytest.raises(UserError):
            read_image(tmp_path / "b.tif")


def test_colour_profile_survives(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", pixels(), icc_profile=b"profile")
    assert read_photo(tmp_path / "a.png").icc_profile == b"profile"
    Image.fromarray(pixels()[..., 0]).save(tmp_path / "grey.png", icc_profile=b"grey")
    assert read_photo(tmp_path / "grey.png").icc_profile == b"grey"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20_000), (3, 20_000), (5000, 1)])
def test_odd_sizes_and_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    monkeypatch.setattr("qsci_plugins.data.image_decoding.STRIP_PIXELS", 1000)
    image = pixels(height, width)
    write_image(tmp_path / "a.png", image, image[..., 0])
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.rgb, image)
    np.testing.assert_array_equal(photo.alpha, image[..., 0])
    assert image_size(tmp_path / "a.png") == (height, width)


def test_first_picture_of_several(tmp_path: Path) -> None:
    first, second = Image.fromarray(pixels()), Image.fromarray(pixels(seed=1))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels())
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "plain.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "phone.jpg"), read_image(tmp_path / "plain.jpg"))


def test_pixels_can_be_changed(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", pixels())
    read_image(tmp_path / "a.png")[:] = 0


def test_claimed_size_is_checked_before_decoding(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 2, b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="60000x60000"):
            read_image(tmp_path / "bomb.png")
    write_image(tmp_path / "a.png", pixels())
    with pytest.raises(UserError, match="limit of 62"):
        read_image(tmp_path / "a.png", max_pixels=62)
    assert read_image(tmp_path / "a.png", max_pixels=63).shape == (9, 7, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pillows_own_limit_neither_warns_nor_stays_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    write_image(tmp_path / f"a{suffix}", pixels())
    monkeypatch.setattr("qsci_plugins.data.image_decoding.STRIP_PIXELS", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / f"a{suffix}").shape == (9, 7, 3)
    assert Image.MAX_IMAGE_PIXELS == 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "empty file"),
        ("text.png", b"this is no image\n" * 100, "not an image"),
        ("zeros.jpg", bytes(5000), "not an image"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not an image"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(UserError, match="Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_truncated_anywhere_is_an_error_or_the_whole_image(tmp_path: Path, suffix: str) -> None:
    image = pixels(40, 32)
    write_image(tmp_path / f"whole{suffix}", image)
    content = (tmp_path / f"whole{suffix}").read_bytes()
    refused = 0
    for end in {*range(0, len(content), max(1, len(content) // 60)), len(content) // 2}:
        (tmp_path / f"cut{suffix}").write_bytes(content[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(tmp_path / f"cut{suffix}").shape == image.shape
            except UserError:
                refused += 1
    assert refused >= 55


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    st.sampled_from("pjtw"),
)
def test_flipped_bytes_never_escape_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], kind: str
) -> None:
    file = tmp_path_factory.mktemp("flipped") / {"p": "a.png", "j": "a.jpg", "t": "a.tif", "w": "a.webp"}[kind]
    write_image(file, pixels(8, 8))
    content = bytearray(file.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(file, max_pixels=10**6)
        except UserError:
            return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large") as caught:
            write_image(file, pixels(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(file) in str(caught.value)
    assert file.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == [file.name]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(image: Image.Image, file: object, format: str, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.jpg", pixels())
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path: Path) -> None:
    half = np.full((9, 7), 128, np.uint8)
    with pytest.raises(UserError, match=r"'.xyz'"):
        write_image(tmp_path / "a.xyz", pixels())
    with pytest.raises(UserError, match="No such file"):
        write_image(tmp_path / "missing" / "a.png", pixels())
    with pytest.raises(UserError, match="partly transparent"):
        write_image(tmp_path / "a.jpg", pixels(), half)
    with pytest.raises(UserError, match="cannot write"):
        write_image(tmp_path / "a.webp", pixels(1, 20_000))
    with pytest.raises(ValueError, match="float"):
        write_image(tmp_path / "a.png", pixels() / 255)
    with pytest.raises(ValueError, match="alpha"):
        write_image(tmp_path / "a.png", pixels(), half[:-1])
    assert not list(tmp_path.iterdir())


def test_opaque_alpha_is_no_obstacle_for_jpeg(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", pixels(), np.full((9, 7), 255, np.uint8))
    assert read_photo(tmp_path / "a.jpg").alpha is None
