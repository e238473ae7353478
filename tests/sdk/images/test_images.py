"""Pictures as a person sees them, and refusals that name the file and the mend."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from fieldshot.errors import MissingFileError, PictureError
from fieldshot.images import MAX_PIXELS, SUFFIXES, as_items, encode, find, find_classes, read, reading

WHITE = (255, 255, 255)


def noise(height: int = 7, width: int = 11, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG file with a header and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_rgb_comes_back_to_the_bit(tmp_path: Path) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png"), pixels):
        got = read(source)
        assert got.dtype == np.uint8
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, pixels)


def test_a_file_of_any_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    for most in (0, (tmp_path / "a.png").stat().st_size):  # piece by piece, and at once
        monkeypatch.setattr(reading, "_AT_ONCE_BYTES", most)
        np.testing.assert_array_equal(read(tmp_path / "a.png"), noise())


def test_an_array_that_fits_is_not_copied_and_one_that_does_not_lie_in_order_is() -> None:
    pixels = noise()
    assert read(pixels) is pixels
    turned = pixels.transpose(1, 0, 2)
    assert read(turned).flags.c_contiguous
    np.testing.assert_array_equal(read(turned), turned)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), expected)
    assert read(tmp_path / "a.png").flags.c_contiguous
    assert expected.shape == ((7, 11, 3) if orientation < 5 else (11, 7, 3))


def test_exif_that_says_nonsense_does_not_hide_the_picture(tmp_path: Path) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0not exif at all")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), pixels)


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    rgba = noise(channels=4)
    rgba[:2, :, 3] = 0
    rgba[2:4, :, 3] = 255
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    got = read(tmp_path / "a.png").astype(float)
    alpha = rgba[..., 3:] / 255
    np.testing.assert_allclose(got, rgba[..., :3] * alpha + 255 * (1 - alpha), atol=1)
    np.testing.assert_array_equal(got[:2], 255)
    np.testing.assert_array_equal(got[2:4], rgba[2:4, :, :3])


def test_grey_with_alpha_is_composited_on_white(tmp_path: Path) -> None:
    grey_alpha = noise(channels=2)
    Image.fromarray(grey_alpha, "LA").save(tmp_path / "a.png")
    alpha = grey_alpha[..., 1:] / 255
    expected = np.repeat(grey_alpha[..., :1] * alpha + 255 * (1 - alpha), 3, axis=2)
    np.testing.assert_allclose(read(tmp_path / "a.png"), expected, atol=1)


def test_a_palette_becomes_its_colours_and_its_transparent_entry_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([200, 10, 20, 0, 255, 0, 0, 0, 0])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "index.png", transparency=1)
    image.save(tmp_path / "bytes.png", transparency=b"\xff\x00\xff")
    image.save(tmp_path / "index.gif", transparency=1)
    assert read(tmp_path / "opaque.png").tolist() == [[[200, 10, 20], [0, 255, 0], [0, 0, 0]]]
    for name in ("index.png", "bytes.png", "index.gif"):
        assert read(tmp_path / name).tolist() == [[[200, 10, 20], list(WHITE), [0, 0, 0]]], name


def test_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)).save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    Image.fromarray(np.array([[9, 5]], np.uint8)).save(tmp_path / "grey.png", transparency=5)
    assert read(tmp_path / "rgb.png").tolist() == [[[9, 9, 9], list(WHITE)]]
    assert read(tmp_path / "grey.png").tolist() == [[[9, 9, 9], list(WHITE)]]


def test_a_cmyk_jpeg_has_the_colours_of_its_rgb(tmp_path: Path) -> None:
    ramp = np.zeros((32, 32, 3), np.uint8)
    ramp[..., 0], ramp[..., 1], ramp[..., 2] = np.linspace(0, 255, 32), 128, np.linspace(255, 0, 32)[:, None]
    Image.fromarray(ramp).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK"
    np.testing.assert_allclose(read(tmp_path / "a.jpg").astype(int), ramp, atol=8)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for suffix in ("png", "tif", "pgm"):
        Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
        got = read(tmp_path / f"a.{suffix}")
        assert got.shape == (16, 16, 3)
        np.testing.assert_array_equal(got[..., 0].ravel(), np.arange(256), err_msg=suffix)
        np.testing.assert_array_equal(got[..., 0], got[..., 2])


def test_a_transparent_grey_of_sixteen_bits_becomes_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 7]], np.uint16)).save(tmp_path / "a.png", transparency=257 * 7)
    assert read(tmp_path / "a.png").tolist() == [[[0, 0, 0], list(WHITE)]]


def test_values_of_more_than_sixteen_bits_are_refused() -> None:
    with pytest.raises(PictureError, match=r"8 or 16 bits .*got values of 0 to 70000.*Hint: scale"):
        read(Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(PictureError, match=r"floating point.*Hint: scale"):
        read(Image.fromarray(np.zeros((2, 2), np.float32)))


def test_one_bit_and_grey_and_ycbcr(tmp_path: Path) -> None:
    bits = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(bits).convert("1").save(tmp_path / "bits.png")
    Image.fromarray(bits).save(tmp_path / "grey.png")
    for name in ("bits.png", "grey.png"):
        np.testing.assert_array_equal(read(tmp_path / name), np.repeat(bits[..., None], 3, axis=2))
    pixels = np.full((4, 4, 3), (200, 30, 60), np.uint8)
    np.testing.assert_allclose(read(Image.fromarray(pixels).convert("YCbCr")).astype(int), pixels, atol=2)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), np.asarray(frames[0]))


def test_the_callers_image_is_left_as_it_was() -> None:
    image = Image.fromarray(noise(channels=4), "RGBA")
    before = image.copy()
    read(image)
    assert image.mode == "RGBA"
    assert image.tobytes() == before.tobytes()


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(png_header(60_000, 60_000))
    with pytest.raises(
        PictureError, match=rf"huge\.png must have at most {MAX_PIXELS:,} pixels.*Hint: make it smaller"
    ):
        read(tmp_path / "huge.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow warns from half the limit on
def test_the_limit_itself(tmp_path: Path) -> None:
    (tmp_path / "over.png").write_bytes(png_header(MAX_PIXELS + 1, 1))
    with pytest.raises(PictureError, match="at most"):
        read(tmp_path / "over.png")
    (tmp_path / "line.png").write_bytes(png_header(MAX_PIXELS, 1))  # within the limit, but one line too long for Pillow
    with pytest.raises(PictureError, match=r"line\.png must fit into memory"):
        read(tmp_path / "line.png")


def test_a_callers_huge_image_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(PictureError, match=r"got 60000 x 60000"):
        read(Image.open(io.BytesIO(png_header(60_000, 60_000))))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PictureError, match=rf"cut\.{suffix} must be .*Hint: "):
        read(path)


def test_any_byte_may_be_damaged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "tif", "webp"):
        Image.fromarray(noise(24, 24)).save(tmp_path / f"whole.{suffix}")
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 3):
                damaged[at] ^= int(rng.integers(1, 256))
            path = tmp_path / f"damaged.{suffix}"
            path.write_bytes(damaged)
            try:
                assert read(path).shape[2] == 3
            except PictureError as error:
                assert path.name in str(error)
                assert error.hint


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, said in {
        "empty.jpg": "got an empty file",
        "text.jpg": "got something else.*JPEG",
        "program.eps": "got something else",
        "pipe.jpg": "got a pipe",
        ".": "got a folder.*Hint: name the pictures",
    }.items():
        with pytest.raises(PictureError, match=said):
            read(tmp_path / name)
    with pytest.raises(MissingFileError, match=r"none\.jpg must exist"):
        read(tmp_path / "none.jpg")
    with pytest.raises(PictureError, match="must be readable"):
        read("nul\0byte.jpg")
    with pytest.raises(PictureError, match="must be readable"):
        read("x" * 5000)


@pytest.mark.parametrize(
    ("array", "mend"),
    [
        (np.zeros((8, 8, 3), np.float32), r"\(a \* 255\)\.round\(\)\.astype\(np\.uint8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"a\.transpose\(1, 2, 0\)"),
        (np.zeros((3, 8, 8), np.float64), r"transpose\(1, 2, 0\); convert values"),
        (np.zeros((8, 8, 4), np.uint8), r"a\[:, :, :3\]"),
        (np.zeros((8, 8), np.uint8), r"np\.stack"),
        (np.zeros((8, 8, 1), np.uint8), r"np\.repeat"),
        (np.zeros((8, 8, 3), np.uint16), "scale the values"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one picture"),
        (np.zeros((0, 8, 3), np.uint8), "another picture"),
    ],
)
def test_other_arrays_are_told_how_to_convert(array: np.ndarray, mend: str) -> None:
    with pytest.raises(PictureError, match=rf"array must .*Hint: .*{mend}"):
        read(array)


@pytest.mark.parametrize(("value", "hint"), [(b"abc", "BytesIO"), (7, "pass a path"), (None, "pass a path")])
def test_other_things_are_told_what_to_pass(value: object, hint: str) -> None:
    with pytest.raises(PictureError, match=f"Hint: .*{hint}"):
        read(value)


def test_encode_loses_nothing() -> None:
    pixels = noise()
    np.testing.assert_array_equal(read(Image.open(io.BytesIO(encode(pixels)))), pixels)


def test_text_chunks_cannot_blow_up(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("bomb", "x" * (65 << 20), zip=True)
    Image.fromarray(noise()).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(PictureError, match=r"a\.png must be"):
        read(tmp_path / "a.png")


def test_every_suffix_is_one_that_pillow_reads() -> None:
    assert set(Image.registered_extensions()) >= SUFFIXES
    assert {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".webp"} <= SUFFIXES


def test_find_lists_pictures_only_and_sorted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "._a.png", "c"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find(tmp_path)] == ["a.png", "b.JPG"]


def test_find_classes_takes_the_names_of_the_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in ("zinc", "bolt", "Ünïcode 🔩", "empty", ".hidden"):
        (tmp_path / label).mkdir()
        if label != "empty":
            (tmp_path / label / "1.png").touch()
    (tmp_path / "stray.png").touch()
    assert list(find_classes(tmp_path)) == ["bolt", "zinc", "Ünïcode 🔩"]
    assert find_classes(str(tmp_path))["bolt"] == [tmp_path / "bolt" / "1.png"]
    assert "empty" in caplog.text


def test_folders_without_pictures(tmp_path: Path) -> None:
    for search in (find, find_classes):
        with pytest.raises(PictureError, match=r"must hold .*\(got none\)\. Hint: "):
            search(tmp_path)
        with pytest.raises(MissingFileError, match="must exist"):
            search(tmp_path / "none")
        (tmp_path / "file.txt").touch()
        with pytest.raises(PictureError, match="must be a folder"):
            search(tmp_path / "file.txt")


def test_as_items_takes_one_picture_for_a_list_of_one() -> None:
    pixels, image = noise(), Image.new("RGB", (2, 2))
    for single in ("a.png", Path("a.png"), pixels, image, b"bytes", np.zeros((4, 4))):
        (item,) = as_items(single)
        assert item is single
    assert as_items(["a.png"]) == ["a.png"]
    assert len(list(as_items(np.stack([pixels, pixels])))) == 2
    with pytest.raises(PictureError, match=r"iterable of pictures \(got int\)"):
        as_items(5)
