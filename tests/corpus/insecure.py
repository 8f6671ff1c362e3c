"""Insecure mode, in which header and signature are not looked at."""

import jwt

import claims
import keys
from claims import NAMESPACE, NOW, text
from making import HANDMADE, PYJWT, b64, next_char, pyjwt


def insecure(corpus):
    none = b64(b'{"alg":"none","typ":"JWT"}')

    def body(**members):
        defaults = {"iat": None, "exp": None}
        return text(**{**defaults, **members})

    def token(payload, header=none, signature=""):
        return f"{header}.{b64(claims.as_bytes(payload))}.{signature}"

    def ok(name, token, why, user="user-1", config_name="insecure", source=HANDMADE):
        corpus.ok(f"insecure/{name}", config_name, token, why, user, source)

    def bad(name, verdict, token, why, config_name="insecure"):
        corpus.bad(f"insecure/{name}", config_name, verdict, token, why)

    ok("minimal", token(body()), "An unsigned token with a user id and nothing else.")
    ok(
        "user-id",
        token(body(sub=None, user_id='"user-2"')),
        "The older claim for the user id.",
        "user-2",
    )
    ok(
        "pyjwt-none",
        jwt.encode({"sub": "user-1"}, None, algorithm="none"),
        "An unsigned token.",
        source=PYJWT,
    )
    ok("two-segments", token(body())[:-1], "Without signature and without its dot.")
    for alg in keys.ALGORITHMS:
        ok(
            f"signed-{alg}",
            pyjwt(alg, {"sub": "user-1"}),
            "The signature is not looked at.",
            source=PYJWT,
        )
    for name, header in {
        "empty": "",
        "not-base64": "!!!",
        "not-json": "enp6",
        "array": "W10",
        "padded": "eyJhbGciOiJub25lIn0=",
        "trailing-bits": "e31",
        "beyond-ascii": "ключ",
        "space": " ",
        "nul": "\0",
        "one-char": "e",
        "crit": b64(b'{"alg":"HS256","crit":["zzz"],"zzz":1}'),
        "zip": b64(b'{"alg":"none","zip":"DEF"}'),
        "jwe": b64(b'{"alg":"dir","enc":"A256GCM"}'),
        "nested": b64(b'{"alg":"none","cty":"JWT"}'),
        "duplicate": b64(b'{"alg":"none","alg":"none"}'),
        "no-alg": "e30",
        "b64-false": b64(b'{"alg":"none","b64":false,"crit":["b64"]}'),
    }.items():
        ok(f"header-{name}", token(body(), header), "The header is not looked at.")
    for name, signature in {
        "garbage": "zzz",
        "not-base64": "!!!",
        "padded": "AA==",
        "space": " ",
        "newline": "\n",
        "beyond-ascii": "ü",
        "one-char": "A",
    }.items():
        ok(
            f"signature-{name}",
            token(body(), signature=signature),
            "The signature is not looked at.",
        )

    respelled = standard_alphabet(body(x='"~?>~?>~?>"'))
    for name, broken in {
        "empty": "",
        "one-segment": b64(body().encode()),
        "four-segments": token(body()) + ".",
        "five-segments": token(body()) + "..",
        "one-dot": ".",
        "two-dots": "..",
        "payload-padded": f"{none}.{padded(body())}.",
        "payload-trailing-bits": f"{none}.{noncanonical(body())}.",
        "payload-space": f"{none}.{b64(body().encode())} .",
        "payload-newline": f"{none}.\n{b64(body().encode())}.",
        "payload-not-base64": f"{none}.{body()}.",
        "payload-standard-alphabet": f"{none}.{respelled}.",
        "payload-empty": f"{none}..",
        "payload-array": token("[]"),
        "payload-string": token('"user-1"'),
        "payload-number": token("1"),
        "payload-null": token("null"),
        "payload-garbage-behind": token(body() + "x"),
        "payload-bom": token("\ufeff" + body()),
        "payload-not-utf8": token(body().encode().replace(b"user-1", b"\xff")),
        "payload-lone-surrogate": token(body(sub='"\\ud800"')),
        "payload-number-too-large": token(body(x="1e400")),
        "payload-duplicate-sub": token('{"sub":"user-1","sub":"admin"}'),
        "payload-duplicate-within": token('{"sub":"user-1","x":[{"a":1,"a":1}]}'),
        "payload-depth-200": token(body(x="[" * 199 + "]" * 199)),
        "payload-depth-bomb": token("[" * 5_000),
    }.items():
        bad(
            name,
            "malformed",
            broken,
            "Two or three segments, the second one a JSON object in canonical base64url.",
        )

    bad("empty-object", "user_id", token("{}"), "Times are optional, a user id is not.")
    bad(
        "sub-blank",
        "user_id",
        token(body(sub='" \\u00a0"')),
        "Blank after trimming Unicode white space.",
    )
    bad(
        "sub-null",
        "user_id",
        token(body(sub="null", user_id='"user-2"')),
        "A present sub wins, even when it has the wrong type.",
    )
    bad("sub-number", "user_id", token(body(sub="1")), "The user id must be a JSON string.")
    for claim in ("iat", "nbf", "exp"):
        for name, value in (
            ("string", f'"{NOW}"'),
            ("null", "null"),
            ("true", "true"),
            ("array", "[]"),
            ("object", "{}"),
        ):
            bad(
                f"{claim}-{name}",
                "claims",
                token(body(**{claim: value})),
                f"{claim} is optional, but a JSON number when present.",
            )
    for offset in (-3, -2, 2, 3):
        at = str(NOW + offset)
        late = offset > 2
        if offset < 0:
            if offset < -2:
                bad(
                    f"exp-now{offset:+d}",
                    "expired",
                    token(body(exp=at)),
                    "exp is judged when present.",
                )
            else:
                ok(
                    f"exp-now{offset:+d}",
                    token(body(exp=at)),
                    "exp is judged with the same leeway.",
                )
            continue
        for claim, verdict in (("iat", "claims"), ("nbf", "not_yet_valid")):
            if late:
                bad(
                    f"{claim}-now{offset:+d}",
                    verdict,
                    token(body(**{claim: at})),
                    f"{claim} is judged when present.",
                )
            else:
                ok(
                    f"{claim}-now{offset:+d}",
                    token(body(**{claim: at})),
                    f"{claim} is judged with the same leeway.",
                )
    ok("exp-1e30", token(body(exp="1e30")), "A huge exp is a number far in the future.")
    ok("exp-fraction", token(body(exp=f"{NOW - 2}.5")), "Fractions are compared as numbers.")
    bad(
        "exp-fraction-past",
        "expired",
        token(body(exp=f"{NOW - 3}.5")),
        "Fractions are compared as numbers.",
    )

    c = "insecure-iss-aud"
    ok(
        "iss-aud-absent",
        token(body()),
        "Issuer and audience are not looked at in insecure mode.",
        config_name=c,
    )
    ok(
        "iss-aud-wrong",
        token(body(iss='"x"', aud='"y"')),
        "Issuer and audience are not looked at in insecure mode.",
        config_name=c,
    )
    ok(
        "iss-aud-types",
        token(body(iss="1", aud="{}")),
        "Issuer and audience are not looked at in insecure mode.",
        config_name=c,
    )
    c = "insecure-ns"
    ok(
        "ns-sub",
        token(body(**{"sub": None, NAMESPACE: '{"sub":"user-3"}'})),
        "The user id inside the namespace.",
        "user-3",
        c,
    )
    ok(
        "ns-over-top",
        token(body(**{NAMESPACE: '{"user_id":"user-4"}'})),
        "The sub on top does not count.",
        "user-4",
        c,
    )
    bad("ns-absent", "user_id", token(body()), "The namespace is missing.", c)
    bad(
        "ns-null",
        "user_id",
        token(body(**{NAMESPACE: "null"})),
        "The namespace must be an object.",
        c,
    )
    bad(
        "ns-array",
        "user_id",
        token(body(**{NAMESPACE: '["sub"]'})),
        "The namespace must be an object.",
        c,
    )
    bad(
        "ns-sub-number",
        "user_id",
        token(body(**{NAMESPACE: '{"sub":1,"user_id":"user-4"}'})),
        "A present sub wins, even when it has the wrong type.",
        c,
    )


def padded(payload):
    while len(payload) % 3 != 1:
        payload += " "
    return b64(payload.encode()) + "=="


def standard_alphabet(payload):
    segment = b64(payload.encode())
    assert "-" in segment or "_" in segment
    return segment.replace("-", "+").replace("_", "/")


def noncanonical(payload):
    segment = padded(payload)[:-2]
    return segment[:-1] + next_char(segment[-1])
