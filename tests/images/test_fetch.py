"""Pictures from the web: from public addresses only, whatever a server or a name server says."""

from __future__ import annotations

import io
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from pawmatch.errors import ImageError, ImageNotFound, ImageTooLarge, ImageUnreadable, UnsupportedFormat
from pawmatch.images import fetch as module
from pawmatch.images import open_image
from pawmatch.images.fetch import NO_ADDRESS, NOT_PUBLIC, TOO_SLOW, fetch, is_public
from pawmatch.images.pool import try_prepare
from pawmatch.images.reading import MAX_MB
from pawmatch.images.spec import InputSpec
from tests.support.web_server import Server, moved, ok, serving

PICTURE = io.BytesIO()
Image.new("RGB", (64, 48), "tan").save(PICTURE, "PNG")
PNG = PICTURE.getvalue()

here = partial(fetch, is_allowed=lambda address, port: address == "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"/dog.png": ok(PNG)}) as running:
        yield running


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.88.99.1"),  # metadata
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "203.0.113.1"),
        *("::", "::1", "::7f00:1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:1.1.1.1", "::ffff:0:1.1.1.1", "64:ff9b::1.1.1.1", "64:ff9b:1::1"),
        *("2001::1", "2001:db8::1", "2002:7f00:1::1", "100::1"),
    ],
)
def test_what_is_not_public_is_not_asked(address: str) -> None:
    assert not is_public(address, 80)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ImageNotFound):
        fetch(f"http://{host}/dog.png")


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_for_the_ports_of_the_web(address: str) -> None:
    assert is_public(address, 80)
    assert is_public(address, 443)
    assert not is_public(address, 22)
    assert not is_public(address, 8080)


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:7f00:1]"]
)
def test_other_spellings_of_this_computer_are_not_asked(server: Server, host: str) -> None:
    with pytest.raises(ImageNotFound, match="no public web server"):
        fetch(server.url("/dog.png").replace("127.0.0.1", host))
    assert server.asked == []


def test_a_name_with_one_private_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (address, 80)) for address in ("1.1.1.1", "10.0.0.1")]

    def connect(*args: Any) -> None:
        raise AssertionError("nothing is connected to")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ImageNotFound, match="no public web server"):
        fetch("http://rebinding.example/dog.png")


def test_the_connection_goes_to_the_address_that_was_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.server_address[1]
    names: list[str] = []
    resolve = socket.getaddrinfo

    def once(host: str, *args: Any, **options: Any) -> Any:
        names.append(host)
        return resolve("127.0.0.1" if names.count("dogs.example") < 2 else "10.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", once)
    assert here(f"http://dogs.example:{port}/dog.png").data == PNG
    assert names.count("dogs.example") == 1
    assert f"Host: dogs.example:{port}".encode() in server.heads[0]


def test_a_picture_comes_as_it_is(server: Server) -> None:
    found = here(f" {server.url('/dog.png')} ")
    assert (found.data, found.format) == (PNG, "PNG")
    assert open_image(found).size == (64, 48)


def test_addresses_may_have_signs_of_any_language() -> None:
    with serving({"/h%C3%BCnd%20chen.png?a=%20b": ok(PNG)}) as server:
        assert here(server.url("/hünd chen.png?a=%20b#top")).data == PNG


def test_a_proxy_of_the_environment_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        assert here(server.url("/dog.png")).data == PNG
        assert proxy.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, status: int) -> None:
    server.answers["/old"] = moved("dog.png", status)
    assert here(server.url("/old")).data == PNG


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/dog.png",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/dog.png",
        "http://user:secret@127.0.0.1/dog.png",
        "//localhost.localdomain:1/",
    ],
)
def test_each_redirect_is_checked_anew(server: Server, place: str) -> None:
    server.answers["/old"] = moved(place)
    with pytest.raises(ImageNotFound):
        here(server.url("/old"))
    assert server.asked == ["/old"]


def test_redirects_are_counted(server: Server) -> None:
    server.answers["/loop"] = moved("/loop")
    with pytest.raises(ImageUnreadable, match="does not hand out"):
        here(server.url("/loop"))
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "address",
    [
        "",
        "dog.png",
        "file:///etc/passwd",
        "ftp://site.example/dog.png",
        "http://",
        "http:///dog.png",
        "http://site.example:0/dog.png",
        "http://site.example:99999/dog.png",
        "http://site.example:x/dog.png",
        "http://[::1/dog.png",
        "http://me:secret@site.example/dog.png",
        f"http://{'x' * 70}.example/dog.png",
        "javascript:alert(1)",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_what_is_no_web_address_is_refused(address: str) -> None:
    with pytest.raises(ImageNotFound) as refused:
        fetch(address)
    assert str(refused.value) == NO_ADDRESS


def test_names_that_do_not_exist_are_told_like_those_that_are_private() -> None:
    with pytest.raises(ImageNotFound) as refused:
        fetch("http://nowhere.invalid/dog.png")
    assert str(refused.value) == NOT_PUBLIC


def test_what_is_no_picture_is_read_no_further(server: Server) -> None:
    read = threading.Event()

    def page(file: IO[bytes]) -> None:
        file.write(b"HTTP/1.1 200 OK\r\n\r\n<!doctype html>" + b" " * 5000)
        file.flush()
        read.wait()

    server.answers["/page"] = page
    with pytest.raises(UnsupportedFormat, match="a web page, not an image"):
        here(server.url("/page"), seconds=60)
    read.set()


def test_raw_photos_are_told_by_the_end_of_the_address(server: Server) -> None:
    server.answers["/dog.nef?size=full"] = ok(b"II*\0" + bytes(100))
    with pytest.raises(UnsupportedFormat, match="raw camera photo"):
        here(server.url("/dog.nef?size=full"))


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ImageNotFound, "status 404"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", ImageNotFound, "status 401"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", ImageNotFound, "status 500"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", ImageUnreadable, "does not hand out"),
        (b"", ImageUnreadable, "does not hand out"),
        (b"SSH-2.0-OpenSSH\r\n", ImageUnreadable, "does not hand out"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n" + PNG, ImageUnreadable, "does not hand out"),
        (ok(PNG)[:-10], ImageUnreadable, "does not hand out"),
        (ok(b""), UnsupportedFormat, "is empty"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + PNG[:60],
            ImageUnreadable,
            "does not hand out",
        ),
        (f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_MB * 2**20 + 1}\r\n\r\n".encode(), ImageTooLarge, "20 MB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + PNG + bytes(MAX_MB * 2**20), ImageTooLarge, "20 MB"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_servers_do_instead_is_one_sentence(
    server: Server, answer: bytes, error: type[ImageError], said: str
) -> None:
    server.answers["/dog.png"] = answer
    with pytest.raises(error, match=said) as refused:
        here(server.url("/dog.png"), seconds=60)
    assert "127.0.0.1" not in str(refused.value)


def trickle(start: bytes) -> Callable[[IO[bytes]], None]:
    """An answer that goes on for ever, byte by byte."""

    def answer(file: IO[bytes]) -> None:
        file.write(start)
        while True:
            file.write(b"x")
            file.flush()
            threading.Event().wait(0.02)

    return answer


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\n\r\n" + PNG,
        ok(PNG, "Content-Length: 99999")[: len(PNG)],
    ],
    ids=["status", "headers", "content", "announced"],
)
def test_a_server_that_never_ends_does_not_hold_anybody(server: Server, start: bytes) -> None:
    server.answers["/dog.png"] = trickle(start)
    with pytest.raises(ImageUnreadable) as refused:
        here(server.url("/dog.png"), seconds=0.5)
    assert str(refused.value) == TOO_SLOW


def test_silence_ends_too(server: Server) -> None:
    over = threading.Event()

    def wait(file: IO[bytes]) -> None:
        over.wait()

    server.answers["/dog.png"] = wait
    with pytest.raises(ImageUnreadable) as refused:
        here(server.url("/dog.png"), seconds=0.3)
    assert str(refused.value) == TOO_SLOW
    over.set()


def test_a_name_server_that_is_silent_does_not_hold_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    over, looked = threading.Event(), threading.Semaphore(0)

    def silent(*given: Any, **options: Any) -> list[Any]:
        looked.release()
        over.wait()
        return []

    monkeypatch.setattr(module, "_lookups", threading.BoundedSemaphore(2))
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    for _ in range(4):
        with pytest.raises(ImageUnreadable) as refused:
            here("http://dogs.example/dog.png", seconds=0.1)
        assert str(refused.value) == TOO_SLOW
    assert [looked.acquire(timeout=0.1) for _ in range(3)] == [True, True, False]  # no threads without end
    over.set()


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate by openssl")
def test_encrypted_addresses_are_checked_by_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=DNS:dogs.example"
    subprocess.run(
        ["openssl", *made.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **options: resolve("127.0.0.1", *rest, **options)
    )
    with serving({"/dog.png": ok(PNG)}, context) as server:
        port = server.server_address[1]
        with pytest.raises(ImageUnreadable, match="does not hand out"):  # trusted by nobody yet
            here(f"https://dogs.example:{port}/dog.png", seconds=60)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert here(f"https://dogs.example:{port}/dog.png").data == PNG
        with pytest.raises(ImageUnreadable, match="does not hand out"):
            here(f"https://cats.example:{port}/dog.png", seconds=60)


def test_readers_fetch_what_is_named_by_its_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = InputSpec(32)
    refused = try_prepare(server.url("/dog.png"), [spec])
    assert isinstance(refused, ImageNotFound)
    monkeypatch.setattr("pawmatch.images.pool.fetch", here)
    assert not isinstance(try_prepare(server.url("/dog.png"), [spec]), ImageError)
    assert module.MAX_SECONDS < 60  # after which a reader is thought to hang
