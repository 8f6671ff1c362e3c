"""Algorithm confusion: the token says one algorithm, the configuration another."""

import hmac
import json

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import keys
from claims import NOW
from making import CURVE_BYTES, PYJWT, handmade, pyjwt, raw_ecdsa, raw_signature


def algorithm_matrix(corpus):
    """A good token of each algorithm, shown to a verifier of each other algorithm."""
    payload = {"sub": "user-1", "iat": NOW - 10, "exp": NOW + 600}
    for signed_as in keys.ALGORITHMS:
        token = pyjwt(signed_as, payload)
        for configured in keys.ALGORITHMS:
            if configured != signed_as:
                corpus.bad(
                    f"confusion/{signed_as}-for-{configured}",
                    configured.lower(),
                    "algorithm_mismatch",
                    token,
                    f"A good {signed_as} token where {configured} is configured.",
                    PYJWT,
                )


def relabelled(corpus):
    """The header says what is configured, the signature is another algorithm's; and the reverse."""
    for claimed, made, key in (
        ("HS256", "HS384", "hs256"),
        ("HS256", "HS512", "hs256"),
        ("HS384", "HS256", "hs384"),
        ("HS384", "HS512", "hs384"),
        ("HS512", "HS256", "hs512"),
        ("HS512", "HS384", "hs512"),
        ("RS256", "RS384", "rsa2048"),
        ("RS256", "RS512", "rsa2048"),
        ("RS256", "PS256", "rsa2048"),
        ("RS384", "RS256", "rsa2048"),
        ("RS384", "PS384", "rsa2048"),
        ("RS512", "RS256", "rsa2048"),
        ("RS512", "PS512", "rsa2048"),
        ("PS256", "RS256", "rsa2048"),
        ("PS256", "PS384", "rsa2048"),
        ("PS256", "PS512", "rsa2048"),
        ("PS384", "RS384", "rsa2048"),
        ("PS384", "PS256", "rsa2048"),
        ("PS512", "RS512", "rsa2048"),
        ("PS512", "PS256", "rsa2048"),
        ("ES256", "ES384", "p384"),
        ("ES256", "ES512", "p521"),
        ("ES384", "ES256", "p256"),
        ("ES384", "ES512", "p521"),
        ("ES512", "ES256", "p256"),
        ("ES512", "ES384", "p384"),
        ("EdDSA", "ES256", "p256"),
        ("ES256", "EdDSA", "ed25519"),
        ("RS256", "ES256", "p256"),
        ("ES256", "RS256", "rsa2048"),
        ("EdDSA", "RS256", "rsa2048"),
        ("RS256", "EdDSA", "ed25519"),
        ("HS256", "ES256", "p256"),
        ("HS512", "EdDSA", "ed25519"),
        ("HS256", "RS256", "rsa2048"),
    ):
        corpus.bad(
            f"relabelled/{made}-signature-as-{claimed}",
            claimed.lower(),
            "signature",
            handmade(claimed, sign=lambda data: raw_signature(made, data, key)),
            f"The header says {claimed} as configured, the signature is {made}'s.",
        )
        corpus.bad(
            f"relabelled/{claimed}-header-says-{made}",
            claimed.lower(),
            "algorithm_mismatch",
            handmade(claimed, header=f'{{"alg":"{made}","typ":"JWT"}}'),
            f"A good {claimed} signature as configured, under a header that says {made}.",
        )
    for alg, digest in (
        ("ES256", hashes.SHA384()),
        ("ES256", hashes.SHA512()),
        ("ES384", hashes.SHA256()),
        ("ES512", hashes.SHA256()),
    ):
        key = keys.private(keys.ALGORITHMS[alg])
        corpus.bad(
            f"relabelled/{alg}-over-{digest.name}",
            alg.lower(),
            "signature",
            handmade(
                alg,
                sign=lambda data: raw_ecdsa(key.sign(data, ec.ECDSA(digest)), CURVE_BYTES[alg]),
            ),
            f"The right curve and key, but the hash is {digest.name}.",
        )


def public_forms(alg):
    public = keys.private(keys.ALGORITHMS[alg]).public_key()
    pem = keys.spki(public, serialization.Encoding.PEM)
    yield "pem", pem
    yield "pem-no-newline", pem.rstrip(b"\n")
    yield "pem-crlf", pem.replace(b"\n", b"\r\n")
    yield "der", keys.spki(public, serialization.Encoding.DER)
    if alg[0] in "RP":
        pkcs1 = serialization.PublicFormat.PKCS1
        yield "pkcs1-pem", public.public_bytes(serialization.Encoding.PEM, pkcs1)
        yield "pkcs1-der", public.public_bytes(serialization.Encoding.DER, pkcs1)
        yield "modulus", public.public_numbers().n.to_bytes(256)
    elif alg[0:2] == "ES":
        point = serialization.PublicFormat.UncompressedPoint
        yield "point", public.public_bytes(serialization.Encoding.X962, point)
    else:
        raw = serialization.PublicFormat.Raw
        yield "raw", public.public_bytes(serialization.Encoding.Raw, raw)


def public_key_as_secret(corpus):
    for alg in ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"):
        for form, secret in public_forms(alg):
            for hs in ("HS256", "HS512"):
                if hs == "HS512" and form != "pem":
                    continue
                corpus.bad(
                    f"confusion/{hs}-by-{alg}-public-{form}",
                    alg.lower(),
                    "algorithm_mismatch",
                    handmade(hs, sign=lambda data: hmac.digest(secret, data, f"sha{hs[2:]}")),
                    f"{hs} with the public {alg} key ({form}) as its secret.",
                )
            corpus.bad(
                f"confusion/{alg}-header-hmac-by-public-{form}",
                alg.lower(),
                "signature",
                handmade(alg, sign=lambda data: hmac.digest(secret, data, "sha256")),
                f"The header says {alg}, the signature is an HMAC by the public key ({form}).",
            )


def no_algorithm(corpus):
    payload = {"sub": "user-1", "iat": NOW - 10, "exp": NOW + 600}
    for alg in keys.ALGORITHMS:
        corpus.bad(
            f"none/{alg}/pyjwt",
            alg.lower(),
            "algorithm_mismatch",
            jwt.encode(payload, None, algorithm="none"),
            "An unsigned token.",
            PYJWT,
        )
    for alg in ("HS256", "RS256", "PS256", "ES256", "EdDSA"):
        for spelling in (
            "none",
            "None",
            "NONE",
            "nOnE",
            "nonE",
            "none ",
            " none",
            "no\u0000ne",
            "ｎｏｎｅ",
            "null",
            "",
        ):
            header = json.dumps({"alg": spelling, "typ": "JWT"}, ensure_ascii=False)
            slug = spelling.replace("\0", "NUL") or "empty"
            signed = handmade(alg, header)
            why = f"alg is {spelling!r}, not {alg}"
            unsigned = f"{signed.rpartition('.')[0]}."
            corpus.bad(
                f"none/{alg}/{slug!r}-unsigned",
                alg.lower(),
                "algorithm_mismatch",
                unsigned,
                f"{why}; there is no signature.",
            )
            corpus.bad(
                f"none/{alg}/{slug!r}-signed",
                alg.lower(),
                "algorithm_mismatch",
                signed,
                f"{why}; the signature is by the configured key.",
            )


def algorithm_spellings(corpus):
    for alg, spellings in {
        "HS256": [
            "hs256",
            "Hs256",
            "HS256 ",
            " HS256",
            "HS256\n",
            "HS256\0",
            "HS-256",
            "HS0256",
            "HS2561",
            "HS25",
            "HS２56",
            "ＨＳ256",
            "HMAC",
            "SHA256",
            "HS256,none",
            "A256KW",
            "dir",
        ],
        "RS256": [
            "rs256",
            "RS256 ",
            "RSA256",
            "RSA-OAEP",
            "RS256\t",
            "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        ],
        "PS256": ["ps256", "RSASSA-PSS", "PS256/RS256"],
        "ES256": ["es256", "ES256K", "ES-256", "ESP256", "ECDSA", "ECDH-ES"],
        "ES512": ["es512", "ES521", "ESP512"],
        "EdDSA": ["eddsa", "EDDSA", "EdDsa", "Ed25519", "Ed448", "EdDSA "],
    }.items():
        for spelling in spellings:
            corpus.bad(
                f"alg-spelling/{alg}/{spelling!r}",
                alg.lower(),
                "algorithm_mismatch",
                handmade(alg, json.dumps({"alg": spelling}, ensure_ascii=False)),
                f"alg must be exactly {alg}, though the signature is good.",
            )
    for alg in ("HS256", "ES256"):
        for name, value in {
            "null": "null",
            "number": "256",
            "true": "true",
            "array": f'["{alg}"]',
            "object": f'{{"{alg}":1}}',
        }.items():
            corpus.bad(
                f"alg-type/{alg}/{name}",
                alg.lower(),
                "algorithm_mismatch",
                handmade(alg, f'{{"alg":{value}}}'),
                "alg is there, but is not the configured string.",
            )
        for name, header in {
            "absent": '{"typ":"JWT"}',
            "empty-header": "{}",
            "upper-case-name": f'{{"ALG":"{alg}"}}',
            "nested": f'{{"jwk":{{"alg":"{alg}"}}}}',
        }.items():
            corpus.bad(
                f"alg-absent/{alg}/{name}",
                alg.lower(),
                "malformed",
                handmade(alg, header),
                "A header without alg is no JWS header.",
            )
