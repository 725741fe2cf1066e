"""Gray pictures with rich metadata, made and read without the code under test."""

import hashlib
import io
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
GRAY = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2).astype(np.uint8)
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
# Bytes per value, by type: TIFF 6.0 (1 to 13), BigTIFF (16 to 18), EXIF 3.0 (129, UTF-8).
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
SIZES |= {16: 8, 17: 8, 18: 8}
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
STRIPS, EXIF, GPS, INTEROP, MAKER_NOTE = 273, 34665, 34853, 40965, 37500

Tag = tuple[int, int, bytes]
"""Tag, type, and value in the byte order of the stream."""


def value(order: str, tag: int, kind: int, *numbers: float) -> Tag:
    if kind in (5, 10):
        return tag, kind, struct.pack(f"{order}{len(numbers)}{'I' if kind == 5 else 'i'}", *map(int, numbers))
    return tag, kind, struct.pack(f"{order}{len(numbers)}{LETTERS[kind]}", *numbers)


def text(tag: int, content: str, kind: int = 2) -> Tag:
    return tag, kind, content.encode() + b"\0"


def serialized(order: str, at: int, tags: list[Tag], link: int = 0, big: bool = False) -> bytes:
    """Return a directory at an offset, followed by its values."""
    row, inline, offset = (20, 8, "Q") if big else (12, 4, "I")
    head = struct.calcsize("<Q") if big else 2
    end = at + head + row * len(tags) + inline
    rows, values = b"", b""
    for tag, kind, data in sorted(tags):
        rows += struct.pack(f"{order}HH{offset}", tag, kind, len(data) // SIZES[kind])
        if len(data) <= inline:
            rows += data.ljust(inline, b"\0")
        else:
            rows += struct.pack(order + offset, end + len(values))
            values += data + b"\0" * (len(data) % 2)
    return (
        struct.pack(order + ("Q" if big else "H"), len(tags))
        + rows
        + struct.pack(order + offset, link)
        + values
    )


def canon_note(order: str, at: int) -> bytes:
    """Return a maker note of Canon at offset `at`. Its own offsets count from the start of the EXIF block."""
    return serialized(
        order, at, [text(6, "Canon PowerShot of Großmutter"), text(9, "Its owner, Ingeborg Maier")]
    )


def details(order: str) -> list[Tag]:
    """Return the EXIF directory without pointers: tags of each type, and tags that depend on the picture."""
    comment = "UserComment: Schöne Grüße".encode("utf-16-le" if order == "<" else "utf-16-be")
    return [
        value(order, 33434, 5, 1, 125),
        value(order, 34855, 3, 400),
        (36864, 7, b"0232"),
        text(36867, "1931:05:06 07:08:09"),
        text(36881, "+01:00"),
        (37121, 7, b"\1\0\0\0"),
        value(order, 37377, 10, -3, 2),
        value(order, 37396, 3, 10, 20, 8, 4),
        (37510, 7, b"UNICODE\0" + comment),
        (40960, 7, b"0100"),
        value(order, 40961, 3, 0xFFFF),
        value(order, 40962, 3, WIDTH),
        value(order, 40963, 4, HEIGHT),
        value(order, 41486, 5, 3000, 1),
        value(order, 41487, 5, 2000, 1),
        text(42032, "Ingeborg Maier"),
        value(order, 42034, 5, 24, 1, 70, 1, 28, 10, 4, 1),
        text(42036, "Eine Linse, größer"),
        value(order, 60001, 6, -1, -2, -3, -4, -5),
        value(order, 60002, 8, -300, 300, 5),
        value(order, 60003, 9, -70000, 70000),
        value(order, 60004, 11, 0.1, 0.2),
        value(order, 60005, 12, 1 / 3),
        value(order, 60006, 1, *range(9)),
        value(order, 60007, 4, 1, 2, 3),
    ]


def places(order: str) -> list[Tag]:
    return [
        value(order, 0, 1, 2, 3, 0, 0),
        (1, 2, b"N\0"),
        value(order, 2, 5, 52, 1, 31, 1, 123456789, 10000000),
        (3, 2, b"E\0"),
        value(order, 4, 5, 13, 1, 24, 1, 987654321, 100000000),
        (28, 7, b"UNICODE\0" + "Höhe".encode("utf-16-be")),
    ]


def main_tags(order: str, orientation: int) -> list[Tag]:
    """Return the main directory without pointers."""
    return [
        text(270, "Großmutter in Görlitz © 1931, 写真"),
        text(271, "Canon"),
        text(272, "Canon PowerShot"),
        value(order, 274, 3, orientation),
        value(order, 282, 5, 3000000, 10000),
        value(order, 283, 5, 150, 1),
        value(order, 296, 3, 2),
        text(305, "a scanner"),
        text(306, "1999:01:02 03:04:05"),
        text(315, "Jürgen Müller"),
        value(order, 531, 3, 1),
        text(33432, "© Erben"),
        (40091, 1, "Titel für Windows".encode("utf-16-le") + b"\0\0"),
        value(order, 18246, 3, 5),
        (50341, 7, b"PrintIM\x000300\0\0\0\0\0\0"),
    ]


def thumbnail() -> bytes:
    file = io.BytesIO()
    Image.fromarray(GRAY).resize((16, 12)).save(file, "JPEG")
    return file.getvalue()


def exif_block(order: str, orientation: int, extra: tuple[Tag, ...] = (), thumb_last: bool = True) -> bytes:
    """Make an EXIF block with all directories, a maker note with internal offsets, and a thumbnail."""
    block = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0))
    picture = thumbnail()
    start = len(block)
    if not thumb_last:
        block += picture + b"\0" * (len(picture) % 2)

    def add(tags: list[Tag], link: int = 0) -> int:
        at = len(block)
        block.extend(serialized(order, at, tags, link))
        return at

    note_at = len(block)
    note = canon_note(order, note_at)
    block += note + b"\0" * (len(note) % 2)
    interop = add([(1, 2, b"R03\0"), (2, 7, b"0100")])
    inner = add([*details(order), value(order, INTEROP, 4, interop), (MAKER_NOTE, 7, note)])
    # MakerNote keeps its value, which contains its offset.
    moved = block.rindex(note)
    block[moved : moved + len(note)] = b"\xee" * len(note)
    pattern = struct.pack(order + "HHI", MAKER_NOTE, 7, len(note))
    entry = block.index(pattern, inner)
    block[entry + 8 : entry + 12] = struct.pack(order + "I", note_at)
    gps = add(places(order))
    if thumb_last:
        size = len(
            serialized(order, 0, [value(order, 259, 3, 6)] + [value(order, t, 4, 0) for t in (513, 514)])
        )
        main = [
            *main_tags(order, orientation),
            *extra,
            value(order, EXIF, 4, inner),
            value(order, GPS, 4, gps),
        ]
        length = len(serialized(order, 0, main))
        second = len(block) + length
        start = second + size
        block[4:8] = struct.pack(order + "I", add(main, second))
        add([value(order, 259, 3, 6), value(order, 513, 4, start), value(order, 514, 4, len(picture))])
        block += picture
    else:
        second = add(
            [value(order, 259, 3, 6), value(order, 513, 4, start), value(order, 514, 4, len(picture))]
        )
        main = [
            *main_tags(order, orientation),
            *extra,
            value(order, EXIF, 4, inner),
            value(order, GPS, 4, gps),
        ]
        block[4:8] = struct.pack(order + "I", add(main, second))
    return bytes(block)


def tiff(
    order: str, orientation: int, packet: bytes | None, iptc: Tag | None, resources: bytes, big: bool = False
) -> bytes:
    """Make a gray uncompressed TIFF or BigTIFF."""
    pointer = "Q" if big else "I"
    kind = 16 if big else 4
    file = bytearray(
        struct.pack(order + "2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 0) if big else b""
    )
    file = file or bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0))
    at = len(file)
    note = canon_note(order, at)
    file += note + b"\0" * (len(note) % 2)

    def add(tags: list[Tag]) -> int:
        start = len(file)
        file.extend(serialized(order, start, tags, big=big))
        return start

    def offset(tag: int, to: int) -> Tag:
        return tag, kind, struct.pack(order + pointer, to)

    interop = add([(1, 2, b"R03\0"), (2, 7, b"0100")])
    inner = add([*details(order), offset(INTEROP, interop), (MAKER_NOTE, 7, note)])
    moved = file.rindex(note)
    file[moved : moved + len(note)] = b"\xee" * len(note)
    entry = file.index(struct.pack(f"{order}HH{pointer}", MAKER_NOTE, 7, len(note)), inner)
    row = 12 if big else 8
    file[entry + row : entry + row + struct.calcsize(pointer)] = struct.pack(order + pointer, at)
    gps = add(places(order))
    strip = len(file)
    file += GRAY.tobytes()
    tags = [
        *(tag for tag in main_tags(order, orientation) if tag[0] != 531),
        *(value(order, tag, 3, n) for tag, n in ((256, WIDTH), (257, HEIGHT), (258, 8), (259, 1), (262, 1))),
        *(value(order, tag, 3, n) for tag, n in ((277, 1), (278, HEIGHT))),
        offset(STRIPS, strip),
        value(order, 279, 4, GRAY.size),
        offset(EXIF, inner),
        offset(GPS, gps),
        (34377, 1, resources),
    ]
    tags += [(700, 1, packet)] if packet else []
    tags += [iptc] if iptc else []
    where = add(tags)
    head = 8 if big else 4
    file[head : head + struct.calcsize(pointer)] = struct.pack(order + pointer, where)
    return bytes(file)


def resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


def records(*texts: tuple[int, str]) -> bytes:
    """Make IPTC-IIM records in UTF-8."""
    found = b"\x1c\x01\x5a\0\3\x1b%G"
    for dataset, content in texts:
        encoded = content.encode()
        found += b"\x1c\2" + bytes([dataset]) + struct.pack(">H", len(encoded)) + encoded
    return found


IPTC = records((5, "Großmutter"), (25, "Familie"), (25, "Görlitz"), (120, "Die Großmutter vor ihrem Haus."))
PATHS, COPYRIGHT = 0x07D0, 0x040A


def photoshop(iptc: bytes) -> bytes:
    """Make Photoshop resources: some that stay valid, a resolution, a thumbnail, a path, a JPEG quality."""
    resolution = struct.pack(">IHHIHH", 300 << 16, 1, 1, 150 << 16, 1, 1)
    return b"".join(
        [
            resource(0x03ED, resolution),
            resource(0x0404, iptc),
            resource(0x0406, b"\0\x0c\0\1\0\1\0"),
            resource(COPYRIGHT, b"\1"),
            resource(0x040B, "http://example.org/größe".encode("latin-1")),
            resource(0x040C, struct.pack(">6I2H", 1, 16, 12, 48, 576, len(thumbnail()), 24, 1) + thumbnail()),
            resource(PATHS, bytes(26)),
        ]
    )


def packet(orientation: int, note: str = "") -> bytes:
    """Make an XMP packet of a gray picture by Photoshop, Camera Raw and a phone with motion photos."""
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 5.6">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
    xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"
    xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"
    xmlns:Container="http://ns.google.com/photos/1.0/container/"
    xmlns:Item="http://ns.google.com/photos/1.0/container/item/"
    xmlns:xmpNote="http://ns.adobe.com/xmp/note/"
   xmp:CreatorTool='A "tool"'
   xmp:Rating="4"{note}
   tiff:Orientation="{orientation}"
   tiff:XResolution="300/1" tiff:YResolution="150/1"
   exif:PixelXDimension="{WIDTH}"
   exif:PixelYDimension="{HEIGHT}" exif:ColorSpace="65535"
   photoshop:City="Görlitz"
   photoshop:ColorMode="1"
   photoshop:ICCProfile="Dot Gain 20%"
   crs:ConvertToGrayscale="True"
   crs:Version="9.1"
   GCamera:MotionPhoto="1"
   GCamera:MotionPhotoVersion="1"
   GCamera:MotionPhotoPresentationTimestampUs="1234"
   GCamera:SpecialTypeID="a"
   hdrgm:Version="1.0">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Großmutter &amp; Großvater</rdf:li></rdf:Alt></dc:title>
   <dc:creator><rdf:Seq><rdf:li>Jürgen Müller</rdf:li></rdf:Seq></dc:creator>
   <!-- tiff:Orientation="6" in a comment -->
   <tiff:BitsPerSample><rdf:Seq><rdf:li>8</rdf:li></rdf:Seq></tiff:BitsPerSample>
   <Container:Directory><rdf:Seq>
     <rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" \
Item:Semantic="Primary"/></rdf:li>
     <rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="video/mp4" Item:Semantic="MotionPhoto" \
Item:Length="99"/></rdf:li>
   </rdf:Seq></Container:Directory>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
{" " * 40}
<?xpacket end="w"?>""".encode()


def expected_packet(orientation: int, note: str = "") -> bytes:
    """Return the packet that is valid for the picture in color; it lists all changes."""
    wanted = packet(1, note).decode()
    if orientation >= 5:
        wanted = wanted.replace('XResolution="300/1"', 'XResolution="150/1"')
        wanted = wanted.replace('YResolution="150/1"', 'YResolution="300/1"')
        wanted = wanted.replace(f'XDimension="{WIDTH}"', f'XDimension="{HEIGHT}"')
        wanted = wanted.replace(f'YDimension="{HEIGHT}"', f'YDimension="{WIDTH}"')
    wanted = wanted.replace('ColorSpace="65535"', 'ColorSpace="1"').replace('ColorMode="1"', 'ColorMode="3"')
    for gone in (
        r'\s+photoshop:ICCProfile="[^"]*"',
        r'\s+crs:ConvertToGrayscale="True"',
        r'\s+GCamera:MotionPhoto\w*="\d+"',
        r'\s+hdrgm:Version="1.0"',
        r"\s+<tiff:BitsPerSample>.*?</tiff:BitsPerSample>",
        r"\s+<Container:Directory>.*?</Container:Directory>",
    ):
        wanted, times = re.subn(gone, "", wanted, flags=re.DOTALL)
        assert times
    return wanted.encode()


EXTENDED = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" '
    f'GDepth:Format="RangeInverse"><GDepth:Data>{"Größe" * 20000}</GDepth:Data></rdf:Description></rdf:RDF>'
    "</x:xmpmeta>"
).encode()
EXTENDED_NAME = hashlib.md5(EXTENDED, usedforsecurity=False).hexdigest().upper()
POINTER = f'\n   xmpNote:HasExtendedXMP="{EXTENDED_NAME}"'


def extension_segments(content: bytes = EXTENDED, name: str = EXTENDED_NAME) -> list[bytes]:
    return [
        segment(
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\0"
            + name.encode()
            + struct.pack(">II", len(content), start)
            + content[start : start + 60000],
        )
        for start in range(0, len(content), 60000)
    ]


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_profile(name: str, content: bytes) -> bytes:
    """Return a PNG chunk with a block in ImageMagick's text form."""
    lines = "\n".join(re.findall(".{1,72}", content.hex()))
    body = f"\n{name}\n{len(content):8}\n{lines}\n".encode()
    return chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(body))


def encoded(format_: str, **saving) -> bytes:
    file = io.BytesIO()
    Image.fromarray(GRAY).save(file, format_, **saving)
    return file.getvalue()


def jpeg(*segments: bytes) -> bytes:
    plain = encoded("JPEG", quality=95)
    return plain[:2] + b"".join(segments) + plain[2:]


def png(*chunks: bytes) -> bytes:
    plain = encoded("PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def jpeg2000(*boxes: bytes) -> bytes:
    return encoded("JPEG2000") + b"".join(struct.pack(">I4s", 8 + len(box), b"uuid") + box for box in boxes)


def app13(stream: bytes, longest: int = 65000) -> list[bytes]:
    return [
        segment(0xED, b"Photoshop 3.0\0" + stream[start : start + longest])
        for start in range(0, len(stream), longest)
    ]


@dataclass(frozen=True)
class Picture:
    """A picture file and the metadata in it."""

    name: str
    suffix: str
    content: bytes
    orientation: int
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes = IPTC
    extended: bool = False
    expected_xmp: bytes | None = field(default=None)

    def write(self, directory: Path) -> Path:
        path = directory / f"{self.name}{self.suffix}"
        path.write_bytes(self.content)
        return path


def pictures() -> list[Picture]:
    """Return all pictures."""
    found = []
    for order, sign in (("<", "ii"), (">", "mm")):
        for orientation in (1, 3, 5, 6, 8):
            block, words = exif_block(order, orientation), packet(orientation)
            stream = photoshop(IPTC)
            base = Picture("", "", b"", orientation, block, words)
            app1 = segment(0xE1, b"Exif\0\0" + block)
            xmp1 = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + words)
            text_chunk = chunk(b"iTXt", b"Title\0\0\0de\0Titel\0" + "Großmutter".encode())
            xmp_chunk = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + words)
            contents = {
                ".jpg": jpeg(app1, xmp1, *app13(stream), segment(0xFE, "größte".encode())),
                ".png": png(text_chunk, chunk(b"eXIf", block), xmp_chunk, raw_profile("iptc", stream)),
                ".webp": encoded("WEBP", exif=b"Exif\0\0" + block, xmp=words),
                ".jp2": jpeg2000(b"JpgTiffExif->JP2" + block, XMP_UUID + words, IPTC_UUID + IPTC),
            }
            for suffix, content in contents.items():
                iptc = b"" if suffix == ".webp" else IPTC
                found.append(
                    replace(base, name=f"{sign}{orientation}", suffix=suffix, content=content, iptc=iptc)
                )
        for orientation in (1, 6):
            padded = IPTC + bytes(-len(IPTC) % 4)
            for big in (False, True):
                if big and order == ">":
                    continue
                content = tiff(
                    order, orientation, packet(orientation), (33723, 4, padded), photoshop(IPTC), big=big
                )
                name = f"{sign}{orientation}{'big' if big else ''}"
                found.append(Picture(name, ".tif", content, orientation, None, packet(orientation), padded))
    return found + special_pictures()


def special_pictures() -> list[Picture]:
    """Return pictures with metadata in unusual places."""
    block, words, turned = exif_block("<", 6), packet(6), 6
    app1 = segment(0xE1, b"Exif\0\0" + block)
    long_iptc = IPTC + records((120, "lang" * 5000), (116, "länger" * 4000), (122, "x" * 30000))[8:]
    extended = packet(turned, POINTER)
    extended_segment = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + extended)
    large = exif_block("<", 6, extra=((60010, 7, bytes(range(256)) * 300),))
    parts = [large[:65000], large[65000:]]
    early = exif_block(">", 6, thumb_last=False)
    base = Picture("", ".jpg", b"", turned, block, words)
    xmp1 = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + words)
    return [
        replace(
            base,
            name="extended",
            content=jpeg(app1, extended_segment, *extension_segments(), *app13(photoshop(IPTC))),
            xmp=extended,
            extended=True,
        ),
        replace(
            base, name="split iptc", content=jpeg(app1, xmp1, *app13(photoshop(long_iptc))), iptc=long_iptc
        ),
        replace(
            base,
            name="large",
            content=jpeg(
                *(segment(0xE1, b"Exif\0\0" + part) for part in parts), xmp1, *app13(photoshop(IPTC))
            ),
            exif=large,
        ),
        replace(
            base,
            name="early thumbnail",
            content=jpeg(segment(0xE1, b"Exif\0\0" + early), xmp1, *app13(photoshop(IPTC))),
            exif=early,
        ),
        replace(
            base,
            name="raw exif",
            suffix=".png",
            content=png(
                raw_profile("exif", b"Exif\0\0" + block),
                raw_profile("xmp", words),
                raw_profile("iptc", photoshop(IPTC)),
            ),
        ),
        replace(
            base,
            name="raw app1",
            suffix=".png",
            content=png(
                raw_profile("APP1", b"Exif\0\0" + block),
                raw_profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + words),
                raw_profile("8bim", photoshop(IPTC)),
            ),
        ),
    ]


def directories(content: bytes) -> dict[tuple[str, int], tuple[int, int, bytes]]:
    """Return type, offset and bytes of all tags by directory and number; offset 0 if within the entry."""
    order = {b"II": "<", b"MM": ">"}[content[:2]]
    big = struct.unpack_from(order + "H", content, 2) == (43,)
    row, inline, offset = (20, 8, "Q") if big else (12, 4, "I")
    found: dict[tuple[str, int], tuple[int, int, bytes]] = {}

    def read(name: str, at: int) -> int:
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
        at += 8 if big else 2
        for entry in range(at, at + row * count, row):
            tag, kind, number = struct.unpack_from(f"{order}HH{offset}", content, entry)
            length = SIZES[kind] * number
            start = entry + row - inline
            if length > inline:
                (start,) = struct.unpack_from(order + offset, content, start)
            data = content[start : start + length]
            if tag in (EXIF, GPS, INTEROP):
                read(
                    {EXIF: "Exif", GPS: "GPS", INTEROP: "Interop"}[tag],
                    int.from_bytes(data, "little" if order == "<" else "big"),
                )
            else:
                found[name, tag] = kind, start if length > inline else 0, data
        return struct.unpack_from(order + offset, content, at + row * count)[0]

    link = read("main", struct.unpack_from(order + offset, content, 8 if big else 4)[0])
    if link:
        read("thumbnail", link)
    return found


def segments_of(content: bytes) -> list[tuple[int, bytes]]:
    """Return marker and data of the segments of a JPEG before its samples."""
    found, at = [], 2
    while content[at + 1] != 0xDA:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        found.append((content[at + 1], content[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def joined_segments(content: bytes, marker: int, prefix: bytes) -> bytes:
    return b"".join(
        data.removeprefix(prefix)
        for kind, data in segments_of(content)
        if kind == marker and data.startswith(prefix)
    )


def exif_of(path: Path) -> bytes:
    """Return the stream that holds the EXIF of a picture; for a TIFF, the file."""
    content = path.read_bytes()
    if path.suffix == ".jpg":
        return joined_segments(content, 0xE1, b"Exif\0\0")
    if path.suffix == ".jp2":
        return content.partition(b"JpgTiffExif->JP2")[2]
    if path.suffix == ".tif":
        return content
    with Image.open(path) as image:
        image.load()
        return image.info["exif"].removeprefix(b"Exif\0\0")


def xmp_of(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".jpg":
        return joined_segments(content, 0xE1, b"http://ns.adobe.com/xap/1.0/\0")
    if path.suffix == ".jp2":
        at = content.index(XMP_UUID)
        return content[at + 16 : at - 8 + int.from_bytes(content[at - 8 : at - 4], "big")]
    if path.suffix == ".tif":
        return directories(content)["main", 700][2]
    with Image.open(path) as image:
        image.load()
        return image.info["xmp"]


def resources_of(path: Path) -> dict[int, bytes]:
    """Return Photoshop's resources by number."""
    stream = b""
    if path.suffix == ".jpg":
        stream = joined_segments(path.read_bytes(), 0xED, b"Photoshop 3.0\0")
    elif path.suffix == ".tif":
        stream = directories(path.read_bytes())["main", 34377][2]
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            stream = bytes.fromhex("".join(image.text["Raw profile type iptc"].split()[2:]))
    found = {}
    while stream:
        number, _, length = struct.unpack_from(">HHI", stream, 4)
        found[number] = stream[12 : 12 + length]
        stream = stream[12 + length + length % 2 :]
    return found


def iptc_of(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".tif":
        return directories(content)["main", 33723][2]
    if path.suffix == ".jp2":
        at = content.index(IPTC_UUID)
        return content[at + 16 : at - 8 + int.from_bytes(content[at - 8 : at - 4], "big")]
    return resources_of(path).get(0x0404, b"")
