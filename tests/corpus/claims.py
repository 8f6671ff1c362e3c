"""Payloads and the verdict each must get behind a good signature, whatever the algorithm.

`cases()` yields `Case`s. `variant` names the configuration the payload is meant for: it is
appended to the algorithm, so `-iss` becomes `hs256-iss` and `es256-iss` in `configs.json`.
Payloads are bytes, because what is under test is mostly their spelling.
"""

import json
from dataclasses import dataclass

NOW = 1_700_000_000
NAMESPACE = "https://electric.example/claims"
BASE = {"sub": '"user-1"', "iat": str(NOW - 10), "exp": str(NOW + 600)}
ABSENT = None


@dataclass
class Case:
    name: str
    variant: str
    payload: bytes
    verdict: str
    why: str
    user: str | None = None
    # Large payloads are signed once only.
    once: bool = False


def text(**members):
    """A payload from raw JSON texts; members given as None are left out."""
    merged = {**BASE, **members}
    return (
        "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in merged.items() if v is not ABSENT) + "}"
    )


def ok(name, payload, why, user="user-1", variant="", once=False):
    return Case(name, variant, as_bytes(payload), "ok", why, user, once)


def bad(name, verdict, payload, why, variant="", once=False):
    return Case(name, variant, as_bytes(payload), verdict, why, None, once)


def as_bytes(payload):
    return payload if isinstance(payload, bytes) else payload.encode("utf-8")


def cases():
    for group in (
        clock_boundaries,
        fractional_times,
        number_spellings,
        time_types,
        required_claims,
        issuers,
        audiences,
        several_accepted,
        ignored_issuer_and_audience,
        user_ids,
        user_id_types,
        namespaces,
        duplicates,
        not_an_object,
        broken_json,
        unicode_text,
        depths,
        sizes,
        order,
    ):
        yield from group()


def clock_boundaries():
    for offset in (-600, -3, -2, -1, 0, 1, 2, 3, 600):
        at = str(NOW + offset)
        when = f"now{offset:+d}"
        if offset >= -2:
            yield ok(f"exp-{when}", text(exp=at), f"exp is {when}, and exp + 2 >= now.")
        else:
            yield bad(f"exp-{when}", "expired", text(exp=at), f"exp is {when}, more than 2 s ago.")
        if offset <= 2:
            yield ok(f"iat-{when}", text(iat=at), f"iat is {when}, and iat - 2 <= now.")
            yield ok(f"nbf-{when}", text(nbf=at), f"nbf is {when}, and nbf - 2 <= now.")
        else:
            yield bad(f"iat-{when}", "claims", text(iat=at), f"iat is {when}, more than 2 s ahead.")
            yield bad(
                f"nbf-{when}", "not_yet_valid", text(nbf=at), f"nbf is {when}, more than 2 s ahead."
            )
    yield ok(
        "all-at-the-edge",
        text(exp=str(NOW - 2), iat=str(NOW + 2), nbf=str(NOW + 2)),
        "All three times lie exactly on the edge of the leeway.",
    )
    yield ok(
        "exp-before-iat",
        text(exp=str(NOW - 1), iat=str(NOW + 1)),
        "The times are judged one by one; nothing compares exp with iat.",
    )


def fractional_times():
    for value, good in (
        ("-2.5", False),
        ("-2.25", False),
        ("-2.0", True),
        ("-1.5", True),
        ("0.5", True),
    ):
        at = f"{NOW + float(value)}"
        why = f"exp is now{float(value):+}; fractions are compared as numbers."
        name = f"exp-fraction-now{float(value):+}"
        yield ok(name, text(exp=at), why) if good else bad(name, "expired", text(exp=at), why)
    for value, good in (
        ("-0.5", True),
        ("1.5", True),
        ("2.0", True),
        ("2.25", False),
        ("2.5", False),
    ):
        at = f"{NOW + float(value)}"
        for claim, verdict in (("iat", "claims"), ("nbf", "not_yet_valid")):
            why = f"{claim} is now{float(value):+}; fractions are compared as numbers."
            name = f"{claim}-fraction-now{float(value):+}"
            payload = text(**{claim: at})
            yield ok(name, payload, why) if good else bad(name, verdict, payload, why)
    yield bad(
        "exp-fraction-just-past",
        "expired",
        text(exp="1699999997.999999"),
        "exp lies a microsecond beyond the leeway.",
    )
    yield bad(
        "nbf-fraction-just-ahead",
        "not_yet_valid",
        text(nbf="1700000002.000001"),
        "nbf lies a microsecond beyond the leeway.",
    )


def number_spellings():
    for name, number in {
        "1e30": "1e30",
        "ten-to-30-in-digits": "1" + "0" * 30,
        "2-63": str(2**63),
        "2-63-less-one": str(2**63 - 1),
        "2-64": str(2**64),
        "2-64-less-one": str(2**64 - 1),
        "2-53-plus-one": str(2**53 + 1),
        "1e300": "1e300",
        "three-hundred-digits": "9" * 300,
    }.items():
        yield ok(f"exp-{name}", text(exp=number), "A huge exp is a number far in the future.")
        yield bad(f"iat-{name}", "claims", text(iat=number), "iat lies far in the future.")
        yield bad(f"nbf-{name}", "not_yet_valid", text(nbf=number), "nbf lies far in the future.")
    for name, number in {
        "zero": "0",
        "minus-zero": "-0",
        "minus-zero-float": "-0.0",
        "minus-one": "-1",
        "1e-5": "1e-5",
        "1.5": "1.5",
        "minus-1e30": "-1e30",
        "minus-2-63": str(-(2**63)),
        "minus-2-63-less-one": str(-(2**63) - 1),
        "minus-2-64": str(-(2**64)),
        "underflow": "1e-400",
    }.items():
        yield bad(f"exp-{name}", "expired", text(exp=number), "exp lies in the far past.")
        yield ok(
            f"iat-{name}", text(iat=number), "iat may be any number that is not in the future."
        )
        yield ok(
            f"nbf-{name}", text(nbf=number), "nbf may be any number that is not in the future."
        )
    yield ok(
        "exp-exponent", text(exp="1.7000006e9"), "An exponent is a spelling of the same number."
    )
    yield ok(
        "exp-exponent-upper", text(exp="17000006E+02"), "E+02 is a spelling of the same number."
    )
    yield ok("iat-exponent", text(iat="17E8"), "An exponent is a spelling of the same number.")
    yield bad(
        "exp-milliseconds-iat",
        "claims",
        text(iat=str(NOW * 1000), exp=str(NOW * 1000 + 600_000)),
        "Milliseconds instead of seconds: iat lies in the far future.",
    )
    for name, number in {
        "1e400": "1e400",
        "minus-1e400": "-1e400",
        "1e309": "1e309",
        "four-hundred-digits": "1" + "0" * 400,
        "exponent-of-twenty-digits": "1e99999999999999999999",
    }.items():
        for claim in ("exp", "iat", "x"):
            yield bad(
                f"{claim}-{name}",
                "malformed",
                text(**{claim: number}),
                "The number does not fit a double, so the JSON is refused as a whole.",
            )
    for name, number in {
        "leading-zero": "01700000600",
        "plus": "+1700000600",
        "hex": "0x6553f358",
        "no-fraction-digits": "1700000600.",
        "no-integer-digits": ".5",
        "nan": "NaN",
        "infinity": "Infinity",
        "minus-infinity": "-Infinity",
        "underscore": "1_700_000_600",
        "two-signs": "--1",
        "no-exponent-digits": "17e",
    }.items():
        yield bad(f"exp-{name}", "malformed", text(exp=number), "This is no JSON number.")


def time_types():
    for claim in ("iat", "nbf", "exp"):
        good = str(NOW + 600 if claim == "exp" else NOW - 10)
        for name, value in {
            "string": f'"{good}"',
            "word": '"x"',
            "empty-string": '""',
            "date": '"2023-11-14T22:13:20Z"',
            "null": "null",
            "true": "true",
            "false": "false",
            "array": f"[{good}]",
            "empty-array": "[]",
            "object": "{}",
            "wrapped": f'{{"$numberLong":"{good}"}}',
        }.items():
            yield bad(
                f"{claim}-{name}",
                "claims",
                text(**{claim: value}),
                f"{claim} must be a JSON number when present.",
            )


def required_claims():
    yield bad("no-exp", "missing_claim", text(exp=ABSENT), "exp is required.")
    yield bad("no-iat", "missing_claim", text(iat=ABSENT), "iat is required.")
    yield bad(
        "no-iat-no-exp", "missing_claim", text(iat=ABSENT, exp=ABSENT), "iat and exp are required."
    )
    yield bad("empty-object", "missing_claim", "{}", "iat and exp are required.")
    yield bad(
        "exp-wrong-case",
        "missing_claim",
        text(exp=ABSENT, Exp=str(NOW + 600)),
        "Claim names are case-sensitive: Exp is not exp.",
    )
    yield bad(
        "exp-nested",
        "missing_claim",
        text(exp=ABSENT, claims=f'{{"exp":{NOW + 600}}}'),
        "An exp inside another object is not the token's.",
    )
    yield ok("no-nbf", text(), "nbf is optional.")
    yield bad(
        "times-inside-namespace",
        "missing_claim",
        text(
            iat=ABSENT,
            exp=ABSENT,
            **{NAMESPACE: f'{{"sub":"user-1","iat":{NOW - 10},"exp":{NOW + 600}}}'},
        ),
        "Only the user id is looked up inside the namespace; iat and exp belong on top.",
        "-ns",
    )


def issuers():
    v = "-iss"
    yield ok("iss", text(iss='"issuer-1"'), "iss equals the configured issuer.", variant=v)
    yield ok(
        "iss-escaped", text(iss='"issuer\\u002d1"'), "Compared after JSON decoding.", variant=v
    )
    yield bad("no-iss", "missing_claim", text(), "An issuer is configured, so iss is required.", v)
    for name, value in {
        "other": '"issuer-2"',
        "longer": '"issuer-10"',
        "shorter": '"issuer-"',
        "upper-case": '"ISSUER-1"',
        "space": '"issuer-1 "',
        "nul": '"issuer-1\\u0000"',
        "empty": '""',
        "null": "null",
        "number": "1",
        "true": "true",
        "array": '["issuer-1"]',
        "object": '{"issuer-1":true}',
    }.items():
        yield bad(
            f"iss-{name}",
            "claims",
            text(iss=value),
            "iss must be exactly the configured string.",
            v,
        )


def audiences():
    v = "-aud"
    yield ok("aud", text(aud='"audience-1"'), "aud equals the configured audience.", variant=v)
    yield ok("aud-array-of-one", text(aud='["audience-1"]'), "aud may be an array.", variant=v)
    yield ok(
        "aud-array-last",
        text(aud='["a","b","audience-1"]'),
        "One accepted audience in the array is enough.",
        variant=v,
    )
    yield ok(
        "aud-array-twice",
        text(aud='["audience-1","audience-1"]'),
        "The same audience twice is still accepted.",
        variant=v,
    )
    yield bad(
        "no-aud", "missing_claim", text(), "An audience is configured, so aud is required.", v
    )
    for name, value in {
        "other": '"audience-2"',
        "longer": '"audience-11"',
        "shorter": '"audience-"',
        "upper-case": '"Audience-1"',
        "list-in-string": '"audience-1 audience-2"',
        "comma-list": '"audience-1,audience-2"',
        "empty": '""',
        "null": "null",
        "number": "1",
        "false": "false",
        "object": "{}",
        "object-member": '{"audience-1":"audience-1"}',
        "empty-array": "[]",
        "array-others": '["a","b"]',
        "array-nested": '[["audience-1"]]',
        "array-null": "[null]",
        "array-number-and-accepted": '[5,"audience-1"]',
        "array-accepted-and-null": '["audience-1",null]',
        "array-accepted-and-object": '["audience-1",{}]',
    }.items():
        yield bad(
            f"aud-{name}",
            "claims",
            text(aud=value),
            "aud must be a string or an array of strings, and hold the accepted audience.",
            v,
        )


def several_accepted():
    v = "-many"
    first = {"iss": '"issuer-1"', "aud": '"audience-1"'}
    second = {"iss": '"https://issuer-2.example/"', "aud": '"audience-2"'}
    yield ok("many-first", text(**first), "The first accepted issuer and audience.", variant=v)
    yield ok("many-second", text(**second), "The second accepted issuer and audience.", variant=v)
    yield ok(
        "many-crossed",
        text(iss=first["iss"], aud=second["aud"]),
        "Issuers and audiences are accepted independently.",
        variant=v,
    )
    yield ok(
        "many-both-audiences",
        text(iss=first["iss"], aud='["audience-2","audience-1"]'),
        "All audiences of the array are accepted ones.",
        variant=v,
    )
    yield bad(
        "many-iss-unknown",
        "claims",
        text(iss='"issuer-3"', aud='"audience-1"'),
        "iss is none of the accepted issuers.",
        v,
    )
    yield bad(
        "many-iss-array",
        "claims",
        text(iss='["issuer-1","https://issuer-2.example/"]', aud='"audience-1"'),
        "iss is a string; only aud may be an array.",
        v,
    )
    yield bad(
        "many-iss-no-slash",
        "claims",
        text(iss='"https://issuer-2.example"', aud='"audience-1"'),
        "iss lacks the trailing slash of the accepted one; URLs are not normalised.",
        v,
    )
    yield bad(
        "many-swapped",
        "claims",
        text(iss='"audience-1"', aud='"issuer-1"'),
        "The values are swapped: each is accepted only in its own claim.",
        v,
    )
    yield bad(
        "many-no-aud",
        "missing_claim",
        text(iss='"issuer-1"'),
        "aud is required here as well as iss.",
        v,
    )
    yield bad(
        "many-no-iss",
        "missing_claim",
        text(aud='"audience-1"'),
        "iss is required here as well as aud.",
        v,
    )
    yield bad("many-neither", "missing_claim", text(), "iss and aud are required.", v)


def ignored_issuer_and_audience():
    for name, members in {
        "strings": {"iss": '"anybody"', "aud": '"anything"'},
        "numbers": {"iss": "5", "aud": "6"},
        "null": {"iss": "null", "aud": "null"},
        "objects": {"iss": "{}", "aud": '{"a":[1]}'},
        "mixed-array": {"aud": '["a",5,null]'},
    }.items():
        yield ok(
            f"ignored-iss-aud-{name}",
            text(**members),
            "No issuer and no audience is configured, so both claims are ignored.",
        )
    yield ok(
        "ignored-registered-claims",
        text(jti="5", azp="null", scope="[]", auth_time='"x"', electric="{}"),
        "Claims that no rule names are ignored, whatever their type.",
    )
    yield ok(
        "ignored-aud-with-iss",
        text(iss='"issuer-1"', aud="9"),
        "Only iss is configured.",
        variant="-iss",
    )
    yield ok(
        "ignored-iss-with-aud",
        text(aud='"audience-1"', iss="9"),
        "Only aud is configured.",
        variant="-aud",
    )


BLANKS = {
    "empty": "",
    "space": " ",
    "spaces": "    ",
    "tab-cr-lf": "\t\r\n",
    "vt-ff": "\x0b\x0c",
    "nel": "\x85",
    "nbsp": "\xa0",
    "ogham-space": "\u1680",
    "em-space": "\u2003",
    "hair-space": "\u200a",
    "line-separator": "\u2028",
    "paragraph-separator": "\u2029",
    "narrow-nbsp": "\u202f",
    "math-space": "\u205f",
    "ideographic-space": "\u3000",
    "many-blanks": " \u3000\t\xa0\u2028\x85",
}
NOT_BLANK = {
    "zero-width-space": "\u200b",
    "zero-width-joiner": "\u200d",
    "word-joiner": "\u2060",
    "byte-order-mark": "\ufeff",
    "mongolian-vowel-separator": "\u180e",
    "unit-separator": "\x1f",
    "nul": "\x00",
    "braille-blank": "\u2800",
    "hangul-filler": "\u3164",
}
USERS = {
    "uuid": "b7f6c1a0-5d3e-4d1b-9c55-0a7d2f6f9a11",
    "email": "someone@example.org",
    "digits": "0",
    "word-null": "null",
    "padded": "  user 1 \t",
    "padded-nbsp": "\xa0user-1\u3000",
    "quotes": "a\"b\\c/d'e",
    "newline": "user\n1",
    "inner-nul": "a\x00b",
    "sql": "x'; DROP TABLE users; --",
    "path": "../../etc/passwd",
    "cyrillic": "\u041f\u043e\u043b\u044c\u0437\u043e\u0432\u0430\u0442\u0435\u043b\u044c",
    "emoji": "\U0001f6f0\ufe0f user",
    "combining": "e\u0301",
    "right-to-left": "\u202eabc",
    "noncharacter": "\uffff",
    "astral": "\U0010ffff",
    "one-char": "x",
}


def user_ids():
    yield ok("sub", text(), "sub is the user id.")
    yield ok(
        "user-id",
        text(sub=ABSENT, user_id='"user-2"'),
        "Without a sub the user_id counts.",
        "user-2",
    )
    yield ok(
        "sub-and-user-id", text(user_id='"user-2"'), "With both, sub is the user id.", "user-1"
    )
    yield ok(
        "sub-and-wrong-user-id",
        text(user_id="5"),
        "user_id is not looked at when there is a sub.",
        "user-1",
    )
    yield bad("no-user", "user_id", text(sub=ABSENT), "Neither sub nor user_id.")
    for name, claim in {
        "upper": "Sub",
        "user": "user",
        "userid": "userId",
        "uid": "uid",
        "spaced": "sub ",
    }.items():
        yield bad(
            f"no-user-but-{name}",
            "user_id",
            text(sub=ABSENT, **{claim: '"user-1"'}),
            f"The claim {claim!r} is neither sub nor user_id.",
        )
    for claim, other in (("sub", {}), ("user_id", {"sub": ABSENT})):
        for name, blank in BLANKS.items():
            yield bad(
                f"{claim}-blank-{name}",
                "user_id",
                text(**other, **{claim: json.dumps(blank)}),
                "Blank after trimming Unicode white space.",
            )
        for name, odd in NOT_BLANK.items():
            yield ok(
                f"{claim}-not-blank-{name}",
                text(**other, **{claim: json.dumps(odd)}),
                "The character is not Unicode white space, so the user id is not blank.",
                odd,
            )
        for name, user in USERS.items():
            yield ok(
                f"{claim}-{name}",
                text(**other, **{claim: json.dumps(user, ensure_ascii=False)}),
                "Any string that is not blank is a user id, kept untrimmed.",
                user,
            )
    yield bad(
        "sub-blank-with-user-id",
        "user_id",
        text(sub='""', user_id='"user-2"'),
        "A present sub wins, even when it is blank.",
    )
    long = "user-" + "x" * 9_995
    yield ok(
        "sub-10k", text(sub=f'"{long}"'), "A user id has no maximum length here.", long, once=True
    )


def user_id_types():
    for name, value in {
        "number": "5",
        "zero": "0",
        "null": "null",
        "true": "true",
        "false": "false",
        "array": '["user-1"]',
        "empty-array": "[]",
        "object": '{"id":"user-1"}',
    }.items():
        yield bad(f"sub-{name}", "user_id", text(sub=value), "The user id must be a JSON string.")
        yield bad(
            f"sub-{name}-with-user-id",
            "user_id",
            text(sub=value, user_id='"user-2"'),
            "A present sub wins, even when it has the wrong type.",
        )
        yield bad(
            f"user_id-{name}",
            "user_id",
            text(sub=ABSENT, user_id=value),
            "The user id must be a JSON string.",
        )


def namespaces():
    v = "-ns"

    def within(value, **members):
        return text(**{"sub": ABSENT, NAMESPACE: value, **members})

    yield ok("ns-sub", within('{"sub":"user-3"}'), "sub inside the namespace.", "user-3", v)
    yield ok(
        "ns-user-id", within('{"user_id":"user-4"}'), "user_id inside the namespace.", "user-4", v
    )
    yield ok(
        "ns-both",
        within('{"user_id":"user-4","sub":"user-3"}'),
        "sub wins inside the namespace too.",
        "user-3",
        v,
    )
    yield ok(
        "ns-and-top",
        within('{"sub":"user-3"}', sub='"user-1"', user_id='"user-2"'),
        "With a namespace the claims on top are not user ids.",
        "user-3",
        v,
    )
    yield ok(
        "ns-with-times",
        within('{"sub":"user-3","exp":0,"iat":"x"}'),
        "Times inside the namespace mean nothing.",
        "user-3",
        v,
    )
    yield bad("ns-absent", "user_id", text(), "The namespace is missing.", v)
    yield bad(
        "ns-absent-user-id", "user_id", text(user_id='"user-2"'), "The namespace is missing.", v
    )
    for name, value in {
        "null": "null",
        "string": '"user-3"',
        "number": "3",
        "true": "true",
        "array": '["user-3"]',
        "array-of-object": '[{"sub":"user-3"}]',
        "json-in-string": '"{\\"sub\\":\\"user-3\\"}"',
    }.items():
        yield bad(f"ns-{name}", "user_id", within(value), "The namespace must be an object.", v)
    for name, value in {
        "empty": "{}",
        "blank": '{"sub":" "}',
        "sub-null": '{"sub":null,"user_id":"user-4"}',
        "sub-number": '{"sub":3}',
        "deeper": f'{{"{NAMESPACE}":{{"sub":"user-3"}}}}',
    }.items():
        yield bad(
            f"ns-{name}",
            "user_id",
            within(value, user_id='"user-2"'),
            "No usable user id inside the namespace, and the ones on top do not count.",
            v,
        )
    yield bad(
        "ns-slash",
        "user_id",
        text(**{"sub": ABSENT, NAMESPACE + "/": '{"sub":"user-3"}'}),
        "The name differs from the configured one by a slash.",
        v,
    )
    yield ok(
        "ns-escaped-name",
        as_text_with_raw_key('"https:\\/\\/electric.example\\/claims"', '{"sub":"user-3"}'),
        "The name is compared after JSON decoding.",
        "user-3",
        v,
    )
    dotted = "-ns-dotted"
    yield ok(
        "ns-dotted",
        text(**{"sub": ABSENT, "electric.claims": '{"sub":"user-3"}'}),
        "A dot in the namespace is part of its name.",
        "user-3",
        dotted,
    )
    yield bad(
        "ns-dotted-as-path",
        "user_id",
        text(sub=ABSENT, electric='{"claims":{"sub":"user-3"}}'),
        "The namespace is a name, not a path.",
        dotted,
    )
    everything = {"sub": ABSENT, NAMESPACE: '{"sub":"user-3"}'}
    issued = {"iss": '"issuer-1"', "aud": '["audience-1"]'}
    v = "-all"
    yield ok("all", text(**everything, **issued), "Namespace, issuer and audience.", "user-3", v)
    yield bad(
        "all-iss-in-namespace",
        "missing_claim",
        text(
            **{"sub": ABSENT, NAMESPACE: '{"sub":"user-3","iss":"issuer-1"}', "aud": '"audience-1"'}
        ),
        "An iss inside the namespace is not the token's.",
        v,
    )
    yield bad(
        "all-wrong-iss-no-ns",
        "claims",
        text(iss='"x"', aud='"audience-1"'),
        "The issuer is judged before the user id is looked for.",
        v,
    )


def as_text_with_raw_key(key, value):
    return f'{{{key}:{value},"iat":{BASE["iat"]},"exp":{BASE["exp"]}}}'


def duplicates():
    times = f'"iat":{NOW - 10},"exp":{NOW + 600}'
    for name, payload in {
        "sub-differs": f'{{"sub":"user-1",{times},"sub":"admin"}}',
        "sub-same": f'{{"sub":"user-1",{times},"sub":"user-1"}}',
        "sub-adjacent": f'{{"sub":"user-1","sub":"admin",{times}}}',
        "sub-three-times": f'{{"sub":"a","sub":"b","sub":"c",{times}}}',
        "user-id": f'{{"sub":"user-1","user_id":"a","user_id":"b",{times}}}',
        "exp": f'{{"sub":"user-1",{times},"exp":{NOW + 700}}}',
        "exp-expired-first": f'{{"sub":"user-1","exp":1,{times}}}',
        "iat": f'{{"sub":"user-1","iat":1,{times}}}',
        "nbf": f'{{"sub":"user-1",{times},"nbf":1,"nbf":1}}',
        "iss": f'{{"sub":"user-1","iss":"a","iss":"a",{times}}}',
        "aud": f'{{"sub":"user-1","aud":"a","aud":["a"],{times}}}',
        "ignored-claim": f'{{"sub":"user-1","x":1,"x":2,{times}}}',
        "empty-name": f'{{"sub":"user-1","":1,"":2,{times}}}',
        "escaped-name": f'{{"sub":"user-1","s\\u0075b":"admin",{times}}}',
        "escaped-slash": f'{{"sub":"user-1","a/b":1,"a\\/b":1,{times}}}',
        "surrogate-pair-name": f'{{"sub":"user-1","\U0001f6f0":1,"\\ud83d\\udef0":1,{times}}}',
        "in-object": f'{{"sub":"user-1","x":{{"a":1,"a":2}},{times}}}',
        "in-array": f'{{"sub":"user-1","x":[{{}},{{"a":1,"a":1}}],{times}}}',
        "far-down": f'{{"sub":"user-1","x":[[[{{"y":{{"a":1,"b":[],"a":null}}}}]]],{times}}}',
    }.items():
        yield bad(
            f"duplicate-{name}", "malformed", payload, "No name may occur twice in one object."
        )
    yield bad(
        "duplicate-in-namespace",
        "malformed",
        f'{{"{NAMESPACE}":{{"sub":"user-3","sub":"admin"}},{times}}}',
        "No name may occur twice in one object.",
        "-ns",
    )
    yield bad(
        "duplicate-namespace",
        "malformed",
        f'{{"{NAMESPACE}":{{"sub":"user-3"}},"{NAMESPACE}":{{"sub":"admin"}},{times}}}',
        "No name may occur twice in one object.",
        "-ns",
    )
    for name, payload in {
        "different-objects": f'{{"sub":"user-1","x":{{"a":1}},"y":{{"a":1,"sub":"z"}},{times}}}',
        "objects-of-an-array": f'{{"sub":"user-1","x":[{{"a":1}},{{"a":1}}],{times}}}',
        "case": f'{{"sub":"user-1","SUB":"x","Sub":"y",{times}}}',
        "normalisation": f'{{"sub":"user-1","\u00e9":1,"e\u0301":2,{times}}}',
        "array-values": f'{{"sub":"user-1","x":["a","a"],{times}}}',
        "names-in-a-string": f'{{"sub":"user-1","x":"{{\\"a\\":1,\\"a\\":2}}",{times}}}',
    }.items():
        yield ok(
            f"not-duplicate-{name}", payload, "The names are not in one object, or not the same."
        )


def not_an_object():
    for name, payload in {
        "empty": "",
        "space": " ",
        "array": "[]",
        "array-of-object": "[" + text() + "]",
        "string": '"user-1"',
        "json-in-string": json.dumps(text()),
        "number": "1",
        "zero": "0",
        "null": "null",
        "true": "true",
        "false": "false",
        "word": "user-1",
        "nested-token": "eyJhbGciOiJub25lIn0.e30.",
        "form": "sub=user-1&exp=1700000600",
    }.items():
        yield bad(f"payload-{name}", "malformed", payload, "The payload must be a JSON object.")


def broken_json():
    good = text()
    for name, payload in {
        "garbage-behind": good + "x",
        "second-object": good + "{}",
        "comma-behind": good + ",",
        "brace-behind": good + "}",
        "nul-behind": good + "\0",
        "nul-before": "\0" + good,
        "form-feed-before": "\x0c" + good,
        "nbsp-before": "\xa0" + good,
        "bom": "\ufeff" + good,
        "cut": good[:-1],
        "cut-in-string": good[:9],
        "trailing-comma": good[:-1] + ",}",
        "double-comma": good.replace(",", ",,", 1),
        "missing-comma": good.replace(",", " ", 1),
        "missing-colon": good.replace(":", " ", 1),
        "single-quotes": good.replace('"', "'"),
        "unquoted-name": good.replace('"sub"', "sub"),
        "comment": good.replace("{", "{/* x */", 1),
        "line-comment": "// x\n" + good,
        "number-as-name": good.replace('"sub"', "1", 1),
        "raw-newline-in-string": good.replace("user-1", "user\n1"),
        "raw-tab-in-string": good.replace("user-1", "user\t1"),
        "raw-nul-in-string": good.replace("user-1", "user\x001"),
        "unknown-escape": good.replace("user-1", "user\\x31"),
        "short-escape": good.replace("user-1", "user\\u12"),
        "bare-backslash": good.replace("user-1", "user-1\\"),
        "upper-case-null": good.replace("{", '{"x":NULL,', 1),
        "undefined": good.replace("{", '{"x":undefined,', 1),
        "json5-hex": good.replace("{", '{"x":0xF,', 1),
        "concatenated-strings": good.replace('"user-1"', '"user" "-1"'),
    }.items():
        yield bad(f"json-{name}", "malformed", payload, "This is no JSON text.")
    for name, payload in {
        "white-space-around": " \t\r\n" + good + "\n ",
        "white-space-within": good.replace(":", " :\n\t").replace(",", " ,\r\n"),
        "members-reversed": f'{{"exp":{NOW + 600},"iat":{NOW - 10},"sub":"user-1"}}',
        "empty-name": good.replace("{", '{"":0,', 1),
        "proto": good.replace("{", '{"__proto__":{"sub":"admin"},"constructor":1,', 1),
        "all-literals": good.replace("{", '{"x":[null,true,false,-0,1e2,"",{},[]],', 1),
    }.items():
        yield ok(f"json-{name}", payload, "An unusual but correct JSON object.")


def unicode_text():
    def with_sub(raw):
        return text().encode().replace(b"user-1", raw)

    for name, raw in {
        "lone-byte": b"user\xff",
        "cut-sequence": b"user\xc3",
        "lone-continuation": b"user\x80",
        "overlong-slash": b"user\xc0\xaf",
        "overlong-nul": b"user\xc0\x80",
        "surrogate-bytes": b"user\xed\xa0\x80",
        "cesu-pair": b"\xed\xa0\xbd\xed\xbb\xb0",
        "beyond-10ffff": b"\xf4\x90\x80\x80",
        "latin-1": "m\u00fcller".encode("latin-1"),
    }.items():
        yield bad(f"utf8-{name}", "malformed", with_sub(raw), "The payload must be UTF-8.")
    yield bad(
        "utf8-in-ignored-claim",
        "malformed",
        text(x='"?"').encode().replace(b"?", b"\xfe"),
        "The payload must be UTF-8, also where nobody looks.",
    )
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32-le"):
        yield bad(
            f"utf8-not-{encoding}",
            "malformed",
            text().encode(encoding),
            "The payload must be UTF-8.",
        )
    for name, raw in {
        "lone-high": "user\\ud800",
        "lone-low": "user\\udc00",
        "reversed-pair": "\\udef0\\ud83d",
        "high-then-text": "\\ud83dx",
        "high-then-escape": "\\ud83d\\n",
        "high-twice": "\\ud83d\\ud83d",
    }.items():
        yield bad(
            f"surrogate-{name}",
            "malformed",
            with_sub(raw.encode()),
            "An escaped surrogate without its partner is no character.",
        )
        yield bad(
            f"surrogate-{name}-ignored",
            "malformed",
            text(x=f'"{raw}"'),
            "An escaped surrogate without its partner is no character, also where nobody looks.",
        )
    yield ok(
        "surrogate-pair",
        with_sub(b"\\ud83d\\udef0"),
        "An escaped surrogate pair is one character.",
        "\U0001f6f0",
    )
    yield ok(
        "escapes-upper-case",
        with_sub(b"\\u00FC\\u00fc"),
        "Hex digits of either case.",
        "\u00fc\u00fc",
    )
    yield ok(
        "escapes-all",
        with_sub(b'\\"\\\\\\/\\b\\f\\n\\r\\t.'),
        "Every short escape.",
        '"\\/\b\f\n\r\t.',
    )
    yield ok(
        "escaped-claim-name",
        text().replace('"sub"', '"\\u0073ub"'),
        "Names are compared after decoding.",
    )


def depths():
    for name, brackets in {"arrays": ("[", "]"), "objects": ('{"a":', "}")}.items():
        opened, closed = brackets
        for levels, good in ((50, True), (127, True), (129, False), (200, False), (1000, False)):
            inner = levels - 1
            value = opened * inner + "0" + closed * inner
            if name == "objects":
                value = opened * (inner - 1) + "{}" + closed * (inner - 1)
            payload = text(x=value)
            why = f"{levels} levels of nesting, the payload object counted; 128 is the limit."
            title = f"depth-{name}-{levels}"
            yield ok(title, payload, why) if good else bad(title, "malformed", payload, why)
    yield bad(
        "depth-bomb",
        "malformed",
        "[" * 20_000,
        "Twenty thousand opening brackets must neither be parsed nor overflow the stack.",
        once=True,
    )
    yield bad(
        "depth-bomb-closed",
        "malformed",
        text(x="[" * 8_000 + "]" * 8_000),
        "Eight thousand levels are far beyond the limit.",
        once=True,
    )
    yield ok(
        "depth-in-string",
        text(x='"' + "[" * 300 + '"'),
        "Brackets inside a string are not nesting.",
    )
    yield ok(
        "depth-siblings", text(x="[" + ",".join(["[[]]"] * 200) + "]"), "Many shallow siblings."
    )


def sizes():
    yield ok(
        "payload-60k-string",
        text(x='"' + "x" * 60_000 + '"'),
        "A payload of 60 KB is large, not wrong.",
        once=True,
    )
    members = {f"claim-{i}": str(i) for i in range(1_000)}
    yield ok("payload-1000-claims", text(**members), "Many claims are not wrong.", once=True)
    yield bad(
        "payload-1000-claims-last-again",
        "malformed",
        text(**members)[:-1] + ',"claim-0":0}',
        "The last of 1,001 claims repeats the first.",
        once=True,
    )
    yield ok("name-2k", text(**{"n" * 2_000: "1"}), "A long name is not wrong.")


def order():
    late = str(NOW + 600)
    yield bad(
        "order-expired-before-missing",
        "expired",
        text(exp=str(NOW - 600), iat=ABSENT),
        "Values of present claims are judged before missing claims.",
    )
    yield bad(
        "order-nbf-before-missing",
        "not_yet_valid",
        text(exp=ABSENT, nbf=late),
        "Values of present claims are judged before missing claims.",
    )
    yield bad(
        "order-iat-before-missing",
        "claims",
        text(exp=ABSENT, iat=late),
        "Values of present claims are judged before missing claims.",
    )
    yield bad(
        "order-expired-before-user",
        "expired",
        text(exp=str(NOW - 600), sub=ABSENT),
        "Times are judged before the user id.",
    )
    yield bad(
        "order-missing-before-user",
        "missing_claim",
        text(exp=ABSENT, sub='""'),
        "Required claims are looked for before the user id.",
    )
    yield bad(
        "order-malformed-before-expired",
        "malformed",
        text(exp=str(NOW - 600))[:-1] + ',"sub":"x"}',
        "The payload is parsed as a whole before any claim is judged.",
    )
    yield bad(
        "order-iss-before-missing",
        "claims",
        text(iss='"x"', iat=ABSENT),
        "Values of present claims are judged before missing claims.",
        "-iss",
    )
    yield bad(
        "order-missing-iss-before-user",
        "missing_claim",
        text(sub=ABSENT),
        "Required claims are looked for before the user id.",
        "-iss",
    )
    yield bad(
        "order-expired-before-missing-iss",
        "expired",
        text(exp=str(NOW - 600)),
        "Values of present claims are judged before missing claims.",
        "-iss",
    )
