"""XMP in its many spellings. `test_metadata` has that of whole pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colorize_cli.image import xmp
from tests.colorize_cli.image import rich

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
def test_what_no_longer_holds_is_changed_in_any_spelling(before, after):
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
def test_comments_and_what_is_said_of_other_pictures_stay(elements):
    content = packet(' xmp:Rating="4"', elements)
    assert xmp.orientation_of(content) is None
    assert patched(content) == content


def test_looks_of_camera_raw_are_no_longer_gray():
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
def test_a_packet_that_is_not_well_formed_stays(content):
    assert xmp.patched(content, None, 6, SIZE) == (content, None)


def test_bytes_that_are_not_utf8_stay():
    content = packet(" xmp:Label='6'").replace(b"'6'", b"'\xe4\xff'")
    assert patched(content) == content


@given(st.data())
def test_a_damaged_packet_raises_nothing(data):
    content = bytearray(rich.packet(6, rich.POINTER))
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.sampled_from(b"<>/\"'= :&!-?\x00\xffa")
        )
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    xmp.orientation_of(cut)
    xmp.extension_of(cut)
    xmp.patched(cut, cut, 6, SIZE)
    xmp.merged(cut, rich.EXTENDED[:1000])


def test_prefixes_of_an_extended_packet_are_declared_after_the_merge():
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
