"""What is said of a signature: the word of RFC 8601 §2.7.1, and the reason behind it."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple


class Result(StrEnum):
    """Result words for DKIM (RFC 8601 §2.7.1). A message without signatures is `none`."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"  # it can be verified, and does not verify
    POLICY = "policy"  # it verifies or might, but not in a way that we accept
    NEUTRAL = "neutral"  # it uses what we do not know: RFC 6376 wants it ignored
    TEMPERROR = "temperror"  # DNS did not answer: another try may end otherwise
    PERMERROR = "permerror"  # it can never be verified


class Reason(Enum):
    """Why a signature got its result: each reason has one word and one phrase for admins."""

    VERIFIED = (Result.PASS, "the signature verified")

    # The signature's field, before DNS is asked (RFC 6376 §6.1.1).
    FIELD_TOO_LONG = (Result.PERMERROR, "the signature field is too long")
    MALFORMED = (Result.PERMERROR, "the signature field is malformed")
    TAG_MISSING = (Result.PERMERROR, "a required tag is missing")
    TAG_INVALID = (Result.PERMERROR, "a tag has an invalid value")
    VERSION = (Result.PERMERROR, "the version is not 1")
    FROM_NOT_SIGNED = (Result.PERMERROR, "the From field is not signed")
    IDENTITY_OUTSIDE_DOMAIN = (Result.PERMERROR, "i= is not within d=")
    HISTORIC_ALGORITHM = (Result.PERMERROR, "rsa-sha1 is not secure")  # RFC 8301 §3.1
    EXPIRES_BEFORE_SIGNED = (Result.PERMERROR, "x= is not after t=")
    UNKNOWN_ALGORITHM = (Result.NEUTRAL, "the algorithm is unknown")  # RFC 6376 §3.3.4
    UNKNOWN_CANONICALIZATION = (Result.NEUTRAL, "the canonicalization is unknown")  # §3.4
    UNKNOWN_QUERY = (Result.NEUTRAL, "the key cannot be asked for in a known way")  # §3.5, q=
    EXPIRED = (Result.FAIL, "the signature has expired")
    FROM_THE_FUTURE = (Result.POLICY, "the signature was made in the future")

    # The key (§6.1.2).
    KEY_UNAVAILABLE = (Result.TEMPERROR, "the key could not be asked for")
    NO_KEY = (Result.PERMERROR, "there is no key")
    SEVERAL_KEYS = (Result.PERMERROR, "there are several TXT records where the key should be")
    KEY_MALFORMED = (Result.PERMERROR, "the key record is malformed")
    KEY_VERSION = (Result.PERMERROR, "the key record's version is not DKIM1")
    KEY_HASH = (Result.PERMERROR, "the key is not for sha256")
    KEY_SERVICE = (Result.PERMERROR, "the key is not for mail")
    KEY_REVOKED = (Result.PERMERROR, "the key is revoked")
    KEY_TYPE = (Result.PERMERROR, "the key is not for the signature's algorithm")
    KEY_STRICT = (Result.PERMERROR, "the key wants i= to be in d= itself, not below")
    KEY_UNUSABLE = (Result.PERMERROR, "the public key cannot be used")
    KEY_TOO_SHORT = (Result.PERMERROR, "the key is shorter than 1024 bits")  # RFC 8301 §3.2
    KEY_TOO_LONG = (Result.POLICY, "the key is longer than 4096 bits")  # above what RFC 8301 §3.2 wants
    KEY_BELOW_MINIMUM = (Result.POLICY, "the key is shorter than we accept")

    # The message (§6.1.3).
    BODY_TOO_SHORT = (Result.PERMERROR, "l= is more than the body has")
    BODY_CHANGED = (Result.FAIL, "the body hash did not verify")
    HEADER_CHANGED = (Result.FAIL, "the signature did not verify")
    # RFC 6376 §8.2 and §6.1.3 leave these two to the verifier's policy, hence the word.
    BODY_NOT_SIGNED = (Result.POLICY, "the body goes on where l= ends")
    SECOND_FROM = (Result.POLICY, "there is a From field that is not signed")

    __hash__ = object.__hash__  # what Enum has takes longer, and is no better: there is one object each

    def __init__(self, result: Result, phrase: str) -> None:
        self.result = result
        self.phrase = phrase

    def phrase_with(self, detail: str) -> str:
        """Give the phrase, and in parentheses what it is about."""
        return f"{self.phrase} ({detail})" if detail else self.phrase


class DkimResult(NamedTuple):
    """What is known of one signature.

    Every value may be shown: it is legal in its place, or b"" where the signature had none or an illegal
    one. Names are A-labels in lower case. Only the identity may hold quotes, blanks and UTF-8, in its
    local-part, as a quoted-string may; it holds no control characters.
    """

    reason: Reason
    detail: str = ""  # what the reason is about: "d=", "server failure"
    domain: bytes = b""  # d=
    selector: bytes = b""  # s=
    algorithm: bytes = b""  # a=
    identity: bytes = b""  # i=, or its default
    signature_start: bytes = b""  # the first 8 characters of b=: header.b of RFC 6008
    key_bits: int = 0  # 0: no usable key was found
    key_authenticated: bool = False  # DNSSEC vouches for the key record
    testing: bool = False  # the key record has t=y
    header_verified: bool = False  # the header fields are as they were signed, also where the body is not

    @property
    def result(self) -> Result:
        """The result word."""
        return self.reason.result

    @property
    def phrase(self) -> str:
        """The reason as an admin reads it: printable ASCII, no quotes, less than 100 characters."""
        return self.reason.phrase_with(self.detail)
