"""The way of a message by its Received fields, and how far down they can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from srsd.cli.mail import shown_client
from srsd.daemon.log import printable
from srsd.filter.origin import Origin, Origins
from srsd.syntax.received import Received, parse_received

if TYPE_CHECKING:
    from srsd.cli.mail import Mail

_HOPS_MAXIMUM = 200  # Postfix bounces mail with 50 (hopcount_limit)


class Hop(NamedTuple):
    """One Received field."""

    number: int
    """Counted from 1 at the top."""
    place: int
    """Of the field in the header, from 0."""
    received: Received
    origin: Origin | None
    """Whose client it was, by the configuration; None where the field names no address, or is not trusted."""
    trusted: bool
    """Whether a host of ours wrote the field, or one that we trust."""
    delay: float | None
    """Seconds since the hop before it, which is the next lower one; None where one of them has no date."""

    def as_dict(self) -> dict[str, Any]:
        """Give the hop for JSON."""
        received = self.received
        return {
            "number": self.number,
            "delay_seconds": self.delay,
            "helo": printable(received.helo),
            "client_name": printable(received.client_name),
            "client": str(received.client) if received.client else None,
            "origin": self.origin.value if self.origin else None,
            "by": printable(received.by),
            "protocol": printable(received.protocol),
            "id": printable(received.id),
            "date": received.date.isoformat() if received.date else None,
            "trusted": self.trusted,
        }

    def client(self) -> str:
        """Show the client of the hop."""
        return shown_client(self.received.client, self.received.client_name)


class Way(NamedTuple):
    """All hops, the newest first."""

    hops: list[Hop]
    left_out: int
    """Received fields further down, of more than anybody wants to see."""

    @property
    def trusted(self) -> list[Hop]:
        """Give the hops whose fields can be believed; all of them are above all others."""
        return [hop for hop in self.hops if hop.trusted]

    @property
    def entrance(self) -> Hop | None:
        """Give the hop where the message came in from outside; None for mail of ours."""
        return next((hop for hop in self.trusted if hop.origin in _FROM_OUTSIDE), None)

    @property
    def milter_entrance(self) -> Hop | None:
        """Give the hop where the message came to our milter from another host, be it a trusted relay."""
        return next((hop for hop in self.trusted if hop.origin not in (None, Origin.INTERNAL)), None)

    @property
    def boundary(self) -> int:
        """Give the place of the lowest field that can be believed, -1 without one: below, strangers wrote."""
        return max((hop.place for hop in self.trusted), default=-1)


_FROM_OUTSIDE = (Origin.OUTSIDE, Origin.AUTHENTICATED)


def find_way(mail: Mail, origins: Origins) -> Way:
    """Read the Received fields of a message.

    The top one was written here, so it is trusted. So is each one whose upper neighbour is, and says that
    the message came from a host of ours, from a trusted relay, or from no other host at all.
    """
    found = mail.values(b"received")
    received = [parse_received(value) for _, value in found[:_HOPS_MAXIMUM]]
    hops = []
    trusted = True
    for index, each in enumerate(received):
        origin = _origin(each, origins) if trusted else None
        older = received[index + 1].date if index + 1 < len(received) else None
        delay = (each.date - older).total_seconds() if each.date and older else None
        hops.append(Hop(index + 1, found[index][0], each, origin, trusted, delay))
        trusted = trusted and origin not in _FROM_OUTSIDE
    return Way(hops, len(found) - len(hops))


def _origin(received: Received, origins: Origins) -> Origin | None:
    """Tell whose client it was. A host of ours that logs in to another is no less ours."""
    if received.client is None:
        return None
    origin = origins.of(received.client, b"", b"")
    return Origin.AUTHENTICATED if origin is Origin.OUTSIDE and received.authenticated else origin
