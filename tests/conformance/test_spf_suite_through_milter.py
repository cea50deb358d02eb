"""The whole RFC 7208 suite through the milter and a real DNS server: the result is read from the header."""

from __future__ import annotations

import re
from itertools import groupby

import pytest

from harness.daemon import Srsd, write_config
from harness.dns_server import DnsServer
from harness.milter_client import MilterClient
from harness.spf_suite import FILE, load

CASES = load()
SCENARIOS = {name: list(cases) for name, cases in groupby(CASES, lambda case: case.scenario)}

pytestmark = pytest.mark.skipif(not CASES, reason=f"{FILE} is absent: the RFC 7208 suite was not run")


def judge(endpoint: str, case) -> str:
    """Show the milter a message, and give the word that it writes for MAIL FROM, or HELO where that is null."""
    with MilterClient.of(endpoint) as mta:
        mta.connect(b"client.example", case.client)
        mta.helo(case.helo.encode("latin-1"))
        # As Postfix's cleanup spells it: the local-part without quotes, whatever is in it.
        outcome = mta.message(case.mail_from.encode("latin-1"))
    assert outcome.verdict in ("accept", "continue")
    ((name, value),) = [field for field in outcome.headers if field[0] == b"Authentication-Results"]
    assert name == outcome.headers[0][0]
    return re.search(rb"spf=(\w+)", value)[1].decode()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario, tmp_path):
    cases = SCENARIOS[scenario]
    # One TXT record of the suite has no strings, which no server can send.
    zones = {
        key: [value for value in values if value != [] or key[1] != "TXT"]
        if isinstance(values, list)
        else values
        for key, values in cases[0].zones.items()
    }
    with DnsServer(zones) as server:
        config = write_config(
            tmp_path,
            listen={
                "srs_forward": [],
                "srs_reverse": [],
                "milter": [f"unix:{tmp_path}/milter"],
                "control": [],
            },
            dns={"nameservers": [str(server)], "timeout": 0.5, "message_deadline": 5.0},
            milter={"internal_networks": []},
        )
        with Srsd(config):
            seen = {case.name: judge(f"unix:{tmp_path}/milter", case) for case in cases}
    wrong = {
        case.name: (seen[case.name], case.results) for case in cases if seen[case.name] not in case.results
    }
    assert wrong == {}
