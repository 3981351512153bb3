"""What a source is, and how it is shown."""

import os

import pytest

from evl.errors import ConfigError
from evl.watching.address import parse_source, shown_address


def test_kinds(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "film.ts").write_bytes(b"x")
    for given, kind, name in [
        (0, "camera", "/dev/video0"), ("2", "camera", "/dev/video2"), ("/dev/video1", "camera", "/dev/video1"),
        ("-", "pipe", "-"), (tmp_path / "pipe", "pipe", str(tmp_path / "pipe")),
        (tmp_path, "folder", str(tmp_path)), (tmp_path / "film.ts", "file", str(tmp_path / "film.ts")),
        ("udp://127.0.0.1:9000", "network", "udp://127.0.0.1:9000"),
    ]:  # fmt: skip
        found = parse_source(given)
        assert (found.kind, found.name) == (kind, name)
        assert found.comes_back == found.is_paced == (kind in ("camera", "network"))
    assert parse_source(tmp_path / "film.ts", follow=True).kind == "growing"


def test_nothing_secret_is_shown():
    found = parse_source("rtsp://ann:p%40ss@door:554/1?token=abc#x")
    assert (found.name, found.shown) == ("rtsp://ann:p%40ss@door:554/1?token=abc#x", "rtsp://door:554/1?…")
    assert found.scheme == "rtsp"
    assert shown_address("HTTP://a:b@c@host/x") == "HTTP://host/x"
    for secret in ("gopher://ann:secret@host/", "rtsp://ann:secret@", "http:/ann:secret@host"):
        with pytest.raises(ConfigError) as caught:
            parse_source(secret)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("no/such/file.mp4", "cannot be watched"),
        ("file:///etc/passwd", "may begin with"),
        ("concat://a|b", "may begin with"),
        ("http://host:port/x", "expected http://HOST"),
        ("/dev/null", "neither"),
        (1.5, "type float"),
        (True, "type bool"),
    ],
)
def test_what_is_no_source(given, word):
    with pytest.raises(ConfigError, match=word):
        parse_source(given)
