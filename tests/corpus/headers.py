"""Headers: their form, parameters that are refused or ignored, keys that an attacker sends along."""

import datetime
import hmac
import json
from base64 import b64encode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import keys
from making import CURVE_BYTES, b64, handmade, hashed


def headers(corpus):
    for alg in ("HS256", "EdDSA"):
        signed = f'"alg":"{alg}"'

        def ok(name, header, why="An unusual but correct header."):
            corpus.ok(f"header/{alg}/{name}", alg.lower(), handmade(alg, header), why)

        def bad(name, header, why):
            corpus.bad(f"header/{alg}/{name}", alg.lower(), "malformed", handmade(alg, header), why)

        ok("no-typ", f"{{{signed}}}", "typ is optional.")
        for typ in (
            '"JWT"',
            '"jwt"',
            '"JOSE"',
            '"at+jwt"',
            '"application/jwt"',
            '"secevent+jwt"',
            '""',
            "null",
            "5",
            "[]",
        ):
            ok(f"typ-{typ}", f'{{{signed},"typ":{typ}}}', "typ is not looked at.")
        ok("white-space", f' \n{{ {signed.replace(":", " : ")} ,\t"typ":"JWT" }}\r\n ')
        ok("typ-first", f'{{"typ":"JWT",{signed}}}')
        ok(
            "escaped-value",
            f'{{"alg":"\\u{ord(alg[0]):04x}{alg[1:]}"}}',
            "alg is compared after JSON decoding.",
        )
        ok("escaped-name", f'{{"\\u0061lg":"{alg}"}}', "Names are read after JSON decoding.")
        ok(
            "unknown-parameters",
            f'{{{signed},"x":{{"y":[1,2,null]}},"alg2":"none"}}',
            "Unknown parameters are ignored.",
        )
        ok("beyond-ascii", f'{{{signed},"note":"\u043a\u043b\u044e\u0447 \U0001f511"}}')
        ok(
            "depth-50",
            f'{{{signed},"x":{"[" * 49}{"]" * 49}}}',
            "Fifty levels are within the limit.",
        )
        ok("large", f'{{{signed},"x":"{"x" * 4_000}"}}', "A long header is not wrong.")

        bad("array", "[]", "The header must be a JSON object.")
        bad("array-of-object", f"[{{{signed}}}]", "The header must be a JSON object.")
        bad("string", f'"{alg}"', "The header must be a JSON object.")
        bad("number", "1", "The header must be a JSON object.")
        bad("null", "null", "The header must be a JSON object.")
        bad("empty", "", "The header must be a JSON object.")
        bad("not-json", "zzz", "The header must be a JSON object.")
        bad("cut", f"{{{signed}", "The header is cut off.")
        bad("garbage-behind", f"{{{signed}}}x", "Garbage behind the header object.")
        bad("second-object", f'{{{signed}}}{{"alg":"none"}}', "A second object behind the first.")
        bad("nul-behind", f"{{{signed}}}\0", "A NUL behind the header object.")
        bad("bom", f"\ufeff{{{signed}}}", "A byte order mark before the header object.")
        bad("trailing-comma", f"{{{signed},}}", "A comma too many.")
        bad("single-quotes", f"{{{signed}}}".replace('"', "'"), "Single quotes are no JSON.")
        bad("comment", f"{{/**/{signed}}}", "Comments are no JSON.")
        bad(
            "lone-surrogate",
            f'{{{signed},"x":"\\ud800"}}',
            "An escaped surrogate without its partner.",
        )
        bad("number-too-large", f'{{{signed},"x":1e400}}', "A number that does not fit a double.")
        bad(
            "not-utf8",
            f'{{{signed},"x":"?"}}'.encode().replace(b"?", b"\xff"),
            "The header must be UTF-8.",
        )
        bad("utf-16", f"{{{signed}}}".encode("utf-16-le"), "The header must be UTF-8.")
        bad(
            "depth-200",
            f'{{{signed},"x":{"[" * 199}{"]" * 199}}}',
            "Two hundred levels are too deep.",
        )
        bad("depth-1000", '{"x":' * 1_000, "A thousand levels, never closed.")
        bad("duplicate-alg-none-first", f'{{"alg":"none",{signed}}}', "alg occurs twice.")
        bad("duplicate-alg-none-last", f'{{{signed},"alg":"none"}}', "alg occurs twice.")
        bad(
            "duplicate-alg-same", f"{{{signed},{signed}}}", "alg occurs twice, with the same value."
        )
        bad(
            "duplicate-alg-escaped",
            f'{{{signed},"\\u0061lg":"none"}}',
            "alg occurs twice after JSON decoding.",
        )
        bad("duplicate-kid", f'{{{signed},"kid":"a","kid":"b"}}', "kid occurs twice.")
        bad("duplicate-typ", f'{{{signed},"typ":"JWT","typ":"JWT"}}', "typ occurs twice.")
        bad(
            "duplicate-within",
            f'{{{signed},"jwk":{{"kty":"oct","kty":"RSA"}}}}',
            "A name occurs twice inside jwk.",
        )


def header_parameters(corpus):
    for alg in ("HS256", "ES256"):
        signed = f'"alg":"{alg}","typ":"JWT"'
        for name, parameters, why in (
            (
                "crit-unknown",
                '"crit":["zzz"],"zzz":1',
                "crit asks for an extension we do not have.",
            ),
            ("crit-exp", '"crit":["exp"],"exp":1', "crit is refused whatever it names."),
            ("crit-b64-true", '"crit":["b64"],"b64":true', "crit is refused whatever it names."),
            ("crit-empty", '"crit":[]', "crit is refused whatever it holds."),
            ("crit-null", '"crit":null', "crit is refused whatever it holds."),
            ("crit-string", '"crit":"zzz"', "crit is refused whatever it holds."),
            ("crit-alg", '"crit":["alg"]', "crit is refused whatever it names."),
            ("b64-false", '"b64":false', "An unencoded payload is not supported."),
            (
                "b64-false-crit",
                '"crit":["b64"],"b64":false',
                "An unencoded payload is not supported.",
            ),
            ("zip", '"zip":"DEF"', "Compression is not supported."),
            ("zip-null", '"zip":null', "zip is refused whatever it holds."),
            ("zip-unknown", '"zip":"GZ"', "Compression is not supported."),
            ("enc", '"enc":"A256GCM"', "enc belongs to encrypted tokens."),
            ("enc-null", '"enc":null', "enc is refused whatever it holds."),
            ("cty-jwt", '"cty":"JWT"', "Nested tokens are not supported."),
        ):
            corpus.bad(
                f"parameter/{alg}/{name}",
                alg.lower(),
                "unsupported",
                handmade(alg, f"{{{signed},{parameters}}}"),
                f"{why} The signature is good.",
            )
        for name, parameters, why in (
            ("b64-true", '"b64":true', "b64 true is what holds without it."),
            ("cty-json", '"cty":"json"', "A cty other than JWT says nothing that matters here."),
            (
                "exp-in-header",
                '"exp":1,"sub":"admin"',
                "Claims repeated in the header are not looked at.",
            ),
            (
                "iss-aud-in-header",
                '"iss":"x","aud":"y"',
                "Claims repeated in the header are not looked at.",
            ),
            (
                "CRIT-upper-case",
                '"CRIT":["zzz"]',
                "Parameter names are case-sensitive: CRIT is not crit.",
            ),
            (
                "nested-crit",
                '"x":{"crit":["zzz"],"zip":"DEF","enc":"x"}',
                "Only the header's own members count.",
            ),
            (
                "epk",
                '"epk":{},"apu":"x","p2c":1000000000,"iv":"x","tag":"x"',
                "Parameters of other algorithms are ignored.",
            ),
        ):
            corpus.ok(
                f"parameter/{alg}/{name}",
                alg.lower(),
                handmade(alg, f"{{{signed},{parameters}}}"),
                why,
            )
        inner = handmade(alg)
        corpus.bad(
            f"parameter/{alg}/nested-token",
            alg.lower(),
            "unsupported",
            handmade(alg, f'{{{signed},"cty":"JWT"}}', inner),
            "A token inside a token.",
        )
        corpus.bad(
            f"parameter/{alg}/nested-token-without-cty",
            alg.lower(),
            "malformed",
            handmade(alg, f"{{{signed}}}", inner),
            "A token inside a token, unannounced: the payload is no JSON object.",
        )
        for name, value in KIDS.items():
            corpus.ok(
                f"kid/{alg}/{name}",
                alg.lower(),
                handmade(alg, f'{{{signed},"kid":{value}}}'),
                "One key is configured: kid chooses nothing, and the signature is good.",
            )
            corpus.bad(
                f"kid/{alg}/{name}-other-key",
                alg.lower(),
                "signature",
                handmade(alg, f'{{{signed},"kid":{value}}}', key=keys.ALGORITHMS[alg] + "-other"),
                "kid chooses nothing, and the signature is by another key.",
            )
    for name, value, secret in (
        ("dev-null", '"/dev/null"', b""),
        ("path-traversal", '"../../../../../../dev/null"', b""),
        ("sql-union", "\"x' UNION SELECT 'attacker\"", b"attacker"),
        ("url", '"https://attacker.example/key"', b"attacker"),
        ("nul-byte", '"keys/hs256.txt\\u0000"', b""),
        ("kid-is-secret", '"attacker"', b"attacker"),
    ):
        corpus.bad(
            f"kid/HS256/{name}-as-key-source",
            "hs256",
            "signature",
            handmade(
                "HS256",
                f'{{"alg":"HS256","kid":{value}}}',
                sign=lambda data: hmac.digest(secret, data, "sha256"),
            ),
            "kid is no place to fetch a key from.",
        )


KIDS = {
    "plain": '"key-1"',
    "empty": '""',
    "path": '"../../../../etc/passwd"',
    "dev-null": '"/dev/null"',
    "sql": "\"' OR '1'='1' --\"",
    "shell": '"$(id)|`id`;id"',
    "nul": '"a\\u0000b"',
    "newline": '"a\\r\\nX: y"',
    "long": '"' + "k" * 2_000 + '"',
    "number": "1",
    "null": "null",
    "array": '["key-1"]',
    "object": '{"kid":"key-1"}',
}


def attacker_keys(corpus):
    """The attacker's key travels in the token, and the token is signed with it."""
    for alg in ("RS256", "PS256", "ES256", "ES384", "EdDSA"):
        other = keys.ALGORITHMS[alg] + "-other"
        public = keys.private(other).public_key()
        jwk = public_jwk(alg, public)
        certificate = attacker_certificate(other)
        for name, parameters in {
            "jwk": {"jwk": jwk},
            "jwk-and-kid": {"jwk": {**jwk, "kid": "a"}, "kid": "a"},
            "jku": {"jku": "https://attacker.example/jwks.json", "kid": "a"},
            "jku-file": {"jku": "file:///etc/passwd"},
            "jku-local": {"jku": "http://127.0.0.1:1/jwks.json"},
            "x5u": {"x5u": "https://attacker.example/cert.pem"},
            "x5c": {"x5c": [b64encode(certificate).decode()]},
            "x5t": {"x5t#S256": b64(hashed("HS256", certificate))},
        }.items():
            header = json.dumps({"alg": alg, "typ": "JWT", **parameters})
            corpus.bad(
                f"attacker/{alg}/{name}",
                alg.lower(),
                "signature",
                handmade(alg, header, key=other),
                "Keys come from the configuration only; this one is the attacker's.",
            )
            corpus.ok(
                f"attacker/{alg}/{name}-signed-by-ours",
                alg.lower(),
                handmade(alg, header),
                "Keys in the header are ignored; the signature is by the configured key.",
            )
    secret = b"attacker"
    oct_jwk = {"kty": "oct", "k": b64(secret), "alg": "HS256"}
    header = json.dumps({"alg": "HS256", "jwk": oct_jwk})
    corpus.bad(
        "attacker/HS256/jwk-oct",
        "hs256",
        "signature",
        handmade("HS256", header, sign=lambda data: hmac.digest(secret, data, "sha256")),
        "Keys come from the configuration only; this one is the attacker's.",
    )
    for name, value in (
        ("jwk-string", '"jwk":"x"'),
        ("jwk-null", '"jwk":null'),
        ("x5c-number", '"x5c":1'),
        ("jku-object", '"jku":{}'),
        ("x5c-broken", '"x5c":["!"]'),
    ):
        corpus.ok(
            f"attacker/HS256/{name}",
            "hs256",
            handmade("HS256", f'{{"alg":"HS256",{value}}}'),
            "Keys in the header are ignored, whatever their type.",
        )


def public_jwk(alg, public):
    numbers = getattr(public, "public_numbers", lambda: None)()
    if alg[0] in "RP":
        return {"kty": "RSA", "n": b64(numbers.n.to_bytes(256)), "e": "AQAB"}
    if alg.startswith("ES"):
        size = CURVE_BYTES[alg]
        return {
            "kty": "EC",
            "crv": f"P-{alg[2:]}",
            "x": b64(numbers.x.to_bytes(size)),
            "y": b64(numbers.y.to_bytes(size)),
        }
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}


def attacker_certificate(key_name):
    key = keys.private(key_name)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attacker.example")])
    start = datetime.datetime(2023, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
    )
    digest = None if key_name.startswith("ed") else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)
