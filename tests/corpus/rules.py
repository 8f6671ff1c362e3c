"""The rules a token is judged by, written out a second time as a check on the corpus.

Nothing here shares code with the verifier under test or with PyJWT: JSON is read by
the standard library, signatures are checked by `cryptography`'s primitives.
"""

import base64
import hmac
import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

HERE = Path(__file__).resolve().parent
LEEWAY = 2
MAX_DEPTH = 128
VERDICTS = (
    "ok",
    "malformed",
    "algorithm_mismatch",
    "unsupported",
    "signature",
    "missing_claim",
    "claims",
    "expired",
    "not_yet_valid",
    "user_id",
)
HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVE_BYTES = {"ES256": 32, "ES384": 48, "ES512": 66}

# Unicode White_Space, as trimmed by Rust and Elixir (Python's own strip() trims more).
WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)


@dataclass
class Judgement:
    verdict: str
    user: str | None = None
    # The token got past its form, its header and its signature.
    signed: bool = False


class Refused(Exception):
    def __init__(self, verdict):
        self.verdict = verdict


class Ambiguous(Exception):
    """Two claims are wrong in different ways: such a token proves nothing."""


def judge(token, config, now):
    signed = False
    try:
        if config["mode"] == "insecure":
            claims = parse_object(unsigned_payload(token))
        else:
            payload = checked_payload(token, config)
            signed = True
            claims = parse_object(payload)
        check_claims(claims, config, now)
        return Judgement("ok", user_id(claims, config), signed)
    except Refused as refusal:
        return Judgement(refusal.verdict, None, signed)


def unsigned_payload(token):
    segments = token.split(".")
    if len(segments) not in (2, 3):
        raise Refused("malformed")
    return segment_bytes(segments[1])


def checked_payload(token, config):
    segments = token.split(".")
    if len(segments) == 5:
        raise Refused("unsupported")
    if len(segments) != 3:
        raise Refused("malformed")
    header_bytes, payload, signature = map(segment_bytes, segments)
    header = parse_object(header_bytes)
    if "alg" not in header:
        raise Refused("malformed")
    if header["alg"] != config["alg"]:
        raise Refused("algorithm_mismatch")
    if {"crit", "zip", "enc"} & header.keys() or header.get("b64") is False:
        raise Refused("unsupported")
    if header.get("cty") == "JWT":
        raise Refused("unsupported")
    signing_input = token.rpartition(".")[0].encode()
    if not signature_is_good(config["alg"], config["key_file"], signing_input, signature):
        raise Refused("signature")
    return payload


def segment_bytes(segment):
    if not re.fullmatch(r"[A-Za-z0-9_-]*", segment) or len(segment) % 4 == 1:
        raise Refused("malformed")
    decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != segment:
        raise Refused("malformed")
    return decoded


def signature_is_good(alg, key_file, signing_input, signature):
    key = (HERE / key_file).read_bytes()
    if alg.startswith("HS"):
        good = hmac.digest(key, signing_input, f"sha{alg[2:]}")
        return hmac.compare_digest(good, signature)
    public = serialization.load_pem_public_key(key)
    digest = HASHES[alg[2:]]() if alg != "EdDSA" else None
    try:
        if alg == "EdDSA":
            public.verify(signature, signing_input)
        elif alg.startswith("ES"):
            size = CURVE_BYTES[alg]
            if len(signature) != 2 * size:
                return False
            r = int.from_bytes(signature[:size])
            s = int.from_bytes(signature[size:])
            public.verify(encode_dss_signature(r, s), signing_input, ec.ECDSA(digest))
        else:
            if len(signature) != public.key_size // 8:
                return False
            scheme = padding.PKCS1v15()
            if alg.startswith("PS"):
                scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
            public.verify(signature, signing_input, scheme, digest)
    except InvalidSignature:
        return False
    return True


def parse_object(data):
    try:
        text = data.decode("utf-8")
        if depth(text) > MAX_DEPTH:
            raise ValueError("too deep")
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_float=finite,
            parse_int=finite,
            parse_constant=refuse,
        )
        json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")  # no lone surrogates
    except ValueError:
        raise Refused("malformed") from None
    if not isinstance(value, dict):
        raise Refused("malformed")
    return value


def unique(pairs):
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("duplicate key")
    return keys


def finite(text):
    if math.isinf(float(text)):
        raise ValueError("number out of range")
    return Decimal(text)


def refuse(text):
    raise ValueError(text)


def depth(text):
    """The deepest nesting of a JSON text, brackets inside strings left out."""
    deepest = level = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            level += 1
            deepest = max(deepest, level)
        elif char in "]}":
            level -= 1
    return deepest


def check_claims(claims, config, now):
    secure = config["mode"] == "secure"
    found = set(wrong_times(claims, now))
    if secure and config["iss"] and "iss" in claims:
        if not (isinstance(claims["iss"], str) and claims["iss"] in config["iss"]):
            found.add("claims")
    if secure and config["aud"] and "aud" in claims:
        if not accepted_audience(claims["aud"], config["aud"]):
            found.add("claims")
    if len(found) > 1:
        raise Ambiguous(found)
    for verdict in found:
        raise Refused(verdict)
    if secure:
        required = ["iat", "exp"]
        required += ["iss"] if config["iss"] else []
        required += ["aud"] if config["aud"] else []
        if any(name not in claims for name in required):
            raise Refused("missing_claim")


def wrong_times(claims, now):
    for name in ("iat", "nbf", "exp"):
        if name not in claims:
            continue
        value = claims[name]
        if not isinstance(value, Decimal):
            yield "claims"
            continue
        verdicts = {time_verdict(name, number, now) for number in (exactly(value), float(value))}
        if len(verdicts) > 1:
            raise Ambiguous(f"{name}: {value} is judged differently as a double")
        yield from verdicts - {None}


def exactly(value):
    # A double holds no more: numbers like 1e-999 need no exact fraction.
    return Fraction(value) if abs(value.adjusted()) < 400 else Fraction(0)


def time_verdict(name, value, now):
    if name == "exp":
        return "expired" if value < now - LEEWAY else None
    late = value > now + LEEWAY
    return {"nbf": "not_yet_valid", "iat": "claims"}[name] if late else None


def accepted_audience(aud, accepted):
    audiences = [aud] if isinstance(aud, str) else aud
    if not isinstance(audiences, list) or not all(isinstance(a, str) for a in audiences):
        return False
    return any(a in accepted for a in audiences)


def user_id(claims, config):
    if config["namespace"] is not None:
        claims = claims.get(config["namespace"])
        if not isinstance(claims, dict):
            raise Refused("user_id")
    user = claims["sub"] if "sub" in claims else claims.get("user_id")
    if not isinstance(user, str) or not user.strip(WHITE_SPACE):
        raise Refused("user_id")
    return user


def configs():
    return json.loads((HERE / "configs.json").read_text())


def tokens():
    with open(HERE / "tokens.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
