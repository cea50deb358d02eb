"""The files of an admin together: all their faults at once, and what a reload may change."""

from __future__ import annotations

import logging
import os

import pytest

from harness.daemon import write_config
from srsd.config_text import parse_config
from srsd.crypto import KeyType, generate_key
from srsd.daemon.atomic_file import create_file, write_file
from srsd.daemon.files import Files, Material, Sources, parse_keyring
from srsd.daemon.secret_ages import read_secret_ages
from srsd.errors import ConfigError
from srsd.srs import fingerprint
from srsd.wire.answer import Status

SECRET = "a secret of the tests"
SRS = {"domain": "srs.example.org"}
TODAY = 20780


@pytest.fixture
def config(tmp_path):
    return lambda **tables: str(write_config(tmp_path, **{"secrets": [SECRET], "srs": SRS, **tables}))


def faults_of(path: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Files(path)
    return caught.value.lines()


def found(files: Files, sender: bytes) -> bool:
    return files.make_lookup().forward(sender, TODAY).status is Status.FOUND


def change(files: Files | Sources) -> bool:
    """Poll until a change has stood still."""
    return any([files.poll(), files.poll()])


def test_the_files_are_read(config):
    files = Files(config(exclude="@friend.example\n"))
    assert files.keyring is not None
    assert files.keyring.fingerprints == (fingerprint(SECRET.encode()),)
    assert found(files, b"alice@example.com")
    assert not found(files, b"alice@friend.example")
    assert files.material.secrets == f"{SECRET}\n".encode()
    assert not files.poll()


def test_material_gives_the_same_lookups_elsewhere(config):
    files = Files(config(exclude="@friend.example\n"))
    config_there, _, lookup, _ = Material(*files.material).parse()
    assert config_there == files.config
    for sender in (b"alice@example.com", b"alice@friend.example", b"x"):
        assert lookup.forward(sender, TODAY) == files.make_lookup().forward(sender, TODAY)


def test_without_a_domain_no_secrets_are_read(config):
    files = Files(config(srs={"domain": "", "secrets_file": "/nonexistent/secrets"}))
    assert files.keyring is None
    assert files.make_lookup().forward(b"alice@example.com", TODAY).reason == "no SRS domain configured"


def test_a_missing_configuration_says_how_to_make_one(tmp_path):
    path = f"{tmp_path}/srsd.toml"
    assert faults_of(path) == [f"{path}: does not exist, would be right: srsctl config example > {path}"]


def test_a_directory_is_no_configuration(tmp_path):
    assert faults_of(str(tmp_path)) == [f"{tmp_path}: cannot be read (Is a directory)"]


def test_faults_of_all_files_come_at_once(config, tmp_path):
    path = config(exclude="a..b\n\nx srs, spam\n")
    secrets = tmp_path / "srs.secrets"
    secrets.chmod(0o644)
    lines = faults_of(path)
    assert [line.partition(": ")[0] for line in lines] == [str(secrets), *[str(tmp_path / "exclude")] * 2]
    assert "has mode 0644" in lines[0]
    assert [line.split(": ")[1] for line in lines[1:]] == ["line 1", "line 3"]


def test_faults_of_the_configuration_name_it(config):
    path = config(workers=0, srs={**SRS, "hash_length": 99})
    assert sorted(line.partition(": is")[0] for line in faults_of(path)) == [
        f"{path}: srs.hash_length",
        f"{path}: workers",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", " \t\r\n"])
def test_a_file_without_a_secret_is_a_fault(config, tmp_path, text):
    path = config()
    (tmp_path / "srs.secrets").write_text(text)
    assert faults_of(path) == [
        f"{tmp_path}/srs.secrets: has no secret, would be right: one on a line; srsctl secret new makes the file"
    ]


def test_a_missing_file_of_secrets_is_a_fault(config, tmp_path):
    path = config()
    (tmp_path / "srs.secrets").unlink()
    (line,) = faults_of(path)
    assert line.startswith(f"{tmp_path}/srs.secrets: does not exist")


@pytest.mark.parametrize("name", ["srs.secrets", "exclude"])
def test_a_name_that_no_file_can_have_is_a_fault(config, tmp_path, name):
    path = config()
    text = (tmp_path / "srsd.toml").read_text()
    (tmp_path / "srsd.toml").write_text(text.replace(f'/{name}"', f'/{name}\\u0000"'))
    (line,) = faults_of(path)
    assert line.isprintable()


def test_a_keyring_needs_a_secret():
    assert parse_keyring(b"#x\n\n y \r\n#x\n").fingerprints == (fingerprint(b"#x"), fingerprint(b"y"))
    with pytest.raises(ValueError, match="has no secret"):
        parse_keyring(b"\n")


def test_keys_without_effect_are_logged(config, caplog):
    path = config(policy={"login_mismatch": "reject"})
    Files(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: policy.login_mismatch: has no effect: there is no dkim.login_table"
    ]


# Changes that are seen by themselves -----------------------------------------------------------


def test_changed_secrets_and_exclusions_are_taken(config, tmp_path):
    sources = Sources(config())
    assert found(sources.files, b"alice@friend.example")
    (tmp_path / "exclude").write_text("@friend.example\n")
    (tmp_path / "srs.secrets").write_text(f"newer\n{SECRET}\n")
    assert change(sources)
    assert not found(sources.files, b"alice@friend.example")
    prints = [fingerprint(b"newer"), fingerprint(SECRET.encode())]
    assert list(sources.files.keyring.fingerprints) == prints
    assert set(read_secret_ages(str(tmp_path / "state"))) == set(prints)


def test_a_good_file_is_taken_beside_a_bad_one(config, tmp_path, caplog):
    files = Files(config())
    (tmp_path / "exclude").write_text("a..b\n")
    (tmp_path / "srs.secrets").write_text("newer\n")
    assert change(files)
    assert files.keyring.fingerprints == (fingerprint(b"newer"),)
    assert files.material.exclusions == b""
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_bad_secrets_never_reach_the_material(config, tmp_path):
    files = Files(config())
    (tmp_path / "srs.secrets").write_text("")
    assert not change(files)
    files.material.parse()
    assert found(files, b"alice@example.com")


def test_the_configuration_is_not_read_until_it_is_asked_for(config):
    sources = Sources(config())
    config(srs={**SRS, "hash_length": 9})
    change(sources)
    assert sources.files.config.srs.hash_length == 4
    assert sources.reload() == []
    assert sources.files.config.srs.hash_length == 9


# Reload ----------------------------------------------------------------------------------------


def test_a_reload_reads_everything(config, caplog):
    caplog.set_level(logging.INFO)
    path = config()
    sources = Sources(path)
    config(secrets=["newer"], exclude="@friend.example\n", srs={"domain": "new.example.org"})
    assert sources.reload() == []
    assert sources.files.keyring.fingerprints == (fingerprint(b"newer"),)
    answer = sources.files.make_lookup().forward(b"alice@example.com", TODAY)
    assert answer.text.endswith(b"@new.example.org")
    assert [record.getMessage() for record in caplog.records] == [f"{path}: everything was read again"]


def test_a_reload_with_faults_changes_nothing(config, caplog):
    path = config(exclude="@friend.example\n")
    sources = Sources(path)
    before, material = sources.files, sources.files.material
    config(exclude="a..b\n", secrets=[], srs={**SRS, "hash_length": 9})
    faults = sources.reload()
    assert len(faults) == 2
    assert sources.files is before
    assert sources.files.material == material
    assert sources.files.config.srs.hash_length == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"{fault}; nothing was reloaded, what was in force stays" for fault in faults
    ]


RESTART = [
    ("workers", {"workers": 2}),
    ("user", {"user": "nobody"}),
    ("listen", {"listen": {"socketmap": ["inet:127.0.0.1:0"]}}),
]


@pytest.mark.parametrize(("name", "tables"), RESTART)
def test_what_needs_a_restart_is_kept_and_told(config, caplog, name, tables):
    path = config()
    sources = Sources(path)
    before = sources.files.config
    config(**{"srs": {**SRS, "hash_length": 9}, **tables})
    for _ in range(2):  # it is still not in force after the first time
        caplog.clear()
        assert sources.reload() == []
        assert getattr(sources.files.config, name) == getattr(before, name)
        assert sources.files.config.srs.hash_length == 9  # the rest is
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", f"{path}: {name} has changed, which needs a restart of srsd")
        ]


def test_the_state_directory_needs_a_restart(config, tmp_path, caplog):
    sources = Sources(config())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config(state_directory=str(elsewhere), secrets=["newer"])
    assert sources.reload() == []
    assert "state_directory has changed, which needs a restart of srsd" in caplog.text
    assert not list(elsewhere.iterdir())
    in_force = sources.files.material.parse().config  # a worker that is replaced must not store elsewhere
    assert in_force.state_directory == str(tmp_path / "state")
    assert fingerprint(b"newer") in read_secret_ages(str(tmp_path / "state"))


def test_nothing_needs_a_restart_when_only_the_spelling_changed(config, caplog):
    path = config()
    sources = Sources(path)
    with open(path, "a") as file:
        file.write("# a comment\n")
    assert sources.reload() == []
    assert not caplog.records


def test_the_material_of_a_reload_is_that_of_its_texts(config):
    sources = Sources(config())
    config(srs={**SRS, "separator": "+"})
    sources.reload()
    assert parse_config(sources.files.material.config)[0].srs.separator == "+"


# Files that srsd writes ------------------------------------------------------------------------


def test_a_file_that_is_made_takes_nobodys_place(tmp_path):
    path = tmp_path / "file"
    create_file(str(path), b"one", mode=0o600)
    for there in (path, tmp_path / "link"):
        if there != path:
            there.symlink_to(tmp_path / "nowhere")
        with pytest.raises(FileExistsError):
            create_file(str(there), b"two", mode=0o600)
    assert path.read_bytes() == b"one"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]  # nothing half-written stays


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with path.open("rb") as before:
        write_file(str(path), b"two", mode=0o640)
        assert before.read() == b"one"  # whoever reads the old one has it whole
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640


# Who seals -------------------------------------------------------------------------------------


def sealing(config, directory, key_type):
    keys = directory / "dkim/example.org"
    if key_type is not None:
        keys.mkdir(parents=True)
        key = keys / "s1.pem"
        key.write_bytes(generate_key(key_type).pem())
        key.chmod(0o600)
    return config(
        listen={"milter": [f"unix:{directory}/milter"]},
        dkim={"key_directory": str(directory / "dkim")},
        arc={"seal": True, "domain": "example.org"},
    )


@pytest.mark.parametrize(
    ("key_type", "why"),
    [
        (None, "there is no key for example.org"),
        (KeyType.ED25519, "no RSA key of example.org signs"),
        (KeyType.RSA, None),
    ],
)
def test_a_sealer_without_an_rsa_key_is_told(config, tmp_path, caplog, key_type, why):
    path = sealing(config, tmp_path, key_type)
    Files(path)
    expected = f"{path}: arc.seal: nothing is sealed: {why}, would be right: srsctl dkim genkey example.org --type rsa"
    assert [each.getMessage() for each in caplog.records] == ([expected] if why else [])
