"""Where recipients lead, with tables of every kind: by virtual(5), aliases(5), local(8), transport(5)."""

from __future__ import annotations

import asyncio
import re

import pytest

from harness.postfix_tables import Tables, settings
from srsd.daemon.expansion.tables import LookupFailedError, split_list, wants_whole_keys
from srsd.daemon.expansion.walk import Routes, Walked


def follow(
    recipient: str,
    virtual: dict[str, str] | None = None,
    aliases: dict[str, str] | None = None,
    *,
    tables: Tables | None = None,
    relayed_stays: bool = False,
    own_tables: tuple[str, ...] = (),
    **parameters: str,
) -> Walked:
    asker = tables or Tables({"hash:virtual": virtual or {}, "hash:aliases": aliases or {}})
    routes = Routes(settings(**parameters), asker, relayed_stays=relayed_stays, own_tables=own_tables)
    return asyncio.run(routes.follow(recipient.encode()))


def leaves(*arguments, **options) -> str:
    return follow(*arguments, **options).leaves.decode()


VIRTUAL = {
    "virtual.example": "the domain itself",
    "bob@virtual.example": "bob@far.example",
    "stay@virtual.example": "bob@here.example",
    "one@virtual.example": "two@virtual.example",
    "two@virtual.example": "bob@here.example, three@virtual.example",
    "three@virtual.example": "carol@far.example",
    "self@virtual.example": "self@virtual.example, dave@far.example",
    "selfonly@virtual.example": "SelfOnly@Virtual.Example",
    "alice+exact@virtual.example": "bob@here.example",
    "alice@virtual.example": "alice@far.example",
    "@catchall.example": "catcher@far.example",
    "in@catchall.example": "bob@here.example",
    "@moved.example": "@far.example",
    "shortkey": "short@far.example",
    "quoted@virtual.example": '"john doe"@far.example',
}


@pytest.mark.parametrize(
    ("recipient", "end"),
    [
        ("bob@virtual.example", "bob@far.example"),
        ("BOB@Virtual.Example", "bob@far.example"),
        ("stay@virtual.example", ""),
        ("one@virtual.example", "carol@far.example"),
        ("self@virtual.example", "dave@far.example"),
        ("selfonly@virtual.example", ""),
        ("alice@virtual.example", "alice@far.example"),
        ("alice+tag@virtual.example", "alice+tag@far.example"),  # propagate_unmatched_extensions
        ("alice+exact@virtual.example", ""),
        ("any@catchall.example", "catcher@far.example"),
        (
            "any+tag@catchall.example",
            "catcher@far.example",
        ),  # the whole address was matched: none is left over
        ("in@catchall.example", ""),
        ("in+tag@catchall.example", ""),
        ("eve@moved.example", "eve@far.example"),
        ("shortkey@here.example", "short@far.example"),
        ("shortkey+tag@here.example", "short+tag@far.example"),
        ("shortkey", "short@far.example"),  # @$myorigin is added
        ("shortkey@elsewhere.example", "shortkey@elsewhere.example"),
        ("quoted@virtual.example", '"john doe"@far.example'),
        ("nobody@virtual.example", ""),  # Postfix refuses it: it leads nowhere
        ("bob@far.example", "bob@far.example"),
        ("bob@here.example", ""),
        ("bob@here.example.", ""),
        ("bob@[192.0.2.1]", ""),
        ("bob@[192.0.2.9]", "bob@[192.0.2.9]"),
        ("bob@[IPv6:::1]", ""),
    ],
)
def test_virtual_aliases(recipient, end):
    assert leaves(recipient, VIRTUAL) == end


def test_extensions_are_left_out_where_they_are_not_propagated():
    assert (
        leaves("alice+tag@virtual.example", VIRTUAL, propagate_unmatched_extensions="") == "alice@far.example"
    )
    assert leaves("alice+tag@virtual.example", VIRTUAL, recipient_delimiter="") == ""


def test_patterns_are_matched_with_whole_addresses_only():
    """regexp_table(5): addresses are not broken up; so `bob@` never matches `bob+tag@` without the pattern saying so."""
    tables = Tables({"regexp:re": {"^bob@virtual": "bob@far.example", "^@virtual": "catch@far.example"}})
    parameters = {"virtual_alias_maps": "regexp:re", "virtual_alias_domains": "virtual.example"}
    assert leaves("bob@virtual.example", tables=tables, **parameters) == "bob@far.example"
    assert leaves("bob+tag@virtual.example", tables=tables, **parameters) == ""
    assert leaves("eve@virtual.example", tables=tables, **parameters) == ""
    assert {key for table, key in tables.asked if table == "regexp:re"} == {
        "bob@virtual.example",
        "bob@far.example",
        "bob+tag@virtual.example",
        "eve@virtual.example",
    }


def test_the_first_table_wins_for_a_key_and_the_first_key_over_all_tables():
    tables = Tables(
        {
            "hash:a": {"bob@virtual.example": "bob@here.example", "@virtual.example": "bob@here.example"},
            "hash:b": {"bob@virtual.example": "bob@far.example", "eve@virtual.example": "eve@far.example"},
        }
    )
    parameters = {"virtual_alias_maps": "hash:a, proxy:hash:b", "virtual_alias_domains": "virtual.example"}
    assert leaves("bob@virtual.example", tables=tables, **parameters) == ""
    assert leaves("eve@virtual.example", tables=tables, **parameters) == "eve@far.example"


def test_a_table_that_cannot_be_asked_matters_only_where_postfix_asks_it():
    tables = Tables({"hash:a": {"bob@virtual.example": "bob@far.example"}, "ldap:b": None})
    parameters = {"virtual_alias_maps": "hash:a, ldap:b", "virtual_alias_domains": "virtual.example"}
    with pytest.raises(LookupFailedError, match="ldap:b: out of order"):
        leaves("eve@virtual.example", tables=tables, **parameters)
    parameters["virtual_alias_maps"] = "hash:a"
    tables.tables["ldap:b"] = {"bob@far.example": "x"}
    assert leaves("bob@virtual.example", tables=tables, **parameters) == "bob@far.example"


@pytest.mark.parametrize(
    "virtual",
    [
        {"a@virtual.example": "b@virtual.example", "b@virtual.example": "a@virtual.example"},
        {"a@virtual.example": ", ".join(f"x{n}@virtual.example" for n in range(1001))},
        {
            "a@virtual.example": "b@virtual.example c@virtual.example",
            "b@virtual.example": "b+x@virtual.example",
        },
    ],
)
def test_aliases_without_end_are_given_up(virtual):
    with pytest.raises(LookupFailedError, match=r"no end for a@virtual\.example"):
        leaves("a@virtual.example", virtual, virtual_alias_domains="virtual.example")


def test_a_result_without_an_address_is_an_error_as_in_postfix():
    with pytest.raises(LookupFailedError, match="no address"):
        leaves("a@virtual.example", {"a@virtual.example": "(nobody)"})


# Classes of domains, and transports.


@pytest.mark.parametrize(
    ("recipient", "parameters", "end"),
    [
        ("bob@box.example", {"virtual_mailbox_domains": "box.example"}, ""),
        ("bob@box.example", {"virtual_mailbox_domains": "!box.example, static:all"}, "bob@box.example"),
        ("bob@box.example", {"virtual_mailbox_domains": "hash:boxes"}, ""),
        ("bob@sub.relay.example", {"relay_domains": "relay.example"}, "bob@sub.relay.example"),
        ("bob@box.example", {"virtual_mailbox_domains": "/etc/domains"}, ""),
        ("bob@far.example", {"virtual_mailbox_domains": "/etc/domains"}, "bob@far.example"),
        ("bob@far.example", {"default_transport": "error:no mail"}, ""),
        ("bob@far.example", {"transport_maps": "hash:transport"}, ""),
        ("bob@lists.far.example", {"transport_maps": "hash:transport"}, ""),
        ("bob@other.example", {"transport_maps": "hash:transport"}, "bob@other.example"),
        ("mailman@lists2.example", {"transport_maps": "hash:transport"}, ""),
        ("x@lists2.example", {"transport_maps": "hash:transport"}, "x@lists2.example"),
        ("out@here.example", {"local_transport": "lmtp:unix:dovecot"}, ""),  # aliases are local(8)'s
        ("out@here.example", {}, "out@far.example"),
    ],
)
def test_what_leaves_this_host_is_what_the_smtp_client_delivers(recipient, parameters, end):
    tables = Tables(
        {
            "hash:aliases": {"out": "out@far.example"},
            "hash:boxes": {"box.example": "x"},
            "static:all": {"box.example": "all"},
            "hash:transport": {
                "far.example": "maildrop:",
                ".far.example": "lmtp:unix:lists",
                "mailman@lists2.example": "maildrop:x",
                "other.example": ":[192.0.2.7]",
            },
        },
        domains="# ours\nbox.example\n",
    )
    if parameters.get("virtual_mailbox_domains") == "!box.example, static:all":
        parameters["virtual_alias_maps"] = ""
    assert leaves(recipient, tables=tables, **parameters) == end


@pytest.mark.parametrize(
    "parameters",
    [
        {"relay_domains": "far.example"},
        {"virtual_mailbox_domains": "far.example", "virtual_transport": "relay:[192.0.2.7]"},
        {"mydestination": "far.example", "transport_maps": "hash:transport"},
    ],
)
def test_mail_for_own_domains_on_another_host_stays_if_the_admin_says_so(parameters):
    tables = Tables({"hash:transport": {"far.example": "smtp:[192.0.2.7]"}})
    assert leaves("bob@far.example", tables=tables, **parameters) == "bob@far.example"
    walked = follow("bob@far.example", tables=tables, relayed_stays=True, **parameters)
    assert not walked.leaves
    assert "stays" in walked.steps[-1]


# Aliases of local(8).

ALIASES = {
    "out": "out@far.example",
    "in": "bob",
    "both": "bob, both@far.example",
    "keep": "\\keep, keep@far.example",
    "keeponly": "keeponly",
    "deep": "deeper",
    "deeper": "in, out",
    "command": '"|/usr/bin/vacation bob"',
    "file": "/var/mail/archive",
    "home": "~/mail",
    "include": ":include:/etc/mail/list",
    "includeowned": ":include:/etc/mail/local",
    "list": "carol, member@far.example",
    "owner-list": "bob",
    "outerlist": "list2",
    "owner-outerlist": "bob",
    "list2": "x@far.example",
    "tovirtual": "bob@virtual.example",
    "bob+tag": "tagged@far.example",
}


@pytest.mark.parametrize(
    ("recipient", "end"),
    [
        ("out@here.example", "out@far.example"),
        ("OUT@mx.here.example", "out@far.example"),
        ("out+tag@here.example", "out@far.example"),
        ("in@here.example", ""),
        ("both@here.example", "both@far.example"),
        ("keep@here.example", "keep@far.example"),
        ("keeponly@here.example", ""),
        ("deep@here.example", "out@far.example"),
        ("command@here.example", ""),
        ("file@here.example", ""),
        ("home@here.example", ""),
        ("include@here.example", "listed@far.example"),
        ("list@here.example", ""),  # it leaves, but its sender is owner-list
        ("outerlist@here.example", ""),  # the owner stays that of the outer list
        ("list2@here.example", "x@far.example"),
        ("tovirtual@here.example", "bob@far.example"),  # what leaves local(8) meets virtual aliases again
        ("bob+tag@here.example", "tagged@far.example"),
        ("bob+other@here.example", ""),
        ("in@virtual.example", ""),  # aliases(5) is for local domains only
    ],
)
def test_aliases_of_local(recipient, end):
    tables = Tables(
        {"hash:virtual": VIRTUAL, "hash:aliases": ALIASES},
        list="# a list\nbob\nlisted@far.example # not a comment for Postfix\n",
        local="bob\n",
    )
    assert leaves(recipient, tables=tables) == end


def test_owner_aliases_may_be_nothing_special():
    assert leaves("list@here.example", {}, ALIASES, owner_request_special="no") == "member@far.example"
    assert leaves("outerlist@here.example", {}, ALIASES, reset_owner_alias="yes") == "x@far.example"


def test_extensions_of_aliases():
    assert leaves("out+tag@here.example", {}, ALIASES, propagate_unmatched_extensions="alias") == (
        "out+tag@far.example"
    )


def test_members_of_an_include_file_meet_the_virtual_aliases():
    tables = Tables(
        {
            "hash:virtual": {"bob@mx.here.example": "bob@far.example"},
            "hash:aliases": {"all": ":include:/l/list"},
        },
        list="bob",
    )
    assert leaves("all@here.example", tables=tables) == "bob@far.example"
    tables.tables["hash:aliases"] = {"all": "bob"}  # but not those of an alias
    assert leaves("all@here.example", tables=tables) == ""


def test_an_include_file_that_cannot_be_read_is_an_error():
    with pytest.raises(LookupFailedError, match="/etc/mail/list"):
        leaves("include@here.example", {}, ALIASES)


def test_include_files_that_include_themselves_are_given_up():
    tables = Tables({"hash:aliases": {"x": ":include:/l/list"}}, list=":include:/l/list\n")
    with pytest.raises(LookupFailedError, match="without end"):
        leaves("x@here.example", tables=tables)


def test_aliases_in_a_circle_end():
    assert leaves("a@here.example", {}, {"a": "b", "b": "a"}) == ""


# Canonical maps and copies.


def test_canonical_maps_come_first():
    tables = Tables(
        {
            "hash:canonical": {
                "old@here.example": "new@here.example",
                "new@here.example": "newer@here.example",
            },
            "hash:aliases": {"newer": "newer@far.example", "old": "bob"},
        }
    )
    assert leaves("old@here.example", tables=tables, recipient_canonical_maps="hash:canonical") == (
        "newer@far.example"
    )
    parameters = {"canonical_maps": "hash:canonical", "canonical_classes": "envelope_sender"}
    assert leaves("old@here.example", tables=tables, **parameters) == ""


def test_our_own_table_is_asked_for_srs_addresses_only():
    own = "tcp:127.0.0.1:10002"
    tables = Tables({own: {"srs0=a=b=far.example=x@here.example": "x@far.example"}})
    parameters = {"recipient_canonical_maps": own}
    assert leaves("bob@here.example", tables=tables, own_tables=(own,), **parameters) == ""
    assert (own, "bob@here.example") not in tables.asked
    recipient = "SRS0=a=b=far.example=x@here.example"
    assert leaves(recipient, tables=tables, own_tables=(own,), **parameters) == "x@far.example"


def test_a_copy_for_somebody_elsewhere_leaves():
    tables = Tables({"hash:bcc": {"bob@here.example": "archive@far.example"}})
    assert leaves("bob@here.example", tables=tables, recipient_bcc_maps="hash:bcc") == "archive@far.example"


def test_the_address_of_a_copy_meets_canonical_maps_and_aliases():
    tables = Tables(
        {
            "hash:bcc": {"bob@here.example": "old@here.example"},
            "hash:canonical": {"old@here.example": "copies@virtual.example"},
            "hash:virtual": {"virtual.example": "x", "copies@virtual.example": "archive@far.example"},
        }
    )
    parameters = {"recipient_bcc_maps": "hash:bcc", "recipient_canonical_maps": "hash:canonical"}
    assert leaves("bob@here.example", tables=tables, **parameters) == "archive@far.example"
    walked = copies("any@origin.example", tables, always_bcc="old@here.example", **parameters)
    assert walked.leaves == b"archive@far.example"
    assert walked.steps == (
        "a copy for old@here.example (always_bcc)",
        "copies@virtual.example -> archive@far.example (virtual_alias_maps)",
        "archive@far.example leaves this host",
    )


def copies(sender: str, tables: Tables, **parameters: str) -> Walked:
    return asyncio.run(Routes(settings(**parameters), tables).follow_copies(sender.encode()))


SENDER_COPIES = {
    "alice@origin.example": "exact@far.example",
    "alice+tag@origin.example": "tag@far.example",
    "carol@origin.example": "carol@here.example",
    "@partner.example": "partner@far.example",
    "alice@partner.example": "bob@here.example",
    "short": "short@far.example",
    "new@origin.example": "new@far.example",
    "dave@origin.example": "nested@virtual.example",
}


@pytest.mark.parametrize(
    ("sender", "end"),
    [
        ("alice@origin.example", "exact@far.example"),
        ("ALICE@Origin.Example", "exact@far.example"),
        ("alice+tag@origin.example", "tag@far.example"),
        ("alice+other@origin.example", "exact@far.example"),  # and the extension is not put into the copy
        ("carol@origin.example", ""),
        ("anybody@partner.example", "partner@far.example"),
        ("alice@partner.example", ""),
        ("short@here.example", "short@far.example"),
        ("short+tag@here.example", "short@far.example"),
        ("short@origin.example", ""),
        ("old@origin.example", "new@far.example"),  # sender_canonical_maps come first
        ("nobody@origin.example", ""),
        ("dave@origin.example", "carol@far.example"),
    ],
)
def test_copies_by_sender(sender, end):
    tables = Tables(
        {
            "hash:bcc": SENDER_COPIES,
            "hash:senders": {"old@origin.example": "new@origin.example"},
            "hash:recipients": {"alice@origin.example": "nobody@origin.example"},
            "hash:virtual": {"virtual.example": "x", "nested@virtual.example": "carol@far.example"},
        }
    )
    parameters = {
        "sender_bcc_maps": "hash:bcc",
        "sender_canonical_maps": "hash:senders",
        "sender_canonical_classes": "envelope_sender, header_sender",
        "recipient_canonical_maps": "hash:recipients",
    }
    assert copies(sender, tables, **parameters).leaves.decode() == end


@pytest.mark.parametrize(
    ("parameters", "any_copies", "by_sender"),
    [
        ({}, False, False),
        ({"recipient_bcc_maps": "hash:bcc"}, False, False),
        ({"always_bcc": "archive@far.example"}, True, False),
        ({"sender_bcc_maps": "hash:bcc"}, True, True),
    ],
)
def test_whether_there_are_copies_at_all(parameters, any_copies, by_sender):
    routes = Routes(settings(**parameters), Tables({}))
    assert (routes.has_copies, routes.has_copies_by_sender) == (any_copies, by_sender)
    assert copies("alice@origin.example", Tables({}), **parameters).leaves == (
        b"archive@far.example" if "always_bcc" in parameters else b""
    )


def test_a_table_of_copies_that_cannot_be_asked_is_a_problem():
    with pytest.raises(LookupFailedError):
        copies("alice@origin.example", Tables({"hash:bcc": None}), sender_bcc_maps="hash:bcc")


def test_every_step_is_told():
    walked = follow("two@virtual.example", VIRTUAL)
    assert walked.steps == (
        "two@virtual.example -> bob@here.example, carol@far.example (virtual_alias_maps)",
        "carol@far.example leaves this host",
    )
    walked = follow("in@here.example", {}, ALIASES)
    assert walked.steps == (
        "in@here.example -> bob (alias_maps)",
        "bob@mx.here.example stays here: a local user",
    )


# Parameters.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("hash:/a, hash:/b", ["hash:/a", "hash:/b"]),
        ("hash:/a\thash:/b\n regexp:/c", ["hash:/a", "hash:/b", "regexp:/c"]),
        ("inline:{ {a = b, c}, {d = e} } static:x", ["inline:{ {a = b, c}, {d = e} }", "static:x"]),
    ],
)
def test_lists_of_tables(text, words):
    assert split_list(text) == words


@pytest.mark.parametrize(
    ("table", "whole"),
    [
        ("hash:/a", False),
        ("regexp:/a", True),
        ("pcre:{ {/x/ y} }", True),
        ("socketmap:unix:x:y", True),
        ("unionmap:{regexp:/a, pcre:/b}", True),
        ("unionmap:{hash:/a, hash:/b}", False),
        ("mysql:/a", False),
    ],
)
def test_which_tables_have_whole_addresses(table, whole):
    assert wants_whole_keys(table) is whole


def test_nothing_in_a_step_can_end_a_line():
    walked = follow("x@virtual.example", {"x@virtual.example": '"a\r\nb\x1b"@far.example'})
    assert not any(re.search(r"[\x00-\x1f]", step) for step in walked.steps)
