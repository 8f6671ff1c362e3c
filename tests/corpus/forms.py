"""The compact form: segments, their encoding, and the order of the checks."""

import json

import keys
from claims import NOW, text
from making import b64, handmade, next_char, parts, sealed, unb64


def segments(corpus):
    for alg in ("HS256", "ES256"):
        token = handmade(alg)
        header, payload, signature = parts(token)
        config_name = alg.lower()

        def bad(name, broken, why, verdict="malformed"):
            corpus.bad(f"form/{alg}/{name}", config_name, verdict, broken, why)

        bad("empty", "", "An empty token.")
        bad("one-segment", header, "One segment.")
        bad("two-segments", f"{header}.{payload}", "Two segments.")
        bad("four-segments", f"{token}.{signature}", "Four segments.")
        bad("four-segments-empty", f"{token}.", "Four segments, the last one empty.")
        bad("leading-dot", f".{token}", "Four segments, the first one empty.")
        bad("six-segments", f"{token}.AA.AA.AA", "Six segments.")
        bad("many-dots", "." * 1_000, "A thousand dots.")
        bad("two-dots", "..", "Three empty segments: the header is no JSON object.")
        bad("one-dot", ".", "Two empty segments.")
        bad("double-dot", f"{header}..{payload}.{signature}", "Four segments, one of them empty.")
        bad(
            "five-segments",
            f"{token}.AA.AA",
            "Five segments are the form of an encrypted token.",
            "unsupported",
        )
        bad("garbage", "garbage", "A word.")
        bad("garbage-dots", "a.b.c", "Segments of one character are no base64url.")
        bad("bearer", f"Bearer {token}", "A scheme in front of the token.")
        bad("quoted", f'"{token}"', "Quotes around the token.")
        bad(
            "json-serialisation",
            json.dumps({"protected": header, "payload": payload, "signature": signature}),
            "The JSON serialisation of JWS.",
        )
        bad(
            "doubled",
            f"{token}-{parts(token)[0]}.{payload}",
            "Two tokens run into one, four segments in all.",
        )
        bad(
            "segments-rotated",
            f"{payload}.{header}.{signature}",
            "Header and payload are exchanged, so there is no alg.",
        )
        bad("header-empty", sealed(alg, f".{payload}"), "The header segment is empty.")
        bad(
            "payload-empty",
            sealed(alg, f"{header}."),
            "The payload segment is empty; the signature is good.",
        )
        bad("header-only", f"{header}..", "Payload and signature are empty.", "signature")
        bad("detached", f"{header}..{signature}", "The payload was taken out.", "signature")
        bad("slash-for-dot", token.replace(".", "/"), "Slashes instead of dots.")
        bad("fullwidth-dots", token.replace(".", "．"), "Full-width full stops instead of dots.")


def encodings(corpus):
    for alg in ("HS256", "ES256"):
        header, payload, signature = parts(handmade(alg, payload=text(jti='"??>>~~"')))
        # One of each length modulo three, so that padding and trailing bits occur.
        paddable = [text(jti=f'"{"~?>" * 9}{"x" * extra}"') for extra in range(3)]
        config_name = alg.lower()

        def bad(name, broken, why):
            corpus.bad(f"encoding/{alg}/{name}", config_name, "malformed", broken, why)

        def signed_payload(segment):
            return sealed(alg, f"{header}.{segment}")

        def signed_header(segment):
            return sealed(alg, f"{segment}.{payload}")

        for extra, body in enumerate(paddable):
            raw = body.encode()
            segment = b64(raw)
            token = signed_payload(segment)
            corpus.ok(
                f"encoding/{alg}/payload-remainder-{len(raw) % 3}",
                config_name,
                token,
                f"A payload length of {len(raw) % 3} modulo 3 in canonical base64url.",
            )
            assert "-" in segment or "_" in segment
            bad(
                f"payload-standard-alphabet-{extra}",
                signed_payload(segment.replace("-", "+").replace("_", "/")),
                "The payload is in the alphabet of standard base64; signed as it is.",
            )
            if len(raw) % 3:
                missing = "=" * (-len(segment) % 4)
                bad(
                    f"payload-padded-{len(missing)}",
                    signed_payload(segment + missing),
                    "The payload is padded; signed as it is.",
                )
                bad(
                    f"payload-trailing-bits-{len(missing)}",
                    signed_payload(segment[:-1] + next_char(segment[-1])),
                    "The payload's last character has bits set that belong to no byte; signed as it is.",
                )
                bad(
                    f"payload-percent-padded-{len(missing)}",
                    signed_payload(segment + "%3D" * len(missing)),
                    "The payload is padded, in percent encoding.",
                )
            else:
                bad(
                    "payload-overlong",
                    signed_payload(segment + "A"),
                    "One character too many: no base64 has such a length.",
                )
                bad(
                    "payload-padded-needlessly",
                    signed_payload(segment + "===="),
                    "A block of padding for no bytes.",
                )
        for name, wrong in {
            "space": " ",
            "newline": "\n",
            "crlf": "\r\n",
            "tab": "\t",
            "nul": "\0",
            "equals": "=",
            "plus": "+",
            "slash": "/",
            "tilde": "~",
            "percent": "%",
            "umlaut": "ü",
            "cyrillic-a": "\u0430",
            "fullwidth-a": "\uff21",
            "zero-width-space": "\u200b",
            "bom": "\ufeff",
            "emoji": "\U0001f6f0",
        }.items():
            where = f"{name} "
            bad(
                f"header-{name}-within",
                signed_header(header[:8] + wrong + header[8:]),
                f"A {where}inside the header segment; signed as it is.",
            )
            bad(
                f"payload-{name}-within",
                signed_payload(payload[:8] + wrong + payload[8:]),
                f"A {where}inside the payload segment; signed as it is.",
            )
            bad(
                f"signature-{name}-within",
                f"{header}.{payload}.{signature[:8]}{wrong}{signature[8:]}",
                f"A {where}inside the signature segment.",
            )
            if name in ("space", "newline", "crlf", "tab", "nul", "zero-width-space", "bom"):
                good = f"{header}.{payload}.{signature}"
                bad(f"token-{name}-before", wrong + good, f"A {where}before the token.")
                bad(f"token-{name}-behind", good + wrong, f"A {where}behind the token.")
                bad(
                    f"token-{name}-at-dot",
                    good.replace(".", f".{wrong}", 1),
                    f"A {where}behind the first dot.",
                )
        bad(
            "header-not-base64",
            signed_header("{}"),
            "The header is not encoded at all; signed as it is.",
        )
        bad(
            "payload-not-base64",
            signed_payload(text()),
            "The payload is not encoded at all; signed as it is.",
        )
        bad(
            "payload-hex",
            signed_payload(text().encode().hex()),
            "The payload is in hex, which decodes to garbage if at all.",
        )
        bad(
            "payload-twice-encoded",
            signed_payload(b64(payload.encode())),
            "The payload is encoded twice, so it is no JSON.",
        )
        if len(unb64(signature)) % 3:
            bad(
                "signature-padded",
                f"{header}.{payload}.{signature}" + "=" * (-len(signature) % 4),
                "The signature is padded.",
            )
        standard = sealed_with_dash(alg, header)
        bad(
            "signature-standard-alphabet",
            standard,
            "The signature is in the alphabet of standard base64.",
        )
        bad(
            "signature-one-char",
            f"{header}.{payload}.A",
            "A signature of one character: no base64 has such a length.",
        )
        compact = f'{{"alg":"{alg}"}} '
        while len(compact) % 3 != 1:
            compact += " "
        segment = b64(compact.encode())
        bad(
            "header-padded", signed_header(segment + "=="), "The header is padded; signed as it is."
        )
        bad(
            "header-trailing-bits",
            signed_header(segment[:-1] + next_char(segment[-1])),
            "The header's last character has bits set that belong to no byte.",
        )


def sealed_with_dash(alg, header):
    """A good token respelled in standard base64, for which its signature must hold a - or _."""
    for attempt in range(1_000):
        token = sealed(alg, f"{header}.{b64(text(jti=str(attempt)).encode())}")
        signature = parts(token)[2]
        if "-" in signature and "_" in signature:
            respelled = signature.replace("-", "+").replace("_", "/")
            return f"{token.rpartition('.')[0]}.{respelled}"
    raise AssertionError("no such signature found")


def order(corpus):
    for alg in ("HS256", "RS256", "ES256", "EdDSA"):
        other = keys.ALGORITHMS[alg] + "-other"
        expired = text(exp=str(NOW - 600))
        decoy = "ES384" if alg != "ES384" else "ES256"

        def bad(name, verdict, token, why):
            corpus.bad(f"order/{alg}/{name}", alg.lower(), verdict, token, why)

        bad(
            "signature-before-expired",
            "signature",
            handmade(alg, payload=expired, key=other),
            "Nothing of the payload is judged before the signature.",
        )
        bad(
            "signature-before-payload",
            "signature",
            handmade(alg, payload="[]", key=other),
            "The payload is not parsed before the signature is good.",
        )
        bad(
            "signature-before-duplicate",
            "signature",
            handmade(alg, payload=text()[:-1] + ',"sub":"x"}', key=other),
            "The payload is not parsed before the signature is good.",
        )
        bad(
            "alg-before-expired",
            "algorithm_mismatch",
            handmade(alg, f'{{"alg":"{decoy}"}}', expired),
            "The algorithm is compared before the claims.",
        )
        bad(
            "alg-before-crit",
            "algorithm_mismatch",
            handmade(alg, f'{{"alg":"{decoy}","crit":["zzz"],"zzz":1}}'),
            "The algorithm is compared before other header parameters.",
        )
        bad(
            "alg-before-signature",
            "algorithm_mismatch",
            handmade(alg, f'{{"alg":"{decoy}"}}', key=other),
            "The algorithm is compared before the signature.",
        )
        bad(
            "crit-before-signature",
            "unsupported",
            handmade(alg, f'{{"alg":"{alg}","crit":["zzz"],"zzz":1}}', key=other),
            "Header parameters are judged before the signature.",
        )
        bad(
            "zip-before-signature",
            "unsupported",
            handmade(alg, f'{{"alg":"{alg}","zip":"DEF"}}', key=other),
            "Header parameters are judged before the signature.",
        )
        bad(
            "duplicate-before-alg",
            "malformed",
            handmade(alg, f'{{"alg":"{decoy}","x":1,"x":1}}'),
            "The header is parsed as a whole before the algorithm is compared.",
        )
        bad(
            "form-before-alg",
            "malformed",
            f"{handmade(decoy)}.AA",
            "The segments are counted before the algorithm is compared.",
        )
