"""Which files are read and written for the path of a video: that file and nothing else."""

import io
import socket
import threading
from pathlib import Path

import pytest

from colorize_cli.video import files
from tests.helpers.cli import invoke
from tests.helpers.videos import Recipe, look, make

FAST = {"codec": "ffv1", "options": {}}


@pytest.fixture
def visits():
    """Listen on a loopback port; yields the port and a list that grows with each connection."""
    found: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    continue
                found.append(address)
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], found
        ended.set()
        thread.join()


NAMES = (
    "10:30.mkv",
    "http:127.0.0.1:{port}?x.mkv",
    "file:a.mkv",
    "concat:a.mkv|a.mkv",
    "subfile,,start,0,end,900,,:a.mkv",
    "pipe:0.mkv",
    "data:,x.mkv",
    "a%03d.mkv",
)


def test_names_like_addresses_are_names_of_files(models, tmp_path, monkeypatch, visits):
    port, found = visits
    monkeypatch.chdir(tmp_path)
    make(Path("a.mkv"), Recipe(frames=2, **FAST))
    Path("in").mkdir()
    names = [name.format(port=port) for name in NAMES]
    for number, name in enumerate(names):
        make(tmp_path / "b.mkv", Recipe(frames=3 + number, **FAST)).rename(Path("in", name))
    Path("in", names[0]).with_name(names[0]).replace(names[0])  # one lies in the working directory
    options = ("--model", models.tinted, "--device", "cpu", "--codec", "ffv1")
    result = invoke("in", names[0], "out", *options)
    assert (result.exit_code, f"{len(names)} done" in result.stderr) == (0, True), result.output
    for number, name in enumerate(names):
        assert len(look(tmp_path / "out" / name).times) == 3 + number
    result = invoke("in/file:a.mkv", "file:c.mkv", *options)
    assert result.exit_code == 0, result.output
    assert len(look(tmp_path / "file:c.mkv").times) == 3 + names.index("file:a.mkv")
    assert not Path("c.mkv").exists()
    assert found == []


SCRIPTS = {
    "concat.mp4": "ffconcat version 1.0\nfile {path}\n",
    "concat-http.mkv": "ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.mkv\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
    "live.ts": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{port}/a.ts\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1"'
    ' bandwidth="1"><BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "rtsp.mov": "RTSPtextrtsp://127.0.0.1:{port}/a\n",
    "image.avi": "P5\n16 16\n255\n" + "x" * 256,
    "sub.mpg": "1\n00:00:00,100 --> 00:00:00,400\nHello\n",
}


def test_scripts_named_as_videos_are_refused(models, tmp_path, visits):
    port, found = visits
    secret = make(tmp_path / "secret.mkv", Recipe(frames=2, **FAST))
    (tmp_path / "in").mkdir()
    for name, script in SCRIPTS.items():
        (tmp_path / "in" / name).write_text(script.format(path=secret, port=port))
    result = invoke(tmp_path / "in", tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 1
    assert f"{len(SCRIPTS)} failed" in result.stderr
    for name in SCRIPTS:
        assert f"{name}: not a video in one of the supported formats" in result.stderr or (
            f"{name}: damaged, or not a video: its header or index cannot be read" in result.stderr
        )
        assert not (tmp_path / "out" / name).exists()
    assert found == []


@pytest.mark.parametrize(
    "head",
    [b"\0\0\0\1mdat" + b"\xff" * 8, b"\x18\x53\x80\x67\x01" + b"\xff" * 6 + b"\xfe", b"\0\0\1\xba" * 9],
)
def test_stated_size_of_a_hostile_header_is_a_number(head):
    assert files.stated_size(io.BytesIO(head + bytes(100))) > 0
