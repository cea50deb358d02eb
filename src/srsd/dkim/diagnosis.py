"""Why a signature does not verify: which of its halves broke, and what, undone, mends it.

The signed hash of the body is in the signature, and the hash of the header can be tried with the key: so
both are searched for on their own, and what is found is certain. How much is tried is bounded.
"""

from __future__ import annotations

import hashlib
import re
from itertools import combinations, islice
from typing import TYPE_CHECKING, NamedTuple

from srsd.crypto import RSA_BITS_MINIMUM
from srsd.dkim.body_changes import describe_lines, undo_in_body
from srsd.dkim.canonicalization import RELAXED, SIMPLE, BodyHashes, canonical_field
from srsd.dkim.changes import Cause, Change, Work
from srsd.dkim.header_changes import Option, SignedHeader, other_folds, read_copies, undo_in_header
from srsd.dkim.header_fields import canonical_signature_field
from srsd.dkim.key_record import key_for
from srsd.dkim.result import Reason
from srsd.dkim.signature import Flaw, Signature, parse_signature
from srsd.syntax.taglist import TagListFlaw, parse_tag_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from srsd.crypto import PublicKey
    from srsd.dkim.canonicalization import BodyHashKey
    from srsd.resolving import Answer
    from srsd.syntax.header import HeaderField

WORK = 300_000_000  # octets hashed for all signatures of a message: a second or so
_TRIES_MAXIMUM = 1500  # public key operations for one signature: 30 to 150 microseconds each
_OPTIONS_MAXIMUM = 150
_TOGETHER_MAXIMUM = 3  # header changes that are undone at once
_CUTS_MAXIMUM = 2000  # line ends at which the end of a body is cut off
_BLOCK_BODY_MAXIMUM = 200_000  # octets of a body in which added lines are looked for everywhere
_BLOCK_LINES_MAXIMUM = 2000
_BLOCK_MAXIMUM = 120  # lines that were added in one place
_PER_TRY = 2000  # octets that a try costs apart from those that it hashes
_PER_CUT = 500  # the same for a cut
_NAME_COST = 50  # octets that each name in h= costs
_TIME = re.compile(rb"[0-9]{1,12}")


class Diagnosis(NamedTuple):
    """What is known of a signature beyond its result; None is what cannot be known."""

    signature: Signature | None = None
    """What the field says, also where the time has run out; None for one that cannot be used."""
    times: dict[str, int] = {}  # noqa: RUF012 - a NamedTuple's default, which nobody changes
    """t= and x=, in seconds since 1970."""
    header_intact: bool | None = None
    body_intact: bool | None = None
    header_changes: list[Change] | None = None
    """What was done to the header, proved by undoing it; None where nothing was found."""
    body_changes: list[Change] | None = None
    missing: tuple[bytes, ...] = ()
    """Names in h= of which there is no field: signed as absent, or taken away."""
    copies_differ: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """What z= keeps of fields that are otherwise now: name, value there, value here (b"" for none)."""
    tries: int = 0


def read_regardless_of_time(value: bytes) -> tuple[dict[str, int], Signature | Flaw]:
    """Read a signature as if it were neither expired nor from the future; and its t= and x=."""
    tags = parse_tag_list(value)
    if isinstance(tags, TagListFlaw):
        return {}, Flaw(Reason.MALFORMED, tags.value)
    times = {name.decode(): int(tags[name]) for name in (b"t", b"x") if _TIME.fullmatch(tags.get(name, b""))}
    return times, parse_signature(value, times.get("t", times.get("x", 0)))[1]


class Examiner:
    """Looks at the signatures of one message."""

    def __init__(self, fields: list[HeaderField], body: bytes, work: Work | None = None) -> None:
        """Take a message as in a milter: fields are folded with LF, the body's lines end with CRLF."""
        self._fields = fields
        self._body = body
        self._work = work or Work(WORK)
        self._found: dict[tuple[BodyHashKey, bytes], list[Change] | None] = {}

    def examine(self, field: HeaderField, answer: Answer[bytes] | None, *, search: bool) -> Diagnosis:
        """Look at one signature; answer is the one for its key. Times are left aside.

        What was changed is searched for only where search says so.
        """
        times, signature = read_regardless_of_time(field.value)
        if isinstance(signature, Flaw):
            return Diagnosis(None, times)
        header = SignedHeader(self._fields, field, signature.signed_fields)
        copies = copies_in(field.value)
        tries = self._work.tries
        body_intact = _body_matches(signature, self._body)
        verify = _verifier(signature, answer)
        headers = _HeaderSearch(header, field, signature, verify, self._work) if verify else None
        header_intact = headers.intact() if headers else None
        body_changes = header_changes = None
        if search and not body_intact:
            body_changes = self._find_body_changes(signature)
        if search and headers and not header_intact:
            header_changes = headers.find(self._body, copies)
        return Diagnosis(
            signature,
            times,
            header_intact,
            body_intact,
            header_changes,
            body_changes,
            tuple(header.missing),
            () if header_intact else tuple(_differing(header, copies)),
            self._work.tries - tries,
        )

    def _find_body_changes(self, signature: Signature) -> list[Change] | None:
        """Find what was done to the body, once for all signatures with one hash."""
        key = (signature.body_hash_key, signature.body_hash)
        if key not in self._found:
            self._found[key] = find_body_changes(signature, self._body, self._fields, self._work)
        return self._found[key]


def copies_in(value: bytes) -> dict[bytes, list[bytes]]:
    """Give the copies of fields in the z= of a signature, by name in lower case."""
    tags = parse_tag_list(value)
    return {} if isinstance(tags, TagListFlaw) else read_copies(tags.get(b"z", b""))


def _differing(
    header: SignedHeader, copies: dict[bytes, list[bytes]]
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Compare fields with their copies in z=, where there is one of each."""
    for name, values in copies.items():
        fields = header.by_name.get(name)
        if fields is None or len(values) > 1 or len(fields) > 1:
            continue
        here = fields[0].value if fields else b""
        if b"".join(here.split()) != b"".join(values[0].split()):  # folds are often lost in a copy
            yield name, values[0], here


def _verifier(signature: Signature, answer: Answer[bytes] | None) -> Callable[[bytes], bool] | None:
    """Make a test of digests; None if there is no key. A key shorter than the configuration wants will do."""
    record = key_for(signature, answer, RSA_BITS_MINIMUM) if answer is not None else None
    if record is None or isinstance(record, Flaw):
        return None
    key: PublicKey = record.public_key
    return lambda digest: key.verify(signature.signature, digest)


def _body_matches(signature: Signature, body: bytes) -> bool:
    key = signature.body_hash_key
    hashes = BodyHashes([key])
    hashes.feed(body)
    found = hashes.finish()[key]
    return found.digest == signature.body_hash and (key.length is None or key.length <= found.length)


# The body --------------------------------------------------------------------------------------------


def canonical_body(canonicalization: bytes, body: bytes) -> bytes:
    """Give a body as it is hashed (RFC 6376 §3.4.3, §3.4.4)."""
    if canonicalization == RELAXED:
        body = body.replace(b"\t", b" ")
        while b"  " in body:  # each pass halves the runs
            body = body.replace(b"  ", b" ")
        body = body.replace(b" \r\n", b"\r\n")
        body = body.removesuffix(b" ")  # of a last line without CRLF
    end = len(body)
    for line_ends in (b"\r\n" * 4096, b"\r\n"):
        while body.endswith(line_ends, 0, end):
            end -= len(line_ends)
    return b"" if canonicalization == RELAXED and not end else body[:end] + b"\r\n"


def find_body_changes(
    signature: Signature, body: bytes, fields: list[HeaderField], work: Work
) -> list[Change] | None:
    """Find what was done to a body: undone, its hash is the signed one. None if nothing is found."""
    canonicalization, length = signature.body_hash_key
    wanted = signature.body_hash
    for changes, candidate in undo_in_body(body, fields, work):
        if not work.take(4 * len(candidate) + _PER_TRY):
            return None
        canonical = canonical_body(canonicalization, candidate)
        if length is not None:
            work.tries += 1
            if length <= len(canonical) and hashlib.sha256(canonical[:length]).digest() == wanted:
                return changes
            continue
        added = _find_end(canonical, canonicalization, wanted, work)
        if added is not None:
            return [*changes, *added]
    if length is None and len(body) <= _BLOCK_BODY_MAXIMUM:
        return _find_block(canonical_body(canonicalization, body), wanted, work)
    return None


def _find_end(canonical: bytes, canonicalization: bytes, wanted: bytes, work: Work) -> list[Change] | None:
    """Find the line after which all was added, or all but the delimiters that end a multipart.

    [] where the whole is what was signed.
    """
    cuts = _line_ends(canonical)
    tails = _tails(canonical)
    if not work.take(len(canonical) + _PER_CUT * len(cuts) * (1 + len(tails))):
        return None
    state = hashlib.sha256(memoryview(canonical)[: cuts[0]])
    for at, cut in enumerate(cuts):
        if at:
            state.update(memoryview(canonical)[cuts[at - 1] : cut])
        work.tries += 1
        if state.digest() == wanted:
            return [Change(Cause.FOOTER, _shown(canonical[cut:]))] if cut < len(canonical) else []
        for tail in tails:
            if cut + len(tail) < len(canonical):
                ended = state.copy()
                ended.update(tail)
                if ended.digest() == wanted:
                    return [Change(Cause.PART_ADDED, _shown(canonical[cut : -len(tail)]))]
    empty = b"" if canonicalization == RELAXED else b"\r\n"
    if wanted == hashlib.sha256(empty).digest():
        return [Change(Cause.FOOTER, _shown(canonical) + b" (the body was empty)")]
    return None


def _line_ends(canonical: bytes) -> list[int]:
    """Give the last line ends, ascending: where the lines begin that may have been added, and the end."""
    cuts = [len(canonical)]
    while len(cuts) < _CUTS_MAXIMUM:
        found = canonical.rfind(b"\r\n", 0, max(0, cuts[-1] - 2))
        if found < 0:
            break
        cuts.append(found + 2)
    return cuts[::-1]


def _tails(canonical: bytes) -> list[bytes]:
    """Give the last lines that may be delimiters: one, two."""
    tails = []
    at = len(canonical)
    for _ in range(3):
        at = canonical.rfind(b"\r\n", 0, max(0, at - 2)) + 2
        if at < 2 or len(canonical) - at > 500:
            break
        line = canonical[at : canonical.find(b"\r\n", at)]
        if line.startswith(b"--") and line.endswith(b"--") and len(line) > 4:
            tails.append(canonical[at:])
    return tails


def _shown(added: bytes) -> bytes:
    return describe_lines(added.removesuffix(b"\r\n").split(b"\r\n"))


def _find_block(canonical: bytes, wanted: bytes, work: Work) -> list[Change] | None:
    """Find lines that were added in one place, at the start or anywhere; those near the end are cheap."""
    starts = [0]
    while len(starts) <= _BLOCK_LINES_MAXIMUM:
        found = canonical.find(b"\r\n", starts[-1])
        if found < 0:
            break
        starts.append(found + 2)
    view = memoryview(canonical)
    for first in (0, *range(len(starts) - 2, 0, -1)):
        before = hashlib.sha256(view[: starts[first]])
        for last in range(first + 1, min(first + _BLOCK_MAXIMUM, len(starts) - 1)):
            rest = view[starts[last] :]
            if not work.take(len(rest) + _PER_TRY):
                return None
            work.tries += 1
            state = before.copy()
            state.update(rest)
            if state.digest() == wanted:
                cause = Cause.INSERTED if first else Cause.BANNER
                return [Change(cause, _shown(canonical[starts[first] : starts[last]]))]
    return None


# The header ------------------------------------------------------------------------------------------


class _HeaderSearch:
    """Tries headers for one signature."""

    def __init__(
        self,
        header: SignedHeader,
        field: HeaderField,
        signature: Signature,
        verify: Callable[[bytes], bool],
        work: Work,
    ) -> None:
        self._header = header
        self._field = field
        self._canonicalization = signature.header_canonicalization
        self._verify = verify
        self._work = work
        self._tries_left = _TRIES_MAXIMUM
        self._places: dict[bytes, list[int]] = {}
        for place, name in enumerate(header.names):
            self._places.setdefault(name, []).append(place)
        self._chunks = [b""] * len(header.names)
        for name, fields in header.by_name.items():
            self._place(self._chunks, name, fields)
        self._end = self._canonical_signature(field.value)
        self._cost = sum(map(len, self._chunks)) + len(self._end) + _NAME_COST * len(self._chunks) + _PER_TRY

    def _canonical_signature(self, value: bytes) -> bytes:
        return canonical_signature_field(self._canonicalization, self._field.name, value)

    def _place(self, chunks: list[bytes], name: bytes, fields: list[HeaderField]) -> None:
        """Put the fields of a name where h= wants them: the last one first (RFC 6376 §5.4.2)."""
        for index, place in enumerate(self._places[name]):
            chunk = b""
            if index < len(fields):
                field = fields[-1 - index]
                chunk = canonical_field(self._canonicalization, field.name, field.value) + b"\r\n"
            chunks[place] = chunk

    def intact(self) -> bool:
        """Tell whether the header is as it was signed."""
        return self._verify(hashlib.sha256(b"".join(self._chunks) + self._end).digest())

    def _try(self, options: tuple[Option, ...], end: bytes) -> bool | None:
        """Tell whether the signature is one of the header with changes undone; None if there was enough."""
        if not self._tries_left or not self._work.take(self._cost):
            return None
        self._tries_left -= 1
        self._work.tries += 1
        chunks = self._chunks.copy()
        for option in options:
            for name, fields in option.fields.items():
                self._place(chunks, name, fields)
        return self._verify(hashlib.sha256(b"".join(chunks) + end).digest())

    def find(self, body: bytes, copies: dict[bytes, list[bytes]]) -> list[Change] | None:
        """Find what was done to the header; undone, the signature verifies. None if nothing is found."""
        found = undo_in_header(self._header, body, self._canonicalization, copies)
        options = list(islice(self._different(found), _OPTIONS_MAXIMUM))
        for option in options:
            if self._try((option,), self._end):
                return [option.change]
        if self._canonicalization == SIMPLE:
            for value in other_folds(self._field.value, simple=True):
                if self._try((), self._canonical_signature(value)):
                    return [Change(Cause.FOLDED, b"DKIM-Signature")]
        return self._find_together(options)

    def _find_together(self, options: list[Option]) -> list[Change] | None:
        """Undo several changes at once, each of other fields."""
        for size in range(2, _TOGETHER_MAXIMUM + 1):
            for together in combinations(options, size):
                if _overlap(together):
                    continue
                verified = self._try(together, self._end)
                if verified is None:
                    return None
                if verified:
                    return [option.change for option in together]
        return None

    def _different(self, options: Iterator[Option]) -> Iterator[Option]:
        """Leave out what makes no difference to the hash, and what another one has done already."""
        seen: set[tuple[tuple[int, bytes], ...]] = set()
        for option in options:
            if not self._work.take(self._cost):
                return
            chunks = self._chunks.copy()
            for name, fields in option.fields.items():
                self._place(chunks, name, fields)
            pairs = enumerate(zip(chunks, self._chunks, strict=True))
            difference = tuple((place, new) for place, (new, old) in pairs if new != old)
            if difference and difference not in seen:
                seen.add(difference)
                yield option


def _overlap(options: tuple[Option, ...]) -> bool:
    names = [name for option in options for name in option.fields]
    return len(names) > len(set(names))
