"""The keys of the corpus. Made once; later runs only read them."""

import secrets
import string
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

HERE = Path(__file__).resolve().parent
KEYS = HERE / "keys"

PAIRS = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa2048-other": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p256-other": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p384-other": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "p521-other": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool256": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed25519-other": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}
SECRETS = {
    "hs256": 32,
    "hs384": 48,
    "hs512": 64,
    "hs256-other": 32,
    "hs384-other": 48,
    "hs512-other": 64,
}

ALGORITHMS = {
    "HS256": "hs256",
    "HS384": "hs384",
    "HS512": "hs512",
    "RS256": "rsa2048",
    "RS384": "rsa2048",
    "RS512": "rsa2048",
    "PS256": "rsa2048",
    "PS384": "rsa2048",
    "PS512": "rsa2048",
    "ES256": "p256",
    "ES384": "p384",
    "ES512": "p521",
    "EdDSA": "ed25519",
}


def make_missing():
    KEYS.mkdir(exist_ok=True)
    for name, make in PAIRS.items():
        if not (KEYS / f"{name}.key.pem").exists():
            write_pair(name, make())
    alphabet = string.ascii_letters + string.digits
    for name, length in SECRETS.items():
        if not (KEYS / f"{name}.txt").exists():
            text = "".join(secrets.choice(alphabet) for _ in range(length))
            (KEYS / f"{name}.txt").write_bytes(text.encode())


def write_pair(name, private):
    (KEYS / f"{name}.key.pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (KEYS / f"{name}.pub.pem").write_bytes(spki(private.public_key(), serialization.Encoding.PEM))


def spki(public, encoding):
    return public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


@cache
def private(name):
    return serialization.load_pem_private_key((KEYS / f"{name}.key.pem").read_bytes(), None)


def secret(name):
    return (KEYS / f"{name}.txt").read_bytes()


def signing_key(name):
    """What PyJWT takes to sign: the secret, or the private key."""
    return secret(name) if name in SECRETS else private(name)


def verifying_file(name):
    return f"keys/{name}.txt" if name in SECRETS else f"keys/{name}.pub.pem"
