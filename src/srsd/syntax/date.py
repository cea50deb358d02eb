"""The date of a header field (RFC 5322 §3.3), with the obsolete forms of §4.3."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_DATE = re.compile(
    rb"[ \t]*+(?>(?:[A-Za-z]{3}[ \t]*+,)?)[ \t]*+([0-9]{1,2}+)[ \t]++([A-Za-z]{3})[ \t]++([0-9]{2,4}+)"
    rb"[ \t]++([0-9]{1,2}+):([0-9]{2}+)(?>(?::([0-9]{2})(?:\.[0-9]++)?)?)"
    rb"(?>(?:[ \t]++([+-][0-9]{4}|[A-Za-z]++))?)"
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
# Hours east of Greenwich. All other names of zones mean nothing certain, and count as UTC (§4.3).
_ZONES = {b"EST": -5, b"EDT": -4, b"CST": -6, b"CDT": -5, b"MST": -7, b"MDT": -6, b"PST": -8, b"PDT": -7}
_CENTURY_TURNS = 50  # §4.3: 49 is 2049, 50 is 1950


def parse_date(text: bytes) -> datetime | None:
    """Parse a date, perhaps with something behind it, such as a comment; None for what is none.

    A date without a zone counts as UTC, a leap second as the one before it.
    """
    found = _DATE.match(text)
    month = _MONTHS.get(found[2].lower()) if found else None
    if found is None or month is None:
        return None
    year = int(found[3])
    if len(found[3]) == 2:
        year += 2000 if year < _CENTURY_TURNS else 1900
    elif len(found[3]) == 3:
        year += 1900
    try:
        return datetime(
            year,
            month,
            int(found[1]),
            int(found[4]),
            int(found[5]),
            min(int(found[6] or 0), 59),
            tzinfo=_zone(found[7] or b""),
        )
    except ValueError:  # the 31st of February, the 25th hour
        return None


def _zone(text: bytes) -> timezone:
    """Give the zone of `+hhmm` or of an obsolete name. Raises ValueError for a day or more."""
    if text[:1] in (b"+", b"-"):
        offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
        return timezone(-offset if text.startswith(b"-") else offset)
    hours = _ZONES.get(text.upper())
    return UTC if hours is None else timezone(timedelta(hours=hours))
