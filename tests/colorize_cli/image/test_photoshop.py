"""Photoshop resources. `test_metadata` has complete pictures."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colorize_cli.image import photoshop
from tests.helpers import tagged

NAMED = b"MeSa\x03\xea\x05a pas" + struct.pack(">I", 3) + b"xyz\0"


def test_other_and_named_resources_keep_their_bytes():
    stream = tagged.resource(0x0404, tagged.IPTC) + NAMED + tagged.resource(tagged.COPYRIGHT, b"\1")
    assert photoshop.patched(stream, 6) == stream


def test_paths_guides_and_slices_are_removed_by_rotation_only():
    stream = b"".join(tagged.resource(number, b"1234") for number in (0x07D0, 0x0408, 0x041A, 0x0BB7))
    assert photoshop.patched(stream, 1) == stream
    assert photoshop.patched(stream, 2) == b""


def test_iptc_in_two_resources_is_joined():
    first, second = tagged.records((5, "Großmutter")), tagged.records((25, "Görlitz"))[8:]
    stream = tagged.resource(0x0404, first) + NAMED + tagged.resource(0x0404, second)
    assert photoshop.iptc_of(stream) == first + second
    assert photoshop.with_iptc(stream, first + second) == stream


def test_iptc_is_added_if_absent():
    assert photoshop.with_iptc(NAMED, tagged.IPTC) == tagged.resource(0x0404, tagged.IPTC) + NAMED
    assert photoshop.with_iptc(b"", b"") == b""


@pytest.mark.parametrize("kept", [12, 40, 60])
def test_truncated_resource_keeps_its_rest(kept):
    cut = tagged.resource(0x0404, tagged.IPTC)[:kept]
    assert photoshop.iptc_of(photoshop.patched(cut, 1)) == tagged.IPTC[: kept - 12]


def test_iptc_longs_in_the_other_byte_order_are_swapped():
    padded = tagged.IPTC + bytes(-len(tagged.IPTC) % 4)
    swapped = b"".join(padded[at : at + 4][::-1] for at in range(0, len(padded), 4))
    assert photoshop.from_longs(swapped) == padded
    assert photoshop.from_longs(padded) == padded


@given(st.binary(max_size=60))
def test_damaged_resources_raise_nothing(tail):
    for stream in (tail, b"8BIM" + tail, tagged.photoshop(tagged.IPTC)[: 100 + len(tail)] + tail):
        assert photoshop.iptc_of(photoshop.patched(stream, 6)) == photoshop.iptc_of(stream)
