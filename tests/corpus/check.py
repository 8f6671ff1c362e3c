"""Checks the corpus as it is checked in.

    python check.py                      the rules, and PyJWT
    python check.py JOSE_VERDICTS        what check.mjs printed

Every verdict must be the one rules.py comes to. Then another library judges the tokens of
secure configurations, first the signature alone, then the whole token; where it comes to
another answer (good or not), the difference must be one of those explained below.
"""

import datetime
import json
import re
import sys
from collections import Counter
from pathlib import Path

import jwt
import jwt.api_jwt
from cryptography.hazmat.primitives import serialization

import rules

# (what we say, what the library says of it, names of tokens, why the two differ)
# "sound" stands for a token whose form, header and signature are good.
PYJWT_SIGNATURE = [
    (
        "malformed",
        "good",
        r"^header/.*/duplicate",
        "duplicate-header: of members that come twice the last one counts",
    ),
    (
        "malformed",
        "good",
        r"^header/.*/(bom|utf-16)$",
        "json-encoding: the header may be UTF-16 or start with a byte order mark",
    ),
    (
        "malformed",
        "good",
        r"^header/.*/(lone-surrogate|number-too-large)$",
        "json-values: lone surrogates and infinite numbers are accepted",
    ),
    ("malformed", "good", r"^header/.*/depth-200$", "depth: nesting has no limit of its own"),
    ("malformed", "good", r"^encoding/.*-padded", "padding: correct = padding is accepted"),
    (
        "unsupported",
        "good",
        r"/(zip|enc|cty|nested)",
        "parameters: zip, enc and cty are not looked at",
    ),
    ("unsupported", "good", r"/crit-b64-true$", "b64: crit is accepted when it names b64 alone"),
    ("sound", "bad", r"^kid/.*/(number|null|array|object)", "kid-type: kid must be a string"),
    (
        "signature",
        "good",
        r"^rsa/PS256/zero-stripped$|/PS\d+/signature-cut-first-byte$",
        "short-pss: a PSS signature may lack its leading zero byte",
    ),
]
PYJWT_TOKEN = [
    ("user_id", "good", r"", "user: nothing is asked of sub, user_id and the namespace"),
    (
        "ok",
        "bad",
        r"/(exp-now-2|all-at-the-edge|exp-fraction-now-(2.0|1.5))$",
        "exp-edge: exp is cut to an integer, and must be greater than now - leeway",
    ),
    ("claims", "good", r"/(iat|nbf)-fraction-", "fractions: times are cut to integers"),
    ("not_yet_valid", "good", r"/nbf-fraction-", "fractions: times are cut to integers"),
    (
        "claims",
        "good",
        r"/(iat|nbf|exp)[-_](string|true|false)$",
        "time-types: times may be numeric strings or booleans",
    ),
    (
        "malformed",
        "good",
        r"/(duplicate-|payload-1000-claims-last-again)",
        "duplicates: of claims that come twice the last one counts",
    ),
    (
        "malformed",
        "good",
        r"/(json-bom|utf8-not-utf-|utf8-surrogate-bytes|utf8-cesu)",
        "json-encoding: UTF-16, UTF-32, byte order marks and encoded surrogates are accepted",
    ),
    ("malformed", "good", r"/surrogate-", "json-values: lone surrogates are accepted"),
    (
        "malformed",
        "good",
        r"/(x|exp|iat)-.*(1e400|1e309|four-hundred|twenty)",
        "json-values: infinite numbers and integers of any length are accepted",
    ),
    ("malformed", "good", r"/depth-", "depth: nesting has no limit of its own"),
    ("ok", "bad", r"/ignored-registered-claims$", "jti-type: jti must be a string"),
]
JOSE_SIGNATURE = [
    (
        "malformed",
        "good",
        r"^header/.*/duplicate",
        "duplicate-header: of members that come twice the last one counts",
    ),
    (
        "malformed",
        "good",
        r"^header/.*/bom$",
        "json-encoding: the header may start with a byte order mark",
    ),
    (
        "malformed",
        "good",
        r"^header/.*/(lone-surrogate|number-too-large)$",
        "json-values: lone surrogates and infinite numbers are accepted",
    ),
    ("malformed", "good", r"^header/.*/depth-200$", "depth: nesting has no limit of its own"),
    ("malformed", "good", r"padded", "padding: = padding is accepted"),
    (
        "malformed",
        "good",
        r"trailing-bits",
        "trailing-bits: bits that belong to no byte are ignored",
    ),
    (
        "malformed",
        "good",
        r"^encoding/.*-(space|newline|crlf|tab)-(within|behind)$",
        "white-space: white space inside and behind a segment is skipped",
    ),
    (
        "unsupported",
        "good",
        r"/(zip|enc|cty|nested)",
        "parameters: zip, enc and cty are not looked at",
    ),
    (
        "unsupported",
        "good",
        r"/(crit-b64-true|b64-false|b64-false-crit)$",
        "b64: the extension b64 is implemented",
    ),
    (
        "signature",
        "good",
        r"^rsa/PS256/zero-stripped$|/PS\d+/signature-cut-first-byte$",
        "short-pss: a PSS signature may lack its leading zero byte",
    ),
]
JOSE_TOKEN = [
    ("user_id", "good", r"", "user: nothing is asked of sub, user_id and the namespace"),
    (
        "ok",
        "bad",
        r"/(exp-now-2|all-at-the-edge|exp-fraction-now-2.0)$",
        "exp-edge: exp must be greater than now - leeway",
    ),
    (
        "claims",
        "good",
        r"/aud-array-.*(number|null|object)",
        "aud-members: members of aud that are no strings are skipped",
    ),
    (
        "malformed",
        "good",
        r"/(duplicate-|payload-1000-claims-last-again)",
        "duplicates: of claims that come twice the last one counts",
    ),
    (
        "malformed",
        "good",
        r"/json-bom$",
        "json-encoding: the payload may start with a byte order mark",
    ),
    ("malformed", "good", r"/surrogate-", "json-values: lone surrogates are accepted"),
    (
        "malformed",
        "good",
        r"/(x|exp|iat)-.*(1e400|1e309|four-hundred|twenty)",
        "json-values: numbers that fit no double are infinite",
    ),
    ("malformed", "good", r"/depth-", "depth: nesting has no limit of its own"),
]


def main(jose_verdicts=None):
    tokens, configs = rules.tokens(), rules.configs()
    failures = check_form(tokens, configs) + check_rules(tokens, configs)
    secure = [t for t in tokens if configs[t["config"]]["mode"] == "secure"]
    if jose_verdicts is None:
        count(tokens)
        verdicts = {t["name"]: pyjwt_verdicts(t, configs[t["config"]]) for t in secure}
        failures += compare("PyJWT", secure, configs, verdicts, PYJWT_SIGNATURE, PYJWT_TOKEN)
    else:
        verdicts = json.loads(Path(jose_verdicts).read_text())
        failures += compare("jose", secure, configs, verdicts, JOSE_SIGNATURE, JOSE_TOKEN)
    for failure in failures:
        print("FAILED", failure)
    return 1 if failures else 0


def count(tokens):
    print(len(tokens), "tokens")
    for title, key in (("verdict", "verdict"), ("source", "source")):
        print(f"by {title}:", dict(Counter(t[key] for t in tokens).most_common()))


def check_form(tokens, configs):
    members = {"name", "source", "config", "now", "token", "verdict", "why"}
    names = Counter(t["name"] for t in tokens)
    repeated = [
        f"{name}: {times} tokens of that name" for name, times in names.items() if times > 1
    ]
    return repeated + [
        f"{t['name']}: bad entry"
        for t in tokens
        if t.keys() - {"user"} != members
        or ("user" in t) != (t["verdict"] == "ok")
        or t["verdict"] not in rules.VERDICTS
        or t["config"] not in configs
        or not t["why"].endswith(".")
    ]


def check_rules(tokens, configs):
    failures = []
    for t in tokens:
        judgement = rules.judge(t["token"], configs[t["config"]], t["now"])
        if (judgement.verdict, judgement.user) != (t["verdict"], t.get("user")):
            failures.append(f"{t['name']}: {t['verdict']} in the corpus, {judgement} by the rules")
    return failures


def compare(library, tokens, configs, verdicts, signature_reasons, token_reasons):
    failures = []
    signatures, wholes = Counter(), Counter()
    for t in tokens:
        judgement = rules.judge(t["token"], configs[t["config"]], t["now"])
        signature, whole = (verdict == "ok" for verdict in verdicts[t["name"]])
        if signature != judgement.signed:
            ours, reasons, counter = unsigned_verdict(t, judgement), signature_reasons, signatures
            theirs = signature
        elif whole != (t["verdict"] == "ok"):
            ours, reasons, counter = t["verdict"], token_reasons, wholes
            theirs = whole
        else:
            continue
        reason = explanation(reasons, ours, theirs, t["name"])
        if reason is None:
            failures.append(f"{t['name']}: {ours} here, {library} says {verdicts[t['name']]}")
        counter[reason] += 1
    compared = len(tokens)
    for part, counter, reasons in (
        ("signature", signatures, signature_reasons),
        ("token", wholes, token_reasons),
    ):
        print(f"{library}, {part}: agrees on {compared - counter.total()} of {compared}")
        compared -= counter.total()
        for reason, times in counter.most_common():
            print(f"  {times:4} {reason}")
        unused = {reason for *_, reason in reasons} - counter.keys()
        failures += [f"{library}, {part}: no longer {reason}" for reason in sorted(unused)]
    return failures


def unsigned_verdict(token, judgement):
    return "sound" if judgement.signed else token["verdict"]


def explanation(reasons, ours, theirs, name):
    theirs = "good" if theirs else "bad"
    for expected, outcome, names, reason in reasons:
        if (expected, outcome) == (ours, theirs) and re.search(names, name):
            return reason
    return None


# PyJWT


class Clock(datetime.datetime):
    """Stands in for the clock that PyJWT reads."""

    moment = 0

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(cls.moment, tz)


jwt.api_jwt.datetime = Clock


def pyjwt_verdicts(token, config):
    key = verifying_key(config["key_file"])
    Clock.moment = token["now"]
    required = ["iat", "exp"] + ["iss"] * bool(config["iss"]) + ["aud"] * bool(config["aud"])
    return [
        outcome(
            lambda: jwt.PyJWS().decode_complete(token["token"], key, algorithms=[config["alg"]])
        ),
        outcome(
            lambda: jwt.decode(
                token["token"],
                key,
                algorithms=[config["alg"]],
                leeway=rules.LEEWAY,
                issuer=config["iss"] or None,
                audience=config["aud"] or None,
                options={
                    "require": required,
                    "verify_aud": bool(config["aud"]),
                    "verify_sub": False,
                },
            )
        ),
    ]


def verifying_key(file):
    data = (rules.HERE / file).read_bytes()
    return data if file.endswith(".txt") else serialization.load_pem_public_key(data)


def outcome(verification):
    try:
        verification()
        return "ok"
    except Exception as error:  # Some refusals of PyJWT are plain TypeError or OverflowError.
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
