"""Every algorithm: good tokens, bad claims, damaged tokens; and the table of payloads."""

import datetime

import claims
import keys
from claims import NOW
from making import (
    PYJWT,
    b64,
    flipped,
    is_canonical,
    next_char,
    parts,
    pyjwt,
    pyjwt_bytes,
    replaced,
    unb64,
    with_signature,
)


def per_algorithm(corpus):
    for alg, key in keys.ALGORITHMS.items():
        good_tokens(corpus, alg)
        bad_claims(corpus, alg)
        damaged(corpus, alg, pyjwt(alg, {"sub": "user-1", "iat": NOW - 10, "exp": NOW + 600}))
        other = f"{key.removesuffix('-other')}-other"
        corpus.bad(
            f"pyjwt/{alg}/other-key",
            alg.lower(),
            "signature",
            pyjwt(alg, {"sub": "user-1", "iat": NOW - 10, "exp": NOW + 600}, other),
            "Signed with another key of the same kind.",
            PYJWT,
        )


def good_tokens(corpus, alg):
    def good(name, payload, why, user="user-1", header=None):
        token = pyjwt(alg, payload, header=header)
        corpus.ok(f"pyjwt/{alg}/{name}", alg.lower(), token, why, user, PYJWT)

    base = {"iat": NOW - 10, "exp": NOW + 600}
    good("good", {"sub": "user-1", **base}, "The least a token must hold.")
    good(
        "good-user-id", {"user_id": "user-2", **base}, "The older claim for the user id.", "user-2"
    )
    good(
        "good-full",
        {
            "iss": "https://issuer.example/",
            "aud": ["a", "b"],
            "sub": "user-1",
            "nbf": NOW - 10,
            "jti": "0f8fad5b-d9cb-469f-a165-70867728950e",
            "roles": ["admin", {"scope": None}],
            **base,
        },
        "Every registered claim, and more than those.",
    )
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    good(
        "good-datetimes",
        {"sub": "пользователь 🛰", "iat": moment, "exp": moment + datetime.timedelta(days=1)},
        "Times given as datetimes, and a user id beyond ASCII.",
        "пользователь 🛰",
    )
    good(
        "good-kid",
        {"sub": "user-1", **base},
        "kid and another typ change nothing.",
        header={"kid": "2023-11", "typ": "at+jwt"},
    )


def bad_claims(corpus, alg):
    base = {"sub": "user-1", "iat": NOW - 10, "exp": NOW + 600}
    for name, verdict, change, why in (
        ("expired", "expired", {"exp": NOW - 60}, "Expired a minute ago."),
        ("not-yet-valid", "not_yet_valid", {"nbf": NOW + 60}, "Valid in a minute."),
        ("issued-in-the-future", "claims", {"iat": NOW + 60}, "Issued a minute from now."),
        ("no-exp", "missing_claim", {"exp": None}, "exp is required."),
        ("no-iat", "missing_claim", {"iat": None}, "iat is required."),
        ("no-user", "user_id", {"sub": None}, "Neither sub nor user_id."),
    ):
        payload = {k: v for k, v in {**base, **change}.items() if v is not None}
        corpus.bad(f"pyjwt/{alg}/{name}", alg.lower(), verdict, pyjwt(alg, payload), why, PYJWT)


def damaged(corpus, alg, token):
    header, payload, signature = parts(token)
    raw = unb64(signature)

    def bad(name, verdict, broken, why):
        corpus.bad(f"pyjwt/{alg}/{name}", alg.lower(), verdict, broken, why, PYJWT)

    bad(
        "header-flip-typ",
        "signature",
        replaced(token, 0, b'"JWT"', b'"JWU"'),
        "One bit of the typ differs.",
    )
    changed = alg[:-1] + chr(ord(alg[-1]) ^ 1)
    bad(
        "header-flip-alg",
        "algorithm_mismatch",
        replaced(token, 0, alg.encode(), changed.encode()),
        "One bit of the alg differs.",
    )
    bad(
        "header-flip-brace",
        "malformed",
        f"{b64(flipped(unb64(header), 0))}.{payload}.{signature}",
        "One bit of the header's opening brace differs.",
    )
    bad(
        "payload-flip-user",
        "signature",
        replaced(token, 1, b"user-1", b"user-0"),
        "One bit of the sub differs.",
    )
    bad(
        "payload-flip-exp",
        "signature",
        replaced(token, 1, str(NOW + 600).encode(), str(NOW + 1_600).encode()),
        "The exp was moved.",
    )
    bad(
        "payload-flip-brace",
        "signature",
        f"{header}.{b64(flipped(unb64(payload), 0))}.{signature}",
        "The payload is no longer JSON, but the signature is judged first.",
    )
    bad(
        "signature-flip-first",
        "signature",
        with_signature(token, flipped(raw, 0)),
        "First byte, lowest bit.",
    )
    bad(
        "signature-flip-top",
        "signature",
        with_signature(token, flipped(raw, 0, 128)),
        "First byte, highest bit.",
    )
    bad(
        "signature-flip-middle",
        "signature",
        with_signature(token, flipped(raw, len(raw) // 2, 16)),
        "A bit in the middle of the signature.",
    )
    bad(
        "signature-flip-last",
        "signature",
        with_signature(token, flipped(raw, -1)),
        "Last byte, lowest bit.",
    )
    bad(
        "signature-cut-byte",
        "signature",
        with_signature(token, raw[:-1]),
        "The last byte is cut off.",
    )
    bad(
        "signature-cut-first-byte",
        "signature",
        with_signature(token, raw[1:]),
        "The first byte is cut off.",
    )
    bad(
        "signature-cut-half",
        "signature",
        with_signature(token, raw[: len(raw) // 2]),
        "Only the first half is there.",
    )
    cut = signature[:-1]
    bad(
        "signature-cut-char",
        "signature" if is_canonical(cut) else "malformed",
        token[:-1],
        "The last character is cut off; what is left is "
        + (
            "canonical base64url of too few bytes."
            if is_canonical(cut)
            else "no canonical base64url."
        ),
    )
    bad("signature-empty", "signature", f"{header}.{payload}.", "The signature is empty.")
    bad(
        "signature-extra-byte",
        "signature",
        with_signature(token, raw + b"\0"),
        "A zero byte is appended.",
    )
    bad(
        "signature-extra-front",
        "signature",
        with_signature(token, b"\0" + raw),
        "A zero byte is put in front.",
    )
    bad(
        "signature-twice",
        "signature",
        with_signature(token, raw + raw),
        "The signature is there twice.",
    )
    bad(
        "signature-zeros",
        "signature",
        with_signature(token, bytes(len(raw))),
        "All zeros, of the right length.",
    )
    bad(
        "signature-ones",
        "signature",
        with_signature(token, b"\xff" * len(raw)),
        "All ones, of the right length.",
    )
    if len(raw) % 3:
        bad(
            "signature-trailing-bits",
            "malformed",
            token[:-1] + next_char(token[-1]),
            "The same bytes spelled with other trailing bits: not canonical base64url.",
        )


def claim_table(corpus):
    for case in claims.cases():
        name = f"pyjwt/claims{case.variant}/{case.name}"
        token = pyjwt_bytes("HS256", case.payload)
        corpus.add(
            name, PYJWT, f"hs256{case.variant}", token, case.verdict, case.why, case.user, NOW
        )


def other_key_sizes(corpus):
    payload = {"sub": "user-1", "iat": NOW - 10, "exp": NOW + 600}
    for config_name, alg, key, other in (
        ("rs256-3072", "RS256", "rsa3072", "rsa4096"),
        ("rs512-4096", "RS512", "rsa4096", "rsa3072"),
        ("ps256-4096", "PS256", "rsa4096", "rsa2048"),
    ):
        name = f"pyjwt/{config_name}"
        corpus.ok(
            f"{name}/good", config_name, pyjwt(alg, payload, key), "A larger RSA key.", source=PYJWT
        )
        corpus.bad(
            f"{name}/other-size",
            config_name,
            "signature",
            pyjwt(alg, payload, other),
            "Signed with an RSA key of another size.",
            PYJWT,
        )
