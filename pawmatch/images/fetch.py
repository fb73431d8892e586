"""Fetch a picture from a public web address, bounded in size and time, and never from a private network.

Every address that a name stands for is checked, and the connection goes to one of those that were, so that a
name server cannot give another answer the second time. A redirect is a new address, checked like the first.
Proxies that the environment names are not asked, since they would look up the name again. Of anything that
does not begin like a picture only the beginning is read, and nothing of it comes back.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pawmatch.errors import ImageNotFound, ImageTooLarge, ImageUnreadable, UnsupportedFormat
from pawmatch.images.filetypes import accepted_format, refusal
from pawmatch.images.reading import MAX_MB, ImageFile

MAX_SECONDS = 10.0  # from looking up the name to the last byte, redirects included
MAX_LOOKUPS = 8  # that go on at a time; the system gives up on a name server after up to a minute
MAX_REDIRECTS = 5
UNQUOTED = "/?%:@!$&'()*+,;=~-._"  # of an address, which may be quoted already
FIRST_BYTES = 4096  # by which the content is judged
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}
HEADERS = {
    "User-Agent": "pawmatch (fetches single pictures that a person asks for)",  # some servers want one
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}
# The only part of IPv6 that is handed out to the public. Outside of it are, among others, the forms that
# stand for an IPv4 address: mapped, compatible, translated, and those of NAT64.
IPV6_PUBLIC = ip_network("2000::/3")
# What Python takes for public all the same: Teredo and 6to4, which lead to IPv4; where virtual machines of
# two clouds ask for what is theirs; and the relays of 6to4.
NOT_FOR_ALL = [
    ip_network(text)
    for text in ("2001::/23", "2002::/16", "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")
]

DOWNLOAD = "download the picture and give the file"
NO_ADDRESS = f"This is no web address to fetch; give one like https://site/picture.jpg, or {DOWNLOAD}."
NOT_PUBLIC = f"There is no public web server at this address; check it, or {DOWNLOAD}."
NO_ANSWER = f"The web server does not hand out the picture; try again later, or {DOWNLOAD}."
TOO_SLOW = f"The picture took longer than {MAX_SECONDS:.0f} s to arrive; try again later, or {DOWNLOAD}."
TOO_LARGE = f"The picture at this address is larger than the {MAX_MB} MB accepted; give a smaller one."

IsAllowed = Callable[[str, int], bool]
_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


def is_public(address: str, port: int) -> bool:
    """Whether a numeric address belongs to the public internet, and the port is one of web servers."""
    parsed = ip_address(address)
    return (
        port in PORTS.values()
        and parsed.is_global
        and not parsed.is_multicast
        and (parsed.version == 4 or parsed in IPV6_PUBLIC)
        and not any(parsed in network for network in NOT_FOR_ALL)
    )


def fetch(address: str, *, is_allowed: IsAllowed = is_public, seconds: float = MAX_SECONDS) -> ImageFile:
    """The picture at a web address, not decoded yet.

    `is_allowed` decides on each numeric address and port that would be connected to; tests replace it, to use
    a server of their own. Raises a leaf of ImageError: the address is malformed or not public, the server
    does not hand out the picture within `seconds`, or it is too large or no image of an accepted kind.
    """
    end = time.monotonic() + seconds
    place = address.strip()
    for _ in range(MAX_REDIRECTS + 1):
        found = _ask(_split(place), end, is_allowed)
        if isinstance(found, ImageFile):
            return found
        place = urljoin(place, found)
    raise ImageUnreadable(NO_ANSWER)


def _split(place: str) -> SplitResult:
    """The parts of an address; raises ImageNotFound for one that no browser would show a picture from."""
    try:
        parts = urlsplit(place)
        if parts.scheme in PORTS and parts.hostname and parts.username is None and parts.port != 0:
            parts.hostname.encode("idna")
            return parts
    except ValueError:  # also of the port and of the name
        pass
    raise ImageNotFound(NO_ADDRESS)


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address of a host; whatever it waits for ends once the time is up."""

    def __init__(self, parts: SplitResult, seconds: float, is_allowed: IsAllowed) -> None:
        host = (parts.hostname or "").encode("idna").decode("ascii")
        super().__init__(host, parts.port or PORTS[parts.scheme], timeout=seconds)
        self._secure, self._is_allowed = parts.scheme == "https", is_allowed
        self._cut: socket.socket | None = None
        self.is_late = threading.Event()
        self.timer = threading.Timer(seconds, self._end)

    def connect(self) -> None:
        """Connect to the first address that answers; raises ImageNotFound unless all of them may be."""
        addresses = _checked(self.host, self.port, self._is_allowed, self.timeout or MAX_SECONDS)
        for number, address in enumerate(addresses):
            try:
                self.sock = self._cut = socket.create_connection((address, self.port), self.timeout)
                break
            except OSError:
                if self.is_late.is_set() or number + 1 == len(addresses):
                    raise
        if self.is_late.is_set():  # and nothing would be cut any more
            raise TimeoutError
        if self._secure:
            self.sock = self._cut = ssl.create_default_context().wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._cut.do_handshake()

    def _end(self) -> None:
        """End all waiting: a limit for each step alone would let a server take many small ones."""
        self.is_late.set()
        if self._cut is not None:
            with suppress(OSError):
                # Not the method of TLS, which is made for the thread that reads.
                socket.socket.shutdown(self._cut, socket.SHUT_RDWR)


def _looked_up(host: str, port: int, seconds: float) -> list[Any]:
    """What the system knows of a name; raises TimeoutError if that takes longer, or too many are waited for.

    Nobody can end a look-up, so it has a thread that may be left behind.
    """
    found: Future[list[Any]] = Future()
    places = _lookups

    def look() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as exc:
            found.set_exception(exc)
        finally:
            places.release()

    if not places.acquire(timeout=seconds):
        raise TimeoutError
    threading.Thread(target=look, daemon=True).start()
    return found.result(seconds)


def _checked(host: str, port: int, is_allowed: IsAllowed, seconds: float) -> list[str]:
    """The numeric addresses of a host; raises ImageNotFound if there is none, or one that is not allowed."""
    try:
        found = _looked_up(host, port, seconds)
        addresses = [str(entry[4][0]) for entry in found]
        if addresses and all(is_allowed(address, port) for address in addresses):
            return addresses
    except TimeoutError:
        raise
    except (OSError, ValueError):
        pass
    # The same sentence for a name that does not exist: which ones do inside a network is nobody's business.
    raise ImageNotFound(NOT_PUBLIC)


def _ask(parts: SplitResult, end: float, is_allowed: IsAllowed) -> ImageFile | str:
    """The picture, or the address that the server refers to instead."""
    target = quote(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", safe=UNQUOTED)
    connection = _Connection(parts, max(0.1, end - time.monotonic()), is_allowed)
    connection.timer.start()
    try:
        connection.request("GET", target, headers=HEADERS)
        with closing(connection.getresponse()) as response:
            if response.status in REDIRECTS:
                return response.headers["Location"] or ""
            if response.status != 200:
                raise ImageNotFound(
                    f"The web server gives no picture at this address (status {response.status}); check it, "
                    f"or {DOWNLOAD}."
                )
            data = _body(response, parts.path)
        if connection.is_late.is_set():  # else a content without a length would count as whole
            raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError, UnsupportedFormat) as exc:
        if connection.is_late.is_set() or isinstance(exc, TimeoutError):
            raise ImageUnreadable(TOO_SLOW) from exc
        if isinstance(exc, UnsupportedFormat):  # of the whole beginning, and not of what was cut off
            raise
        raise ImageUnreadable(NO_ANSWER) from exc
    finally:
        connection.timer.cancel()
        connection.close()
    return ImageFile(data, accepted_format(data) or "")


def _body(response: http.client.HTTPResponse, name: str) -> bytes:
    """All of the content; raises ImageError as soon as it is known that it will not do."""
    most = MAX_MB * 2**20
    if (response.length or 0) > most:
        raise ImageTooLarge(TOO_LARGE)
    data = response.read(FIRST_BYTES)
    if reason := refusal(data, name):
        raise UnsupportedFormat(reason)
    data += response.read(most + 1 - len(data))
    if len(data) > most:
        raise ImageTooLarge(TOO_LARGE)
    if response.length:
        raise OSError("the content ended early")
    return data
