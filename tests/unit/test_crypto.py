"""Keys and signatures: what is accepted, what is refused before anything is calculated."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from srsd.crypto import (
    KeyFlaw,
    KeyType,
    PrivateKey,
    PublicKey,
    generate_key,
    load_private_key,
    parse_public_key,
)

DIGEST = hashlib.sha256(b"what is signed").digest()


@cache
def rsa_private(bits: int = 1024, exponent: int = 65537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


def pem(key, form=PrivateFormat.PKCS8, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def spki(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pkcs1(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)


# DER by hand: what no library writes.


def element(tag: int, contents: bytes) -> bytes:
    length = len(contents)
    octets = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + octets + contents


def integer(number: int) -> bytes:
    return element(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


RSA_OID = bytes.fromhex("06092a864886f70d010101")
RSA_ALGORITHM = element(0x30, RSA_OID + b"\x05\x00")


def bare(modulus: int, exponent: int = 65537) -> bytes:
    return element(0x30, integer(modulus) + integer(exponent))


def wrapped(key: bytes, algorithm: bytes = RSA_ALGORITHM) -> bytes:
    return element(0x30, algorithm + element(3, b"\0" + key))


MODULUS = (1 << 1023) + 12345  # odd, and nothing more is asked of it


# Signing and verifying.


@pytest.mark.parametrize("key_type", KeyType)
def test_what_is_signed_verifies(key_type):
    key = generate_key(key_type, 1024)
    public = parse_public_key(key_type, key.public_octets())
    assert isinstance(public, PublicKey)
    assert public.key_type is key.key_type is key_type
    assert public.bits == key.bits == (1024 if key_type is KeyType.RSA else 256)
    signature = key.sign(DIGEST)
    assert public.verify(signature, DIGEST)
    assert not public.verify(signature, hashlib.sha256(b"else").digest())
    for index in (0, len(signature) // 2, len(signature) - 1):
        damaged = signature[:index] + bytes([signature[index] ^ 1]) + signature[index + 1 :]
        assert not public.verify(damaged, DIGEST)


@pytest.mark.parametrize("key_type", KeyType)
def test_signatures_of_the_wrong_length_do_not_verify(key_type):
    key = generate_key(key_type, 1024)
    public = parse_public_key(key_type, key.public_octets())
    signature = key.sign(DIGEST)
    for other in (b"", signature[:-1], signature[1:], signature + b"\0", b"\0" + signature, signature * 9):
        assert not public.verify(other, DIGEST)


def test_rsa_is_pkcs1_with_sha256():
    private = rsa_private()
    private.public_key().verify(
        load_private_key(pem(private)).sign(DIGEST), b"what is signed", padding.PKCS1v15(), SHA256()
    )


def test_ed25519_signs_the_digest():
    """RFC 8463 §3: PureEdDSA over the SHA-256. The key is that of RFC 8032 §7.1, test 1."""
    private = ed25519.Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    key = load_private_key(pem(private))
    assert key.public_octets().hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    private.public_key().verify(key.sign(DIGEST), DIGEST)


# Private keys.


@pytest.mark.parametrize(
    "text",
    [
        pem(rsa_private()),
        pem(rsa_private(), PrivateFormat.TraditionalOpenSSL),
        b"a comment of the admin's\n" + pem(rsa_private()) + b"\n\n",
        pem(rsa_private()).replace(b"\n", b"\r\n"),
    ],
    ids=["pkcs8", "pkcs1", "comment", "crlf"],
)
def test_private_keys_are_read(text):
    key = load_private_key(text)
    assert (key.key_type, key.bits) == (KeyType.RSA, 1024)
    assert key.public_octets() == spki(rsa_private())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "is not a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key"),
        (b"\0" * 100, "is not a private key"),
        (b"x" * 8193, "more than 8192 octets"),
        (pem(rsa_private(), encryption=BestAvailableEncryption(b"secret")), "is encrypted"),
        (
            pem(rsa_private(), PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")),
            "is encrypted",
        ),
        (pem(ec.generate_private_key(ec.SECP256R1())), "another kind"),
        (pem(ed448.Ed448PrivateKey.generate()), "another kind"),
        (pem(dsa.generate_private_key(1024)), "another kind"),
        (
            rsa_private().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is not a private key",
        ),
        (pem(rsa_private())[:-200], "is not a private key"),
    ],
)
def test_private_keys_that_are_refused(text, fault):
    with pytest.raises(ValueError, match=fault) as error:
        load_private_key(text)
    assert "would be right: " in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["d", "dmp1", "dmq1", "iqmp"])
def test_a_damaged_private_key_is_refused(name):
    """It could give its secret away with a signature."""
    numbers = rsa_private().private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    values = [getattr(numbers, each) ^ (2 * (each == name)) for each in names]
    damaged = rsa.RSAPrivateNumbers(*values, numbers.public_numbers)
    with pytest.raises(ValueError, match="whose numbers do not belong together"):
        load_private_key(pem(damaged.private_key(unsafe_skip_rsa_key_validation=True)))


def mersenne(*exponents: int, e: int = 65537) -> rsa.RSAPrivateKey:
    """Make a key of known primes: 2^e - 1. Its length is about the sum of the exponents."""
    p, q = (2**exponent - 1 for exponent in exponents)
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key(
        unsafe_skip_rsa_key_validation=True
    )


def test_a_long_private_key_is_read():
    assert load_private_key(pem(mersenne(2203, 1279))).bits == 3482


def test_a_private_key_above_4096_bits_is_refused():
    with pytest.raises(ValueError, match="of 4484 bits, would be right: 1024 to 4096"):
        load_private_key(pem(mersenne(2281, 2203)))


def test_a_private_key_with_a_great_exponent_is_refused():
    with pytest.raises(ValueError, match=r"above 2\^32, would be right: 65537"):
        load_private_key(pem(mersenne(607, 521, e=(1 << 32) + 15)))


def test_a_short_private_key_is_refused():
    # openssl genrsa 512; the library makes none that is so short
    text = b"""-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu
KUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm
o3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMd2k
TQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7
9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy
v/Ow5T0q5gIJAiEAyS4RaI9YG8EWx/2w0T67ZUVAw8eOMB6BIUg0Xcu+3okCIBOs
/5OiPgoTdSy7bcF9IGpSE8ZgGKzgYQVZeN97YE00
-----END RSA PRIVATE KEY-----
"""
    with pytest.raises(ValueError, match="would be right"):
        load_private_key(text)


def test_a_new_key_is_written_and_read_again():
    for key_type in KeyType:
        key = generate_key(key_type)
        again = load_private_key(key.pem())
        assert isinstance(again, PrivateKey)
        assert again.public_octets() == key.public_octets()
        assert again.bits == (2048 if key_type is KeyType.RSA else 256)
    assert len(generate_key(KeyType.ED25519).public_octets()) == 32


# Public keys.


@pytest.mark.parametrize("private", [rsa_private(), rsa_private(1032), mersenne(2203, 1279)])
def test_public_keys_are_read(private):
    for octets in (spki(private), pkcs1(private)):
        public = parse_public_key(KeyType.RSA, octets)
        assert isinstance(public, PublicKey)
        assert public.bits == private.key_size
        assert public.verify(load_private_key(pem(private)).sign(DIGEST), DIGEST)


@pytest.mark.parametrize("bits", [1024, 1025, 4095, 4096])
def test_the_shortest_and_the_longest_public_keys(bits):
    public = parse_public_key(KeyType.RSA, bare((1 << bits) - 1))
    assert isinstance(public, PublicKey)
    assert public.bits == bits


def test_the_algorithm_may_be_without_its_null():
    public = parse_public_key(KeyType.RSA, wrapped(bare(MODULUS), element(0x30, RSA_OID)))
    assert isinstance(public, PublicKey)


@pytest.mark.parametrize("exponent", [3, 17, 65537, (1 << 32) - 1])
def test_exponents(exponent):
    assert isinstance(parse_public_key(KeyType.RSA, bare(MODULUS, exponent)), PublicKey)


@pytest.mark.parametrize(
    ("octets", "flaw"),
    [
        (bare((1 << 512) - 1), KeyFlaw.TOO_SHORT),
        (bare((1 << 1023) - 1), KeyFlaw.TOO_SHORT),
        (bare(3), KeyFlaw.TOO_SHORT),
        (bare((1 << 4097) - 1), KeyFlaw.TOO_LONG),
        (wrapped(bare((1 << 16384) - 1)), KeyFlaw.TOO_LONG),
        (bare((1 << 16384) - 1, (1 << 16384) - 1), KeyFlaw.TOO_LONG),
        (bare(MODULUS, 1), KeyFlaw.EXPONENT),
        (bare(MODULUS, 0), KeyFlaw.EXPONENT),
        (bare(MODULUS, 65536), KeyFlaw.EXPONENT),
        (bare(MODULUS, (1 << 32) + 1), KeyFlaw.EXPONENT),
        (bare(MODULUS, MODULUS), KeyFlaw.EXPONENT),
        (bare(MODULUS + 1), KeyFlaw.MALFORMED),  # even
        (b"", KeyFlaw.MALFORMED),
        (b"\x30", KeyFlaw.MALFORMED),
        (b"\x30\x80\0\0", KeyFlaw.MALFORMED),  # without a length
        (b"\x30\x84\0\0\0\0", KeyFlaw.MALFORMED),
        (b"\x30\x82\xff\xff" + b"\0" * 99, KeyFlaw.MALFORMED),
        (bare(MODULUS)[:-1], KeyFlaw.MALFORMED),
        (bare(MODULUS) + b"\0", KeyFlaw.MALFORMED),
        (wrapped(bare(MODULUS)) + b"\0", KeyFlaw.MALFORMED),
        (wrapped(bare(MODULUS) + b"\0"), KeyFlaw.MALFORMED),
        (element(0x30, integer(MODULUS)), KeyFlaw.MALFORMED),
        (element(0x30, integer(MODULUS) + integer(3) + integer(3)), KeyFlaw.MALFORMED),
        (element(0x30, element(2, b"") + integer(3)), KeyFlaw.MALFORMED),
        (element(0x30, element(2, b"\xff" * 128) + integer(3)), KeyFlaw.MALFORMED),  # negative
        (element(0x30, integer(MODULUS) + element(2, b"\x83")), KeyFlaw.MALFORMED),
        (element(0x30, RSA_ALGORITHM), KeyFlaw.MALFORMED),
        (element(0x30, RSA_ALGORITHM + element(4, b"\0" + bare(MODULUS))), KeyFlaw.MALFORMED),
        (element(0x30, RSA_ALGORITHM + element(3, b"\1" + bare(MODULUS))), KeyFlaw.MALFORMED),
        (element(0x30, RSA_ALGORITHM + element(3, b"\0")), KeyFlaw.MALFORMED),
        (element(0x30, RSA_ALGORITHM + element(3, bare(MODULUS))), KeyFlaw.MALFORMED),
        (wrapped(bare(MODULUS), element(0x30, RSA_OID + b"\x05\x00\x05\x00")), KeyFlaw.MALFORMED),
        (spki(ec.generate_private_key(ec.SECP256R1())), KeyFlaw.MALFORMED),
        (spki(dsa.generate_private_key(1024)), KeyFlaw.MALFORMED),
        (spki(ed25519.Ed25519PrivateKey.generate()), KeyFlaw.MALFORMED),
        (b"\0" * 300, KeyFlaw.MALFORMED),
        (base64.b64encode(bare(MODULUS)), KeyFlaw.MALFORMED),
    ],
)
def test_rsa_keys_that_are_refused(octets, flaw):
    assert parse_public_key(KeyType.RSA, octets) is flaw


def test_ed25519_keys_are_32_octets_and_nothing_around_them():
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    assert isinstance(parse_public_key(KeyType.ED25519, raw), PublicKey)
    for octets in (b"", raw[:-1], raw + b"\0", spki(private), raw * 2):
        assert parse_public_key(KeyType.ED25519, octets) is KeyFlaw.MALFORMED


def test_any_32_octets_may_stand_for_an_ed25519_key():
    """Whether they are a point of the curve shows when it is used: then nothing verifies."""
    for octets in (b"\xff" * 32, b"\0" * 32, b"\x02" + b"\0" * 31):
        public = parse_public_key(KeyType.ED25519, octets)
        assert isinstance(public, PublicKey)
        assert not public.verify(b"\1" * 64, DIGEST)


# The daemon becomes a user that may not read Python's library: what is needed is loaded at start.

PROGRAM = """
import hashlib, sys
import srsd.crypto as crypto
before = set(sys.modules)
digest = hashlib.sha256(b"x").digest()
for key_type in crypto.KeyType:
    key = crypto.load_private_key(crypto.generate_key(key_type, 1024).pem())
    public = crypto.parse_public_key(key_type, key.public_octets())
    assert public.verify(key.sign(digest), digest)
    assert not public.verify(key.sign(digest), digest[::-1])
try:
    crypto.load_private_key(b"nothing")
except ValueError:
    pass
print(*sorted(set(sys.modules) - before))
"""


def test_no_module_is_loaded_late():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
