"""Tag=value lists (RFC 6376 §3.2): DKIM and ARC fields, DKIM and DMARC records."""

from __future__ import annotations

from binascii import a2b_base64
from enum import Enum

FWS = b" \t\r\n"
_LF, _CR = b"\n\r"
TAGS_MAXIMUM = 100  # the registries have some twenty for any one list
# VALCHAR and blanks; beyond ASCII for internationalized header fields (RFC 8616 §5). Semicolons and the
# equals signs of the specs themselves are taken out before this is asked.
_LEGAL = bytes(range(0x20, 0x7F)) + b"\t\r\n" + bytes(range(0x80, 0x100))
# What most lists are made of, so that most names need no closer look.
_USUAL = frozenset(b"v a b bh c d h i k l p q s t x".split())


class TagListFlaw(Enum):
    """Why a text is no tag-list; the value is the phrase for an admin."""

    CHARACTER = "a character that no tag-list may hold"
    LINE_END = "a line end that folds nothing"
    SPEC = "something between semicolons that is not name=value"
    DUPLICATE = "a tag that stands twice"
    TOO_MANY = "more tags than anybody has a use for"


def parse_tag_list(text: bytes) -> dict[bytes, bytes] | TagListFlaw:
    """Parse a tag-list: values by tag name, in the order of the text, without the blanks around them.

    Lines are folded with CRLF or, as Postfix hands header fields to milters, LF. An empty value is b"", a
    tag that is not there is not in the result. Inside of values folding white space stays.
    """
    if text.translate(None, _LEGAL):
        return TagListFlaw.CHARACTER
    if (_LF in text or _CR in text) and not _is_folded(text):
        return TagListFlaw.LINE_END
    specs = text.split(b";")
    if len(specs) > 1 and not specs[-1].strip(FWS):
        del specs[-1]  # one semicolon may end the list
    if len(specs) > TAGS_MAXIMUM:
        return TagListFlaw.TOO_MANY
    # Other blanks than those of FWS are not legal, so strip() does the same, and faster.
    tags = {name.strip(): value.strip() for name, equals, value in _partitions(specs) if equals}
    if len(tags) == len(specs) and tags.keys() <= _USUAL:
        return tags
    return _find_flaw(specs) or tags


def _partitions(specs: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    return [spec.partition(b"=") for spec in specs]


def _find_flaw(specs: list[bytes]) -> TagListFlaw | None:
    """Find the first spec that is none, or whose name stood before."""
    seen = set()
    for blank_name, equals, _ in _partitions(specs):
        name = blank_name.strip()
        if not equals or not (name in _USUAL or _is_tag_name(name)):
            return TagListFlaw.SPEC
        if name in seen:
            return TagListFlaw.DUPLICATE
        seen.add(name)
    return None


def _is_tag_name(name: bytes) -> bool:
    return name[:1].isalpha() and name.replace(b"_", b"").isalnum()


def _is_folded(text: bytes) -> bool:
    """Tell whether each line end is CRLF or LF and has a blank after it (RFC 6376 §2.8)."""
    feeds = text.count(b"\n")
    if _CR in text and text.count(b"\r") != text.count(b"\r\n"):
        return False
    return feeds == text.count(b"\n\t") or feeds == text.count(b"\n ") + text.count(b"\n\t")


def without_value(text: bytes, name: bytes) -> bytes:
    """Give a tag-list, in which no tag stands twice, without a tag's value and its blanks (RFC 6376 §3.7)."""
    specs = text.split(b";")
    for index in range(len(specs) - 1, -1, -1):  # a signature, which this is for, mostly stands last
        found, equals, _ = specs[index].partition(b"=")
        if equals and found.strip(FWS) == name:
            specs[index] = found + equals
            return b";".join(specs)
    return text


def split_list(value: bytes) -> list[bytes]:
    """Split a value at its colons, without the blanks around each part (RFC 6376 §3.5, h= and q=)."""
    return [part.strip(FWS) for part in value.split(b":")]


def decode_base64(value: bytes) -> bytes | None:
    """Decode a base64string (RFC 6376 §2.10), folded or not, padded or not. None for what is none."""
    data = value.translate(None, FWS)
    text = data.rstrip(b"=")
    padding = -len(text) % 4
    if padding == 3 or len(data) - len(text) > padding:
        return None
    try:
        return a2b_base64(text + b"=" * padding, strict_mode=True)
    except ValueError:  # binascii.Error is one
        return None
