"""What DMARC is told of a message, and what it says of it (RFC 9989 §9.2)."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from srsd.dmarc.record import DmarcRecord, Policy


class DmarcResult(StrEnum):
    """Result words for DMARC (RFC 9989 §9.2).

    There is no permerror: a record that cannot be used is like none (§4.10.1).
    """

    PASS = "pass"
    FAIL = "fail"
    NONE = "none"  # no record asks for anything
    TEMPERROR = "temperror"  # DNS did not answer what might change the result


class State(Enum):
    """What SPF or DKIM says of a domain; the value is for admins."""

    PASSED = "passed"  # it is an Authenticated Identifier (§3.2.1)
    FAILED = "did not pass"
    TEMPERROR = "could not be checked"  # DNS did not answer: it might have passed


class Identifier(NamedTuple):
    """A domain that SPF or DKIM may authenticate: of MAIL FROM, or d= of a signature."""

    method: Literal["spf", "dkim"]
    domain: bytes  # folded; b"" where there is none
    state: State


class DmarcOutcome(NamedTuple):
    """What DMARC says of a message."""

    result: DmarcResult
    reason: str
    """Why, in a phrase for admins: ASCII of less than 100 characters, without quotes or domains."""
    author_domain: bytes
    policy: Policy | None = None
    """What is wanted for messages that fail: p=, sp= or np=, after t= (§4.7). None without a record that asks
    for something, and where it depends on what DNS did not answer."""
    published: Policy | None = None
    """The same before t=."""
    policy_tag: str = ""
    """Where it stands: p, sp or np."""
    record: DmarcRecord | None = None
    """The record that applies, even if it asks for nothing."""
    record_domain: bytes = b""
    """Where that is."""
    organizational_domain: bytes = b""
    """That of the author domain; b"" where it is not known, or not needed."""
    aligned: tuple[Identifier, ...] = ()
    """What passed and is aligned. Once there is one, those are left out that would cost further queries."""
    exists: bool | None = None
    """Whether the author domain exists. None: not known, and asked only where np= may matter."""
