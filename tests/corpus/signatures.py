"""Signatures that look right and are not, algorithm family by family."""

import hmac
from base64 import b64encode

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

import keys
from claims import text
from making import (
    CURVE_BYTES,
    HASH,
    flipped,
    handmade,
    hashed,
    parts,
    raw_ecdsa,
    raw_signature,
    unb64,
    with_signature,
)

CURVE_ORDER = {
    "ES256": 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
    "ES384": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "ES512": 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def hmac_signatures(corpus):
    for alg, key_name in (("HS256", "hs256"), ("HS384", "hs384"), ("HS512", "hs512")):
        key = keys.secret(key_name)
        for name, other in {
            "empty-key": b"",
            "key-and-newline": key + b"\n",
            "key-cut": key[:-1],
            "key-in-base64": b64encode(key),
            "key-decoded": unb64(key.decode()),
            "key-in-hex": key.hex().encode(),
            "key-upper-case": key.upper(),
            "key-twice": key * 2,
        }.items():
            corpus.bad(
                f"hmac/{alg}/{name}",
                alg.lower(),
                "signature",
                handmade(alg, sign=lambda data: hmac.digest(other, data, f"sha{alg[2:]}")),
                "The HMAC was made with a different secret.",
            )
        corpus.bad(
            f"hmac/{alg}/plain-hash",
            alg.lower(),
            "signature",
            handmade(alg, sign=lambda data: hashed(alg, key + data)),
            "A plain hash over key and text is not an HMAC.",
        )
        corpus.bad(
            f"hmac/{alg}/hex",
            alg.lower(),
            "signature",
            handmade(alg, sign=lambda data: raw_signature(alg, data).hex().encode()),
            "The HMAC is spelled in hex.",
        )
        corpus.bad(
            f"hmac/{alg}/payload-only",
            alg.lower(),
            "signature",
            handmade(alg, sign=lambda data: raw_signature(alg, data.partition(b".")[2])),
            "The HMAC does not cover the header.",
        )


def ecdsa_signatures(corpus):
    for alg, size in CURVE_BYTES.items():
        key = keys.private(keys.ALGORITHMS[alg])
        digest = HASH[alg[2:]]()
        order_n = CURVE_ORDER[alg]
        token = handmade(alg)
        raw = unb64(parts(token)[2])
        r, s = int.from_bytes(raw[:size]), int.from_bytes(raw[size:])

        def pair(first, second, width=size):
            return with_signature(token, first.to_bytes(width) + second.to_bytes(width))

        def bad(name, broken, why):
            corpus.bad(f"ecdsa/{alg}/{name}", alg.lower(), "signature", broken, why)

        bad(
            "der",
            handmade(alg, sign=lambda data: key.sign(data, ec.ECDSA(digest))),
            "DER instead of r and s side by side.",
        )
        bad("zero", pair(0, 0), "r and s are zero.")
        bad("r-zero", pair(0, s), "r is zero.")
        bad("s-zero", pair(r, 0), "s is zero.")
        bad("one", pair(1, 1), "r and s are one.")
        bad("r-order", pair(order_n, s), "r is the order of the curve, that is zero.")
        bad("s-order", pair(r, order_n), "s is the order of the curve, that is zero.")
        bad("both-order", pair(order_n, order_n), "r and s are the order of the curve.")
        bad("order-less-one", pair(order_n - 1, order_n - 1), "r and s are the order less one.")
        bad("r-negated", pair(order_n - r, s), "r is replaced by n - r.")
        bad("swapped", pair(s, r), "s comes before r.")
        bad(
            "little-endian",
            with_signature(token, raw[:size][::-1] + raw[size:][::-1]),
            "Both numbers are little-endian.",
        )
        bad("padded", pair(r, s, size + 1), "Both numbers have a leading zero byte too many.")
        bad("r-only", with_signature(token, raw[:size]), "s is missing.")
        corpus.ok(
            f"ecdsa/{alg}/s-negated",
            alg.lower(),
            pair(r, order_n - s),
            "(r, n - s) is as valid as (r, s): JWS does not ask for the lower s.",
        )
        if alg != "ES512":
            short_halves(corpus, alg, size)
    for name in ("secp256k1", "brainpool256"):
        foreign = keys.private(name)
        corpus.bad(
            f"ecdsa/ES256/{name}",
            "es256",
            "signature",
            handmade(
                "ES256",
                sign=lambda data: raw_ecdsa(foreign.sign(data, ec.ECDSA(hashes.SHA256())), 32),
            ),
            f"A signature over {name}, as long as one over P-256.",
        )
        corpus.bad(
            f"ecdsa/ES256/{name}-es256k",
            "es256",
            "algorithm_mismatch",
            handmade(
                "ES256K",
                sign=lambda data: raw_ecdsa(foreign.sign(data, ec.ECDSA(hashes.SHA256())), 32),
            ),
            "ES256K is not ES256.",
        )


def short_halves(corpus, alg, size):
    """Signatures whose r or s starts with a zero byte, padded as they must be and stripped."""
    for name, half in (("r", 0), ("s", size)):
        while True:
            token = handmade(alg)
            raw = unb64(parts(token)[2])
            if raw[half] == 0:
                break
        corpus.ok(
            f"ecdsa/{alg}/{name}-starts-with-zero",
            alg.lower(),
            token,
            f"{name} is a byte shorter than usual and padded with a leading zero.",
        )
        stripped = raw[:half] + raw[half + 1 :]
        corpus.bad(
            f"ecdsa/{alg}/{name}-zero-stripped",
            alg.lower(),
            "signature",
            with_signature(token, stripped),
            f"The leading zero of {name} was stripped.",
        )


def rsa_signatures(corpus):
    numbers = keys.private("rsa2048").private_numbers()
    n, d, size = numbers.public_numbers.n, numbers.d, 256

    def rsa(block):
        return pow(int.from_bytes(block), d, n).to_bytes(size)

    for alg in ("RS256", "PS256"):
        token = handmade(alg)

        def bad(name, broken, why):
            corpus.bad(f"rsa/{alg}/{name}", alg.lower(), "signature", broken, why)

        for name, value in (
            ("one", 1),
            ("modulus", n),
            ("modulus-less-one", n - 1),
            ("all-bits", 2**2048 - 1),
        ):
            bad(
                name,
                with_signature(token, value.to_bytes(size)),
                f"The signature is the number {name}.",
            )
        bad("modulus-added", beyond_modulus(alg, n), "The signature number has the modulus added.")
        zero = starting_with_zero(alg)
        corpus.ok(
            f"rsa/{alg}/starts-with-zero",
            alg.lower(),
            zero,
            "The signature number is a byte shorter than usual and padded with a leading zero.",
        )
        bad(
            "zero-stripped",
            with_signature(zero, unb64(parts(zero)[2])[1:]),
            "The leading zero was stripped.",
        )
        bad(
            "reversed",
            with_signature(token, unb64(parts(token)[2])[::-1]),
            "The bytes are in reverse order.",
        )

    info = bytes.fromhex("3031300d060960864801650304020105000420")
    info_without_null = bytes.fromhex("302f300b0609608648016503040201" + "0420")
    sha1_info = bytes.fromhex("3021300906052b0e03021a05000414")

    def block(payload, kind=1, fill=None):
        fill = size - 3 - len(payload) if fill is None else fill
        return b"\0" + bytes([kind]) + b"\xff" * fill + b"\0" + payload

    def pkcs1(name, build, why):
        corpus.bad(
            f"rsa/RS256/{name}",
            "rs256",
            "signature",
            handmade("RS256", sign=lambda data: rsa(build(data))),
            why,
        )

    def sha256(data):
        return hashed("RS256", data)

    pkcs1(
        "no-null",
        lambda m: block(info_without_null + sha256(m)),
        "DigestInfo without its NULL parameter.",
    )
    pkcs1("no-digest-info", lambda m: block(sha256(m)), "The bare hash without a DigestInfo.")
    pkcs1("block-type-0", lambda m: block(info + sha256(m), kind=0), "Block type 0 instead of 1.")
    pkcs1("block-type-2", lambda m: block(info + sha256(m), kind=2), "Block type 2 instead of 1.")
    pkcs1(
        "garbage-behind",
        lambda m: (block(info + sha256(m), fill=8) + b"\x5a" * size)[:size],
        "Eight bytes of padding and garbage behind the hash, as in forgeries for small exponents.",
    )
    pkcs1(
        "garbage-in-padding",
        lambda m: flipped(block(info + sha256(m)), 100),
        "One byte of the padding is not FF.",
    )
    pkcs1("sha1", lambda m: block(sha1_info + hashed_sha1(m)), "A SHA-1 DigestInfo.")
    pkcs1(
        "sha384-label",
        lambda m: block(bytes.fromhex("3031300d060960864801650304020205000420") + sha256(m)),
        "A SHA-256 hash labelled SHA-384.",
    )
    pkcs1("unpadded", lambda m: bytes(size - 32) + sha256(m), "The bare hash without any padding.")

    key = keys.private("rsa2048")

    def pss(name, mgf, salt, why):
        corpus.bad(
            f"rsa/PS256/{name}",
            "ps256",
            "signature",
            handmade(
                "PS256",
                sign=lambda data: key.sign(
                    data, padding.PSS(padding.MGF1(mgf), salt), hashes.SHA256()
                ),
            ),
            why,
        )

    pss("salt-0", hashes.SHA256(), 0, "The salt must be as long as the hash; here it is empty.")
    pss(
        "salt-20",
        hashes.SHA256(),
        20,
        "The salt must be as long as the hash; here it has 20 bytes.",
    )
    pss(
        "salt-31",
        hashes.SHA256(),
        31,
        "The salt must be as long as the hash; here it is a byte short.",
    )
    pss(
        "salt-33",
        hashes.SHA256(),
        33,
        "The salt must be as long as the hash; here it is a byte long.",
    )
    pss(
        "salt-max",
        hashes.SHA256(),
        padding.PSS.MAX_LENGTH,
        "The salt must be as long as the hash; here it is as long as fits.",
    )
    pss("mgf-sha1", hashes.SHA1(), 32, "The mask is made with SHA-1.")
    pss("mgf-sha512", hashes.SHA512(), 32, "The mask is made with SHA-512.")


def hashed_sha1(data):
    digest = hashes.Hash(hashes.SHA1())
    digest.update(data)
    return digest.finalize()


def beyond_modulus(alg, n):
    for attempt in range(1_000):
        token = handmade(alg, payload=text(jti=f'"{attempt}"'))
        value = int.from_bytes(unb64(parts(token)[2]))
        if value + n < 2**2048:
            return with_signature(token, (value + n).to_bytes(256))
    raise AssertionError("no small signature found")


def starting_with_zero(alg):
    for attempt in range(10_000):
        token = handmade(alg, payload=text(jti=f'"{attempt}"'))
        if unb64(parts(token)[2])[0] == 0:
            return token
    raise AssertionError("no signature with a leading zero found")


def eddsa_signatures(corpus):
    token = handmade("EdDSA")
    raw = unb64(parts(token)[2])
    r, s = raw[:32], int.from_bytes(raw[32:], "little")

    def bad(name, broken, why):
        corpus.bad(f"eddsa/{name}", "eddsa", "signature", broken, why)

    def with_s(value):
        return with_signature(token, r + value.to_bytes(32, "little"))

    bad(
        "s-plus-order",
        with_s(s + ED25519_ORDER),
        "S has the group order added: the malleable twin is refused.",
    )
    bad("s-zero", with_s(0), "S is zero.")
    bad("s-order", with_s(ED25519_ORDER), "S is the group order.")
    bad(
        "r-identity",
        with_signature(token, b"\1" + bytes(31) + raw[32:]),
        "R is the neutral element.",
    )
    bad(
        "identity-and-zero",
        with_signature(token, b"\1" + bytes(63)),
        "R is the neutral element and S zero.",
    )
    bad("swapped", with_signature(token, raw[32:] + raw[:32]), "S comes before R.")
    bad(
        "r-sign-flipped", with_signature(token, flipped(raw, 31, 128)), "The sign bit of R differs."
    )
    bad(
        "ed448",
        jwt.PyJWS().encode(text().encode(), keys.private("ed448"), algorithm="EdDSA"),
        "EdDSA by an Ed448 key.",
    )
    bad(
        "prehashed",
        handmade("EdDSA", sign=lambda data: keys.private("ed25519").sign(hashed("HS512", data))),
        "Signed over the SHA-512 of the text instead of the text.",
    )
