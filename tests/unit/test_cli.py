"""srsctl: every command, its exit status, its JSON, and that none of them tells a secret."""

from __future__ import annotations

import gc
import json
import os
import pwd
import stat
import tomllib
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner, Result

from harness.daemon import write_config
from harness.dns_server import DnsServer
from srsd import __version__
from srsd.cli.main import main
from srsd.config import Config
from srsd.config_text import parse_config
from srsd.daemon.secret_ages import note_secrets
from srsd.daemon.service import today
from srsd.srs import Keyring, Srs, SrsParameters, fingerprint
from srsd.syntax.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRETS = ["the tests' first secret", "the tests' second secret"]
PRINTS = [fingerprint(secret.encode()) for secret in SECRETS]
DOMAIN = "srs.example.org"
ALICE = Address(b"alice", b"example.com")

Run = "Callable[..., Result]"


@pytest.fixture
def config(tmp_path) -> Callable[..., Path]:
    def write(**tables: Any) -> Path:
        tables["srs"] = {"domain": DOMAIN, **tables.get("srs", {})}
        return write_config(tmp_path, secrets=tables.pop("secrets", SECRETS), **tables)

    return write


@pytest.fixture
def run(config, tmp_path) -> Run:
    """Run srsctl with a good configuration, or with what a test wrote before."""
    if not (tmp_path / "srsd.toml").exists():
        config(exclude="@friend.example\n")
    outputs: list[str] = []

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["--config", str(tmp_path / "srsd.toml"), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        outputs.append(result.output)
        return result

    yield run
    for secret in SECRETS:
        assert not any(secret in output for output in outputs)


def made(age: int = 0, secret: str = SECRETS[0], address: Address = ALICE, **parameters: int) -> str:
    """Make an SRS address that is some days old."""
    srs = Srs(SrsParameters(**parameters), Keyring([secret.encode()]))
    return f"{srs.forward(address, today() - age).decode()}@{DOMAIN}"


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


# srs forward, srs reverse ----------------------------------------------------------------------


def test_forward(run):
    result = run("srs", "forward", "alice@example.com")
    assert (result.exit_code, result.stdout, result.stderr) == (0, made() + "\n", "")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (f"bob@{DOMAIN}", "own domain"),
        ("bob@friend.example", "excluded"),
        ("bob", "not an address"),
        ("", "null sender"),
    ],
)
def test_forward_of_what_is_left_alone(run, address, reason):
    result = run("srs", "forward", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == f"{address}: left as it is: {reason}"


def test_reverse(run):
    result = run("srs", "reverse", made(21))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "alice@example.com\n", "")


def test_reverse_of_what_is_refused(run):
    address = made(22)
    result = run("srs", "reverse", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == f"{address}: left as it is: address expired"


@pytest.mark.parametrize(
    ("command", "address", "result", "reason"),
    [
        ("forward", "alice@example.com", made(), "rewritten"),
        ("forward", "bob", None, "not an address"),
        ("reverse", made(), "alice@example.com", "reversed"),
        ("reverse", "alice@example.com", None, "not an SRS address"),
    ],
)
def test_answers_as_json(run, command, address, result, reason):
    given = run("srs", command, "--json", address)
    assert given.exit_code == (1 if result is None else 0)
    assert json.loads(given.stdout) == {
        "direction": command,
        "address": address,
        "result": result,
        "reason": reason,
    }


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_long_result_is_given_whole(run, form):
    """What is cut cannot be reversed; only lines of the log may be cut."""
    sender = "u" * 600 + "@example.com"
    given = run("srs", "forward", *form, sender)
    assert given.exit_code == 0
    result = json.loads(given.stdout)["result"] if form else given.stdout.strip()
    assert run("srs", "reverse", result).stdout == sender + "\n"


def test_octets_of_the_command_line_go_there_and_back(run):
    address = b"jos\xe9@example.com".decode(errors="surrogateescape")
    forward = run("srs", "forward", address)
    assert forward.exit_code == 0
    assert "jos\\xe9" in forward.stdout


@pytest.mark.parametrize("command", ["forward", "reverse", "explain"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_argument_that_is_not_utf_8_breaks_no_command(run, command, form):
    address = b"\xff\x1b@example.com".decode(errors="surrogateescape")
    assert run("srs", command, *form, address).exit_code in {0, 1}


@pytest.mark.parametrize("command", ["forward", "reverse", "explain"])
def test_an_address_cannot_steer_the_terminal(run, command):
    result = run("srs", command, "a\x1b[2Jb\nc")
    assert "\x1b" not in result.output
    assert len(result.output.splitlines()) <= 3


@pytest.mark.parametrize("command", ["forward", "reverse", "explain"])
@pytest.mark.parametrize(
    "arguments", [[], ["a@example.com", "b@example.com"], ["--nonsense", "a@example.com"]]
)
def test_wrong_usage_is_status_2(run, command, arguments):
    assert run("srs", command, *arguments).exit_code == 2


# srs explain -----------------------------------------------------------------------------------


def explain(run: Run, address: str) -> tuple[int, list[str]]:
    result = run("srs", "explain", address)
    report = json.loads(run("srs", "explain", "--json", address).stdout)
    lines = result.stdout.splitlines()
    assert lines[1:] == [f"  {line}" for line in report["why"]]
    assert lines[0] == (
        f"{address} -> {report['result']}" if report["result"] else f"{address}: {report['reason']}"
    )
    return result.exit_code, lines


def test_explain_what_is_reversed(run):
    assert explain(run, made(5)) == (0, [
        f"{made(5)} -> alice@example.com",
        "  it stands for alice@example.com",
        f"  made with secret {PRINTS[0]}, number 1 in the file",
        "  made 5 days ago, good for 16 days more",
    ])  # fmt: skip


def test_explain_which_secret_made_it(run):
    status, lines = explain(run, made(secret=SECRETS[1]))
    assert status == 0
    assert f"  made with secret {PRINTS[1]}, number 2 in the file" in lines
    assert "  made 0 days ago, good for 21 days more" in lines


@pytest.mark.parametrize(
    ("age", "line"),
    [
        (1, "made 1 day ago, good for 20 days more"),
        (20, "made 20 days ago, good for 1 day more"),
        (21, "made 21 days ago, good for 0 days more"),
        (22, "expired 1 day ago: made 22 days ago, srs.maximum_age is 21 days"),
        (24, "expired 3 days ago: made 24 days ago, srs.maximum_age is 21 days"),
        (512, "expired 491 days ago: made 512 days ago, srs.maximum_age is 21 days"),
        (-1, "dated 1 day in the future: was the clock wrong on the host that made it?"),
        (-3, "dated 3 days in the future: was the clock wrong on the host that made it?"),
        (-511, "dated 511 days in the future: was the clock wrong on the host that made it?"),
    ],
)
def test_explain_the_age(run, age, line):
    status, lines = explain(run, made(age))
    assert (status, lines[-1]) == (0 if 0 <= age <= 21 else 1, f"  {line}")
    assert f"  made with secret {PRINTS[0]}, number 1 in the file" in lines


def other(octet: str) -> str:
    return "a" if octet.lower() != "a" else "b"


DAMAGES: list[tuple[Callable[[str], str], str, str]] = [
    (lambda _: made(secret="nobody's"), "hash invalid", "made with an unknown secret, or the address was altered"),
    (lambda text: text.replace("alice", "mallory"), "hash invalid", "made with an unknown secret, or the address was"),
    (lambda text: text[:5] + other(text[5]) + text[6:], "hash invalid", "hash damaged: it is nearly what one of our"),
    (lambda text: text[:5] + "!" + text[6:], "hash invalid", "hash damaged: it is nearly what one of our secrets"),
    (lambda text: text[:5] + text[6:], "hash too short", "its hash has 3 characters, fewer than srs.hash_minimum"),
    (lambda text: text.replace("=", "", 2), "not an SRS address", "as a recipient: not an SRS address"),
    (lambda _: f"SRS0=x@{DOMAIN}", "malformed SRS address", "malformed: not SRS0=HASH=STAMP=DOMAIN=USER or SRS1="),
    (lambda text: text.replace(DOMAIN, "other.example"), "", "as a recipient: SRS address of another domain"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "reason", "why"), DAMAGES)
def test_explain_what_is_wrong(run, damage, reason, why):
    address = damage(made())
    _, lines = explain(run, address)
    assert any(line.strip().startswith(why) for line in lines), lines
    result = run("srs", "reverse", address)
    assert result.exit_code == 1
    assert reason in result.stderr


def test_explain_srs1(run):
    address = made(address=Address(b"SRS0=HHHH=TT=orig.example=user", b"mid.example"))
    assert address.startswith("SRS1=")
    status, lines = explain(run, address)
    assert status == 0
    assert lines[1:] == [
        "  it stands for SRS0=HHHH=TT=orig.example=user@mid.example",
        f"  made with secret {PRINTS[0]}, number 1 in the file",
    ]


def test_explain_a_sender(run):
    assert explain(run, "alice@example.com") == (0, [
        f"alice@example.com -> {made()}",
        "  as a sender: rewritten",
        "  as a recipient: not an SRS address",
    ])  # fmt: skip
    assert explain(run, "bob@friend.example")[0] == 1


# secret new ------------------------------------------------------------------------------------


@pytest.fixture
def no_secrets(run, tmp_path) -> Path:
    path = tmp_path / "srs.secrets"
    path.unlink()
    return path


def test_a_new_file_of_secrets(run, no_secrets):
    result = run("secret", "new")
    assert (result.exit_code, result.stdout) == (0, f"{no_secrets}: made, with one secret\n")
    status = no_secrets.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
    secret = no_secrets.read_text()
    assert len(secret.strip()) >= 43  # 32 octets in base64
    assert secret.strip() not in result.output
    assert run("srs", "forward", "alice@example.com").exit_code == 0


def test_each_secret_is_another(run):
    printed = {run("secret", "new", "--print").stdout for _ in range(3)}
    assert len(printed) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: a file cannot be given to another group here")
def test_a_new_file_of_secrets_is_for_the_group_of_the_user(config, run, no_secrets):
    nobody = pwd.getpwnam("nobody")
    config(user="nobody")
    no_secrets.unlink()
    assert run("secret", "new").exit_code == 0
    status = no_secrets.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 0, nobody.pw_gid)


def test_a_new_file_of_secrets_gets_its_directory(config, run, tmp_path):
    path = tmp_path / "new" / "dir" / "srs.secrets"
    config(srs={"secrets_file": str(path)})
    assert run("secret", "new").exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def as_it_was_left(path: Path) -> tuple[int, ...]:
    """Which file it is and when it was changed. Not when it was read: this test reads it, too."""
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ctime_ns


@pytest.mark.parametrize("text", ["x\n", ""])
def test_a_file_of_secrets_is_never_overwritten(run, tmp_path, text):
    path = tmp_path / "srs.secrets"
    path.write_text(text)
    before = as_it_was_left(path)
    result = run("secret", "new")
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr).startswith(f"{path}: is there already and was not changed")
    assert path.read_text() == text
    assert as_it_was_left(path) == before
    assert not list(tmp_path.glob("*.new"))


def test_not_even_a_dangling_link_is_overwritten(run, no_secrets, tmp_path):
    no_secrets.symlink_to(tmp_path / "elsewhere")
    assert run("secret", "new").exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_of_secrets_that_cannot_be_made(config, run, tmp_path):
    (tmp_path / "file").touch()
    config(srs={"secrets_file": str(tmp_path / "file" / "srs.secrets")})
    result = run("secret", "new")
    assert result.exit_code == 1
    assert "could not be made: " in one_line(result.stderr)


def test_an_unknown_user_makes_no_secret(config, run, no_secrets):
    config(user="no-such-user-here")
    no_secrets.unlink()
    result = run("secret", "new")
    assert result.exit_code == 1
    assert 'there is no user "no-such-user-here"' in one_line(result.stderr)
    assert not no_secrets.exists()


def test_print_changes_nothing(run, no_secrets):
    result = run("secret", "new", "--print")
    assert result.exit_code == 0
    assert len(one_line(result.stdout)) >= 43
    assert not no_secrets.exists()


def test_print_needs_no_configuration(tmp_path):
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "absent"), "secret", "new", "--print"])
    assert result.exit_code == 0


# secret list, secret rotate --------------------------------------------------------------------


def test_list(run, tmp_path):
    note_secrets(str(tmp_path / "state"), PRINTS[:1])
    states = json.loads(run("secret", "list", "--json").stdout)
    assert [(state["fingerprint"], state["role"], state["age_days"]) for state in states] == [
        (PRINTS[0], "signs and verifies", 0),
        (PRINTS[1], "verifies", None),
    ]
    table = run("secret", "list")
    assert table.exit_code == 0
    assert all(fingerprint in table.stdout for fingerprint in PRINTS)


def test_list_without_a_domain(config, run):
    config(srs={"domain": ""})
    result = run("secret", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "srs.domain is empty" in one_line(result.stderr)


def secrets_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "srs.secrets").read_text().splitlines()


def test_rotate_in_two_steps(run, tmp_path):
    path = tmp_path / "srs.secrets"
    path.chmod(0o640)
    first = run("secret", "rotate", "--json")
    assert first.exit_code == 0
    new = secrets_of(tmp_path)[1]
    assert secrets_of(tmp_path) == [SECRETS[0], new, SECRETS[1]]
    assert json.loads(first.stdout)["secrets"] == [PRINTS[0], fingerprint(new.encode()), PRINTS[1]]
    early = run("secret", "rotate")
    assert early.exit_code == 0
    assert "waits until" in one_line(early.stdout)
    assert secrets_of(tmp_path) == [SECRETS[0], new, SECRETS[1]]
    second = run("secret", "rotate", "--delay", "0")
    assert "signs from now on" in one_line(second.stdout)
    assert secrets_of(tmp_path) == [new, *SECRETS]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not any(new in each.output for each in (first, early, second))
    assert run("srs", "reverse", made()).exit_code == 0  # the old one still verifies
    listed = json.loads(run("secret", "list", "--json").stdout)
    assert [state["role"].partition(",")[0] for state in listed] == [
        "signs and verifies",
        "verifies",
        "verifies",
    ]
    assert "retired" in listed[1]["role"]


@pytest.mark.parametrize("delay", ["-1", "soon"])
def test_rotate_with_a_delay_that_is_none(run, tmp_path, delay):
    assert run("secret", "rotate", "--delay", delay).exit_code == 2
    assert secrets_of(tmp_path) == SECRETS


@pytest.mark.parametrize("delay", ["nan", "inf", "1e300"])
def test_rotate_with_a_delay_beyond_the_calendar_is_wrong_usage_or_refused(run, tmp_path, delay):
    assert run("secret", "rotate", "--delay", delay).exit_code in {1, 2}
    assert secrets_of(tmp_path) == SECRETS


def test_rotate_changes_nothing_where_it_cannot_keep_its_state(config, run, tmp_path):
    config(state_directory=str(tmp_path / "absent"))
    result = run("secret", "rotate")
    assert result.exit_code == 1
    assert "no step was taken" in one_line(result.stderr)
    assert secrets_of(tmp_path) == SECRETS


def test_rotate_without_a_file(run, no_secrets):
    result = run("secret", "rotate")
    assert result.exit_code == 1
    assert "does not exist" in one_line(result.stderr)


# config ----------------------------------------------------------------------------------------


def test_check_of_good_files(run, tmp_path):
    path = tmp_path / "srsd.toml"
    result = run("config", "check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: good\n", "")
    assert json.loads(run("config", "check", "--json").stdout) == {
        "file": str(path),
        "good": True,
        "faults": [],
    }


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        ({"workers": 0}, "{0}/srsd.toml: workers: is 0, would be right: "),
        ({"exclude": "a..b\n"}, "{0}/exclude: line 1: 'a..b' is not a domain name"),
        ({"secrets": []}, "{0}/srs.secrets: has no secret"),
    ],
)
def test_check_of_faulty_files_is_status_1(config, run, tmp_path, tables, fault):
    config(**tables)
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr).startswith(fault.format(tmp_path))
    report = run("config", "check", "--json")
    assert report.exit_code == 1
    assert json.loads(report.stdout) == {
        "file": str(tmp_path / "srsd.toml"),
        "good": False,
        "faults": [one_line(result.stderr)],
    }


def test_check_gives_a_line_for_each_fault(config, run):
    config(workers=0, srs={"hash_length": 0, "colour": "red"})
    result = run("config", "check")
    assert len(result.stderr.splitlines()) == 3


def test_example(run):
    result = run("config", "example")
    assert result.exit_code == 0
    assert parse_config(result.stdout.encode()) == (Config(), [])


def test_show(run, tmp_path):
    result = run("config", "show")
    assert result.exit_code == 0
    shown = tomllib.loads(result.stdout)
    assert json.loads(run("config", "show", "--json").stdout) == shown
    given = parse_config((tmp_path / "srsd.toml").read_bytes())[0]
    assert parse_config(result.stdout.encode()) == (given, [])
    section = result.stdout.partition("[srs]")[2].partition("\n[")[0]
    marked = [line.partition(" ")[0] for line in section.splitlines() if line.endswith("# default")]
    assert "hash_length" in marked
    assert "domain" not in marked
    assert "secrets_file" not in marked


def test_a_value_that_repeats_the_default_is_not_marked(config, run):
    config(srs={"hash_length": 4})
    line = next(line for line in run("config", "show").stdout.splitlines() if line.startswith("hash_length"))
    assert line == "hash_length = 4"


READERS = [
    ["srs", "forward", "a@example.com"],
    ["srs", "reverse", "a@example.com"],
    ["srs", "explain", "a@example.com"],
    ["secret", "new"],
    ["secret", "list"],
    ["secret", "rotate"],
    ["config", "show"],
]
DAEMON = [["status"], ["status", "--json"], ["reload"], ["reload", "--json"], ["top", "--count", "1"]]


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_faulty_configuration_is_status_78(config, run, tmp_path, command):
    config(workers=0, srs={"hash_length": 0})
    result = run(*command)
    assert (result.exit_code, result.stdout) == (78, "")
    assert sorted(line.partition(": is")[0] for line in result.stderr.splitlines()) == [
        f"{tmp_path}/srsd.toml: srs.hash_length",
        f"{tmp_path}/srsd.toml: workers",
    ]


@pytest.mark.parametrize("command", READERS + DAEMON, ids=" ".join)
def test_what_is_not_toml_is_status_78(run, tmp_path, command):
    (tmp_path / "srsd.toml").write_text("workers")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (78, "")
    assert one_line(result.stderr).startswith(f"{tmp_path}/srsd.toml: is not TOML: ")


@pytest.mark.parametrize("command", READERS + DAEMON, ids=" ".join)
def test_a_missing_configuration_is_status_78(run, tmp_path, command):
    (tmp_path / "srsd.toml").unlink()
    result = run(*command)
    assert result.exit_code == 78
    assert one_line(result.stderr).startswith(
        f"{tmp_path}/srsd.toml: does not exist, would be right: srsctl config"
    )


def test_bad_secrets_are_a_faulty_configuration(run, tmp_path):
    (tmp_path / "srs.secrets").chmod(0o644)
    result = run("srs", "forward", "a@example.com")
    assert result.exit_code == 78
    assert f"chmod 0640 {tmp_path}/srs.secrets" in one_line(result.stderr)


# A word with the daemon, where there is none -----------------------------------------------------


@pytest.mark.parametrize("faulty", [False, True], ids=["good file", "faulty file"])
@pytest.mark.parametrize("command", DAEMON, ids=" ".join)
def test_without_a_daemon_there_is_one_line(config, run, tmp_path, command, faulty):
    """A daemon that runs is asked although its file has faults by now."""
    config(listen={"control": [f"unix:{tmp_path}/control"]}, workers=0 if faulty else 1)
    result = run(*command)
    gc.collect()  # a socket left open is a warning, which is an error
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == (
        f"{tmp_path}/control: No such file or directory: does srsd run, and may you use it?"
    )


@pytest.mark.parametrize("command", DAEMON, ids=" ".join)
def test_without_a_control_socket_there_is_one_line(run, tmp_path, command):
    result = run(*command)  # the harness configures none
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr).startswith(f"{tmp_path}/srsd.toml: listen.control is empty")


# completion, help, version ---------------------------------------------------------------------


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete -o nosort"), ("zsh", "#compdef srsctl"), ("fish", "complete --no-files --command srsctl")])  # fmt: skip
def test_completion(run, shell, sign, monkeypatch):
    result = run("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert sign in result.stdout
    assert "_SRSCTL_COMPLETE" in result.stdout


def test_completion_for_an_unknown_shell(run):
    assert run("completion", "tcsh").exit_code == 2


def test_version(run):
    assert run("--version").stdout == f"srsctl, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["srs", "nonsense"], ["--nonsense"]])
def test_unknown_commands_are_wrong_usage(run, arguments):
    assert run(*arguments).exit_code == 2


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))


def test_the_commands_that_are_tested_are_all():
    assert {" ".join(path) for path in COMMANDS} == {
        "srs forward", "srs reverse", "srs explain", "secret new", "secret list", "secret rotate",
        "config check", "config example", "config show", "status", "top", "reload", "completion",
        "test", "explain", "dkim genkey", "dkim record", "dkim activate", "dkim list",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_what_and_has_an_example_that_parses(run, path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert run(*path, "-h").output == result.output
    assert len(COMMANDS[path].help.splitlines()[0]) > 15
    example = COMMANDS[path].epilog
    assert " ".join(example.split()) in " ".join(result.output.split())
    words = example.removeprefix("Example: ").partition(" >")[0].split()
    assert words.pop(0) == "srsctl"
    if words[0] == "--config":
        del words[:2]
    assert tuple(words[: len(path)]) == path
    COMMANDS[path].make_context(path[-1], words[len(path) :])  # raises for wrong usage


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != ("secret", "rotate")], ids=" ".join)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_no_command_tells_a_secret(config, run, tmp_path, path, form):
    """The fixture looks through the output, in fault lines too."""
    arguments = {"srs": [made()], "completion": ["bash"], "top": ["--count", "1"]}.get(path[0], [])
    run(*path, *arguments, *form)
    (tmp_path / "srs.secrets").chmod(0o666)
    run(*path, *arguments, *form)
    config(exclude="a..b", workers=0)
    run(*path, *arguments, *form)


# when = "spf" ----------------------------------------------------------------------------------


@pytest.fixture
def spf_run(config, run) -> Iterator[Run]:
    zones = {
        ("pass.example", "TXT"): ["v=spf1 ip4:192.0.2.25 -all"],
        ("fail.example", "TXT"): ["v=spf1 -all"],
    }
    with DnsServer(zones) as server:
        config(
            srs={"when": "spf", "outbound_addresses": ["192.0.2.25"]},
            dns={"nameservers": [str(server)], "timeout": 1.0},
        )
        yield run


def test_forward_asks_spf_where_the_daemon_does(spf_run):
    result = spf_run("srs", "forward", "alice@fail.example")
    assert (result.exit_code, "=fail.example=alice@" in result.output) == (0, True)
    result = spf_run("srs", "forward", "alice@pass.example")
    assert result.exit_code == 1
    assert "left as it is: SPF lets this host send it" in result.output


def test_explain_says_what_spf_says(spf_run):
    result = spf_run("srs", "explain", "alice@fail.example")
    assert "SPF, were it sent on as it is: fail for 192.0.2.25" in result.output
    assert result.exit_code == 0
    result = spf_run("srs", "explain", "alice@pass.example")
    assert "SPF, were it sent on as it is: pass for 192.0.2.25" in result.output
    assert result.exit_code == 1


def test_config_show_has_tables_within_a_section(config, run, tmp_path):
    config()
    with (tmp_path / "srsd.toml").open("a") as file:
        file.write('[[srs.domain_for]]\ndomains = ["b.example"]\ndomain = "srs.b.example"\n')
    printed = tomllib.loads(run("config", "show").output)
    assert printed["srs"]["envelope"] == "embedded"
    assert printed["srs"]["domain_for"] == [{"domains": ["b.example"], "domain": "srs.b.example"}]
    shown = json.loads(run("config", "show", "--json").output)
    assert shown["srs"]["domain_for"] == [{"domains": ["b.example"], "domain": "srs.b.example"}]
