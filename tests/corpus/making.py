"""What the token makers share: the collected entries, encoding, signing, damaging."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

import claims
import keys
from claims import NOW, text

PYJWT = f"pyjwt {jwt.__version__}"
HANDMADE = "handmade"
HASH = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVE_BYTES = {"ES256": 32, "ES384": 48, "ES512": 66}
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Corpus:
    def __init__(self):
        self.entries = []

    def ok(self, name, config, token, why, user="user-1", source=HANDMADE, now=NOW):
        self.add(name, source, config, token, "ok", why, user, now)

    def bad(self, name, config, verdict, token, why, source=HANDMADE, now=NOW):
        self.add(name, source, config, token, verdict, why, None, now)

    def add(self, name, source, config, token, verdict, why, user, now):
        entry = {
            "name": name,
            "source": source,
            "config": config,
            "now": now,
            "token": token,
            "verdict": verdict,
        }
        if user is not None:
            entry["user"] = user
        self.entries.append({**entry, "why": why})


def b64(data):
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(segment):
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def is_canonical(segment):
    return len(segment) % 4 != 1 and b64(unb64(segment)) == segment


def pyjwt_bytes(alg, payload, key=None, header=None):
    """Any payload bytes, signed by PyJWT's JWS layer."""
    key = keys.signing_key(key or keys.ALGORITHMS[alg])
    return jwt.PyJWS().encode(payload, key, algorithm=alg, headers=header)


def pyjwt(alg, payload, key=None, header=None):
    key = keys.signing_key(key or keys.ALGORITHMS[alg])
    return jwt.encode(payload, key, algorithm=alg, headers=header)


def handmade(alg, header=None, payload=None, key=None, sign=None):
    """Header and payload as given, bytes or text, with the signature `alg` calls for."""
    header = f'{{"alg":"{alg}","typ":"JWT"}}' if header is None else header
    payload = text() if payload is None else payload
    return sealed(alg, f"{b64(claims.as_bytes(header))}.{b64(claims.as_bytes(payload))}", key, sign)


def sealed(alg, signing_input, key=None, sign=None):
    """Signs a signing input taken as it is, however wrong its encoding."""
    sign = sign or (lambda data: raw_signature(alg, data, key))
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def raw_signature(alg, data, key=None):
    key = keys.signing_key(key or keys.ALGORITHMS[alg])
    if alg.startswith("HS"):
        return hmac.digest(key, data, f"sha{alg[2:]}")
    if alg == "EdDSA":
        return key.sign(data)
    digest = HASH[alg[2:]]()
    if alg.startswith("ES"):
        return raw_ecdsa(key.sign(data, ec.ECDSA(digest)), CURVE_BYTES[alg])
    scheme = padding.PKCS1v15()
    if alg.startswith("PS"):
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return key.sign(data, scheme, digest)


def raw_ecdsa(der, size):
    r, s = decode_dss_signature(der)
    return r.to_bytes(size) + s.to_bytes(size)


def parts(token):
    return token.split(".")


def with_signature(token, signature):
    return f"{token.rpartition('.')[0]}.{b64(signature)}"


def flipped(data, index, mask=1):
    changed = bytearray(data)
    changed[index] ^= mask
    return bytes(changed)


def replaced(token, part, old, new):
    """The token with some bytes of one decoded segment exchanged, its signature kept."""
    segments = parts(token)
    before = unb64(segments[part])
    assert old in before, (old, before)
    segments[part] = b64(before.replace(old, new, 1))
    return ".".join(segments)


def next_char(char):
    return BASE64URL[BASE64URL.index(char) + 1]


def hashed(alg, data):
    digest = hashes.Hash(HASH[alg[2:]]())
    digest.update(data)
    return digest.finalize()
