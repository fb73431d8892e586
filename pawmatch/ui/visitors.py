"""Who is asking, under which name, from whose page, and how much they may ask."""

from __future__ import annotations

import ipaddress
import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from pawmatch.settings import Proxies, Settings

MAX_VISITORS = 10_000  # who are remembered; one that is forgotten starts anew


class TokenBuckets:
    """A bucket for each visitor: it holds `burst` tokens at most and gets `per_minute` new ones a minute.

    A cost may be a fraction, or more than a bucket holds: that needs a full one, and is paid off afterwards.
    `clock` gives seconds.
    """

    def __init__(
        self, per_minute: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second, self._burst, self._clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and at what moment
        self._lock = threading.Lock()

    def take(self, visitor: str, cost: float = 1.0) -> float:
        """Take `cost` tokens and give 0; or, where they are lacking, none, and give the seconds to wait."""
        return self._take(visitor, cost, min(cost, self._burst))[0] / self._per_second

    def owe(self, visitor: str, cost: float) -> float:
        """Take `cost` tokens, there or not, and give the seconds until they are paid; it may be negative."""
        return max(0.0, -self._take(visitor, cost, -math.inf)[1]) / self._per_second

    def _take(self, visitor: str, cost: float, needed: float) -> tuple[float, float]:
        """The tokens that were lacking, without which none are taken, and those that are left."""
        with self._lock:
            now = self._clock()
            tokens, moment = self._buckets.pop(visitor, (self._burst, now))
            tokens = min(self._burst, tokens + (now - moment) * self._per_second)
            lacking = max(0.0, needed - tokens)
            left = tokens if lacking else tokens - cost
            self._buckets[visitor] = (left, now)  # at the end, as the one that asked last
            if len(self._buckets) > MAX_VISITORS:
                self._buckets.popitem(last=False)
            return lacking, left


def visitor(scope: Scope, proxies: Proxies) -> str:
    """Whose request it is: who holds the connection, or whom the proxy there that is trusted has seen.

    Each proxy adds the address that it was called from at the end of X-Forwarded-For, and anyone can send a
    header that begins with invented ones. So it is read from its end, as far as proxies are trusted: the
    first other address is the visitor's, and what comes before it is hearsay.
    """
    client = scope.get("client")
    seen = str(client[0]) if client else ""
    if is_trusted(seen, proxies):
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        for entry in map(str.strip, reversed(forwarded.split(","))):
            if parsed(entry) is None:
                break
            if not is_trusted(entry, proxies):
                return grouped(entry)
    return grouped(seen)


def is_trusted(address: str, proxies: Proxies) -> bool:
    """Whether a proxy at this address is believed; where only yes is said, any that is not public."""
    if not proxies or (known := parsed(address)) is None:
        return False
    if isinstance(proxies, bool):
        return not known.is_global
    return any(known in network for network in proxies)


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, IPv4 also where it is written as IPv6; None for anything else."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


@lru_cache(MAX_VISITORS)  # connections come from a few addresses, most of them
def grouped(address: str) -> str:
    """The address, or the network of 2^64 addresses that one household has in IPv6."""
    found = parsed(address)
    if found is None or found.version == 4:
        return address if found is None else str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))


class Names:
    """The names by which the service may be called, and the pages of others that may call it.

    A stranger's page could have a name of its own lead to this computer. So only names count that are known:
    those of the settings, the computer's own, and addresses, which nobody can lead elsewhere.
    """

    def __init__(self, settings: Settings) -> None:
        here = socket.gethostname().lower()
        self._own = {"localhost", here, f"{here}.local", settings.host.strip("[]").lower()}
        self._given = settings.hosts
        self._origins: Collection[str] = settings.origins

    def know(self, host: str) -> bool:
        """Whether the value of a Host header is the service's."""
        name = host_name(host)
        if name is None:
            return False
        below = (f"*.{name.partition('.')[2]}", "*")
        return parsed(name) is not None or name in self._own or not {name, *below}.isdisjoint(self._given)

    def are_called_by(self, headers: Headers) -> bool:
        """Whether a request comes from a page of the service's own, or from no page at all.

        Browsers say so themselves where they can; a proxy may have changed the name that was called.
        """
        origin = headers.get("origin")
        if origin is None or headers.get("sec-fetch-site") == "same-origin":
            return True
        place = origin.partition("://")[2].lower()
        return place == headers.get("host", "").lower() or host_name(place) in self._given

    def may_call(self, origin: str) -> bool:
        """Whether the settings let pages of another origin call the service."""
        return origin.lower() in self._origins


def host_name(netloc: str) -> str | None:
    """The name or address in "name:port", in lower case and without brackets; None if there is none."""
    try:
        found = urlsplit(f"//{netloc}")
        if found.netloc != netloc or found.username is not None:
            return None
        _ = found.port  # raises where it is no number
        return found.hostname
    except ValueError:
        return None
