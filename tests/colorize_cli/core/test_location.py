from pathlib import Path

import pytest

from colorize_cli.core.location import Url, parse_location, redacted


@pytest.mark.parametrize(
    ("text", "shown", "name", "suffix"),
    [
        ("s3://bucket/in/a.jpg", "s3://bucket/in/a.jpg", "a.jpg", ".jpg"),
        ("s3://bucket/in/", "s3://bucket/in/", "in", ""),
        ("s3://bucket/a?b#c %2F.jpg", "s3://bucket/a?b#c %2F.jpg", "a?b#c %2F.jpg", ".jpg"),
        (
            "s3://bucket/a.jpg?X-Amz-Signature=hush",
            "s3://bucket/a.jpg",
            "a.jpg?X-Amz-Signature=hush",
            ".jpg?X-Amz-Signature=hush",
        ),
        ("https://host/a%20b.jpg?token=hush#hush", "https://host/a%20b.jpg", "a b.jpg", ".jpg"),
        ("https://host/a b.jpg?token=hush hush", "https://host/a b.jpg", "a b.jpg", ".jpg"),
        ("https://hush:hush@host:80/a.jpg", "https://host:80/a.jpg", "a.jpg", ".jpg"),
        ("https://hush@host/@me/a.jpg", "https://host/@me/a.jpg", "a.jpg", ".jpg"),
        ("https://user:hush/hush@host/a.jpg", "https://host/a.jpg", "a.jpg", ".jpg"),
        ("http://[::1]:80/a.jpg?hush", "http://[::1]:80/a.jpg", "a.jpg", ".jpg"),
        ("https://host?hush", "https://host", "", ""),
        ("https://host/..%2F..%2Fa.jpg", "https://host/..%2F..%2Fa.jpg", "a.jpg", ".jpg"),
        ("sftp://me:hush@host/a.jpg", "sftp://host/a.jpg", "a.jpg", ".jpg"),
        ("abfs://container@account/a.jpg", "abfs://container@account/a.jpg", "a.jpg", ".jpg"),
        ("zip://in/a.jpg::https://u:hush@h/x.zip?hush", "zip://in/a.jpg::https://h/x.zip", "a.jpg", ".jpg"),
        ("filecache::s3://b/a.jpg", "filecache::s3://b/a.jpg", "a.jpg", ".jpg"),
    ],
)
def test_url_text_and_name_hide_secrets(text, shown, name, suffix):
    url = parse_location(text)
    assert isinstance(url, Url)
    assert (str(url), url.name, url.suffix) == (shown, name, suffix)
    assert "hush" not in repr(url)


def test_parse_location_of_paths_and_file_urls_is_a_path():
    for text in ("a.jpg", "s3:a", "s3:/a", "./s3://a", "/x/s3://a", "C:\\a.jpg", "C://a.jpg", "-", "1s3://a"):
        assert parse_location(text) == Path(text)
    assert parse_location("file:///a/b%20c.jpg") == Path("/a/b%20c.jpg")
    assert parse_location("local://a.jpg") == Path("a.jpg")


@pytest.mark.parametrize(
    ("text", "levels", "above", "below"),
    [
        ("s3://b/in/", 1, "s3://b", "s3://b/in/x/y.jpg"),
        ("zip://in/a::s3://b/x.zip", 1, "zip://in::s3://b/x.zip", "zip://in/a/x/y.jpg::s3://b/x.zip"),
        ("filecache::s3://b/c/d", 2, "filecache::s3://b", "filecache::s3://b/c/d/x/y.jpg"),
    ],
)
def test_url_above_and_below_follow_the_path(text, levels, above, below):
    assert Url(text).above(levels) == Url(above)
    assert Url(text) / "x/y.jpg" == Url(below)


def test_redacted_removes_secrets_from_texts():
    text = (
        "403, url='https://h/a?X-Amz-Signature=hush', ftp://u:hush@h/x (zip://a::https://h/b?hush s3://b/a?c"
    )
    assert redacted(text) == "403, url='https://h/a', ftp://h/x (zip://a::https://h/b s3://b/a?c"
    assert redacted("Forbidden: GET /a?token=hush HTTP/1.1, really?") == "Forbidden: GET /a HTTP/1.1, really?"
