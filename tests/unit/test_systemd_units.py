"""The systemd units: accepted by systemd itself, in a tight sandbox, in agreement with the configuration."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from srsd.config import Listen
from srsd.daemon.main import EX_CONFIG

UNITS = Path(__file__).resolve().parents[2] / "daemontools"
EXPOSURE_MAXIMUM = 2.0  # of systemd-analyze security; a service without any sandbox has 9.6

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze (package systemd) is not installed"
)


def directives(name: str) -> list[tuple[str, str, str]]:
    """Return (section, key, value) of each line of a unit."""
    found, section = [], ""
    for line in (UNITS / name).read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.append((section, key, value))
    return found


def values(name: str, key: str) -> list[str]:
    return [value for _, each, value in directives(name) if each == key]


@pytest.fixture
def rendered(tmp_path) -> Path:
    """Copy the units as an admin does, with paths and users that this machine has."""
    srsd = tmp_path / "bin" / "srsd"
    srsd.parent.mkdir()
    srsd.write_text("#!/bin/sh\n")
    srsd.chmod(0o755)
    units = tmp_path / "units"
    units.mkdir()
    for name in ("srsd.service", "srsd.socket"):
        text = (UNITS / name).read_text()
        assert "/opt/srsd/bin/srsd" in text or name == "srsd.socket"
        (units / name).write_text(text.replace("/opt/srsd/bin/srsd", str(srsd)))
    return units


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C"},
    )


@needs_analyze
def test_systemd_accepts_them_without_a_remark(rendered):
    verified = analyze("verify", "--man=no", rendered / "srsd.service", rendered / "srsd.socket")
    ours = [line for line in verified.stderr.splitlines() if "srsd" in line]
    assert ours == []
    assert verified.returncode == 0, verified.stderr


@needs_analyze
def test_verify_would_see_a_fault(rendered):
    unit = rendered / "srsd.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    verified = analyze("verify", "--man=no", unit, rendered / "srsd.socket")
    assert "ProtectHomes" in verified.stderr


@needs_analyze
def test_the_sandbox_is_tight(rendered):
    shown = analyze("security", "--offline=true", rendered / "srsd.service")
    overall = re.search(r"Overall exposure level for srsd\.service: ([\d.]+)", shown.stdout)
    assert overall, shown.stdout + shown.stderr
    assert float(overall[1]) <= EXPOSURE_MAXIMUM, shown.stdout


def test_the_sockets_are_those_of_the_configuration():
    defaults = Listen()
    inet = [str(endpoint) for endpoint in (*defaults.srs_forward, *defaults.srs_reverse)]
    streams = values("srsd.socket", "ListenStream")
    assert inet == ["inet:127.0.0.1:10001", "inet:127.0.0.1:10002"]
    assert [f"inet:{stream}" for stream in streams if not stream.startswith("/")] == inet
    # The comment at its top is what an admin copies into srsd.toml.
    comment = (UNITS / "srsd.socket").read_text()
    documented = re.findall(r'^#\s+\w+\s*= \["(?:inet|unix):([^"]+)"\]', comment, re.MULTILINE)
    assert documented == streams


def test_the_unix_socket_is_postfixs_to_use_and_nobody_elses():
    assert values("srsd.socket", "SocketUser") == ["srsd"]
    assert values("srsd.socket", "SocketGroup") == ["postfix"]
    assert (
        int(values("srsd.socket", "SocketMode")[0], 8)
        == stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP
    )
    (path,) = [stream for stream in values("srsd.socket", "ListenStream") if stream.startswith("/")]
    after = values("srsd.socket", "ExecStartPost")
    assert any(line.endswith(f"chown srsd:postfix {os.path.dirname(path)}") for line in after)
    assert any(line.endswith(f"chmod 0750 {os.path.dirname(path)}") for line in after)


def test_the_service_speaks_as_srsd_does():
    service = {key: value for section, key, value in directives("srsd.service") if section == "Service"}
    assert service["Type"] == "notify", "notify-reload needs systemd 253"
    assert service["NotifyAccess"] == "main"
    assert int(service["WatchdogSec"]) >= 10, "srsd says WATCHDOG=1 every second"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["RestartPreventExitStatus"] == str(EX_CONFIG)
    assert service["KillMode"] == "mixed", "workers are told by the supervisor"
    assert service["ExecStart"].endswith("srsd --config /etc/srsd/srsd.toml")
    assert int(service["LimitNOFILE"]) >= 1000
    assert "AF_UNIX" in service["RestrictAddressFamilies"]


def test_directories_are_those_of_the_configuration():
    from srsd.config import Config  # noqa: PLC0415 - read here, beside what it is compared with

    config = Config()
    (control,) = config.listen.control
    assert f"/run/{values('srsd.service', 'RuntimeDirectory')[0]}" == os.path.dirname(control.path)
    assert f"/var/lib/{values('srsd.service', 'StateDirectory')[0]}" == config.state_directory
    assert f"/etc/{values('srsd.service', 'ConfigurationDirectory')[0]}" == os.path.dirname(
        config.srs.secrets_file
    )
