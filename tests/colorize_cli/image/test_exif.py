"""Odd and damaged EXIF blocks. `test_metadata` has complete pictures."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.image import exif
from colorize_cli.image.metadata import STORED, Metadata, described
from colorize_cli.image.thumbnail import embedded
from tests.helpers import tagged
from tests.helpers.pictures import colorized

SIZE = (tagged.HEIGHT, tagged.WIDTH)


def block(order: str, *tags: tagged.Tag) -> bytes:
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return head + tagged.serialized(order, 8, list(tags))


def with_details(order: str, *tags: tagged.Tag) -> bytes:
    length = len(block(order, tagged.value(order, tagged.EXIF, 4, 0)))
    return block(order, tagged.value(order, tagged.EXIF, 4, length)) + tagged.serialized(
        order, length, list(tags)
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4, 9])
def test_orientation_of_any_integer_type_is_read_and_reset(order, kind):
    found = block(order, tagged.value(order, 274, kind, 6), tagged.text(305, "a scanner"))
    assert exif.orientation_of(found) == 6
    changed = exif.patched(found, 6, SIZE)
    assert exif.orientation_of(changed) == 1
    assert tagged.directories(changed)["main", 305] == tagged.directories(found)["main", 305]


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_orientation_out_of_range_is_ignored(number):
    assert exif.orientation_of(block("<", tagged.value("<", 274, 3, number))) is None


@pytest.mark.parametrize("order", "<>")
def test_size_too_large_for_its_type_gets_a_wider_one(order):
    found = with_details(order, tagged.value(order, 40962, 3, 100), tagged.value(order, 40963, 3, 200))
    changed = tagged.directories(exif.patched(found, 6, (70000, 300)))
    assert changed["Exif", 40962] == (4, 0, struct.pack(order + "I", 70000))
    assert changed["Exif", 40963] == (3, 0, struct.pack(order + "H", 300))


@pytest.mark.parametrize("order", "<>")
def test_sample_tags_are_removed_and_no_value_moves(order):
    tags = [
        tagged.value(order, 256, 3, 80),
        tagged.value(order, 257, 3, 60),
        tagged.value(order, 258, 3, 8),
        tagged.value(order, 262, 3, 1),
        tagged.text(270, "a description, not short"),
        tagged.value(order, 277, 3, 1),
        tagged.text(305, "a scanner"),
        (37724, 7, b"Adobe Photoshop Document Data Block\0"),
    ]
    found = block(order, *tags)
    changed = exif.patched(found, 1, SIZE)
    assert len(changed) == len(found)
    before, after = tagged.directories(found), tagged.directories(changed)
    assert [tag for _, tag in after] == [256, 257, 270, 305]
    assert after["main", 256][2] == struct.pack(order + "H", SIZE[0])
    assert after["main", 257][2] == struct.pack(order + "H", SIZE[1])
    assert (after["main", 270], after["main", 305]) == (before["main", 270], before["main", 305])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("odd", [False, True])
def test_with_thumbnail_appends_the_thumbnail(order, odd):
    found = block(order, tagged.text(270, "a description, not short"))
    found = found + b"\0" if odd else found
    assert not exif.has_thumbnail(found)
    changed = exif.with_thumbnail(found, b"a thumbnail")
    assert exif.has_thumbnail(changed)
    assert changed.endswith(b"a thumbnail")
    tags = tagged.directories(changed)
    assert tags["main", 270] == tagged.directories(found)["main", 270]
    start, length = (struct.unpack(order + "I", tags["thumbnail", tag][2])[0] for tag in (513, 514))
    assert changed[start : start + length] == b"a thumbnail"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_thumbnail_has_the_colors_and_at_most_160_pixels(dtype):
    colors = np.full((600, 900, 3), (200, 100, 50), np.uint8)
    colors[:, 450:] = (50, 100, 200)
    colors = colors.astype(dtype) * (257 if dtype == np.uint16 else 1)
    with Image.open(io.BytesIO(embedded(colors))) as image:
        assert image.size == (160, 107)
        small = np.asarray(image).astype(int)
    assert np.abs(small[:, :78] - (200, 100, 50)).max() <= 6
    assert np.abs(small[:, 82:] - (50, 100, 200)).max() <= 6


def test_thumbnail_of_planes_has_the_same_colors():
    luma, blue, red = (np.full((300, 201), 128, np.uint8) for _ in range(3))
    red[:] = 150
    half = BytePlanes(luma, blue[::2, ::2], red[::2, ::2])
    for planes in (BytePlanes(luma, blue, red), half):
        with Image.open(io.BytesIO(embedded(planes))) as image:
            assert image.size == (107, 160)
            assert np.abs(np.asarray(image.convert("YCbCr")).astype(int) - (128, 128, 150)).max() <= 2


def test_thumbnail_is_removed_at_the_end_and_unlinked_elsewhere():
    for last in (True, False):
        found = tagged.exif_block("<", 1, thumb_last=last)
        changed = exif.patched(found, 1, SIZE)
        assert not any(name == "thumbnail" for name, _ in tagged.directories(changed))
        assert (tagged.thumbnail() in changed) != last
        assert len(changed) == len(found) - (len(tagged.thumbnail()) if last else 0)


@pytest.mark.filterwarnings("ignore")  # warnings of Pillow; `colorize_cli.cli.main` ignores them too
@pytest.mark.parametrize(
    "content", [b"", b"II", b"garbagegarbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\0"]
)
def test_block_without_tags_is_kept_only_if_readable(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(tagged.jpeg(tagged.segment(0xE1, b"Exif\0\0" + content)))
    output = colorized(tmp_path / "a.jpg", tmp_path / "b.jpg")
    readable = content[:4] in (b"II*\0", b"MM\0*")
    assert tagged.exif_of(output) == (content if readable else b"")


@pytest.mark.filterwarnings("ignore")  # warnings of Pillow; `colorize_cli.cli.main` ignores them too
@pytest.mark.parametrize("end", [8, 300, 700, *range(1000, 1400, 29)])
def test_truncated_block_keeps_its_readable_part(tmp_path, end):
    cut = tagged.exif_block("<", 6)[:end]
    (tmp_path / "a.jpg").write_bytes(tagged.jpeg(tagged.segment(0xE1, b"Exif\0\0" + cut)))
    output = colorized(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as before, Image.open(output) as after:
        turned = before.size != after.size
    found = tagged.exif_of(output)
    assert len(found) == len(cut) or exif.has_thumbnail(cut)  # a new thumbnail is added
    assert (exif.orientation_of(cut) == 6) == turned
    assert exif.orientation_of(found) in (None, 1)
    assert sum(a != b for a, b in zip(cut, found, strict=False)) < 80


@given(st.data())
def test_damaged_block_raises_nothing(data):
    found = bytearray(tagged.exif_block(data.draw(st.sampled_from("<>")), 6))
    for _ in range(data.draw(st.integers(1, 12))):
        found[data.draw(st.integers(4, len(found) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(found[: data.draw(st.integers(0, len(found)))])
    changed = exif.patched(cut, exif.orientation_of(cut) or 1, SIZE)
    assert changed is None or len(changed) <= len(cut)
    if changed is not None:
        exif.shifted(changed, 1000)
        exif.rows(changed)


@given(st.data())
def test_damaged_tiff_raises_nothing(tmp_path_factory, data):
    found = bytearray(tagged.tiff("<", 6, tagged.packet(6), None, b"", big=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 12))):
        found[data.draw(st.integers(4, len(found) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    path.write_bytes(found)
    with path.open("rb") as file:
        block, _ = exif.from_tiff(file, 0, []) or (b"", {})
    if block:
        assert block[:2] in (b"II", b"MM")
        assert exif.orientation_of(block) in (None, *range(1, 9))
        tagged.directories(block)


def test_avif_keeps_the_bytes_except_the_orientation(tmp_path):
    wanted = tagged.directories(content := tagged.exif_block("<", 6))
    (tmp_path / "a.jpg").write_bytes(tagged.jpeg(tagged.segment(0xE1, b"Exif\0\0" + content)))
    # Also from AVIF to AVIF, where Pillow would serialize the block again.
    colorized(colorized(tmp_path / "a.jpg", tmp_path / "b.avif"), tmp_path / "c.avif")
    with Image.open(tmp_path / "c.avif") as image:
        assert image.size == SIZE
        found = tagged.directories(image.info["exif"].removeprefix(b"Exif\0\0"))
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert found.keys() == {key for key in wanted if key[0] != "thumbnail"} - {("main", 274)}
    for key in (("Exif", tagged.MAKER_NOTE), ("Exif", 37510), ("main", 270), ("GPS", 28)):
        assert found[key] == wanted[key]


def test_subject_area_is_rotated_after_a_rotating_decoder():
    """pillow-heif returns upright pictures with their original orientation."""
    image = Image.new("L", SIZE)
    content = with_details("<", tagged.value("<", 37396, 3, 10, 20, 8, 4))
    image.info = {STORED: Metadata(exif=content), "original_orientation": 6}
    found = described(image, 1, SIZE)
    assert tagged.directories(found.exif)["Exif", 37396][2] == struct.pack("<4H", 11, 10, 4, 8)


def test_avif_rotated_by_its_container_is_upright(tmp_path):
    source = Image.fromarray(tagged.GRAY).convert("RGB")
    source.save(tmp_path / "a.avif", exif=block("<", tagged.value("<", 274, 3, 6), tagged.text(271, "Canon")))
    with Image.open(colorized(tmp_path / "a.avif", tmp_path / "b.avif")) as image:
        assert image.size == SIZE
        assert dict(image.getexif()) == {271: "Canon"}
