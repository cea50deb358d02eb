"""How often each client has sent to SRS addresses of ours that do not reverse, lately; bounded."""

from __future__ import annotations

from collections import deque
from heapq import nlargest
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srsd.resolving import IpAddress

CLIENTS_MAXIMUM = 1024  # beyond that the one that was seen longest ago is forgotten
SHARE_SECONDS = 300.0  # an hour is counted in twelve shares, so "the last hour" is 55 to 60 minutes
_SHARES = 12
_IPV6_PREFIX_LENGTH = 64  # what one host may choose addresses from (RFC 4291 §2.5.4)


class _Share:
    """What one client did in one share of an hour."""

    __slots__ = ("count", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0


class Forgers:
    """Counts by client. now is in seconds since anything, and never goes back."""

    def __init__(self, clients_maximum: int = CLIENTS_MAXIMUM) -> None:
        self._maximum = clients_maximum
        self._clients: dict[str, deque[_Share]] = {}  # the one that was seen last is the last one

    def count(self, client: IpAddress, now: float) -> int:
        """Count one for a client; gives how many it has in the last hour, this one included."""
        name, number = name_of(client), int(now // SHARE_SECONDS)
        shares = self._clients.pop(name, None) or deque(maxlen=_SHARES)
        self._clients[name] = shares
        if len(self._clients) > self._maximum:
            del self._clients[next(iter(self._clients))]
        if not shares or shares[-1].number != number:
            shares.append(_Share(number))
        shares[-1].count += 1
        return _total(shares, number)

    def most(self, how_many: int, now: float) -> list[tuple[str, int]]:
        """Give those who have the most in the last hour, and how many; the first has the most."""
        number = int(now // SHARE_SECONDS)
        counted = [(name, _total(shares, number)) for name, shares in self._clients.items()]
        return nlargest(how_many, [each for each in counted if each[1]], key=lambda each: each[1])

    def __len__(self) -> int:
        """Tell how many clients are kept."""
        return len(self._clients)


def name_of(client: IpAddress) -> str:
    """Name whom a client counts as: its address, or for IPv6 the network that it is likely to have whole."""
    if isinstance(client, IPv6Address):
        return str(IPv6Network((int(client), _IPV6_PREFIX_LENGTH), strict=False))
    return str(client)


def _total(shares: deque[_Share], number: int) -> int:
    return sum([share.count for share in shares if share.number > number - _SHARES])
