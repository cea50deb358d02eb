"""Received fields as MTAs write them, and dates."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address

import pytest

from srsd.syntax.date import parse_date
from srsd.syntax.received import parse_received

# What an MTA writes, and helo, client name, client, by, protocol, id, recipient in it.
FORMS = {
    "Postfix": (
        (
            b" from mail.example.com (mail.example.com [192.0.2.7])\n\tby mx.here.example (Postfix) with ESMTP id "
            b"4ZQ1v\n\tfor <bob@here.example>; Mon, 02 Feb 2026 10:00:00 +0100 (CET)"
        ),
        (
            "mail.example.com",
            "mail.example.com",
            "192.0.2.7",
            "mx.here.example",
            "ESMTP",
            "4ZQ1v",
            "bob@here.example",
        ),
    ),
    "Postfix with TLS and a login": (
        (
            b"from [10.1.1.1] (unknown [192.0.2.7])\r\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
            b"\r\n\t key-exchange X25519)\r\n\t(No client certificate requested)\r\n\t(Authenticated sender: a@[198.51.100.1])"
            b"\r\n\tby mx.here.example (Postfix) with ESMTPSA id 4ZQ1v; Mon, 2 Feb 2026 10:00:00 GMT"
        ),
        ("[10.1.1.1]", "unknown", "192.0.2.7", "mx.here.example", "ESMTPSA", "4ZQ1v", ""),
    ),
    "Postfix, IPv6": (
        b"from a.example (a.example [IPv6:2001:db8::7]) by b.example (Postfix) with UTF8SMTPS id X; 1 Jan 2026 00:00 Z",
        ("a.example", "a.example", "2001:db8::7", "b.example", "UTF8SMTPS", "X", ""),
    ),
    "Postfix, from its own host": (
        b"by mx.here.example (Postfix, from userid 1000)\n\tid 4ZQ1v; Mon, 02 Feb 2026 10:00:00 +0100 (CET)",
        ("", "", None, "mx.here.example", "", "4ZQ1v", ""),
    ),
    "Exim, HELO differs": (
        (
            b"from client.example ([192.0.2.7]:25123 helo=mail.example.com ident=[198.51.100.1])\n\tby mx.example with "
            b"esmtps  (TLS1.3) tls TLS_AES_256_GCM_SHA384\n\t(Exim 4.96)\n\t(envelope-from <a@b.example>)\n\tid 1r2-3 for "
            b"bob@here.example; Mon, 02 Feb 2026 10:00:00 +0000"
        ),
        (
            *("mail.example.com", "client.example", "192.0.2.7", "mx.example"),
            *("esmtps tls TLS_AES_256_GCM_SHA384", "1r2-3", "bob@here.example"),
        ),
    ),
    "Exim, no name": (
        b"from [192.0.2.7] (port=4433 helo=[127.0.0.1]) by mx.example with esmtpa (Exim 4.96) id 1r2-3; x",
        ("[127.0.0.1]", "", "192.0.2.7", "mx.example", "esmtpa", "1r2-3", ""),
    ),
    "Exim, HELO is the name": (
        b"from client.example ([192.0.2.7]) by mx.example with smtp (Exim 4.96) id 1r2-3",
        ("client.example", "", "192.0.2.7", "mx.example", "smtp", "1r2-3", ""),
    ),
    "Exim, IPv6": (
        b"from client.example ([2001:db8::7] helo=x.example) by mx.example",
        ("x.example", "client.example", "2001:db8::7", "mx.example", "", "", ""),
    ),
    "Sendmail": (
        (
            b"from mail.example.com (evil.example [192.0.2.7] (may be forged))\n\tby mx.example (8.17.1/8.17.1) with ESMTPS "
            b"id 52A (version=TLSv1.3 bits=256 verify=NOT); Mon, 2 Feb 2026 10:00:00 -0500"
        ),
        ("mail.example.com", "evil.example", "192.0.2.7", "mx.example", "ESMTPS", "52A", ""),
    ),
    "Sendmail, ident with an address in it": (
        b"from mail.example.com (IDENT:[127.0.0.1]@evil.example [192.0.2.7]) by mx.example (8.9.3) with SMTP id A",
        ("mail.example.com", "evil.example", "192.0.2.7", "mx.example", "SMTP", "A", ""),
    ),
    "Sendmail, from its own host": (
        b"(from root@localhost) by mx.example (8.17.1/8.17.1/Submit) id 52A; Mon, 2 Feb 2026 10:00:00 GMT",
        ("", "", None, "mx.example", "", "52A", ""),
    ),
    "Exchange": (
        (
            b"from AM0.example.com\n (192.0.2.7) by VI1.example.com\n (198.51.100.9) with Microsoft SMTP Server "
            b"(version=TLS1_2,\n cipher=TLS_X) id 15.20.1; Mon, 2 Feb 2026 10:00:00 +0000"
        ),
        ("AM0.example.com", "", "192.0.2.7", "VI1.example.com", "Microsoft SMTP Server", "15.20.1", ""),
    ),
    "Exchange, IPv6 and mapi": (
        b"from A.example ([fe80::1]) by A.example\n ([fe80::1%4]) with mapi id 15.20.1; Mon, 2 Feb 2026 10:00:00 +0000",
        ("A.example", "", "fe80::1", "A.example", "mapi", "15.20.1", ""),
    ),
    "Exchange, via": (
        (
            b"from A.example (2001:db8::1) by B.example\n (2001:db8::2) with Microsoft SMTP Server (TLS) id 15.1 via Frontend "
            b"Transport; Mon, 2 Feb 2026 10:00:00 +0000"
        ),
        ("A.example", "", "2001:db8::1", "B.example", "Microsoft SMTP Server", "15.1", ""),
    ),
    "qmail": (
        b"from unknown (HELO [127.0.0.1]) (192.0.2.7)\n  by mx.example with SMTP; 2 Feb 2026 10:00:00 -0000",
        ("[127.0.0.1]", "unknown", "192.0.2.7", "mx.example", "SMTP", "", ""),
    ),
    "qmail with ident and brackets": (
        b"from client.example (HELO mail.example.com) (root@[192.0.2.7]) by mx.example with ESMTP; x",
        ("mail.example.com", "client.example", "192.0.2.7", "mx.example", "ESMTP", "", ""),
    ),
    "qmail, its own": (
        b"(qmail 1234 invoked from network); 2 Feb 2026 10:00:00 -0000",
        ("", "", None, "", "", "", ""),
    ),
    "Yahoo": (
        b"from 192.0.2.7 (EHLO mail.example.com)\n by 10.0.0.1 with SMTPs; Mon, 02 Feb 2026 10:00:00 +0000",
        ("mail.example.com", "", "192.0.2.7", "10.0.0.1", "SMTPs", "", ""),
    ),
    "Google": (
        (
            b"from mail.example.com (mail.example.com. [192.0.2.7])\n by mx.google.com with ESMTPS id x-20si.1.2026\n for "
            b"<bob@here.example>\n (version=TLS1_3 cipher=X bits=256/256); Mon, 02 Feb 2026 02:00:00 -0800 (PST)"
        ),
        (
            "mail.example.com",
            "mail.example.com",
            "192.0.2.7",
            "mx.google.com",
            "ESMTPS",
            "x-20si.1.2026",
            "bob@here.example",
        ),
    ),
    "Google within": (
        b"by 2002:a05:6402:1: with SMTP id b5csp; Mon, 2 Feb 2026 02:00:00 -0800 (PST)",
        ("", "", None, "2002:a05:6402:1:", "SMTP", "b5csp", ""),
    ),
    "Courier": (
        b"from mail.example.com (client.example [::ffff:192.0.2.7])\n  (AUTH: LOGIN a)\n  by mx.example with ESMTPA\n  id 00.1",
        ("mail.example.com", "client.example", "192.0.2.7", "mx.example", "ESMTPA", "00.1", ""),
    ),
    "fetchmail": (
        b"from pop.example.com [192.0.2.7] by localhost with POP3 (fetchmail-6.4) for <bob@localhost> (single-drop); x",
        ("", "pop.example.com", "192.0.2.7", "localhost", "POP3", "", "bob@localhost"),
    ),
    "Dovecot": (
        b"from mx.here.example\n\tby mx.here.example with LMTP\n\tid +Ab/9 (envelope-from <a@b>)\n\tfor <bob@here.example>; x",
        ("mx.here.example", "", None, "mx.here.example", "LMTP", "+Ab/9", "bob@here.example"),
    ),
    "a HELO that is a keyword": (
        b"from by (with [192.0.2.7]) by mx.example with SMTP",
        ("by", "with", "192.0.2.7", "mx.example", "SMTP", "", ""),
    ),
    "only what the client said": (
        b"from [127.0.0.1] by mx.example with SMTP",
        ("[127.0.0.1]", "", None, "mx.example", "SMTP", "", ""),
    ),
    "escaped parentheses": (
        b"from a.example (\\) [198.51.100.1] by x (a.example [192.0.2.7])) by mx.example",
        ("a.example", "a.example", "192.0.2.7", "mx.example", "", "", ""),
    ),
    "an address that is none": (
        b"from a.example (b.example [192.0.2.777]) by mx.example",
        ("a.example", "", None, "mx.example", "", "", ""),
    ),
    "a comment without an end": (
        b"from a.example (b.example [192.0.2.7] by mx.example; x",
        ("a.example", "b.example", "192.0.2.7", "", "", "", ""),
    ),
    "a second from": (
        b"from a.example by mx.example from b.example (c.example [127.0.0.1])",
        ("a.example", "", None, "mx.example", "", "", ""),
    ),
    "nothing": (b"", ("", "", None, "", "", "", "")),
}


@pytest.mark.parametrize(("value", "expected"), FORMS.values(), ids=FORMS)
def test_the_forms_of_mtas(value, expected):
    found = parse_received(value)
    texts = (found.helo, found.client_name, found.by, found.protocol, found.id, found.recipient)
    helo, name, client, by, protocol, queue_id, recipient = expected
    assert texts == tuple(each.encode() for each in (helo, name, by, protocol, queue_id, recipient))
    assert found.client == (ip_address(client) if client else None)


@pytest.mark.parametrize(
    ("protocol", "authenticated"),
    [
        *(
            (each, True)
            for each in ("ESMTPA", "ESMTPSA", "esmtpsa (TLS1.3) tls X", "UTF8SMTPSA", "LMTPA", "asmtp")
        ),
        *((each, False) for each in ("ESMTP", "ESMTPS", "LMTP", "SMTP", "UTF8SMTPS", "x ESMTPA")),
    ],
)
def test_authenticated(protocol, authenticated):
    assert (
        parse_received(b"from a (b [192.0.2.1]) by c with " + protocol.encode()).authenticated
        is authenticated
    )


def test_date_of_a_field():
    value = b"from a (b [192.0.2.1]) by c (x; y); bad; Mon, 02 Feb 2026 10:00:00 +0100 (CET)"
    assert parse_received(value).date == datetime(2026, 2, 2, 9, tzinfo=UTC)


EAST = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Mon, 02 Feb 2026 10:00:01 +0100", datetime(2026, 2, 2, 10, 0, 1, tzinfo=EAST)),
        ("\t2 feb 2026 10:00", datetime(2026, 2, 2, 10, tzinfo=UTC)),
        (" Mon,2 Feb 2026  9:59:60 GMT (leap)", datetime(2026, 2, 2, 9, 59, 59, tzinfo=UTC)),
        ("2 Feb 26 10:00:00 EST", datetime(2026, 2, 2, 15, tzinfo=UTC)),
        ("2 Feb 99 10:00:00 -0130", datetime(1999, 2, 2, 11, 30, tzinfo=UTC)),
        ("2 Feb 126 10:00:00 Q", datetime(2026, 2, 2, 10, tzinfo=UTC)),
        ("Mon, 2 Feb 2026 10:00:00.123 +0000", datetime(2026, 2, 2, 10, tzinfo=UTC)),
        ("29 Feb 2024 23:59:59 -0000", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        *(
            (each, None)
            for each in ("", "yesterday", "31 Feb 2026 10:00:00 +0000", "2 Foo 2026 10:00:00 +0000")
        ),
        *((each, None) for each in ("2 Feb 2026", "2 Feb 2026 25:00:00 +0000", "2 Feb 2026 10:00:00 +2400")),
        ("2 Feb 0000 10:00:00 +0000", None),
    ],
)
def test_dates(text, date):
    assert parse_date(text.encode()) == date


@pytest.mark.parametrize(
    "piece",
    [
        b"(",
        b"()",
        b")",
        b"\\",
        b"((\\(",
        b"[",
        b"a [",
        b"helo=",
        b" ident=",
        b";",
        b" ",
        b"by ",
        b'"',
        b"a\n ",
    ],
)
def test_time_is_linear(piece):
    def seconds(size: int) -> float:
        value = b"from a (b [192.0.2.1] " + piece * (size // len(piece))
        begin = time.perf_counter()
        parse_received(value)
        return time.perf_counter() - begin

    assert min(seconds(400_000) for _ in range(3)) < 1.0
