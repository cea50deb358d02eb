"""The line in the log of each refused recipient that is an SRS address of ours, and what is counted of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from srsd.daemon.mail_log import client_name, path_name, spelt

if TYPE_CHECKING:
    from srsd.daemon.counters import Counters
    from srsd.daemon.mail_log import Facts
    from srsd.filter.refused import RefusedSrsAddress

_LOG = logging.getLogger(__name__)


def note_refused(refused: RefusedSrsAddress, counters: Counters) -> None:
    """Count one, and write its line. What the client chose stands last, since fail2ban reads it."""
    counters.count("srs_refused", refused.reason)
    if refused.delayable:
        counters.count("srs_delayed", "delayed" if refused.delay else "not delayed, too many wait")
    if not _LOG.isEnabledFor(logging.INFO):
        return
    facts: Facts = {
        "client": client_name(refused.client, refused.client_name),
        "origin": refused.origin.value,
        "reason": refused.reason,
        "in_last_hour": refused.in_last_hour,
    }
    if refused.delay:
        facts["delay"] = f"{refused.delay:g}"
    facts["recipient"] = path_name(refused.recipient)
    _LOG.info("refused SRS address: %s", spelt(facts), extra={"facts": facts})
