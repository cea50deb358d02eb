"""A milter connection without its socket: what is agreed, what is answered when, and what is remembered."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from harness import milter_client as mta
from harness.milter_client import ALL_ACTIONS, ALL_STEPS, STEPS, split_packets, strings
from srsd.errors import ProtocolError
from srsd.wire.milter import (
    LEGAL_REPLIES,
    Accept,
    Action,
    AddHeader,
    AddRecipient,
    ChangeFrom,
    ChangeHeader,
    Command,
    Continue,
    DeleteRecipient,
    Discard,
    InsertHeader,
    MacroStage,
    Path,
    Progress,
    Quarantine,
    Reject,
    ReplaceBody,
    ReplyCode,
    ShutDown,
    Skip,
    Step,
    TemporaryFailure,
    is_refused,
)
from srsd.wire.milter_session import HEADERS_AT_ONCE, RECIPIENTS_MAXIMUM, Decision, Delay, Session

if TYPE_CHECKING:
    from srsd.syntax.header import HeaderField

ADD_AND_CHANGE = 0x01 | 0x10
SET_MACROS = 0x100
LEADING_SPACE = 0x100000
ALL_NO_REPLIES = 0x80 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x40000 | 0x80000
GO_ON = [(b"c", b"")]
TEMPFAIL = [(b"t", b"")]
DONE = Decision((), Continue())
NO_STEP = Step(0)


class BugError(Exception):
    """What a filter raises in these tests."""


class Message:
    """Notes what it is told; fails where it is asked to."""

    def __init__(self, judge: Judge, envelope) -> None:
        self.judge = judge
        self.envelope = envelope
        self.fields: list[tuple[bytes, bytes]] = []
        self.headers_ended = 0
        self.content = b""
        self.macros: dict[bytes, bytes] | None = None
        self.aborted = 0

    def headers(self, fields: list[HeaderField]) -> None:
        self.judge.maybe_fail("header")
        self.fields += [(field.name, field.value) for field in fields]

    def end_of_headers(self) -> None:
        self.judge.maybe_fail("end of headers")
        self.headers_ended += 1

    def body(self, chunk: bytes) -> None:
        self.judge.maybe_fail("body")
        self.content += chunk

    def end_of_message(self, macros):
        self.judge.maybe_fail("end of message")
        self.macros = dict(macros)
        return self.judge.decision

    def abort(self) -> None:
        self.aborted += 1


class Refused:
    """Hears of refused recipients, and may hold the answer back."""

    def __init__(self, seconds: float = 0.0, *, slows: bool = False) -> None:
        self.seconds, self.slows = seconds, slows
        self.seen: list[tuple[object, dict[bytes, bytes], object]] = []
        self.ended = 0

    def see(self, client, macros, path) -> Delay | None:
        self.seen.append((client, dict(macros), path))
        return Delay(self.seconds, self.end) if self.seconds else None

    def end(self) -> None:
        self.ended += 1


class Judge:
    """A filter that keeps the messages it saw."""

    def __init__(
        self,
        actions: Action = Action.ADD_HEADERS | Action.CHANGE_HEADERS,
        unwanted: Step = NO_STEP,
        macros: dict[MacroStage, bytes] | None = None,
        refused: Refused | None = None,
    ) -> None:
        self.actions = actions
        self.unwanted = unwanted
        self.macros = macros or {}
        self.refused = refused
        self.agreements: dict = {}
        self.decision: object = DONE
        self.messages: list[Message] = []
        self.fails_at = ""

    def maybe_fail(self, where: str) -> None:
        if where == self.fails_at:
            raise BugError(where)

    def begin(self, envelope) -> Message:
        self.maybe_fail("begin")
        self.messages.append(Message(self, envelope))
        return self.messages[-1]


class Driver:
    """Speaks with a session as a connection does: what the filter raises is told to the session."""

    def __init__(self, judge: Judge | None = None, *, version=6, steps=None, actions=ALL_ACTIONS) -> None:
        self.judge = judge or Judge()
        self.session = Session(self.judge)
        self.bugs = 0
        steps = STEPS[version] if steps is None else steps
        ((command, data),) = self.tell(b"O", struct.pack(">III", version, actions, steps))
        assert command == b"O"
        self.version, self.actions, self.steps = struct.unpack_from(">III", data)
        self.macro_lists = data[12:]

    def tell(self, command: bytes, data: bytes = b"") -> list[tuple[bytes, bytes]]:
        try:
            return split_packets(self.session.receive(ord(command), data))
        except BugError:
            self.bugs += 1
            return split_packets(self.session.failed(ord(command)))

    def macros(self, command: bytes, *pairs: bytes) -> None:
        assert self.tell(b"D", command + strings(*pairs)) == []

    def connect(
        self, address: str | None = "192.0.2.1", name: bytes = b"mx.example", helo: bytes = b"helo.example"
    ):
        self.tell(b"C", mta.connect_data(name, address))
        self.tell(b"H", strings(helo))

    def envelope(self, sender: bytes = b"<a@x.example>", *recipients: bytes) -> None:
        self.tell(b"M", strings(sender))
        for recipient in recipients or (b"<b@y.example>",):
            self.tell(b"R", strings(recipient))

    def content(self, *fields: tuple[bytes, bytes], body: bytes = b"text\r\n") -> None:
        self.tell(b"T")
        for field in fields or ((b"Subject", b" x"),):
            self.tell(b"L", strings(*field))
        self.tell(b"N")
        self.tell(b"B", body)

    def message(self, sender: bytes = b"<a@x.example>") -> list[tuple[bytes, bytes]]:
        self.envelope(sender)
        self.content()
        return self.tell(b"E")


@pytest.fixture
def driver() -> Driver:
    made = Driver()
    made.connect()
    return made


# Negotiation.


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_a_version_that_we_know_is_taken_as_offered(version):
    assert Driver(version=version).version == version


@pytest.mark.parametrize("version", [7, 8, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_newer_version_is_answered_with_the_newest_that_we_know(version):
    made = Driver(version=version, steps=0xFFFFFFFF, actions=0xFFFFFFFF)
    assert made.version == 6
    assert made.actions == ADD_AND_CHANGE | SET_MACROS
    assert made.steps == ALL_NO_REPLIES | LEADING_SPACE


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_that_is_too_old_is_refused(version):
    with pytest.raises(ProtocolError):
        Driver(version=version, steps=0x7F)


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    "unwanted",
    [Step(0), Step.NO_BODY, Step.NO_UNKNOWN | Step.NO_BODY, Step.NO_HEADERS | Step.NO_DATA],
    ids=str,
)
def test_steps_are_those_that_we_want_and_that_were_offered(version, unwanted):
    made = Driver(Judge(unwanted=unwanted), version=version)
    assert made.steps & ~STEPS[version] == 0
    assert made.steps == STEPS[version] & (ALL_NO_REPLIES | LEADING_SPACE | unwanted)


@pytest.mark.parametrize("bit", [1 << number for number in range(21)], ids=hex)
def test_no_step_is_taken_that_was_not_offered(bit):
    judge = Judge(unwanted=Step.NO_UNKNOWN | Step.NO_BODY)
    made = Driver(judge, steps=ALL_STEPS & ~bit)
    assert made.steps == (ALL_NO_REPLIES | LEADING_SPACE | 0x110) & ~bit
    assert Driver(judge, steps=bit).steps == (ALL_NO_REPLIES | LEADING_SPACE | 0x110) & bit


def test_skip_and_rejected_recipients_are_not_asked_for(driver):
    assert driver.steps & (0x400 | 0x800) == 0


@pytest.mark.parametrize(
    "offered", [ADD_AND_CHANGE, ADD_AND_CHANGE | SET_MACROS, ALL_ACTIONS, 0xFFFFFFFF], ids=hex
)
def test_actions_are_those_that_we_need(offered):
    assert Driver(actions=offered).actions == (ADD_AND_CHANGE | SET_MACROS) & offered


@pytest.mark.parametrize("offered", [0, 0x01, 0x10, ALL_ACTIONS & ~0x01, ALL_ACTIONS & ~0x10], ids=hex)
def test_without_an_action_that_we_need_there_is_no_agreement(offered):
    with pytest.raises(ProtocolError, match=r"add headers|change headers"):
        Driver(actions=offered)


def test_offers_that_are_kept_are_bounded_and_do_not_mix():
    judge = Judge()
    for steps in range(200):
        assert Driver(judge, steps=steps).steps == steps & (ALL_NO_REPLIES | LEADING_SPACE)
    assert 0 < len(judge.agreements) < 100
    for steps in range(200):  # from those that are kept, and anew
        assert Driver(judge, steps=steps).steps == steps & (ALL_NO_REPLIES | LEADING_SPACE)


MACRO_LISTS = {
    MacroStage.CONNECT: b"j {daemon_name}",
    MacroStage.MAIL: b"{auth_authen}",
    MacroStage.END_OF_MESSAGE: b"i",
}


@pytest.mark.parametrize("version", [2, 4, 6])
def test_macros_are_asked_for_where_that_is_offered(version):
    made = Driver(Judge(macros=MACRO_LISTS), version=version)
    assert made.actions & SET_MACROS
    assert made.macro_lists == (
        b"\0\0\0\0j {daemon_name}\0" + b"\0\0\0\x02{auth_authen}\0" + b"\0\0\0\x05i\0"
    )


def test_no_macros_are_asked_for_where_that_is_not_offered():
    made = Driver(Judge(macros=MACRO_LISTS), actions=ALL_ACTIONS & ~SET_MACROS)
    assert not made.actions & SET_MACROS
    assert made.macro_lists == b""


@pytest.mark.parametrize("command", "ABCDEHKLMNRTU")
def test_nothing_goes_before_the_negotiation(command):
    session = Session(Judge())
    with pytest.raises(ProtocolError):
        session.receive(ord(command), b"x\0y\0")


def test_an_mta_may_leave_before_the_negotiation():
    session = Session(Judge())
    assert session.receive(ord("Q"), b"") == b""
    assert session.finished


def test_a_second_negotiation_begins_anew(driver):
    driver.macros(b"C", b"j", b"one")
    driver.connect("192.0.2.9")
    driver.envelope()
    driver.tell(b"T")
    ((command, _),) = driver.tell(b"O", struct.pack(">III", 6, ALL_ACTIONS, 0))
    assert command == b"O"
    assert driver.judge.messages[0].aborted == 1
    assert driver.tell(b"C", mta.connect_data(b"x", "192.0.2.1")) == GO_ON
    driver.message()
    assert driver.judge.messages[1].envelope.macros == {}
    assert driver.judge.messages[1].envelope.helo == b""


@pytest.mark.parametrize("command", "?\0\xffabcphSXYZ")
def test_a_command_that_is_none(driver, command):
    with pytest.raises(ProtocolError):
        driver.session.receive(ord(command), b"")


# Replies at once, or none.

CONVERSATION = [
    (b"C", mta.connect_data(b"mx.example", "192.0.2.1")),
    (b"H", b"helo\0"),
    (b"M", b"<a@x>\0"),
    (b"R", b"<b@y>\0"),
    (b"U", b"XYZZY\0"),
    (b"T", b""),
    (b"L", b"Subject\0 x\0"),
    (b"N", b""),
    (b"B", b"text\r\n"),
]


def test_nothing_is_answered_before_the_end_where_no_reply_was_agreed():
    made = Driver()
    assert [made.tell(*each) for each in CONVERSATION] == [[]] * len(CONVERSATION)
    assert made.tell(b"E") == GO_ON


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_everything_is_answered_before_version_6(version):
    made = Driver(version=version)
    assert [made.tell(*each) for each in CONVERSATION] == [GO_ON] * len(CONVERSATION)
    assert made.tell(b"E") == GO_ON


@pytest.mark.parametrize("command", [each for each, _ in CONVERSATION])
def test_an_answer_is_due_exactly_where_no_reply_was_not_offered(command):
    made = Driver(steps=ALL_STEPS & ~mta.NO_REPLY[command])
    for each, data in CONVERSATION:
        assert made.tell(each, data) == (GO_ON if each == command else []), each
    assert made.tell(b"E") == GO_ON


def test_header_alone_without_a_reply_as_in_version_2_with_no_header_reply():
    made = Driver(version=2, steps=STEPS[2] | mta.NO_REPLY[mta.HEADER])
    for each, data in CONVERSATION:
        assert made.tell(each, data) == ([] if each == b"L" else GO_ON), each


@pytest.mark.parametrize("steps", [0, ALL_STEPS])
def test_macros_abort_and_quit_are_never_answered(steps):
    made = Driver(steps=steps)
    for command, data in (
        (b"D", b"Mi\0x\0"),
        (b"D", b"?"),
        (b"A", b""),
        (b"K", b""),
        (b"A", b""),
        (b"Q", b""),
    ):
        assert made.tell(command, data) == [], command


# What the filter is told.


def test_a_message(driver):
    driver.tell(b"M", strings(b"<a@x.example>", b"SIZE=5", b"SMTPUTF8"))
    driver.tell(b"R", strings(b"<b@y.example>", b"NOTIFY=NEVER"))
    driver.tell(b"R", strings(b"<c@y.example>"))
    assert driver.judge.messages == []
    driver.content((b"From", b" a@x"), (b"To", b" b@y,\n c@y"), body=b"one")
    driver.tell(b"B", b"two")
    assert driver.tell(b"E", b"three") == GO_ON
    (message,) = driver.judge.messages
    assert message.envelope.client == (b"mx.example", ip_address("192.0.2.1"))
    assert message.envelope.helo == b"helo.example"
    assert message.envelope.sender == Path(b"<a@x.example>", (b"SIZE=5", b"SMTPUTF8"))
    assert message.envelope.recipients == (
        Path(b"<b@y.example>", (b"NOTIFY=NEVER",)),
        Path(b"<c@y.example>", ()),
    )
    assert message.fields == [(b"From", b" a@x"), (b"To", b" b@y,\n c@y")]
    assert message.headers_ended == 1
    assert message.content == b"onetwothree"
    assert message.aborted == 0


def test_a_value_has_its_blank_back_where_the_mta_ate_it():
    made = Driver(steps=ALL_STEPS & ~LEADING_SPACE)
    made.connect()
    made.envelope()
    made.content((b"A", b"x"), (b"B", b" two blanks"), (b"C", b"\n folded"), (b"D", b""))
    made.tell(b"E")
    assert made.judge.messages[0].fields == [
        (b"A", b" x"), (b"B", b"  two blanks"), (b"C", b" \n folded"), (b"D", b" "),
    ]  # fmt: skip


def test_an_mta_before_version_4_sends_no_data():
    made = Driver(version=2)
    made.connect()
    made.envelope()
    assert made.tell(b"L", b"Subject\0x\0") == GO_ON
    assert made.tell(b"N") == GO_ON
    assert made.judge.messages[0].fields == [(b"Subject", b" x")]
    assert made.tell(b"E", b"text") == GO_ON


@pytest.mark.parametrize(
    "events",
    [
        [(b"T", b""), (b"E", b"")],  # neither header nor body
        [(b"E", b"text")],
        [(b"N", b""), (b"E", b"text")],
        [(b"L", b"A\0 b\0"), (b"E", b"")],
        [(b"T", b""), (b"N", b""), (b"B", b"x"), (b"E", b"")],
    ],
)
def test_what_an_mta_may_leave_out(driver, events):
    driver.envelope()
    for command, data in events[:-1]:
        assert driver.tell(command, data) == []
    assert driver.tell(*events[-1]) == GO_ON
    (message,) = driver.judge.messages
    assert message.headers_ended == 1


def test_a_client_that_said_no_helo_and_one_that_was_not_reported():
    made = Driver()
    made.tell(b"C", mta.connect_data(b"mx.example", None))
    assert made.message() == GO_ON
    assert made.judge.messages[0].envelope.client == (b"mx.example", None)
    assert made.judge.messages[0].envelope.helo == b""
    made = Driver()
    assert made.message() == GO_ON
    assert made.judge.messages[0].envelope.client.address is None


def test_a_new_client_has_said_no_helo(driver):
    driver.tell(b"C", mta.connect_data(b"other.example", "192.0.2.2"))
    driver.message()
    assert driver.judge.messages[0].envelope.client == (b"other.example", ip_address("192.0.2.2"))
    assert driver.judge.messages[0].envelope.helo == b""


def test_the_last_helo_counts(driver):
    driver.tell(b"H", b"second.example\0")
    driver.message()
    assert driver.judge.messages[0].envelope.helo == b"second.example"


# Macros.


def test_macros_of_the_connection_come_before_connect():
    made = Driver()
    made.macros(b"C", b"j", b"mx.example.net", b"{daemon_name}", b"ORIGINATING")
    made.connect()
    for _ in range(2):
        made.message()
        made.tell(b"A")
    for message in made.judge.messages:
        assert message.envelope.macros == {b"j": b"mx.example.net", b"daemon_name": b"ORIGINATING"}


def test_macros_of_a_message_are_dropped_after_it(driver):
    driver.macros(b"M", b"{auth_type}", b"PLAIN", b"{auth_authen}", b"alice")
    driver.envelope()
    driver.macros(b"T", b"i", b"QUEUE1")
    driver.content()
    assert driver.session.queue_id == "QUEUE1"
    driver.tell(b"E")
    assert driver.session.queue_id == ""
    driver.message()
    first, second = driver.judge.messages
    assert first.envelope.macros == {b"auth_type": b"PLAIN", b"auth_authen": b"alice", b"i": b"QUEUE1"}
    assert second.envelope.macros == {}
    assert second.macros == {}


POINTS = ["macros", "MAIL", "RCPT", "DATA", "header", "EOH", "body"]
ENDS = [(point, how) for point in POINTS for how in ("ABORT", "nothing", "HELO")]
ENDS.remove(("macros", "nothing"))  # nothing tells these macros from those of the next message


@pytest.mark.parametrize(("point", "how"), ENDS)
def test_macros_of_a_message_are_dropped_with_it(driver, point, how):
    driver.macros(b"C", b"j", b"mx.example.net")
    driver.connect()
    driver.macros(b"M", b"{auth_authen}", b"alice", b"i", b"QUEUE1")
    steps = {
        "macros": lambda: None,
        "MAIL": lambda: driver.tell(b"M", b"<a@x>\0"),
        "RCPT": lambda: driver.tell(b"R", b"<b@y>\0"),
        "DATA": lambda: driver.tell(b"T"),
        "header": lambda: driver.tell(b"L", b"A\0 b\0"),
        "EOH": lambda: driver.tell(b"N"),
        "body": lambda: driver.tell(b"B", b"x"),
    }
    for name, step in steps.items():
        step()
        if name == point:
            break
    if how == "ABORT":
        driver.tell(b"A")
    elif how == "HELO":
        driver.tell(b"H", b"again\0")
    else:
        driver.macros(b"M")
    driver.message()
    message = driver.judge.messages[-1]
    assert message.envelope.macros == {b"j": b"mx.example.net"}
    assert message.macros == {}


def test_mail_without_macros_after_a_message_that_was_not_ended(driver):
    driver.macros(b"M", b"{auth_authen}", b"alice")
    driver.envelope()
    driver.tell(b"M", b"<stranger@x>\0")  # neither ABORT nor macros
    driver.tell(b"R", b"<b@y>\0")
    driver.content()
    driver.tell(b"E")
    assert driver.judge.messages[-1].envelope.macros == {}


def test_the_queue_id_may_come_late(driver):
    driver.envelope()
    driver.content()
    driver.macros(b"E", b"i", b"QUEUE1")
    driver.tell(b"E")
    assert driver.judge.messages[0].macros == {b"i": b"QUEUE1"}


def test_the_queue_id_can_be_logged_whatever_it_is(driver):
    driver.macros(b"M", b"i", b"\xff\xfe")
    assert driver.session.queue_id == "\\xff\\xfe"


@pytest.mark.parametrize("stage", [b"C", b"H", b"M", b"R", b"T", b"N", b"E", b"L", b"?"])
def test_macros_that_nobody_wants_are_not_kept(driver, stage):
    for number in range(2000):
        driver.macros(stage, b"{m%d}" % number, b"x" * 100)
    kept = driver.session._connection_macros | driver.session._message_macros
    assert kept == {}


def test_a_macro_of_the_message_goes_before_one_of_the_connection():
    made = Driver()
    made.macros(b"C", b"j", b"one", b"i", b"connection")
    made.connect()
    made.macros(b"M", b"j", b"two")
    made.message()
    assert made.judge.messages[0].envelope.macros[b"j"] == b"two"


# Many messages over one connection.


def test_messages_do_not_mix(driver):
    for number in range(50):
        sender = b"<sender%d@x.example>" % number
        driver.macros(b"M", b"i", b"QUEUE%d" % number)
        driver.judge.decision = Decision((InsertHeader(0, b"X-Number", b" %d" % number),), Continue())
        driver.envelope(sender, *(b"<recipient%d.%d@y>" % (number, each) for each in range(number % 3 + 1)))
        driver.content((b"Number", b" %d" % number), body=b"body %d" % number)
        assert driver.tell(b"E") == [(b"i", b"\0\0\0\0X-Number\0 %d\0" % number), *GO_ON]
        if number % 2:  # Postfix ends each message with ABORT, Sendmail does not
            driver.tell(b"A")
    for number, message in enumerate(driver.judge.messages):
        assert message.envelope.sender.text == b"<sender%d@x.example>" % number
        assert len(message.envelope.recipients) == number % 3 + 1
        assert message.envelope.recipients[0].text == b"<recipient%d.0@y>" % number
        assert message.fields == [(b"Number", b" %d" % number)]
        assert message.content == b"body %d" % number
        assert message.macros == {b"i": b"QUEUE%d" % number}
        assert message.envelope.client.address == ip_address("192.0.2.1")
        assert message.aborted == 0


UNTIL = ["MAIL", "RCPT", "DATA", "header", "EOH", "body"]


def go_until(driver: Driver, point: str) -> None:
    steps = [
        ("MAIL", b"M", b"<old@x>\0"), ("RCPT", b"R", b"<old@y>\0"), ("DATA", b"T", b""),
        ("header", b"L", b"Old\0 x\0"), ("EOH", b"N", b""), ("body", b"B", b"old"),
    ]  # fmt: skip
    for name, command, data in steps:
        driver.tell(command, data)
        if name == point:
            return


@pytest.mark.parametrize("point", UNTIL)
@pytest.mark.parametrize("how", ["ABORT", "MAIL", "HELO", "CONNECT", "QUIT_NC", "negotiation"])
def test_a_message_that_is_not_ended_leaves_nothing_behind(driver, point, how):
    go_until(driver, point)
    assert driver.session.in_message
    begun = list(driver.judge.messages)
    if how == "ABORT":
        assert driver.tell(b"A") == []
    elif how == "HELO":
        driver.tell(b"H", b"helo.example\0")
    elif how == "CONNECT":
        driver.connect()
    elif how == "QUIT_NC":
        driver.tell(b"K")
        driver.connect()
    elif how == "negotiation":
        driver.tell(b"O", struct.pack(">III", 6, ALL_ACTIONS, ALL_STEPS))
        driver.connect()
    if how != "MAIL":
        assert not driver.session.in_message
    assert driver.message(b"<new@x>") == GO_ON
    assert [message.aborted for message in begun] == [1] * len(begun)
    message = driver.judge.messages[-1]
    assert message.envelope.sender.text == b"<new@x>"
    assert [path.text for path in message.envelope.recipients] == [b"<b@y.example>"]
    assert message.fields == [(b"Subject", b" x")]
    assert message.content == b"text\r\n"
    assert message.aborted == 0


def test_abort_without_a_message_says_nothing(driver):
    for _ in range(3):
        assert driver.tell(b"A") == []
    assert driver.message() == GO_ON
    for _ in range(3):
        assert driver.tell(b"A") == []
    assert driver.judge.messages[0].aborted == 0


def test_a_message_is_ended_once(driver):
    driver.message()
    with pytest.raises(ProtocolError):
        driver.tell(b"E")


# The end of a connection.


def test_quit(driver):
    driver.message()
    assert not driver.session.finished
    assert driver.tell(b"Q") == []
    assert driver.session.finished


@pytest.mark.parametrize("point", UNTIL)
def test_quit_in_a_message_aborts_it(driver, point):
    go_until(driver, point)
    driver.tell(b"Q")
    assert driver.session.finished
    assert [message.aborted for message in driver.judge.messages] in ([], [1])


@pytest.mark.parametrize("point", UNTIL)
def test_a_connection_that_is_lost_aborts_its_message(driver, point):
    go_until(driver, point)
    driver.session.close()
    assert [message.aborted for message in driver.judge.messages] in ([], [1])
    assert not driver.session.in_message


def test_quit_nc_keeps_what_was_agreed_and_nothing_else():
    made = Driver(steps=ALL_STEPS & ~LEADING_SPACE & ~mta.NO_REPLY[mta.HELO])
    made.macros(b"C", b"j", b"first", b"{daemon_name}", b"ORIGINATING")
    made.connect("192.0.2.1", b"first.example", b"helo.first")
    made.macros(b"M", b"{auth_authen}", b"alice")
    made.message()
    assert made.tell(b"K") == []
    assert not made.session.finished
    made.macros(b"C", b"j", b"second")
    made.tell(b"C", mta.connect_data(b"second.example", "192.0.2.2"))
    made.message()
    message = made.judge.messages[-1]
    assert message.envelope.client == (b"second.example", ip_address("192.0.2.2"))
    assert message.envelope.helo == b""
    assert message.envelope.macros == {b"j": b"second"}
    assert made.tell(b"H", b"helo.second\0") == GO_ON
    made.envelope()
    made.content((b"A", b"x"))
    assert made.judge.messages[-1].fields == [(b"A", b" x")]


def test_a_client_without_macros_after_quit_nc_has_none_of_the_one_before():
    made = Driver()
    made.macros(b"C", b"{daemon_name}", b"ORIGINATING")
    made.connect("127.0.0.1")
    made.tell(b"K")
    made.message()  # not even CONNECT
    assert made.judge.messages[0].envelope.client.address is None
    assert made.judge.messages[0].envelope.macros == {}


# What no MTA sends.

OUT_OF_ORDER = {
    "RCPT before MAIL": [b"R"],
    "DATA before MAIL": [b"T"],
    "HEADER before MAIL": [b"L"],
    "EOH before MAIL": [b"N"],
    "BODY before MAIL": [b"B"],
    "EOM before MAIL": [b"E"],
    "RCPT after DATA": [b"M", b"R", b"T", b"R"],
    "DATA twice": [b"M", b"R", b"T", b"T"],
    "DATA after HEADER": [b"M", b"R", b"L", b"T"],
    "HEADER after EOH": [b"M", b"R", b"T", b"N", b"L"],
    "EOH twice": [b"M", b"R", b"T", b"N", b"N"],
    "BODY before EOH": [b"M", b"R", b"T", b"B"],
    "BODY after RCPT": [b"M", b"R", b"B"],
    "DATA after BODY": [b"M", b"R", b"T", b"N", b"B", b"T"],
    "RCPT after BODY": [b"M", b"R", b"T", b"N", b"B", b"R"],
    "BODY after EOM": [b"M", b"R", b"T", b"N", b"E", b"B"],
    "EOM twice": [b"M", b"R", b"T", b"N", b"E", b"E"],
    "RCPT after ABORT": [b"M", b"R", b"A", b"R"],
    "HEADER after ABORT": [b"M", b"R", b"T", b"A", b"L"],
    "BODY after ABORT": [b"M", b"R", b"T", b"N", b"A", b"B"],
    "RCPT after QUIT_NC": [b"M", b"K", b"R"],
}
DATA_OF = {b"M": b"<a@x>\0", b"R": b"<b@y>\0", b"L": b"A\0 b\0", b"B": b"x"}


@pytest.mark.parametrize("commands", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_commands_out_of_order(driver, commands):
    for command in commands[:-1]:
        driver.tell(command, DATA_OF.get(command, b""))
    with pytest.raises(ProtocolError):
        driver.tell(commands[-1], DATA_OF.get(commands[-1], b""))


@pytest.mark.parametrize(("command", "data"), [(b"C", b""), (b"C", b"mx"), (b"D", b""), (b"O", b"\0\0\0\6")])
def test_data_that_is_cut_short(driver, command, data):
    with pytest.raises(ProtocolError):
        driver.tell(command, data)


def test_a_header_that_is_cut_short(driver):
    driver.envelope()
    driver.tell(b"T")
    with pytest.raises(ProtocolError):
        driver.tell(b"L", b"no value\0")


def test_many_header_fields_are_handed_on_before_the_header_ends(driver):
    driver.envelope()
    driver.tell(b"T")
    for number in range(3 * HEADERS_AT_ONCE):
        driver.tell(b"L", b"X\0 %d\0" % number)
    assert len(driver.judge.messages[0].fields) == 3 * HEADERS_AT_ONCE
    assert driver.judge.messages[0].fields[-1] == (b"X", b" %d" % (3 * HEADERS_AT_ONCE - 1))


def test_as_many_recipients_as_are_taken(driver):
    driver.tell(b"M", b"<a@x>\0")
    for number in range(RECIPIENTS_MAXIMUM):
        driver.tell(b"R", b"<r%d@y>\0" % number)
    with pytest.raises(ProtocolError, match=str(RECIPIENTS_MAXIMUM)):
        driver.tell(b"R", b"<one.too.many@y>\0")


# Failures of the filter.

FAILURES = {
    "begin": b"T",
    "header": b"N",  # fields are handed on together
    "end of headers": b"N",
    "body": b"B",
    "end of message": b"E",
}


@pytest.mark.parametrize(
    "steps", [ALL_STEPS, ALL_STEPS & ~LEADING_SPACE, 0], ids=["no reply", "no blanks", "all replies"]
)
@pytest.mark.parametrize("where", FAILURES)
def test_a_failure_is_answered_at_the_end(where, steps):
    made = Driver(steps=steps)
    made.connect()
    made.macros(b"M", b"i", b"QUEUE1")
    made.judge.fails_at = where
    due = [] if steps else GO_ON
    events = [
        (b"M", b"<a@x>\0"), (b"R", b"<b@y>\0"), (b"T", b""), (b"L", b"A\0 b\0"), (b"L", b"C\0 d\0"), (b"N", b""),
        (b"B", b"one"), (b"B", b"two"),
    ]  # fmt: skip
    for command, data in events:
        before = made.bugs
        assert made.tell(command, data) == due, command
        assert made.session.queue_id == "QUEUE1"
        assert made.bugs - before == (command == FAILURES[where] and not before)
    assert made.tell(b"E") == TEMPFAIL
    assert made.bugs == 1
    assert [message.aborted for message in made.judge.messages] == ([] if where == "begin" else [1])
    # The next message is not touched by it.
    made.judge.fails_at = ""
    assert made.message() == GO_ON
    assert made.bugs == 1


@pytest.mark.parametrize(
    ("where", "before"),
    [
        ("begin", b"MR"),
        ("header", b"MRT"),
        ("end of headers", b"MRT"),
        ("end of headers", b"MRTL"),
        ("body", b"MRTLN"),
        ("body", b"MRTLNB"),
        ("end of message", b"MRTLNB"),
    ],
)
def test_a_failure_in_the_last_packet_is_answered_too(driver, where, before):
    """The last chunk of the body is in the packet that ends the message, and an answer is due."""
    for command in before.decode():
        driver.tell(command.encode(), DATA_OF.get(command.encode(), b""))
    driver.judge.fails_at = where
    assert driver.tell(b"E", b"the last chunk") == (GO_ON if where == "header" else TEMPFAIL)
    assert not driver.session.in_message
    driver.judge.fails_at = ""
    driver.tell(b"A")
    assert driver.message() == GO_ON


@pytest.mark.parametrize("where", FAILURES)
def test_a_failure_is_forgotten_with_its_message(driver, where):
    driver.judge.fails_at = where
    driver.envelope()
    driver.content()
    if where == "end of message":
        assert driver.tell(b"E") == TEMPFAIL
    driver.tell(b"A")
    driver.judge.fails_at = ""
    assert driver.message() == GO_ON


def test_a_failure_of_what_reads_the_client_fails_all_its_messages(driver, monkeypatch):
    def bug(_data):
        raise BugError

    with monkeypatch.context() as broken:
        broken.setattr("srsd.wire.milter_session.parse_connect", bug)
        assert driver.tell(b"C", mta.connect_data(b"x", "127.0.0.1")) == []
    for _ in range(2):
        assert driver.message() == TEMPFAIL
        driver.tell(b"A")
    assert driver.judge.messages == []
    driver.tell(b"K")
    driver.macros(b"C", b"j", b"x")
    driver.connect()
    assert driver.message() == GO_ON


# Decisions.


async def later():
    """Stand for a decision that is not there yet."""
    return DONE


def test_a_decision_may_come_later(driver):
    driver.judge.decision = waiting = later()
    assert driver.message() == []
    assert driver.session.outcome is waiting
    assert driver.session.in_message
    assert split_packets(driver.session.progress()) == [(b"p", b"")]
    assert split_packets(driver.session.answer(DONE)) == GO_ON
    assert driver.session.outcome is None
    assert not driver.session.in_message
    driver.judge.decision = DONE
    assert driver.message() == GO_ON
    waiting.close()


def test_a_decision_that_fails_later(driver):
    driver.judge.decision = waiting = later()
    driver.message()
    assert split_packets(driver.session.failed(ord("E"))) == TEMPFAIL
    assert driver.session.outcome is None
    assert driver.judge.messages[0].aborted == 1
    driver.judge.decision = DONE
    assert driver.message() == GO_ON
    waiting.close()


def test_a_connection_that_is_lost_while_a_decision_is_waited_for(driver):
    driver.judge.decision = waiting = later()
    driver.message()
    driver.session.close()
    assert driver.session.outcome is None
    assert driver.judge.messages[0].aborted == 1
    waiting.close()


def test_modifications_go_first_and_in_their_order(driver):
    driver.judge.decision = Decision(
        (
            ChangeHeader(3, b"X"),
            ChangeHeader(1, b"X"),
            InsertHeader(0, b"B", b" 2"),
            InsertHeader(0, b"A", b" 1"),
        ),
        Accept(),
    )
    assert driver.message() == [
        (b"m", b"\0\0\0\3X\0\0"),
        (b"m", b"\0\0\0\1X\0\0"),
        (b"i", b"\0\0\0\0B\0 2\0"),
        (b"i", b"\0\0\0\0A\0 1\0"),
        (b"a", b""),
    ]


def test_values_lose_their_blank_where_the_mta_puts_one():
    made = Driver(steps=ALL_STEPS & ~LEADING_SPACE)
    made.judge.decision = Decision((InsertHeader(0, b"A", b" 1"), AddHeader(b"B", b"2")), Continue())
    assert made.message() == [(b"i", b"\0\0\0\0A\x001\0"), (b"h", b"B\x002\0"), *GO_ON]


MODIFICATIONS = [
    (AddHeader(b"X", b" y"), 0x01),
    (InsertHeader(0, b"X", b" y"), 0x01),
    (ChangeHeader(1, b"X", b" y"), 0x10),
    (ChangeHeader(1, b"X"), 0x10),
    (ReplaceBody(b"x"), 0x02),
    (AddRecipient(b"<a@b>"), 0x04),
    (AddRecipient(b"<a@b>", b"NOTIFY=NEVER"), 0x80),
    (DeleteRecipient(b"<a@b>"), 0x08),
    (Quarantine(b"why"), 0x20),
    (ChangeFrom(b"<a@b>"), 0x40),
]


@pytest.mark.parametrize(("modification", "needed"), MODIFICATIONS, ids=str)
def test_a_modification_has_to_be_agreed(modification, needed):
    decision = Decision((modification,), Continue())
    made = Driver(Judge(actions=Action(needed)))
    made.judge.decision = decision
    assert made.message()[1:] == GO_ON
    made = Driver(Judge(actions=Action(ALL_ACTIONS & ~SET_MACROS & ~needed)))
    made.judge.decision = decision
    with pytest.raises(ValueError, match="not agreed"):
        made.message()
    assert split_packets(made.session.failed(ord("E"))) == TEMPFAIL
    made.judge.decision = DONE
    assert made.message() == GO_ON


@pytest.mark.parametrize("late", [False, True])
def test_a_verdict_that_is_not_legal_goes_nowhere(driver, late):
    waiting = later()
    driver.judge.decision = waiting if late else Decision((), Skip())
    if late:
        driver.message()
        with pytest.raises(ValueError, match="not agreed"):
            driver.session.answer(Decision((), Skip()))
        assert split_packets(driver.session.failed(ord("E"))) == TEMPFAIL
    else:
        with pytest.raises(ValueError, match="not agreed"):
            driver.message()
        assert split_packets(driver.session.failed(ord("E"))) == TEMPFAIL
    waiting.close()


VERDICTS = [
    (Accept(), (b"a", b"")),
    (Continue(), (b"c", b"")),
    (Discard(), (b"d", b"")),
    (Reject(), (b"r", b"")),
    (TemporaryFailure(), (b"t", b"")),
    (ShutDown(), (b"4", b"")),
    (ReplyCode(550, b"5.7.1", b"no"), (b"y", b"550 5.7.1 no\0")),
]


@pytest.mark.parametrize(("verdict", "reply"), VERDICTS, ids=str)
def test_verdicts(driver, verdict, reply):
    driver.judge.decision = Decision((InsertHeader(0, b"A", b" 1"),), verdict)
    assert driver.message() == [(b"i", b"\0\0\0\0A\0 1\0"), reply]
    driver.judge.decision = DONE
    assert driver.message() == GO_ON


# Which reply is legal where, from libmilter's documentation (xxfi_*.html, smfi_*.html, api.html):
# - CONTINUE, ACCEPT, REJECT and TEMPFAIL are given by every callback that answers a command.
# - "SMFIS_DISCARD should not be returned by a connection-oriented routine"; xxfi_unknown belongs to no message.
# - SMFIS_SKIP is allowed in xxfi_body only.
# - smfi_addheader, chgheader, insheader, chgfrom, addrcpt, addrcpt_par, delrcpt, replacebody, quarantine and
#   progress are "called only from xxfi_eom".
# - smfi_setreply sets a reply for REJECT and TEMPFAIL. "May be called from any of the xxfi_ callbacks other than
#   xxfi_connect"; both Sendmail (since 8.13, for 421) and Postfix take it at CONNECT nevertheless.
# - SMFIR_SHUTDOWN is not for libmilter's callers; Postfix takes it at every command.
ANYWHERE = {"ACCEPT", "CONTINUE", "REJECT", "TEMPFAIL", "REPLYCODE", "SHUTDOWN"}
WITH_DISCARD = ANYWHERE | {"DISCARD"}
CHANGES = {
    *("ADDHEADER", "CHGHEADER", "INSHEADER", "CHGFROM", "ADDRCPT"),
    *("ADDRCPT_PAR", "DELRCPT", "REPLBODY", "QUARANTINE", "PROGRESS"),
}
DOCUMENTED = {
    "C": ANYWHERE,
    "H": ANYWHERE,
    "U": ANYWHERE,
    "M": WITH_DISCARD,
    "R": WITH_DISCARD,
    "T": WITH_DISCARD,
    "L": WITH_DISCARD,
    "N": WITH_DISCARD,
    "B": WITH_DISCARD | {"SKIP"},
    "E": WITH_DISCARD | CHANGES,
}
OURS = {
    Accept: {"ACCEPT"}, Continue: {"CONTINUE"}, Discard: {"DISCARD"}, Reject: {"REJECT"},
    TemporaryFailure: {"TEMPFAIL"}, ReplyCode: {"REPLYCODE"}, ShutDown: {"SHUTDOWN"}, Skip: {"SKIP"},
    Progress: {"PROGRESS"}, AddHeader: {"ADDHEADER"}, InsertHeader: {"INSHEADER"}, ChangeHeader: {"CHGHEADER"},
    ChangeFrom: {"CHGFROM"}, AddRecipient: {"ADDRCPT", "ADDRCPT_PAR"}, DeleteRecipient: {"DELRCPT"},
    ReplaceBody: {"REPLBODY"}, Quarantine: {"QUARANTINE"},
}  # fmt: skip


def test_legal_replies_are_those_of_the_documentation():
    ours = {
        chr(command): set().union(*(OURS[reply] for reply in replies))
        for command, replies in LEGAL_REPLIES.items()
    }
    assert ours == DOCUMENTED


def test_what_needs_no_reply_has_no_legal_one():
    assert {chr(command) for command in Command} - set(DOCUMENTED) == set("ADKOQ")


# Recipients that the MTA has refused.

REFUSED = (b"rcpt_mailer", b"error", b"rcpt_host", b"5.1.1", b"rcpt_addr", b"<x@y.example>: no")
ALIAS = (b"{rcpt_mailer}", b"error", b"{rcpt_host}", b"5.1.1 User unknown in virtual alias table")
TAKEN = (b"{rcpt_mailer}", b"smtp", b"{rcpt_host}", b"5.1.1")
REJECTED, NO_REPLY_RCPT = 0x800, mta.NO_REPLY[b"R"]


def hearing(seconds: float = 0.0, **how) -> Driver:
    made = Driver(Judge(refused=Refused(seconds, slows=seconds > 0)), **how)
    made.connect()
    return made


@pytest.mark.parametrize(
    ("seconds", "actions", "steps", "wanted"),
    [
        (0, ALL_ACTIONS, ALL_STEPS, REJECTED | NO_REPLY_RCPT),
        (5, ALL_ACTIONS, ALL_STEPS, REJECTED),
        # Without the macros, or without the step, nothing is heard, so nobody is waited for.
        (5, ALL_ACTIONS & ~SET_MACROS, ALL_STEPS, NO_REPLY_RCPT),
        (5, ALL_ACTIONS, ALL_STEPS & ~REJECTED, NO_REPLY_RCPT),
    ],
)
def test_refused_recipients_are_asked_for_where_they_can_be_told_apart(seconds, actions, steps, wanted):
    made = hearing(seconds, actions=actions, steps=steps)
    assert made.steps & (REJECTED | NO_REPLY_RCPT) == wanted
    assert made.steps & ~(REJECTED | NO_REPLY_RCPT) == (ALL_NO_REPLIES | LEADING_SPACE) & ~NO_REPLY_RCPT


def test_a_refused_recipient_is_none_of_the_message():
    made = hearing()
    made.macros(b"C", b"{daemon_name}", b"mx")
    made.connect("192.0.2.9")
    made.tell(b"M", b"<a@x.example>\0")
    for path, macros in [
        (b"<good@y.example>", TAKEN),
        (b"<postmaster@y.example>", REFUSED),
        (b"<alias@y.example>", ALIAS),
        (b"<plain@y.example>", ()),
    ]:
        if macros:
            made.macros(b"R", *macros)
        assert made.tell(b"R", path + b"\0") == []
    made.content()
    assert made.tell(b"E") == GO_ON
    (message,) = made.judge.messages
    assert [each.text for each in message.envelope.recipients] == [
        b"<good@y.example>",
        b"<alias@y.example>",
        b"<plain@y.example>",
    ]
    ((client, macros, path),) = made.judge.refused.seen
    assert (client.address, macros, path.text) == (
        ip_address("192.0.2.9"),
        {b"daemon_name": b"mx"},
        b"<postmaster@y.example>",
    )


def test_a_macro_without_its_recipient_does_not_wait_for_the_next_message():
    made = hearing()
    made.tell(b"M", b"<a@x.example>\0")
    made.macros(b"R", *REFUSED)
    made.tell(b"A")
    assert made.message() == GO_ON
    assert len(made.judge.messages[0].envelope.recipients) == 1
    assert made.judge.refused.seen == []


@pytest.mark.parametrize("refused", [None, Refused()])
def test_where_it_was_not_agreed_every_recipient_is_one_of_the_message(refused):
    made = Driver(Judge(refused=refused), steps=ALL_STEPS & ~REJECTED)
    made.tell(b"M", b"<a@x.example>\0")
    made.macros(b"R", *REFUSED)
    made.tell(b"R", b"<b@y.example>\0")
    made.content()
    assert len(made.judge.messages[0].envelope.recipients) == 1


def test_refused_recipients_are_not_limited_and_not_kept(monkeypatch):
    monkeypatch.setattr("srsd.wire.milter_session.RECIPIENTS_MAXIMUM", 2)
    made = hearing()
    made.tell(b"M", b"<a@x.example>\0")
    for _ in range(5):
        made.macros(b"R", *REFUSED)
        made.tell(b"R", b"<b@y.example>\0")
    assert made.session._recipients == []


def test_an_answer_that_is_held_back():
    made = hearing(7.0)
    made.tell(b"M", b"<a@x.example>\0")
    made.macros(b"R", *REFUSED)
    assert made.tell(b"R", b"<b@y.example>\0") == []
    assert made.session.outcome.seconds == 7.0
    assert made.judge.refused.ended == 0
    assert split_packets(made.session.go_on()) == GO_ON
    assert made.session.outcome is None
    assert made.judge.refused.ended == 1
    assert made.tell(b"R", b"<c@y.example>\0") == GO_ON


def test_an_mta_that_leaves_ends_the_delay_once():
    made = hearing(7.0)
    made.tell(b"M", b"<a@x.example>\0")
    made.macros(b"R", *REFUSED)
    made.tell(b"R", b"<b@y.example>\0")
    made.session.close()
    made.session.close()
    assert made.judge.refused.ended == 1
    assert made.session.outcome is None


@pytest.mark.parametrize(
    ("mailer", "host", "refused"),
    [
        (b"error", b"5.1.1", True),
        (b"error", b"4.7.1", True),
        (b"error", b"5.123.999", True),
        (b"error", b"5.1.1 User unknown in virtual alias table", False),
        (b"error", b"", False),
        (b"error", b"2.1.5", False),
        (b"error", b"5.1.1\n", False),
        (b"smtp", b"5.1.1", False),
        (b"", b"5.1.1", False),
    ],
)
def test_who_is_refused_by_the_macros(mailer, host, refused):
    assert is_refused({b"rcpt_mailer": mailer, b"rcpt_host": host}) is refused
    assert not is_refused({})
