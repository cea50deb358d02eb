"""The tables of one process, answering from the material in force."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from srsd.daemon.log import set_up_logging
from srsd.daemon.tables import Answerer, Table, socketmap_of, tcp_table_of

if TYPE_CHECKING:
    from srsd.daemon.counters import Counters
    from srsd.daemon.files import Material

_LOG = logging.getLogger(__name__)
_SECONDS_PER_DAY = 86400
# While rewrites are logged, a key is logged again after this many seconds; in between it is the
# same message for which Postfix asks two or three times.
_LOG_AGAIN = 10


class Service:
    """Keeps tables answering; knows neither files nor sockets."""

    def __init__(self, material: Material, counters: Counters) -> None:
        config, lookup = material.parse()
        set_up_logging(config.log.format, config.log.level)
        self._answerer = Answerer(lookup, today())
        self.tables: dict[str, Table] = {
            "srs_forward": tcp_table_of(self._answerer, "forward", counters),
            "srs_reverse": tcp_table_of(self._answerer, "reverse", counters),
            "socketmap": socketmap_of(self._answerer, counters),
        }
        self._ticks = 0

    def tick(self) -> None:
        """Look at the clock; once a second."""
        self._ticks += 1
        if self._answerer.today != today():
            self._answerer.today = today()
            self._forget()
        elif self._ticks % _LOG_AGAIN == 0 and _LOG.isEnabledFor(logging.INFO):
            self._forget()

    def put_in_force(self, material: Material) -> None:
        """Answer from new material from now on."""
        config, lookup = material.parse()
        set_up_logging(config.log.format, config.log.level)
        self._answerer.lookup = lookup
        self._forget()

    def _forget(self) -> None:
        for table in self.tables.values():
            table.forget()


def today() -> int:
    """Give the number of days since 1970-01-01, UTC."""
    return int(time.time()) // _SECONDS_PER_DAY
