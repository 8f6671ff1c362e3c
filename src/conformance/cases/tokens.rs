//! Tokens: which are accepted, and which are not.

use serde_json::{Map, Value, json};

use crate::{
    conformance::{Case, Need, TokenSpec, must, script::*, should, token},
    wire::{
        Message,
        proto::{
            SatRpcResponse,
            sat_error_resp::ErrorCode::{self, AuthRequired},
            sat_rpc_response::Result as Outcome,
        },
    },
};

pub(super) fn cases() -> Vec<Case> {
    [signatures(), algorithms(), headers(), forms(), payloads(), users(), namespaces(), times()]
        .into_iter()
        .chain([times_of_the_wrong_type(), issuers(), insecure(), answers()])
        .flatten()
        .collect()
}

/// The client is let in with this token.
pub(in crate::conformance) fn lets_in(token: TokenSpec) -> Vec<Step> {
    vec![open(), send(authenticate(1).with_token(token)), expect(welcome(1)), ends(open_still())]
}

/// The client is not.
fn refuses(token: TokenSpec) -> Vec<Step> {
    vec![
        open(),
        send(authenticate(1).with_token(token)),
        expect(refused("authenticate", 1, AuthRequired)),
        ends(closed(1007)),
        Step::Alive,
    ]
}

/// A token that must be refused.
fn bad(id: &'static str, rule: &'static str, source: &'static str, token: TokenSpec) -> Case {
    must(id, rule).from(source).script(refuses(token))
}

/// A token that must be accepted.
fn good(id: &'static str, rule: &'static str, source: &'static str, token: TokenSpec) -> Case {
    must(id, rule).from(source).script(lets_in(token))
}

/// The same needs, and the same consequence, for all.
fn all(cases: Vec<Case>, needs: &[Need], otherwise: &'static str) -> Vec<Case> {
    let needing = |case: Case| needs.iter().fold(case, |case, need| case.needs(*need));
    cases.into_iter().map(|case| needing(case).otherwise(otherwise)).collect()
}

/// An object without one of its members.
fn without(object: &str, name: &str) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(object).unwrap_or_default();
    members.remove(name);
    Value::Object(members).to_string()
}

// ---- Signatures and algorithms: secure mode ----

fn signatures() -> Vec<Case> {
    let cases = vec![
        bad(
            "SAT-TOK-001",
            "A server in secure mode MUST refuse a token whose signature was taken off.",
            "A04; auth_hs256_sig_stripped",
            token().without_signature(),
        ),
        bad(
            "SAT-TOK-002",
            "A server in secure mode MUST refuse a token whose signature differs in the last bit \
             of its last byte.",
            "A04",
            token().signature("differs in one bit at its end", |mut signature| {
                if let Some(last) = signature.last_mut() {
                    *last ^= 1;
                }
                signature
            }),
        ),
        bad(
            "SAT-TOK-003",
            "A server in secure mode MUST refuse a token whose signature lacks its last byte.",
            "A04",
            token().signature("lacks its last byte", |mut signature| {
                signature.pop();
                signature
            }),
        ),
        bad(
            "SAT-TOK-004",
            "A server in secure mode MUST refuse a token whose signature has a byte too many.",
            "A04",
            token().signature("has a byte too many", |mut signature| {
                signature.push(0);
                signature
            }),
        ),
        bad(
            "SAT-TOK-005",
            "A server in secure mode MUST refuse a token whose signature is nothing but zeros.",
            "auth_es256_zero_signature",
            token().signature("is nothing but zeros", |signature| vec![0; signature.len()]),
        ),
        bad(
            "SAT-TOK-006",
            "A server in secure mode MUST refuse a token that is signed with another secret.",
            "A04; auth_hs256_wrong_signature",
            token().with_other_secret(),
        )
        .needs(Need::SharedSecret),
        bad(
            "SAT-TOK-007",
            "A server in secure mode MUST NOT trust a key that comes in the header of a token.",
            "RFC 8725 §3.1, RFC 7515 §4.1.3",
            token().with_secret_in_header(),
        )
        .needs(Need::SharedSecret),
    ];
    all(cases, &[Need::SecureMode], "Whoever can write a token gets in as anybody.")
}

fn algorithms() -> Vec<Case> {
    let cases = vec![
        bad(
            "SAT-TOK-008",
            "A server in secure mode MUST refuse a token of the algorithm `none`.",
            "A05; auth_es256_alg_none",
            token().unsigned(),
        ),
        bad(
            "SAT-TOK-009",
            "A server in secure mode MUST refuse a token of the algorithm `none` in two segments.",
            "A05; auth_hs256_two_segments",
            token().in_two_segments(),
        ),
        bad(
            "SAT-TOK-010",
            "A server in secure mode MUST refuse the algorithm `none` however it is spelt.",
            "A05; RFC 8725 §2.1",
            token().compact("of the algorithm nOnE, unsigned", |token| {
                // {"alg":"nOnE","typ":"JWT"}
                const HEADER: &str = "eyJhbGciOiJuT25FIiwidHlwIjoiSldUIn0";
                format!("{HEADER}.{}.", token.split('.').nth(1).unwrap_or_default())
            }),
        ),
        bad(
            "SAT-TOK-011",
            "A server in secure mode MUST refuse a token of the algorithm `none` that carries a \
             signature.",
            "A05; auth_es256_alg_none",
            token().renamed("none"),
        ),
        bad(
            "SAT-TOK-012",
            "A server in secure mode MUST refuse a token that is signed with the right secret by \
             another HMAC.",
            "auth_hs256_alg_hs384_same_key; auth_hs256_alg_hs512_same_key",
            token().with_other_hash(),
        )
        .needs(Need::SharedSecret),
        bad(
            "SAT-TOK-013",
            "A server in secure mode MUST refuse a token whose header names an algorithm of \
             another family.",
            "auth_hs256_alg_es256; auth_es256_alg_rs256",
            token().renamed("PS512"),
        ),
        bad(
            "SAT-TOK-014",
            "A server in secure mode MUST take names of algorithms as case-sensitive.",
            "auth_hs256_alg_lowercase",
            token()
                .header_text("the algorithm is in lower case", |header| header.replace("HS", "hs")),
        )
        .needs(Need::SharedSecret),
        bad(
            "SAT-TOK-015",
            "A server in secure mode MUST NOT use its public key as a shared secret.",
            "auth_es256_hs256_with_public_pem; RFC 8725 §2.1",
            token().signed_with_public_key(),
        )
        .needs(Need::PublicKey),
        bad(
            "SAT-TOK-112",
            "A server in secure mode MUST refuse a signature in ASN.1 where two numbers of fixed \
             length belong.",
            "auth_es256_der_signature; RFC 7518 §3.4",
            token().signature("is in ASN.1", in_asn1),
        )
        .needs(Need::PublicKey),
    ];
    all(cases, &[Need::SecureMode], "A token chooses how it is verified, and so verifies.")
}

/// A signature of two numbers as libraries for certificates write it: a SEQUENCE of two INTEGERs.
fn in_asn1(signature: Vec<u8>) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let sign = half.first().is_some_and(|first| first & 0x80 != 0);
        let value = [if sign { &[0][..] } else { &[] }, half].concat();
        [&[2, value.len() as u8][..], &value].concat()
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    let numbers = [integer(r), integer(s)].concat();
    [&[0x30, numbers.len() as u8][..], &numbers].concat()
}

fn headers() -> Vec<Case> {
    let refused = vec![
        bad(
            "SAT-TOK-016",
            "A server in secure mode MUST refuse a header without an algorithm.",
            "auth_hs256_header_no_alg",
            token().header_text("alg is missing", |header| without(header, "alg")),
        ),
        bad(
            "SAT-TOK-017",
            "A server in secure mode MUST refuse a header whose algorithm is no text.",
            "RFC 7515 §4.1.1",
            token().header("alg", json!(["HS256", "HS384", "HS512"])),
        ),
        bad(
            "SAT-TOK-018",
            "A server in secure mode MUST refuse a header that is no JSON.",
            "auth_hs256_header_not_json",
            token().raw_header("not json"),
        ),
        bad(
            "SAT-TOK-019",
            "A server in secure mode MUST refuse a header that is an array.",
            "auth_hs256_header_array",
            token().header_text("is wrapped into an array", |header| format!("[{header}]")),
        ),
        bad(
            "SAT-TOK-020",
            "A server in secure mode MUST refuse an empty header.",
            "A06",
            token().raw_header(""),
        ),
        bad(
            "SAT-TOK-021",
            "A server in secure mode MUST refuse a header that names its algorithm twice.",
            "README: duplicate names; RFC 7515 §4",
            token().header_text("alg comes twice", |header| {
                header.replacen('{', r#"{"alg":"none","#, 1)
            }),
        ),
        bad(
            "SAT-TOK-022",
            "A server in secure mode MUST refuse a token with an extension in `crit` that it does \
             not understand.",
            "auth_hs256_crit_header; RFC 7515 §4.1.11",
            token()
                .header("crit", json!(["urn:example:only-on-mondays"]))
                .header("urn:example:only-on-mondays", json!(true)),
        ),
        bad(
            "SAT-TOK-023",
            "A server in secure mode MUST refuse a token with an empty `crit`.",
            "RFC 7515 §4.1.11",
            token().header("crit", json!([])),
        ),
        bad(
            "SAT-TOK-024",
            "A server in secure mode MUST refuse a token whose payload is said not to be encoded.",
            "RFC 7797 §3; README: extensions",
            token().header("b64", json!(false)).header("crit", json!(["b64"])),
        ),
        bad(
            "SAT-TOK-025",
            "A server in secure mode MUST refuse a token whose header says that it is compressed.",
            "README: compressed tokens; RFC 8725 §3.6",
            token().header("zip", json!("DEF")),
        ),
        bad(
            "SAT-TOK-026",
            "A server in secure mode MUST refuse a token whose header says that its payload is \
             another token.",
            "README: nested tokens; RFC 7519 §5.2",
            token().header("cty", json!("JWT")),
        ),
    ];
    let taken = vec![
        good(
            "SAT-TOK-027",
            "A server MUST accept a token without `typ` in its header.",
            "auth_hs256_good_no_typ",
            token().header_text("typ is missing", |header| without(header, "typ")),
        ),
        good(
            "SAT-TOK-028",
            "A server MUST ignore members of a header that it does not know.",
            "RFC 7515 §4",
            token()
                .header("typ", json!("JWT"))
                .header("https://example.com/extra", json!({ "a": [1, null] })),
        ),
    ];
    let needs = &[Need::SecureMode, Need::SharedSecret];
    [
        all(refused, needs, "What a token says of itself is not what was verified."),
        all(taken, needs, "Tokens of common libraries are refused."),
    ]
    .concat()
}

// ---- Forms ----

fn forms() -> Vec<Case> {
    let both = vec![
        bad(
            "SAT-TOK-029",
            "A server MUST refuse a text that is no token.",
            "H06; A06; A20; auth_insecure_garbage",
            token().text("invalid_token"),
        ),
        bad(
            "SAT-TOK-030",
            "A server MUST refuse a token of two dots and nothing else.",
            "auth_hs256_garbage_dots",
            token().text(".."),
        ),
        bad(
            "SAT-TOK-031",
            "A server MUST refuse a token of four segments.",
            "auth_insecure_four_segments; auth_hs256_four_segments",
            token().wrapped("", ".AAAA"),
        ),
        bad(
            "SAT-TOK-032",
            "A server MUST refuse a token of five segments, which is an encrypted one.",
            "README: encrypted tokens; RFC 7516 §3.1",
            token().wrapped("", ".AAAA.AAAA"),
        ),
        bad(
            "SAT-TOK-033",
            "A server MUST refuse a token of one segment.",
            "auth_insecure_one_segment",
            token().compact("cut off at its first dot", |token| {
                token.split('.').next().unwrap_or_default().to_owned()
            }),
        ),
        bad(
            "SAT-TOK-034",
            "A server MUST refuse a token without a payload.",
            "auth_insecure_payload_empty",
            token().compact("without its payload", |token| {
                let mut segments = token.split('.');
                let (header, _, signature) = (segments.next(), segments.next(), segments.next());
                format!("{}..{}", header.unwrap_or_default(), signature.unwrap_or_default())
            }),
        ),
        bad(
            "SAT-TOK-035",
            "A server MUST refuse a payload that is not base64url.",
            "auth_insecure_payload_bad_b64",
            token().compact("with a character that is not base64url in its payload", |token| {
                token.replacen('.', ".!", 1)
            }),
        ),
        bad(
            "SAT-TOK-036",
            "A server MUST refuse a token in JSON instead of the compact form.",
            "RFC 7519 §1: tokens are in the compact form",
            token().compact("in the flattened JSON form", |token| {
                let segments: Vec<&str> = token.split('.').collect();
                let [header, payload, signature] = segments[..] else { return String::new() };
                json!({ "protected": header, "payload": payload, "signature": signature })
                    .to_string()
            }),
        ),
    ];
    let secure = vec![
        bad(
            "SAT-TOK-037",
            "A server in secure mode MUST refuse a token behind the word `Bearer`.",
            "A06; RFC 7515 §5.2",
            token().wrapped("Bearer ", ""),
        ),
        bad(
            "SAT-TOK-038",
            "A server in secure mode MUST refuse a token with white space behind it.",
            "RFC 7515 §5.2; RFC 4648 §3.3",
            token().wrapped("", " "),
        ),
        bad(
            "SAT-TOK-039",
            "A server in secure mode MUST refuse a token with a line break before it.",
            "RFC 7515 §5.2; RFC 4648 §3.3",
            token().wrapped("\n", ""),
        ),
        bad(
            "SAT-TOK-040",
            "A server in secure mode MUST refuse a signature with base64 padding.",
            "RFC 7515 §2: base64url without padding",
            token().wrapped("", "="),
        ),
        bad(
            "SAT-TOK-041",
            "A server in secure mode MUST refuse a token without the dot before its signature.",
            "auth_hs256_two_segments",
            token().compact("without its last dot", |token| {
                token
                    .rsplit_once('.')
                    .map_or_else(String::new, |(signed, rest)| format!("{signed}{rest}"))
            }),
        ),
    ];
    [
        all(both, &[], "A malformed token gets in, or crashes the server."),
        all(secure, &[Need::SecureMode], "One token has many spellings, which defeats revocation."),
    ]
    .concat()
}

fn payloads() -> Vec<Case> {
    let cases = vec![
        bad(
            "SAT-TOK-042",
            "A server MUST refuse a payload that is an array.",
            "auth_hs256_payload_array_signed; auth_insecure_payload_array",
            token().payload_text("all claims are in an array", |payload| format!("[{payload}]")),
        ),
        bad(
            "SAT-TOK-043",
            "A server MUST refuse a payload that is a number.",
            "auth_insecure_payload_number",
            token().raw_payload("1"),
        ),
        bad(
            "SAT-TOK-044",
            "A server MUST refuse a payload that is a text.",
            "README: payload of a token that is no object",
            token().payload_text("all claims are in a text", |payload| json!(payload).to_string()),
        ),
        bad(
            "SAT-TOK-045",
            "A server MUST refuse a payload that is null.",
            "README: payload of a token that is no object",
            token().raw_payload("null"),
        ),
        bad(
            "SAT-TOK-046",
            "A server MUST refuse a payload that is no JSON.",
            "A06; A20",
            token().raw_payload("not json"),
        ),
        bad(
            "SAT-TOK-047",
            "A server MUST refuse a payload with something behind its JSON.",
            "RFC 7519 §7.2: the payload is one JSON object",
            token()
                .payload_text("something follows the claims", |payload| format!("{payload} {{}}")),
        ),
        bad(
            "SAT-TOK-048",
            "A server MUST refuse a payload that is cut off.",
            "RFC 7519 §7.2",
            token().payload_text("the last brace is missing", |payload| {
                payload.strip_suffix('}').unwrap_or_default().to_owned()
            }),
        ),
        bad(
            "SAT-TOK-049",
            "A server MUST refuse a payload that names a time twice.",
            "README: duplicate names; RFC 8725 §2.6",
            token().payload_text("exp comes twice", |payload| {
                payload.replacen('{', r#"{"exp":32503680000,"#, 1)
            }),
        ),
        bad(
            "SAT-TOK-050",
            "A server MUST refuse a payload that names an unknown claim twice.",
            "README: duplicate names; RFC 7519 §4",
            token().payload_text("an unknown claim comes twice", |payload| {
                payload.replacen('{', r#"{"x":1,"x":1,"#, 1)
            }),
        ),
        bad(
            "SAT-TOK-051",
            "A server MUST refuse a payload with a name twice in an inner object.",
            "README: duplicate names",
            token().payload_text("a name comes twice further in", |payload| {
                payload.replacen('{', r#"{"x":{"y":1,"y":2},"#, 1)
            }),
        ),
    ];
    let user_twice = vec![
        bad(
            "SAT-TOK-052",
            "A server MUST refuse a payload that names the user twice.",
            "README: duplicate names; RFC 8725 §2.6",
            token().payload_text("sub comes twice", |payload| {
                payload.replacen('{', r#"{"sub":"somebody else","#, 1)
            }),
        ),
        bad(
            "SAT-TOK-053",
            "A server MUST compare names in a payload after it has read their escapes.",
            "README: duplicate names; RFC 8259 §8.3",
            token().payload_text("sub comes twice, once with an escape", |payload| {
                payload.replacen('{', r#"{"s\u0075b":"somebody else","#, 1)
            }),
        ),
    ];
    let taken = vec![good(
        "SAT-TOK-054",
        "A server MUST accept a payload with white space between its parts and with claims that it \
         does not know.",
        "RFC 8259 §2; auth_hs256_iss_aud_extra",
        token().payload_text("there is white space and more", |payload| {
            let rest = payload.strip_prefix('{').unwrap_or_default();
            format!("\r\n {{ \"roles\" : [ \"admin\" , {{ }} ] ,\t\"x\":null, {rest} \n")
        }),
    )];
    let verified = "Two readers of one token see different claims, or the server crashes.";
    [
        all(cases, &[], verified),
        all(user_twice, &[Need::NoNamespace], verified),
        all(taken, &[], "Tokens of common libraries are refused."),
    ]
    .concat()
}

// ---- Claims ----

fn users() -> Vec<Case> {
    let refused = vec![
        bad(
            "SAT-TOK-055",
            "A server MUST refuse a token that names no user.",
            "A08; A25; auth_insecure_no_claims",
            token().without_user(),
        ),
        bad(
            "SAT-TOK-056",
            "A server MUST refuse a token whose user is empty.",
            "A08; A25",
            token().named(json!("")),
        ),
        bad(
            "SAT-TOK-057",
            "A server MUST refuse a token whose user is a space.",
            "auth_insecure_user_id_blank; auth_hs256_blank_user_id",
            token().named(json!(" ")),
        ),
        bad(
            "SAT-TOK-058",
            "A server MUST refuse a token whose user is tabs and line breaks.",
            "auth_insecure_user_id_tab_nl",
            token().named(json!("\t\r\n")),
        ),
        bad(
            "SAT-TOK-059",
            "A server MUST refuse a token whose user is a space that does not break.",
            "auth_insecure_user_id_nbsp",
            token().named(json!("\u{a0}")),
        ),
        bad(
            "SAT-TOK-060",
            "A server MUST refuse a token whose user is a number.",
            "A08; auth_hs256_int_user_id",
            token().named(json!(555)),
        ),
        bad(
            "SAT-TOK-061",
            "A server MUST refuse a token whose user is null.",
            "auth_insecure_user_id_null",
            token().named(Value::Null),
        ),
        bad(
            "SAT-TOK-062",
            "A server MUST refuse a token whose user is a list of users.",
            "A25",
            token().named(json!(["user-1"])),
        ),
        bad(
            "SAT-TOK-063",
            "A server MUST NOT look into `user_id` where there is a `sub`, even an empty one.",
            "corrections #25: `sub`, then `user_id`",
            token().claim("sub", json!("")),
        ),
    ];
    let taken = vec![
        good(
            "SAT-TOK-064",
            "A server MUST accept a token that names the user in `sub` alone.",
            "H31; auth_hs256_sub_only",
            token().without("user_id"),
        ),
        good(
            "SAT-TOK-065",
            "A server MUST accept a token that names the user in `user_id` alone.",
            "H30; auth_insecure_none_user_id",
            token().without("sub"),
        ),
        good(
            "SAT-TOK-066",
            "A server MUST accept a user with white space around it.",
            "auth_insecure_user_id_padded",
            token().of_user("  conformance  "),
        ),
        good(
            "SAT-TOK-067",
            "A server MUST accept a user with characters beyond ASCII.",
            "A07; RFC 7519 §4.1.2",
            token().of_user("Пользователь 🛰"),
        ),
    ];
    [
        all(refused, &[], "Somebody without a name gets the data of all who have none."),
        all(taken, &[], "Users who are who they say are kept out."),
    ]
    .concat()
}

fn namespaces() -> Vec<Case> {
    let user = || json!({ "sub": "conformance", "user_id": "conformance" });
    let refused = vec![
        bad(
            "SAT-TOK-068",
            "A server with a namespace MUST refuse a token whose user is at the top level alone.",
            "A08; A25",
            token()
                .namespace(json!({}))
                .top("sub", json!("conformance"))
                .top("user_id", json!("conformance")),
        ),
        bad(
            "SAT-TOK-069",
            "A server with a namespace MUST refuse a token whose namespace is a text.",
            "auth_insecure-ns_ns_not_map",
            token().namespace(json!("conformance")),
        ),
        bad(
            "SAT-TOK-070",
            "A server with a namespace MUST refuse a token whose namespace is a list.",
            "auth_insecure-ns_ns_list",
            token().namespace(json!([user()])),
        ),
        bad(
            "SAT-TOK-071",
            "A server with a namespace MUST refuse a token whose user in it is blank.",
            "auth_insecure-ns_ns_blank",
            token().namespace(json!({ "sub": " ", "user_id": " " })),
        ),
        bad(
            "SAT-TOK-072",
            "A server with a namespace MUST refuse a token whose user is in another namespace.",
            "A08; A25",
            token().namespace(json!({})).top("https://example.org/other", user()),
        ),
        bad(
            "SAT-TOK-073",
            "A server with a namespace MUST judge the times at the top level.",
            "A16",
            token().at("exp", -3600.0),
        ),
    ];
    let taken = vec![good(
        "SAT-TOK-074",
        "A server with a namespace MUST take the user in it, whoever is named at the top level.",
        "A07; auth_insecure-ns_both",
        token().top("sub", Value::Null).top("user_id", json!(7)),
    )];
    let top = vec![bad(
        "SAT-TOK-075",
        "A server without a namespace MUST NOT look for the user further in.",
        "A07",
        token().without_user().top("https://example.org/claims", user()),
    )];
    let otherwise = "Claims that somebody else may set decide who it is.";
    [
        all(refused, &[Need::Namespace], otherwise),
        all(taken, &[Need::Namespace], otherwise),
        all(top, &[Need::NoNamespace], otherwise),
    ]
    .concat()
}

fn times() -> Vec<Case> {
    const YEAR: f64 = 365.0 * 86400.0;
    let refused = vec![
        bad(
            "SAT-TOK-076",
            "A server MUST refuse a token that expired half a minute ago.",
            "A13; A24; auth_hs256_exp_-4",
            token().at("exp", -30.0),
        ),
        bad(
            "SAT-TOK-077",
            "A server MUST refuse a token that expired yesterday.",
            "H07; auth_insecure_expired",
            token().at("iat", -2.0 * 86400.0).at("exp", -86400.0),
        ),
        bad(
            "SAT-TOK-078",
            "A server MUST refuse a token that expired before 1970.",
            "A13; RFC 7519 §2",
            token().claim("exp", json!(-1)),
        ),
        bad(
            "SAT-TOK-079",
            "A server MUST refuse a token that is not valid yet for half a minute.",
            "A12; auth_insecure_nbf_+60",
            token().at("nbf", 30.0),
        ),
        bad(
            "SAT-TOK-080",
            "A server MUST refuse a token that was issued half a minute from now.",
            "A11; auth_hs256_iat_+60",
            token().at("iat", 30.0),
        ),
        bad(
            "SAT-TOK-081",
            "A server MUST refuse a token that was issued in a hundred years.",
            "A24",
            token().at("iat", 100.0 * YEAR).at("exp", 101.0 * YEAR),
        ),
    ];
    let taken = vec![
        good(
            "SAT-TOK-082",
            "A server MUST accept a token that is valid since a while.",
            "auth_hs256_good_nbf",
            token().at("nbf", -30.0).at("iat", -60.0),
        ),
        good(
            "SAT-TOK-083",
            "A server MUST accept times with fractions of a second.",
            "auth_hs256_exp_float; auth_hs256_iat_float",
            token().at("iat", -30.5).at("nbf", -30.25).at("exp", 300.75),
        ),
        good(
            "SAT-TOK-084",
            "A server MUST accept a token that expires beyond every calendar.",
            "auth_hs256_exp_far; auth_hs256_exp_huge",
            token().claim("exp", json!(1e30)),
        ),
        good(
            "SAT-TOK-085",
            "A server MUST accept a token that was issued before 1970.",
            "auth_hs256_iat_negative",
            token().claim("iat", json!(-1)),
        ),
        should(
            "SAT-TOK-086",
            "A server SHOULD accept a token that was issued a second from now, because clocks \
             differ.",
        )
        .from("A11; auth_hs256_iat_+1")
        .script(lets_in(token().at("iat", 1.0))),
        should(
            "SAT-TOK-087",
            "A server SHOULD accept a token that becomes valid a second from now, because clocks \
             differ.",
        )
        .from("A12; auth_hs256_nbf_+1")
        .script(lets_in(token().at("nbf", 1.0))),
        should(
            "SAT-TOK-088",
            "A server SHOULD accept a token that expires this very second, because clocks differ.",
        )
        .from("auth_hs256_exp_+0")
        .script(lets_in(token().at("exp", 0.0))),
        should(
            "SAT-TOK-089",
            "A server SHOULD NOT close a connection because its token expires: the token is judged \
             when it is presented.",
        )
        .from("H13 (disabled in all releases); README: expiry of a live session")
        .needs(Need::Time)
        .script([
            open(),
            send(authenticate(1).with_token(token().at("exp", 1.0))),
            expect(welcome(1)),
            Step::Silence(secs(6)),
            ends(open_still()),
        ]),
    ];
    let needed = vec![
        bad(
            "SAT-TOK-090",
            "A server in secure mode MUST refuse a token without `exp`.",
            "A10; auth_hs256_missing_exp",
            token().without("exp"),
        ),
        bad(
            "SAT-TOK-091",
            "A server in secure mode MUST refuse a token without `iat`.",
            "A09; auth_hs256_missing_iat_exp",
            token().without("iat"),
        ),
    ];
    [
        all(refused, &[], "A token works for longer, or earlier, than whoever issued it wants."),
        all(taken, &[], "Clients whose tokens are good are kept out."),
        all(needed, &[Need::SecureMode], "A token that leaks works for ever."),
    ]
    .concat()
}

fn times_of_the_wrong_type() -> Vec<Case> {
    let cases = vec![
        bad(
            "SAT-TOK-092",
            "A server MUST refuse a token whose `exp` is a text.",
            "auth_hs256_exp_string; auth_insecure_exp_string",
            token().claim("exp", json!("32503680000")),
        ),
        bad(
            "SAT-TOK-093",
            "A server MUST refuse a token whose `exp` is null.",
            "auth_insecure_exp_null",
            token().claim("exp", Value::Null),
        ),
        bad(
            "SAT-TOK-094",
            "A server MUST refuse a token whose `nbf` is null.",
            "auth_insecure_nbf_null",
            token().claim("nbf", Value::Null),
        ),
        bad(
            "SAT-TOK-095",
            "A server MUST refuse a token whose `iat` is a text.",
            "auth_hs256_iat_string",
            token().claim("iat", json!("0")),
        ),
        bad(
            "SAT-TOK-096",
            "A server MUST refuse a token whose `exp` is true.",
            "README: times of the wrong type",
            token().claim("exp", json!(true)),
        ),
        bad(
            "SAT-TOK-097",
            "A server MUST refuse a token whose `nbf` is a list.",
            "README: times of the wrong type",
            token().claim("nbf", json!([0])),
        ),
    ];
    all(cases, &[], "A token never expires because its time is no time, or the server crashes.")
}

fn issuers() -> Vec<Case> {
    let issuer = vec![
        bad(
            "SAT-TOK-098",
            "A server that wants an issuer MUST refuse a token without `iss`.",
            "A14; auth_hs256-iss-aud_no_iss",
            token().without("iss"),
        ),
        bad(
            "SAT-TOK-099",
            "A server that wants an issuer MUST refuse a token of another one.",
            "H08; auth_hs256-iss-aud_bad_iss",
            token().claim("iss", json!("https://example.org/another-issuer")),
        ),
        bad(
            "SAT-TOK-100",
            "A server that wants an issuer MUST refuse an `iss` that is no text.",
            "RFC 7519 §4.1.1",
            token().claim("iss", json!(1)),
        ),
        bad(
            "SAT-TOK-101",
            "A server that wants an issuer MUST refuse a list of issuers.",
            "RFC 7519 §4.1.1: `iss` is one text",
            token().among("iss"),
        ),
    ];
    let audience = vec![
        bad(
            "SAT-TOK-102",
            "A server that wants an audience MUST refuse a token without `aud`.",
            "A15; auth_hs256-iss-aud_no_aud",
            token().without("aud"),
        ),
        bad(
            "SAT-TOK-103",
            "A server that wants an audience MUST refuse a token for another one.",
            "A15; RFC 7519 §4.1.3",
            token().claim("aud", json!("https://example.org/another-audience")),
        ),
        bad(
            "SAT-TOK-104",
            "A server that wants an audience MUST refuse a list of audiences without its own.",
            "RFC 7519 §4.1.3",
            token().claim("aud", json!(["https://example.org/a", "https://example.org/b"])),
        ),
        good(
            "SAT-TOK-105",
            "A server that wants an audience MUST accept a list of audiences with its own.",
            "README: `aud`; RFC 7519 §4.1.3",
            token().among("aud"),
        ),
    ];
    let needs = |need| [Need::SecureMode, need];
    let otherwise = "A token that was issued by or for somebody else gets in.";
    [all(issuer, &needs(Need::Issuer), otherwise), all(audience, &needs(Need::Audience), otherwise)]
        .concat()
}

// ---- Insecure mode ----

fn insecure() -> Vec<Case> {
    let cases = vec![
        good(
            "SAT-TOK-106",
            "A server in insecure mode MUST accept an unsigned token in two segments.",
            "A23",
            token().in_two_segments(),
        ),
        good(
            "SAT-TOK-107",
            "A server in insecure mode MUST NOT look at a signature.",
            "A22; auth_insecure_signed_es256",
            token().wrapped("", "bm8gc2lnbmF0dXJl"),
        ),
        good(
            "SAT-TOK-108",
            "A server in insecure mode MUST NOT look at the header of a token.",
            "corrections #24; auth_insecure_header_not_json; auth_insecure_header_empty",
            token().raw_header("not json"),
        ),
        good(
            "SAT-TOK-109",
            "A server in insecure mode MUST accept a token without `iat` and `exp`.",
            "A21; auth_insecure_none_user_id",
            token().without("iat").without("exp"),
        ),
        good(
            "SAT-TOK-110",
            "A server in insecure mode MUST ignore issuer and audience.",
            "A21; README: insecure mode",
            token().top("iss", json!("anybody")).top("aud", json!(["anything"])),
        ),
    ];
    all(cases, &[Need::InsecureMode], "The tokens of the published clients' helpers are refused.")
}

// ---- What a refused client learns ----

fn answers() -> Vec<Case> {
    const MARK: &str = "mark-7f3a91";
    let silent = a_message("the refusal of \"authenticate\" (1) that quotes no claim", |message| {
        matches!(message, Message::Response(SatRpcResponse {
            request_id: 1,
            result: Some(Outcome::Error(error)),
            ..
        }) if error.error_type() == ErrorCode::AuthRequired
            && !error.text().unwrap_or_default().contains(MARK))
    });
    vec![
        must("SAT-TOK-111", "A server MUST NOT quote a token, or what it claims, in an answer.")
            .from("README: a coarse reason, never a value")
            .otherwise("Secrets and names end up in the logs of whoever reads errors.")
            .script([
                open(),
                send(
                    authenticate(1).with_token(
                        token().of_user(MARK).top("note", json!(MARK)).at("exp", -3600.0),
                    ),
                ),
                expect(silent),
                ends(closed(1007)),
            ]),
    ]
}
