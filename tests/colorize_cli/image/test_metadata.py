"""Metadata that is still valid is kept in the output byte by byte."""

import io
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from colorize_cli.compose import compose
from colorize_cli.image import containers, exif, metadata, reader, writer
from tests.helpers import tagged
from tests.helpers.pictures import colorized

LIMIT = 1_000_000
PICTURES = {f"{picture.name}{picture.suffix}": picture for picture in tagged.pictures()}
# Tags of TIFF 6.0 for the storage of pixels, and blocks that are compared separately.
STORAGE = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 531, 700, 33723, 34377, 34675}
EXIFTOOL, EXIV2 = shutil.which("exiftool"), shutil.which("exiv2")
needs_exiftool = pytest.mark.skipif(EXIFTOOL is None, reason="no ExifTool is installed")
needs_exiv2 = pytest.mark.skipif(EXIV2 is None, reason="no Exiv2 is installed")


def changes(order: str, orientation: int) -> dict[tuple[str, int], bytes]:
    """Return the tags that change, with their new values."""

    def short(*numbers: int) -> bytes:
        return struct.pack(f"{order}{len(numbers)}H", *numbers)

    found = {
        ("main", 274): short(1),
        ("Exif", 37121): b"\1\2\3\0",  # components: Y, Cb, Cr
        ("Exif", 40961): short(1),  # sRGB
        ("Interop", 1): b"R98\0",  # sRGB
    }
    if orientation >= 5:
        found |= {
            ("main", 282): struct.pack(order + "II", 150, 1),
            ("main", 283): struct.pack(order + "II", 3000000, 10000),
            ("Exif", 40962): short(tagged.HEIGHT),
            ("Exif", 40963): struct.pack(order + "I", tagged.WIDTH),
            ("Exif", 41486): struct.pack(order + "II", 2000, 1),
            ("Exif", 41487): struct.pack(order + "II", 3000, 1),
        }
    # The subject at (10, 20), 8 by 4 pixels, in a picture of 48 by 32.
    subjects = {3: (37, 11, 8, 4), 5: (20, 10, 4, 8), 6: (11, 10, 4, 8), 8: (20, 37, 4, 8)}
    if orientation in subjects:
        found["Exif", 37396] = short(*subjects[orientation])
    return found


def check_exif(before: bytes, after: bytes, orientation: int, *, same_offsets: bool) -> None:
    order = "<" if before[:2] == b"II" else ">"
    assert after[:2] == before[:2]
    wanted = {
        name: found
        for name, found in tagged.directories(before).items()
        if name[0] != "thumbnail" and name[1] not in STORAGE
    }
    found = {
        name: got
        for name, got in tagged.directories(after).items()
        if name[0] != "thumbnail" and name[1] not in STORAGE
    }
    assert found.keys() - {("main", 296)} == wanted.keys() - {("main", 296)}
    for name, (kind, offset, data) in wanted.items():
        assert found[name][0] == kind, name
        assert found[name][2] == changes(order, orientation).get(name, data), name
        # Offsets in maker notes count from the start of the block.
        moved = name[1] in (282, 283, 41486, 41487) and orientation >= 5
        if (same_offsets and not moved) or name == ("Exif", tagged.MAKER_NOTE):
            assert found[name][1] == offset, name


def test_pictures_are_at_least_forty():
    assert len(PICTURES) >= 40


@pytest.mark.parametrize("name", PICTURES)
def test_metadata_that_still_holds_keeps_its_bytes(tmp_path, name):
    picture = PICTURES[name]
    source = picture.write(tmp_path)
    (tmp_path / "out").mkdir()
    output = colorized(source, tmp_path / "out" / source.name)
    with Image.open(output) as image:
        turned = picture.orientation >= 5
        size = (tagged.HEIGHT, tagged.WIDTH) if turned else (tagged.WIDTH, tagged.HEIGHT)
        assert image.size == size

    order = "big" if name.startswith(("mm", "early")) else "little"
    before = tagged.exif_of(source) if picture.exif is None else picture.exif
    check_exif(before, tagged.exif_of(output), picture.orientation, same_offsets=picture.exif is not None)
    note = tagged.POINTER if picture.extended else ""
    assert tagged.xmp_of(output) == tagged.expected_packet(picture.orientation, note)
    assert tagged.iptc_of(output) == picture.iptc

    # The thumbnail shows the output.
    second = {
        name[1]: found
        for name, found in tagged.directories(tagged.exif_of(output)).items()
        if name[0] == "thumbnail"
    }
    if picture.suffix == ".jpg" and name != "large.jpg":  # its segment has no room left
        start, length = (int.from_bytes(second[tag][2], order) for tag in (513, 514))
        with Image.open(io.BytesIO(tagged.exif_of(output)[start : start + length])) as image:
            assert image.size == size
            assert np.ptp(np.asarray(image), axis=2).mean() > 5, "it is in color"
    else:
        assert not second

    resources = tagged.resources_of(output)
    if picture.suffix in (".jpg", ".png", ".tif"):
        kept = {0x03ED, 0x0404, tagged.COPYRIGHT, 0x040B} | (
            {tagged.PATHS} if picture.orientation == 1 else set()
        )
        assert resources.keys() == kept
        assert resources[0x040B] == "http://example.org/größe".encode("latin-1")
        resolution = struct.unpack(">IHHIHH", resources[0x03ED])
        assert resolution[::3] == ((150 << 16, 300 << 16) if turned else (300 << 16, 150 << 16))


def test_comments_and_texts_keep_their_bytes(tmp_path):
    source = PICTURES["ii1.jpg"].write(tmp_path)
    with source.open("r+b") as file:
        content = file.read()
        file.seek(2)
        file.write(
            tagged.segment(0xFE, b"another")
            + tagged.segment(0xEC, b"[picture info]\r\nID=1\r\n")
            + content[2:]
        )
    output = colorized(source, tmp_path / "out.jpg").read_bytes()
    found = tagged.segments_of(output)
    assert [data for marker, data in found if marker == 0xFE] == [b"another", "größte".encode()]
    assert (0xEC, b"[picture info]\r\nID=1\r\n") in found

    png = tagged.png(
        title := tagged.chunk(b"iTXt", b"Title\0\0\0de\0Titel\0" + "Großmutter".encode()),
        again := tagged.chunk(b"iTXt", b"Title\0\0\0en\0\0Grandmother"),
        plain := tagged.chunk(b"tEXt", b"Author\0" + "Müller".encode("latin-1")),
        packed := tagged.chunk(b"zTXt", b"Source\0\0\x78\x9c\x03\x00\x00\x00\x00\x01"),
    )
    (tmp_path / "a.png").write_bytes(png)
    output = colorized(tmp_path / "a.png", tmp_path / "out.png").read_bytes()
    assert all(chunk in output for chunk in (title, again, plain, packed))


def test_extended_xmp_is_written_again(tmp_path):
    output = colorized(PICTURES["extended.jpg"].write(tmp_path), tmp_path / "out.jpg").read_bytes()
    prefix = b"http://ns.adobe.com/xmp/extension/\0"
    parts = [
        data for marker, data in tagged.segments_of(output) if marker == 0xE1 and data.startswith(prefix)
    ]
    head = len(prefix) + 32 + 8
    assert {data[len(prefix) : len(prefix) + 32].decode() for data in parts} == {tagged.EXTENDED_NAME}
    assert b"".join(data[head:] for data in parts) == tagged.EXTENDED


def test_extended_xmp_with_a_missing_part_is_unlinked(tmp_path):
    packet = tagged.packet(1, tagged.POINTER)
    xmp = tagged.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)
    (tmp_path / "a.jpg").write_bytes(tagged.jpeg(xmp, *tagged.extension_segments()[1:]))
    output = colorized(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert tagged.xmp_of(output) == tagged.expected_packet(1)
    assert b"xmp/extension" not in output.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jp2"])
def test_other_format_keeps_the_same_bytes(tmp_path, suffix):
    picture = PICTURES["mm6.jpg"]
    output = colorized(picture.write(tmp_path), tmp_path / f"out{suffix}")
    check_exif(picture.exif, tagged.exif_of(output), 6, same_offsets=True)
    assert tagged.xmp_of(output) == tagged.expected_packet(6)
    assert tagged.iptc_of(output) == (b"" if suffix == ".webp" else tagged.IPTC)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jp2", ".avif"])
def test_other_format_gets_extended_xmp_in_one_packet(tmp_path, suffix):
    output = colorized(PICTURES["extended.jpg"].write(tmp_path), tmp_path / f"out{suffix}")
    if suffix == ".avif":
        with Image.open(output) as image:
            packet = image.info["xmp"]
    else:
        packet = tagged.xmp_of(output)
    description = re.search(b"<rdf:Description.*</rdf:Description>", tagged.EXTENDED)[0].partition(b" ")[2]
    assert description in packet
    assert b"HasExtendedXMP=" not in packet
    assert 'photoshop:City="Görlitz"'.encode() in packet


def test_xmp_longer_than_a_jpeg_segment_is_extended(tmp_path):
    long = tagged.packet(1).replace(b"xmp:Rating", b'xmp:Label="' + b"a label " * 10000 + b'"\n   xmp:Rating')
    (tmp_path / "a.png").write_bytes(tagged.png(tagged.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + long)))
    output = colorized(tmp_path / "a.png", tmp_path / "b.jpg")
    # Read again, and written as one packet.
    again = tagged.xmp_of(colorized(output, tmp_path / "c.png"))
    assert b"a label " * 10000 in again
    assert "Görlitz".encode() in again
    assert b"HasExtendedXMP=" not in again


def test_xmp_format_is_that_of_the_output(tmp_path):
    packet = tagged.packet(1).replace(b"<dc:title>", b"<dc:format>image/png</dc:format><dc:title>")
    (tmp_path / "a.png").write_bytes(
        tagged.png(tagged.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    )
    assert b"<dc:format>image/png<" in tagged.xmp_of(colorized(tmp_path / "a.png", tmp_path / "b.png"))
    assert b"<dc:format>image/jpeg<" in tagged.xmp_of(colorized(tmp_path / "a.png", tmp_path / "b.jpg"))


def test_blocks_within_exif_move_to_the_places_of_the_format(tmp_path):
    extra = ((700, 1, tagged.packet(6)), (33723, 7, tagged.IPTC), (34377, 1, tagged.photoshop(tagged.IPTC)))
    block = tagged.exif_block("<", 6, extra=extra)
    (tmp_path / "a.png").write_bytes(tagged.png(tagged.chunk(b"eXIf", block)))
    output = colorized(tmp_path / "a.png", tmp_path / "b.jpg")
    assert tagged.xmp_of(output) == tagged.expected_packet(6)
    assert tagged.iptc_of(output) == tagged.IPTC
    assert tagged.COPYRIGHT in tagged.resources_of(output)
    assert not {("main", tag) for tag, *_ in extra} & tagged.directories(tagged.exif_of(output)).keys()


def test_later_pages_keep_their_exif(tmp_path):
    frame = reader.read(PICTURES["mm6.tif"].write(tmp_path), LIMIT)
    colors = compose(frame.lightness, np.ones((2, 3, 5), np.float32))
    writer.write(tmp_path / "a.tif", [(frame, colors), (frame, colors)])
    content = (tmp_path / "a.tif").read_bytes()
    first = tagged.directories(content)
    (start,) = struct.unpack_from(">I", content, 4)
    (entries,) = struct.unpack_from(">H", content, start)
    link = content[start + 2 + 12 * entries : start + 6 + 12 * entries]
    second = tagged.directories(content[:4] + link + content[8:])
    kept = [key for key in first if key[0] != "thumbnail" and key[1] != tagged.STRIPS]
    assert len(kept) > 50
    assert {key: first[key][::2] for key in kept} == {key: second[key][::2] for key in kept}


def test_big_endian_bigtiff_gives_its_exif(tmp_path):
    content = tagged.tiff(">", 6, None, None, b"", big=True)
    (tmp_path / "a.tif").write_bytes(content)
    with (tmp_path / "a.tif").open("rb") as file:
        block, _ = exif.from_tiff(file, 0, [])
    before = {key: value for key, value in tagged.directories(content).items() if key[1] not in STORAGE}
    found = tagged.directories(block)
    assert {key: value[::2] for key, value in found.items()} == {
        key: value[::2] for key, value in before.items()
    }


FORMATS = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".jp2": "JPEG2000"}


@pytest.mark.parametrize("suffix", FORMATS)
@given(data=st.data())
def test_damaged_blocks_raise_nothing(suffix, data):
    name = data.draw(st.sampled_from([name for name in PICTURES if name.endswith(suffix)]))
    content = bytearray(PICTURES[name].content)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    image = SimpleNamespace(format=FORMATS[suffix], info={}, tell=lambda: 0)
    found = metadata.valid(containers.read(io.BytesIO(cut), image), 6, (tagged.HEIGHT, tagged.WIDTH))
    for format_ in ("JPEG", "PNG", "WEBP", "AVIF"):
        assert isinstance(metadata.options(found, format_, tagged.thumbnail), dict)
    assert metadata.jpeg2000_boxes(found).count(b"uuid") >= bool(found.exif)


def read_by_exiftool(directory: Path) -> dict[str, dict[str, str]]:
    command = [EXIFTOOL, "-j", "-G1", "-a", "-u", "-s", "-n", "-b", "-q", "-r", str(directory)]
    done = subprocess.run(command, capture_output=True, check=True)
    return {Path(found.pop("SourceFile")).name: found for found in json.loads(done.stdout)}


@needs_exiftool
def test_exiftool_finds_no_other_tags_changed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for picture in PICTURES.values():
        colorized(source := picture.write(tmp_path / "in"), tmp_path / "out" / source.name)
    before, after = read_by_exiftool(tmp_path / "in"), read_by_exiftool(tmp_path / "out")
    stale = {
        *(
            "IFD0:Orientation",
            "ExifIFD:ComponentsConfiguration",
            "ExifIFD:ColorSpace",
            "InteropIFD:InteropIndex",
        ),
        *("XMP-tiff:Orientation", "XMP-tiff:BitsPerSample", "XMP-exif:ColorSpace"),
        *("XMP-photoshop:ColorMode", "XMP-photoshop:ICCProfileName", "XMP-crs:ConvertToGrayscale"),
        *("Photoshop:PhotoshopQuality", "Photoshop:PhotoshopFormat", "Photoshop:PhotoshopThumbnail"),
    }
    turned = {
        *(f"{group}:{side}Resolution" for group in ("IFD0", "Photoshop", "XMP-tiff") for side in "XY"),
        *("ExifIFD:FocalPlaneXResolution", "ExifIFD:FocalPlaneYResolution"),
        *(f"{group}:ExifImage{side}" for group in ("ExifIFD", "XMP-exif") for side in ("Width", "Height")),
    }
    groups = re.compile(r"IFD0|ExifIFD|GPS|InteropIFD|Canon|IPTC|Photoshop|XMP-.*|ExifTool")
    gone = re.compile(r"XMP-(GCamera:MotionPhoto.*|hdrgm:.*|Container:.*)")
    storage = re.compile(
        r"IFD0:(Image(Width|Height)|BitsPer.*|Compression|Photo.*|Strip.*|Samples.*|Rows.*|Planar.*|Pred.*)"
    )
    for name, picture in PICTURES.items():
        if "big" in name:  # ExifTool does not read the EXIF directory of a BigTIFF
            continue
        wanted, found = (
            {tag: value for tag, value in tags[name].items() if groups.fullmatch(tag.partition(":")[0])}
            for tags in (before, after)
        )
        for tag in [tag for tag in wanted if gone.fullmatch(tag)]:
            del wanted[tag]
        differing = {tag for tag in wanted.keys() | found.keys() if wanted.get(tag) != found.get(tag)}
        allowed = stale | (turned if picture.orientation >= 5 else set())
        allowed |= {"ExifIFD:SubjectArea", "Photoshop:Photoshop_0x07d0"} if picture.orientation > 1 else set()
        assert {tag for tag in differing - allowed if not storage.fullmatch(tag)} == set(), name
        assert found["Canon:OwnerName"] == "Its owner, Ingeborg Maier"
        assert found["ExifIFD:UserComment"] == "UserComment: Schöne Grüße"
        assert found["IFD0:Orientation"] == 1


@needs_exiv2
@pytest.mark.parametrize("name", ["ii6.jpg", "mm6.png", "ii6.tif", "mm6.webp", "ii6.jp2", "extended.jpg"])
def test_exiv2_reads_the_output_without_an_error(tmp_path, name):
    picture = PICTURES[name]
    output = colorized(picture.write(tmp_path), tmp_path / f"out{picture.suffix}")
    done = subprocess.run([EXIV2, "-pa", str(output)], capture_output=True, check=True)
    assert done.stderr == b""
    found = done.stdout.decode()
    assert "Its owner, Ingeborg Maier" in found
    assert "Großmutter in Görlitz © 1931, 写真" in found
    assert "charset=Unicode UserComment: Schöne Grüße" in found
    assert re.search(r"Exif\.Image\.Orientation +Short +1 +top, left", found)
    assert re.search(r"Xmp\.photoshop\.City +XmpText +\d+ +Görlitz", found)
