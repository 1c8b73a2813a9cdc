"""Pictures of every kind through a network that repeats pixels: each comes out as it went in, only larger."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from exact_network import exact_upscaler, nearest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageSequence

from qsci_plugins.data.images import open_frames, read_photo
from qsci_plugins.data.png_writer import write_png
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.pictures import enlarge_file
from qsci_plugins.openvino.runtime import Upscaler

Enlarge = Callable[..., tuple[Path, list[str]]]


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Upscaler:
    return Upscaler(exact_upscaler(tmp_path_factory.mktemp("exact") / "model"), threads=1, precision="auto")


@pytest.fixture
def enlarge(upscaler: Upscaler, tmp_path: Path) -> Enlarge:
    """The enlarged file and the notes, of a file in tmp_path."""

    def run(source: str, target: str) -> tuple[Path, list[str]]:
        notes: list[str] = []
        parts: list[float] = []
        enlarge_file(upscaler, tmp_path / source, tmp_path / target, parts.append, notes.append)
        assert parts[-1] == 1.0 or "only the first" in " ".join(notes)
        assert parts == sorted(parts)
        return tmp_path / target, notes

    return run


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def opened(file: Path) -> Image.Image:
    image = Image.open(file)
    image.load()
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp", "jpg"])
def test_grey_stays_grey(tmp_path: Path, enlarge: Enlarge, suffix: str) -> None:
    values = noise(4, 6).repeat(8, 0).repeat(8, 1)
    Image.fromarray(values).save(tmp_path / "a.png")
    file, notes = enlarge("a.png", f"b.{suffix}")
    image = opened(file)
    assert image.mode == ("RGB" if suffix == "webp" else "L")  # WebP has no grey
    found = np.asarray(image.convert("L")).astype(int)
    if suffix in ("jpg", "webp"):
        assert np.abs(found - nearest(values)).mean() < 4
    else:
        np.testing.assert_array_equal(found, nearest(values))
    assert not notes


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "RGB"])
def test_modes_come_out_as_what_can_hold_them(tmp_path: Path, enlarge: Enlarge, mode: str) -> None:
    image = Image.fromarray(noise(9, 7, 4), "RGBA")
    image.putalpha(Image.fromarray(noise(9, 7, seed=1) // 2 + 100))
    image = image.convert("RGB").convert(mode) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    found = opened(enlarge("a.png", "b.png")[0])
    assert found.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
    colours = found.mode.removesuffix("A")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(found.convert("RGBA"))[..., :3], nearest(expected), err_msg=colours)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_stay_sixteen(tmp_path: Path, enlarge: Enlarge, suffix: str) -> None:
    levels = noise(9, 7, 4)
    for name, pixels in {"grey": levels[..., 0], "rgb": levels[..., :3], "rgba": levels | 1}.items():
        pixels = pixels.astype(np.uint16) * 257
        if pixels.ndim == 2:
            Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        else:
            with (tmp_path / f"{name}.png").open("wb") as stream:
                from qsci_plugins.data.image_metadata import NO_METADATA

                write_png(stream, [pixels], (7, 9), pixels.shape[2], 16, NO_METADATA)
        file, notes = enlarge(f"{name}.png", f"big.{suffix}")
        assert not notes
        photo = read_photo(file, deep=True)
        assert photo.rgb.dtype == np.uint16
        colours = pixels if pixels.ndim == 2 else pixels[..., :3]
        colours = np.repeat(colours[..., None], 3, 2) if colours.ndim == 2 else colours
        np.testing.assert_array_equal(photo.rgb, nearest(colours))
        assert (photo.alpha is not None) == (name == "rgba")
        if name == "grey":
            assert photo.is_grey
            assert np.array_equal(np.asarray(opened(file)).astype(np.uint16), nearest(pixels))


def test_sixteen_bits_become_eight_with_a_word(tmp_path: Path, enlarge: Enlarge) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 7, 3).astype(np.uint16) * 257, photometric="rgb")
    file, notes = enlarge("a.tif", "b.webp")
    assert opened(file).size == (14, 18)
    assert not notes  # eight bits were read: this format has no more
    np.testing.assert_array_equal(np.asarray(opened(enlarge("a.tif", "b.bmp")[0])), nearest(noise(9, 7, 3)))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_tiff_of_every_layout(
    tmp_path: Path, enlarge: Enlarge, planar: str, compression: str | None
) -> None:
    pixels = noise(32, 48, 3).astype(np.uint16) * 257
    stored = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression=compression)
    np.testing.assert_array_equal(read_photo(enlarge("a.tif", "b.png")[0], deep=True).rgb, nearest(pixels))


def test_a_disc_on_nothing_has_no_rim(tmp_path: Path, enlarge: Enlarge) -> None:
    y, x = np.mgrid[:40, :60]
    alpha = np.where((y - 20) ** 2 + (x - 30) ** 2 < 200, 255, 0).astype(np.uint8)
    disc = np.dstack([*[np.where(alpha > 0, 255, 0).astype(np.uint8)] * 3, alpha])
    Image.fromarray(disc, "RGBA").save(tmp_path / "a.png")
    found = np.asarray(opened(enlarge("a.png", "b.png")[0]))
    assert (found[..., :3] == 255).all()  # under every alpha
    assert found[0, 0, 3] == 0
    assert found[40, 60, 3] == 255
    assert set(np.unique(found[..., 3])) > {0, 255}  # a filter, not steps


def test_what_shows_keeps_its_colour(tmp_path: Path, enlarge: Enlarge) -> None:
    pixels = noise(20, 30, 4)
    pixels[..., 3] = np.where(noise(20, 30, seed=1) > 128, 200, 0)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    found = np.asarray(opened(enlarge("a.png", "b.png")[0]))
    shown = nearest(pixels[..., 3]) > 0
    np.testing.assert_array_equal(found[shown][:, :3], nearest(pixels[..., :3])[shown])


def exif() -> Image.Exif:
    content = Image.Exif()
    content[0x010E], content[0x0110], content[0x0112] = "My title", "Camera", 6
    content.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    content.get_ifd(0x8769)[0xA002] = 6
    content.get_ifd(0x8825)[1] = "N"
    return content


@pytest.mark.parametrize("source", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "webp", "tif"])
def test_metadata_stay_and_the_orientation_is_applied(
    tmp_path: Path, enlarge: Enlarge, source: str, target: str
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta tiff:Orientation="6"><dc:title>sea</dc:title></x:xmpmeta>'
    image = Image.fromarray(noise(2, 3, 3).repeat(8, 0).repeat(8, 1))
    options: dict[str, Any] = {"exif": exif(), "dpi": (300, 150), "icc_profile": profile}
    if source == "png":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif source == "tif":
        stored = Image.Exif()  # read again: Pillow writes no parts of one that was never stored
        stored.load(options["exif"].tobytes())
        stored[700] = xmp
        options["exif"] = stored
    else:
        options["xmp"] = xmp
    image.save(tmp_path / f"a.{source}", **options)
    file, notes = enlarge(f"a.{source}", f"big.{target}")
    assert not notes
    found = Image.open(file)
    assert found.size == (32, 48)
    tags = dict(Image.open(file).getexif())  # of a file just opened: Pillow forgets a TIFF's, piece by piece
    assert tags.get(0x0112, 1) == 1
    assert (tags[0x010E], tags[0x0110]) == ("My title", "Camera")
    content = Image.open(file).getexif()
    assert content.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert content.get_ifd(0x8769)[0xA002] == 32
    assert content.get_ifd(0x8825)[1] == "N"
    assert found.info["icc_profile"] == profile
    kept = found.info.get("xmp") or found.info.get("XML:com.adobe.xmp")
    kept = kept.encode() if isinstance(kept, str) else kept
    # where Pillow turns the pixels itself, it takes the word out
    assert kept in (xmp.replace(b"6", b"1", 1), xmp.replace(b'tiff:Orientation="6"', b""))
    if "webp" not in (source, target):
        assert found.info["dpi"] == pytest.approx((150, 300), abs=0.1)


def test_what_a_format_cannot_hold_is_said_once(tmp_path: Path, enlarge: Enlarge) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "a.png", icc_profile=profile, exif=exif())
    _, notes = enlarge("a.png", "b.bmp")
    assert notes == [f"{tmp_path / 'b.bmp'}: BMP does not hold the colour profile and EXIF here; left out"]


def animation(count: int = 4, equal: bool = True) -> list[np.ndarray]:
    """Frames of few colours; the second and the third are the same."""
    frames = [((noise(2, 3, 3, seed=index) // 64) * 64).repeat(8, 0).repeat(8, 1) for index in range(count)]
    if equal and count > 2:
        frames[2] = frames[1].copy()
    return frames


DELAYS = [50, 120, 30, 400]


def save_animation(file: Path, frames: list[np.ndarray], loop: int | None = 0) -> None:
    """Written by this project's own writers: Pillow's make one of two equal frames."""
    from qsci_plugins.data.animation_writers import write_gif, write_webp
    from qsci_plugins.data.image_metadata import NO_METADATA
    from qsci_plugins.data.png_writer import write_apng

    plays = {None: 1, 0: 0}.get(loop, loop)
    pairs = [(frame, float(delay)) for frame, delay in zip(frames, DELAYS, strict=False)]
    size = frames[0].shape[1], frames[0].shape[0]
    with file.open("wb") as stream:
        if file.suffix == ".gif":
            write_gif(stream, pairs, plays, size)
        elif file.suffix == ".webp":
            write_webp(stream, pairs, plays, size, {"lossless": True})
        else:
            write_apng(stream, pairs, len(pairs), plays, size, 3, 8, NO_METADATA)


@pytest.mark.parametrize("source", ["gif", "png", "webp"])
@pytest.mark.parametrize("target", ["gif", "png", "webp", "apng"])
@pytest.mark.parametrize("loop", [None, 0])
def test_all_frames_with_their_delays(
    tmp_path: Path, enlarge: Enlarge, source: str, target: str, loop: int | None
) -> None:
    frames = animation()
    save_animation(tmp_path / f"a.{source}", frames, loop)
    file, notes = enlarge(f"a.{source}", f"b.{target}")
    assert not notes
    with open_frames(file) as found:
        assert (found.kind, found.count, found.plays) == ("animation", 4, 1 if loop is None else 0)
        for photo, frame, delay in zip(found.photos, frames, DELAYS, strict=True):
            assert photo.duration == delay
            if target == "webp":
                assert np.abs(photo.rgb.astype(int) - nearest(frame)).mean() < 12
            else:
                np.testing.assert_array_equal(photo.rgb, nearest(frame))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_pillow_reads_what_is_written(tmp_path: Path, enlarge: Enlarge, suffix: str) -> None:
    images = [Image.fromarray(frame) for frame in animation(equal=False)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], duration=DELAYS, loop=0)
    image = Image.open(enlarge("a.png", f"b.{suffix}")[0])
    assert image.n_frames == 4
    for index, frame in enumerate(ImageSequence.Iterator(image)):
        frame.load()
        assert image.info["duration"] == DELAYS[index]
        assert image.size == (48, 32)


def test_holes_of_a_gif(tmp_path: Path, enlarge: Enlarge) -> None:
    frames = []
    for index, frame in enumerate(animation()):
        alpha = np.full((16, 24, 1), 255, np.uint8)
        alpha[:4, index : index + 5] = 0
        frames.append(np.dstack([frame, alpha]))
    save_animation(tmp_path / "a.gif", frames)
    with open_frames(enlarge("a.gif", "b.gif")[0]) as found:
        for photo, frame in zip(found.photos, frames, strict=True):
            assert photo.alpha is not None
            inside = nearest(frame[..., 3])
            assert (np.abs(photo.alpha.astype(int) - inside) > 0).mean() < 0.2  # the filter moves the edge a little
            shown = (photo.alpha > 0) & (inside > 0)
            np.testing.assert_array_equal(photo.rgb[shown], nearest(frame[..., :3])[shown])


def test_a_still_gif(tmp_path: Path, enlarge: Enlarge) -> None:
    frame = animation(1)[0]
    Image.fromarray(frame).quantize(64).save(tmp_path / "a.gif")
    expected = nearest(np.asarray(opened(tmp_path / "a.gif").convert("RGB")))
    for target in ("b.gif", "b.png"):
        file, notes = enlarge("a.gif", target)
        assert not notes
        np.testing.assert_array_equal(np.asarray(opened(file).convert("RGB")), expected)


def test_many_colours_in_a_gif_come_near(tmp_path: Path, enlarge: Enlarge) -> None:
    y, x = np.mgrid[:64, :64]
    smooth = np.dstack([4 * y, 4 * x, 2 * (x + y)]).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    found = np.asarray(opened(enlarge("a.png", "b.gif")[0]).convert("RGB"))
    assert np.abs(found.astype(int) - nearest(smooth)).mean() < 12


def test_all_pages(tmp_path: Path, enlarge: Enlarge) -> None:
    pages = [noise(9, 7, 3), noise(5, 11, seed=1), noise(6, 6, 3, seed=2).astype(np.uint16) * 257, noise(3, 3, 4) | 1]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            settings_ = {"extrasamples": ["unassalpha"]} if page.shape[2:] == (4,) else {}
            photometric = "rgb" if page.ndim == 3 else "minisblack"
            writer.write(page, photometric=photometric, resolution=(200, 100), resolutionunit="inch", **settings_)
    file, notes = enlarge("a.tif", "b.tif")
    assert not notes
    with tifffile.TiffFile(file) as found:
        assert len(found.pages) == 4
        for page, expected in zip(found.pages, pages, strict=True):
            values = page.asarray()
            assert values.dtype == expected.dtype
            if expected.shape[2:] == (4,):
                values, expected = values[..., :3], expected[..., :3]
            np.testing.assert_array_equal(values, nearest(expected))
            assert page.resolution == (200, 100)


@pytest.mark.parametrize("target", ["png", "jpg", "gif"])
def test_one_page_where_the_format_has_one(tmp_path: Path, enlarge: Enlarge, target: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 8, 10, 3), photometric="rgb", metadata=None, software=False)
    file, notes = enlarge("a.tif", f"b.{target}")
    assert notes == [f"{tmp_path / 'a.tif'} holds 3 pages; only the first was taken"]
    assert opened(file).size == (20, 16)


def test_a_phones_second_picture_is_named(tmp_path: Path, enlarge: Enlarge) -> None:
    first, second = Image.fromarray(noise(8, 10, 3)), Image.fromarray(noise(4, 5, 3))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    _, notes = enlarge("a.jpg", "b.png")
    assert notes == [f"{tmp_path / 'a.jpg'} holds 2 pictures; only the first was taken"]


def test_an_animation_cut_off_is_one_error(tmp_path: Path, enlarge: Enlarge) -> None:
    save_animation(tmp_path / "a.gif", animation())
    content = (tmp_path / "a.gif").read_bytes()
    refused = 0
    for end in range(20, len(content) - 1, max(1, len(content) // 25)):
        (tmp_path / "cut.gif").write_bytes(content[:end])
        try:
            enlarge("cut.gif", "b.gif")
        except UserError as error:
            refused += "cut.gif" in str(error)
    assert refused
    assert not list(tmp_path.glob(".*"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["gif", "png", "webp", "tif", "jpg"]),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    st.integers(1, 3),
)
def test_damaged_animations_are_enlarged_or_refused(
    tmp_path: Path, upscaler: Upscaler, kind: str, changes: list[tuple[int, int]], count: int
) -> None:
    buffer = io.BytesIO()
    images = [Image.fromarray(frame) for frame in animation(count)]
    format_ = {"tif": "TIFF", "jpg": "MPO"}.get(kind, kind.upper())
    images[0].save(buffer, format_, save_all=True, append_images=images[1:])
    content = bytearray(buffer.getvalue())
    for position, value in changes:
        content[position % len(content)] = value
    (tmp_path / f"a.{kind}").write_bytes(content)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for target in (f"b.{kind}", "b.png"):
            try:
                enlarge_file(upscaler, tmp_path / f"a.{kind}", tmp_path / target)
            except UserError:
                continue
            assert (tmp_path / target).stat().st_size


@pytest.mark.parametrize(("name", "frames", "most"), [("b.gif", 2, 65535), ("b.webp", 1, 16383), ("b.jpg", 1, 65500)])
def test_what_a_format_cannot_hold_is_refused_before_it_is_computed(
    tmp_path: Path, upscaler: Upscaler, name: str, frames: int, most: int
) -> None:
    images = [Image.new("L", (most // 2 + 1, 2), level) for level in range(frames)]
    images[0].save(tmp_path / "long.png", save_all=frames > 1, append_images=images[1:])
    computed: list[float] = []
    with pytest.raises(UserError, match=f"{name}: it would have {2 * (most // 2 + 1)}x4 pixels.* at most {most} "):
        enlarge_file(upscaler, tmp_path / "long.png", tmp_path / name, computed.append)
    assert not computed


def cmyk_profile() -> bytes:
    """A device of inks whose Lab values are known: cyan is (50, -60, -40), no ink (100, 0, 0), and so on linearly."""
    import struct

    def tag(values: list[tuple[float, float, float]]) -> bytes:
        table = b"".join(
            struct.pack(">HHH", round(L * 652.8), round((a + 128) * 256), round((b + 128) * 256)) for L, a, b in values
        )
        identity = struct.pack(">9i", *[65536 if i % 4 == 0 else 0 for i in range(9)])
        curve = struct.pack(">HH", 0, 65535)
        return (
            b"mft2"
            + bytes(4)
            + bytes([4, 3, 2, 0])
            + identity
            + struct.pack(">HH", 2, 2)
            + curve * 4
            + table
            + curve * 3
        )

    corners = []
    for ink in range(16):
        c, m, y, k = (ink >> 3) & 1, (ink >> 2) & 1, (ink >> 1) & 1, ink & 1
        light = 100.0 * (1 - 0.5 * c) * (1 - 0.5 * m) * (1 - 0.1 * y) * (1 - k)
        shown = 0 if k else 1
        corners.append((light, shown * (-30.0 * c + 60 * m), shown * (-40.0 * c + 80 * y)))
    lut = tag(corners)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    copyright_ = b"text" + bytes(4) + b"none\0"
    blocks = {b"desc": text, b"cprt": copyright_, b"wtpt": white, b"A2B0": lut}
    offset = 128 + 4 + 12 * len(blocks)
    table, body = struct.pack(">I", len(blocks)), b""
    for name, block in blocks.items():
        block += bytes(-len(block) % 4)
        table += name + struct.pack(">II", offset + len(body), len(block))
        body += block
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"\0\0\0\0", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + table + body


def test_inks_go_through_their_profile(tmp_path: Path, enlarge: Enlarge) -> None:
    inks = np.zeros((8, 12, 4), np.uint8)
    inks[:, :4, 0] = 255
    inks[:, 4:8, 1] = 255
    image = Image.fromarray(inks, "CMYK")
    profile = cmyk_profile()
    image.save(tmp_path / "a.tif", icc_profile=profile)
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "CMYK", "RGB"
    )
    expected = np.asarray(ImageCms.applyTransform(image, transform))
    assert np.abs(expected.astype(int) - np.asarray(image.convert("RGB"))).max() > 40
    found = opened(enlarge("a.tif", "b.png")[0])
    np.testing.assert_array_equal(np.asarray(found), nearest(expected))
    assert "icc_profile" not in found.info
