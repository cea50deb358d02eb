"""Addresses that are stored because an SRS address does not hold them: what is asked of the store.

Answers wait for it: Keep and Recall are what a lookup gives in place of an answer. The store itself
is of the world; here is only what it must do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from srsd.srs import Refusal
from srsd.syntax.setting import between, setting
from srsd.wire.answer import Answer, Status

if TYPE_CHECKING:
    from typing import TypeAlias

UNAVAILABLE = Answer(Status.TEMPORARY, b"address store unavailable", "address store unavailable")
UNKNOWN = Answer(Status.NOT_FOUND, Refusal.UNKNOWN.value.encode(), Refusal.UNKNOWN.value)
RECALLED = "reversed, from the store"


@dataclass(frozen=True, kw_only=True)
class StoreParameters:
    """How much is stored."""

    store_size: int = setting(
        512,
        "Megabytes that addresses.sqlite may take; one holds about five thousand addresses. While it is "
        "full, mail waits whose sender would have to be stored.",
        between(1, 1_000_000),
    )


class StoreError(Exception):
    """The store cannot be read, or written, now. The text says why, and what would be right."""


class AddressStore(Protocol):
    """Who keeps addresses, for every process that has the same ones."""

    async def keep(self, token: bytes, address: bytes, expires: int) -> None:
        """Keep an address until the end of a day, counted from 1970-01-01.

        Returns when it will be there whatever happens to this process or the machine. What is there
        already stays for longer. Raises StoreError.
        """
        ...

    async def recall(self, token: bytes) -> bytes | None:
        """Give the address that a token stands for; None where there is none. Raises StoreError."""
        ...


class Keep(NamedTuple):
    """An answer that is right once an address is stored."""

    token: bytes
    address: bytes
    expires: int  # the last day on which it is needed
    answer: Answer

    async def settle(self, store: AddressStore | None) -> Answer:
        """Give the answer, or a temporary failure: an address that nobody knows must not leave."""
        if store is None:
            return UNAVAILABLE
        try:
            await store.keep(self.token, self.address, self.expires)
        except StoreError:  # whoever keeps the store has said so
            return UNAVAILABLE
        return self.answer


class Recall(NamedTuple):
    """An answer that the store has."""

    token: bytes

    async def settle(self, store: AddressStore | None) -> Answer:
        """Give the answer, or a temporary failure."""
        if store is None:  # nothing was ever stored here
            return UNKNOWN
        try:
            return recalled(await store.recall(self.token))
        except StoreError:
            return UNAVAILABLE


Pending: TypeAlias = Keep | Recall


def recalled(address: bytes | None) -> Answer:
    """Give the answer for what the store has for a token."""
    return UNKNOWN if address is None else Answer(Status.FOUND, address, RECALLED)
