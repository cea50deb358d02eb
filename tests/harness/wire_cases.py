"""A decoder of requests, given each case in four ways: whole, octet by octet, with more behind, in two parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class RequestDecoder(Protocol):
    """A Decoder of srsd.wire."""

    @property
    def pending(self) -> bool:
        """Whether a part of a request is kept."""

    def feed(self, octets: bytes) -> list[bytes]:
        """Take what was read; return the requests that are whole, as they were sent."""


class Wire(NamedTuple, Generic[T]):
    """A protocol: how its stream is cut, and what a request says."""

    decoder: Callable[[], RequestDecoder]
    parse: Callable[[bytes], T]
    end: bytes  # of each request

    def parsed(self, requests: list[bytes]) -> list[T]:
        """Return what requests say."""
        return [self.parse(request) for request in requests]

    def check_whole(self, sent: bytes, expected: list[T]) -> None:
        """Hold that all is found at once, and nothing is lost or kept."""
        decoder = self.decoder()
        requests = decoder.feed(sent)
        assert self.parsed(requests) == expected
        assert b"".join(requests) == sent
        assert not decoder.pending

    def check_octet_by_octet(self, sent: bytes, expected: list[T]) -> None:
        """Hold that a request is found with its last octet, and that before it the decoder says so."""
        decoder = self.decoder()
        requests = []
        for index in range(len(sent)):
            done = decoder.feed(sent[index : index + 1])
            assert decoder.pending is not bool(done)
            assert all(request.endswith(self.end) for request in done)
            requests += done
        assert self.parsed(requests) == expected

    def check_with_more_behind(self, sent: bytes, expected: list[T], more: bytes, rest: bytes) -> None:
        """Hold that what is behind waits until rest makes a request of it."""
        decoder = self.decoder()
        assert self.parsed(decoder.feed(sent + more)) == expected
        assert decoder.pending
        assert decoder.feed(rest) == [more + rest]
        assert not decoder.pending

    def check_in_two_parts(self, sent: bytes, expected: list[T]) -> None:
        """Hold that it is the same wherever the stream is cut."""
        for cut in range(len(sent) + 1):
            decoder = self.decoder()
            assert self.parsed(decoder.feed(sent[:cut]) + decoder.feed(sent[cut:])) == expected
