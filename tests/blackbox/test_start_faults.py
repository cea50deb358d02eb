"""Settings that no check of the text finds, and only the system refuses: a line each, never a traceback."""

from __future__ import annotations

import os
import pwd
import subprocess

import pytest

from harness.daemon import LOOPBACK, run

pytestmark = pytest.mark.usefixtures("no_coverage_in_children")


@pytest.mark.parametrize(
    ("key", "tables"),
    [
        ("listen.srs_forward", {"listen": {"srs_forward": ["inet:a..b:0"], "srs_reverse": [LOOPBACK]}}),
        ("listen.srs_forward", {"listen": {"srs_forward": [f"inet:{'a' * 64}.example:0"]}}),
        ("listen.srs_forward", {"listen": {"srs_forward": ["inet:name.invalid:0"]}}),
        ("listen.srs_forward", {"listen": {"srs_forward": ["inet:[::zz]:0"]}}),
        ("listen.srs_forward", {"listen": {"srs_forward": ["inet:[1:2]:0"]}}),
        ("listen.srs_forward", {"listen": {"srs_forward": ["inet:192.0.2.1:0"]}}),
        ("listen.socketmap", {"listen": {"socketmap": ["unix:/nonexistent/x?group=a\0b"]}}),
        ("user", {"user": "a\0b"}),
        ("user", {"user": "a\nb"}),
    ],
    ids=[
        "empty label",
        "long label",
        "unknown name",
        "no IPv6 address",
        "short IPv6 address",
        "address of another host",
        "NUL in a group",
        "NUL in a user",
        "newline in a user",
    ],
)
def test_the_system_refuses(refused, config, key, tables):
    status, lines = refused(config(**tables))
    assert status in (71, 78)
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert f"{key}: " in lines[0]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("mode", [0o700, 0o744])
def test_a_directory_that_the_user_cannot_enter_is_named_and_what_is_said_mends_it(config, directory, mode):
    """The file itself may be as it should: chmod of the file alone mends nothing then."""
    account = pwd.getpwnam("nobody")
    closed = directory / "closed"
    closed.mkdir()
    closed.chmod(mode)
    file = config(user="nobody", srs={"secrets_file": str(closed / "secrets")})
    (directory / "srs.secrets").rename(closed / "secrets")
    os.chown(closed / "secrets", 0, account.pw_gid)
    (closed / "secrets").chmod(0o640)
    checked = run("srsd", "--config", file, "--check")
    assert checked.returncode == 78
    _, _, mend = checked.stderr.strip().partition("would be right: ")
    assert f" {closed} " in f"{mend} "
    subprocess.run(["sh", "-ec", mend], check=True)
    checked = run("srsd", "--config", file, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")
