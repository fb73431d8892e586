"""Who is asking, under which name, from whose page, and how much they may ask."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest
from starlette.datastructures import Headers

from pawmatch.settings import Proxies, Settings
from pawmatch.ui import visitors
from pawmatch.ui.visitors import Names, TokenBuckets, grouped, visitor


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_in_and_then_one_for_each_new_token() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, 3, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.take("b") == 0  # others do not pay for it
    clock.now += 0.75
    assert buckets.take("a") == pytest.approx(0.25)  # being refused costs nothing
    clock.now += 0.25
    assert buckets.take("a") == 0
    clock.now += 3600
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(1.0)]


def test_many_photos_at_once_are_paid_off_afterwards() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, 10, clock=clock)
    assert buckets.take("a", 1) == 0
    assert buckets.take("a", 64) == pytest.approx(1.0)  # it needs a full bucket
    clock.now += 1
    assert buckets.take("a", 64) == 0
    assert buckets.take("a", 1) == pytest.approx(55.0)
    clock.now += 55
    assert buckets.take("a", 1) == 0
    assert buckets.owe("a", 5) == pytest.approx(5.0)
    assert buckets.take("a", 1) == pytest.approx(6.0)


def test_memory_is_bounded_and_who_keeps_asking_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "MAX_VISITORS", 100)
    buckets = TokenBuckets(60, 1, clock=Clock())
    assert buckets.take("persistent") == 0
    for number in range(1000):
        buckets.take(f"visitor {number}")
        assert buckets.take("persistent") > 0
    assert len(buckets._buckets) == 100


NAMED = (ip_network("192.0.2.9"), ip_network("10.0.0.0/24"))


@pytest.mark.parametrize(
    ("holder", "forwarded", "proxies", "expected"),
    [
        ("10.0.0.1", ["1.2.3.4"], True, "1.2.3.4"),
        ("10.0.0.1", ["5.6.7.8, 1.2.3.4"], True, "1.2.3.4"),  # the first one may be invented
        ("10.0.0.1", ["5.6.7.8", "1.2.3.4"], True, "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4, 10.0.0.7"], True, "1.2.3.4"),  # a proxy in the house
        ("10.0.0.1", ["10.0.0.7"], True, "10.0.0.1"),
        ("10.0.0.1", ["5.6.7.8, nonsense"], True, "10.0.0.1"),
        ("10.0.0.1", [""], True, "10.0.0.1"),
        ("10.0.0.1", [], True, "10.0.0.1"),
        ("::ffff:10.0.0.1", ["1.2.3.4"], True, "1.2.3.4"),
        ("10.0.0.1", ["2a00:1450:4001:81b::200e"], True, "2a00:1450:4001:81b::/64"),
        ("8.8.8.8", ["1.2.3.4"], True, "8.8.8.8"),  # no proxy of ours
        ("127.0.0.1", ["1.2.3.4"], False, "127.0.0.1"),
        ("127.0.0.1", ["1.2.3.4"], NAMED, "127.0.0.1"),
        ("192.0.2.9", ["1.2.3.4"], NAMED, "1.2.3.4"),
        ("192.0.2.9", ["1.2.3.4, 10.1.0.7, 10.0.0.7"], NAMED, "10.1.0.7"),
    ],
)
def test_only_trusted_proxies_say_who_a_visitor_is(
    holder: str, forwarded: list[str], proxies: Proxies, expected: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert visitor({"headers": headers, "client": (holder, 1)}, proxies) == expected


def test_a_household_is_one_visitor() -> None:
    assert grouped("2001:db8::1") == grouped("2001:db8::ffff") != grouped("2001:db9::1")
    assert grouped("::ffff:192.0.2.1") == "192.0.2.1"
    assert grouped("testclient") == "testclient"
    assert visitor({"headers": []}, True) == ""


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost:7860", True),
        ("127.0.0.1", True),
        ("192.168.1.20:7860", True),
        ("[fe80::1]:7860", True),
        (f"{socket.gethostname()}:7860", True),
        (f"{socket.gethostname()}.local", True),
        ("Dogs.Example", True),
        ("a.park.example:443", True),
        ("park.example", False),
        ("a.b.park.example", False),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("dogs.example@evil.example", False),
        ("dogs.example/x", False),
        ("dogs.example:http", False),
        ("", False),
    ],
)
def test_the_service_knows_its_names_and_any_address(host: str, is_known: bool) -> None:
    names = Names(Settings(hosts=("dogs.example", "*.park.example")))
    assert names.know(host) == is_known
    assert Names(Settings(hosts=("*",))).know("evil.example")


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"host": "localhost:7860"}, True),  # no page at all
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, True),
        ({"host": "192.168.1.20:7860", "origin": "http://192.168.1.20:7860"}, True),
        ({"host": "dogs.example", "origin": "https://dogs.example:8443"}, True),
        # A proxy that calls the service by another name than the browser knows.
        ({"host": "127.0.0.1:7860", "origin": "https://x.example", "sec-fetch-site": "same-origin"}, True),
        ({"host": "127.0.0.1:7860", "origin": "https://x.example", "sec-fetch-site": "cross-site"}, False),
        ({"host": "localhost:7860", "origin": "http://localhost:3000"}, False),
        ({"host": "localhost:7860", "origin": "null"}, False),
        ({"host": "a.park.example", "origin": "https://b.park.example"}, False),
    ],
)
def test_pages_of_others_are_told_from_its_own(headers: dict[str, str], is_own: bool) -> None:
    names = Names(Settings(hosts=("dogs.example", "*.park.example")))
    assert names.are_called_by(Headers(headers)) == is_own
