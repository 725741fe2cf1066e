"""XMP in different serializations. `test_metadata` has complete pictures."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colorize_cli.image import reader, xmp
from tests.helpers import tagged

SIZE = (32, 48)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = (
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" '
    'xmlns:p="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"'
)


def packet(attributes: str, elements: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" {NAMESPACES}{attributes}>{elements}</rdf:Description></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()


def patched(content: bytes) -> bytes:
    return xmp.patched(content, None, xmp.orientation_of(content) or 1, SIZE)[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((" tiff:Orientation='6'", ""), (" tiff:Orientation='1'", "")),
        (('\n\ttiff:Orientation = "8"', ""), ('\n\ttiff:Orientation = "1"', "")),
        (("", "<tiff:Orientation>3</tiff:Orientation>"), ("", "<tiff:Orientation>1</tiff:Orientation>")),
        (("", "<tiff:Orientation>\n6 </tiff:Orientation>"), ("", "<tiff:Orientation>1</tiff:Orientation>")),
        ((' p:ColorMode="1" p:City="Ä"', ""), (' p:ColorMode="3" p:City="Ä"', "")),
        (('\n p:ICCProfile="Dot Gain 20%"\n p:City="Ä"', ""), ('\n p:City="Ä"', "")),
        (("", " <p:ICCProfile>Gray</p:ICCProfile> <p:City/>"), ("", " <p:City/>")),
        (("", "<tiff:BitsPerSample><rdf:Seq><rdf:li>8</rdf:li></rdf:Seq></tiff:BitsPerSample>"), ("", "")),
        ((' crs:ConvertToGrayscale="True"', ""), ("", "")),
        ((' xmp:Label="a &gt; b > c"', "<xmp:Thumbnails/>"), (' xmp:Label="a &gt; b > c"', "")),
    ],
    ids=str,
)
def test_stale_properties_are_changed_in_any_spelling(before, after):
    assert patched(packet(*before)) == packet(*after)


@pytest.mark.parametrize(
    "elements",
    [
        '<!-- <tiff:Orientation>6</tiff:Orientation> p:ColorMode="1" -->',
        "<![CDATA[<p:ColorMode>1</p:ColorMode>]]>",
        '<xmpMM:Pantry><rdf:Bag><rdf:li><rdf:Description p:ColorMode="1">'
        "<tiff:Orientation>6</tiff:Orientation></rdf:Description></rdf:li></rdf:Bag></xmpMM:Pantry>",
        '<xmp:Label xmlns:p="http://example.org/">x<p:ColorMode>1</p:ColorMode></xmp:Label>',
        '<other:ColorMode xmlns:other="http://example.org/">1</other:ColorMode>',
    ],
)
def test_comments_and_foreign_properties_are_kept(elements):
    content = packet(' xmp:Rating="4"', elements)
    assert xmp.orientation_of(content) is None
    assert patched(content) == content


def test_camera_raw_looks_are_no_longer_gray():
    look = (
        '<crs:Look><rdf:Description crs:Name="Adobe Monochrome"><crs:Parameters>'
        '<rdf:Description crs:Version="9"{}/>'
    )
    end = "</crs:Parameters></rdf:Description></crs:Look>"
    before = packet("", look.format(' crs:ConvertToGrayscale="True"') + end)
    assert patched(before) == packet("", look.format("") + end)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe<\0x\0", b"no XML", b"<x", b"<x a='>", b"</x></y>", b"<a><b></a>"]
)
def test_malformed_packet_is_kept(content):
    assert xmp.patched(content, None, 6, SIZE) == (content, None)


def test_bytes_that_are_not_utf8_are_kept():
    content = packet(" xmp:Label='6'").replace(b"'6'", b"'\xe4\xff'")
    assert patched(content) == content


@given(st.data())
def test_damaged_packet_raises_nothing(data):
    content = bytearray(tagged.packet(6, tagged.POINTER))
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.sampled_from(b"<>/\"'= :&!-?\x00\xffa")
        )
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    assert xmp.orientation_of(cut) in (None, *range(1, 9))
    xmp.extension_of(cut)
    changed, extended = xmp.patched(cut, cut, 6, SIZE)
    assert xmp.orientation_of(changed) in (None, 1)
    assert xmp.orientation_of(extended) in (None, 1)
    assert xmp.merged(cut, tagged.EXTENDED[:1000])[:10] == cut[:10]


def test_merged_packet_declares_the_prefixes():
    outer = 'xmlns:q="http://example.org/q" xmlns:xmp="http://example.org/not"'
    extended = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/" {outer}><rdf:RDF xmlns:rdf="{RDF}">'
        '<rdf:Description rdf:about="" q:A="1"/><rdf:Description xmlns:q="http://example.org/r" q:B="2">'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
    merged = xmp.merged(packet(' xmp:Rating="4"'), extended)
    start = packet(' xmp:Rating="4"').partition(b"</rdf:RDF>")[0]
    assert merged.startswith(start)
    assert merged[len(start) :].decode() == (
        f'<rdf:Description {outer} rdf:about="" q:A="1"/>'
        '<rdf:Description xmlns:xmp="http://example.org/not" xmlns:q="http://example.org/r" q:B="2">'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


AREA = "http://ns.adobe.com/xmp/sType/Area#"
REGIONS = (
    '<mwg-rs:Regions xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" '
    f'xmlns:stArea="{AREA}" xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#">'
    '<rdf:Description><mwg-rs:AppliedToDimensions stDim:w="{w}" stDim:h="{h}" stDim:unit="pixel"/>'
    '<mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="Großmutter" mwg-rs:Type="Face">'
    '<mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{width}" stArea:h="{height}"/>'
    "</rdf:Description></rdf:li><rdf:li rdf:parseType='Resource'><mwg-rs:Area rdf:parseType='Resource'>"
    "<stArea:h>{height}</stArea:h><stArea:w>{width}</stArea:w><stArea:x>{x}</stArea:x><stArea:y>{y}</stArea:y>"
    "</mwg-rs:Area></rdf:li></rdf:Bag></mwg-rs:RegionList></rdf:Description></mwg-rs:Regions>"
    '<MP:RegionInfo xmlns:MP="http://ns.microsoft.com/photo/1.2/" '
    'xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"><rdf:Description MPReg:Rectangle="{corner}"/>'
    "</MP:RegionInfo>"
)


@pytest.mark.parametrize(
    ("orientation", "center", "corner"),
    [
        (1, ("0.25", "0.1"), "0.2, 0.05, 0.1, 0.1"),
        (2, ("0.75", "0.1"), "0.7, 0.05, 0.1, 0.1"),
        (3, ("0.75", "0.9"), "0.7, 0.85, 0.1, 0.1"),
        (4, ("0.25", "0.9"), "0.2, 0.85, 0.1, 0.1"),
        (5, ("0.1", "0.25"), "0.05, 0.2, 0.1, 0.1"),
        (6, ("0.9", "0.25"), "0.85, 0.2, 0.1, 0.1"),
        (7, ("0.9", "0.75"), "0.85, 0.7, 0.1, 0.1"),
        (8, ("0.1", "0.75"), "0.05, 0.7, 0.1, 0.1"),
    ],
)
def test_face_regions_rotate_with_the_picture(orientation, center, corner):
    sides = {"w": 48, "h": 32, "width": ".125", "height": "0.2"}
    stored = REGIONS.format(x="0.25", y="0.1", corner="0.2, 0.05, 0.1, 0.1", **sides)
    if orientation >= 5:
        sides = {"w": 32, "h": 48, "width": "0.2", "height": ".125"}
    wanted = REGIONS.format(x=center[0], y=center[1], corner=corner, **sides)
    changed, _ = xmp.patched(packet(' xmp:Rating="4"', stored), None, orientation, SIZE)
    assert changed.decode() == packet(' xmp:Rating="4"', wanted).decode()


def test_unreadable_regions_are_kept():
    stored = REGIONS.format(w="a", h="b", x="1.2.3", y="-", width="", height="", corner="1, 2")
    content = packet("", stored)
    assert xmp.patched(content, None, 6, SIZE) == (content, None)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_packets_of_any_encoding_are_patched(encoding, mark):
    stored = packet(' tiff:Orientation="6" p:City="Ä"').decode()
    data = b"http://ns.adobe.com/xap/1.0/\0" + f"{mark}{stored}".encode(encoding)
    metadata = reader.read(tagged.jpeg(tagged.segment(0xE1, data)), 1_000_000).metadata
    wanted = packet(' tiff:Orientation="1" p:City="Ä"')
    assert (metadata.xmp or b"").removeprefix(codecs.BOM_UTF8) == wanted
