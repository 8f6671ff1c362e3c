//! Where this crate differs from Electric on purpose, case by case.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Cases in which we say something else than Electric.
struct Deviation {
    /// Their names, in which one `*` may stand for any text.
    cases: &'static [&'static str],
    /// What we say.
    here: &'static str,
    /// The rows of the README's table of differences that are the reason.
    rows: &'static [&'static str],
}

const OWN_START: &str = "our own `startReplication` to the client";
const BEFORE_AUTHENTICATION: &str =
    "decodable messages other than `authenticate` before authentication";
const TOKEN_ERRORS: &str = "token errors";
const WRONG_TYPE: &str = "`nbf`/`iat`/`exp` of the wrong type";
const NO_OBJECT: &str = "header, payload or namespace of a token that is no object";
const CRIT: &str = "`crit` in the header of a token";
const CLIENT_ID: &str = "client id with a NUL character";
const SECOND_AUTHENTICATE: &str = "second `authenticate`";
const SECOND_START: &str = "second `startReplication` while started";
const STOP_WHEN_STARTED: &str = "`stopReplication` when started";
const STOP_WHEN_STOPPED: &str = "`stopReplication` when stopped";
const UNKNOWN_TABLE: &str = "`SatRelation` of an unknown table";
const UNKNOWN_SUBSCRIPTION: &str = "`unsubscribe` from an unknown subscription";
const POSITION: &str = "`startReplication` from a position, at the service without data";
const SCHEMA: &str = "`startReplication` with a schema version, at the service without data";
const TEXT: &str = "text frame";
const UNMASKED: &str = "client frame without a mask";
const CLOSE: &str = "answer to a client's close";
const SUBPROTOCOLS: &str = "subprotocol offers";
const HOST: &str = "HTTP/1.1 upgrade without `Host`";
const NO_HTTP: &str = "first bytes that are no HTTP";
const STATUS: &str = "`GET /api/status`";

const TABLE: &[Deviation] = &[
    // Before authentication.
    Deviation {
        cases: &[
            "preauth_SatRelation",
            "preauth_SatRpcResponse_*",
            "preauth_SatShapeData*",
            "preauth_SatSubsData*",
            "preauth_type_23",
            "preauth_type_24",
            "preauth_type_25",
        ],
        here: "error AUTH_REQUIRED; close 1007",
        rows: &[BEFORE_AUTHENTICATION],
    },
    // Tokens.
    Deviation {
        cases: &["auth_*_expired", "auth_*_exp_-3", "auth_*_exp_-4"],
        here: "authenticate 1: refused, AUTH_REQUIRED: expired token; close 1007",
        rows: &[TOKEN_ERRORS],
    },
    Deviation {
        cases: &["auth_*_nbf_+3", "auth_*_nbf_+4", "auth_*_nbf_+60"],
        here: "authenticate 1: refused, AUTH_REQUIRED: token is not yet valid; close 1007",
        rows: &[TOKEN_ERRORS],
    },
    Deviation {
        cases: &[
            "auth_es256_alg_*",
            "auth_es256_der_signature",
            "auth_es256_hs256_with_public_pem",
            "auth_es256_other_key",
            "auth_es256_zero_signature",
            "auth_hs256_alg_*",
            "auth_hs256_sig_stripped",
            "auth_hs256_wrong_signature",
        ],
        here: "authenticate 1: refused, AUTH_REQUIRED: invalid token signature; close 1007",
        rows: &[TOKEN_ERRORS],
    },
    Deviation {
        cases: &[
            "auth_*_four_segments",
            "auth_*_garbage",
            "auth_hs256_garbage_dots",
            "auth_hs256_header_no_alg",
            "auth_hs256_header_not_json",
            "auth_hs256_payload_array_signed",
            "auth_hs256_two_dots",
            "auth_hs256_two_segments",
            "auth_insecure_one_dot",
            "auth_insecure_one_segment",
            "auth_insecure_payload_bad_b64",
            "auth_insecure_payload_empty",
            "preauth_bad_auth_then_good_pipelined",
        ],
        here: "authenticate 1: refused, AUTH_REQUIRED: malformed token; close 1007",
        rows: &[TOKEN_ERRORS],
    },
    Deviation {
        cases: &[
            "auth_hs256-iss-aud_bad_iss",
            "auth_hs256-iss-aud_no_*",
            "auth_hs256_blank_user_id",
            "auth_hs256_int_user_id",
            "auth_hs256_missing_*",
            "auth_*_iat_+3",
            "auth_*_iat_+4",
            "auth_*_iat_+60",
            "auth_insecure-ns_ns_blank",
            "auth_insecure_no_claims",
            "auth_insecure_user_id_blank",
            "auth_insecure_user_id_nbsp",
            "auth_insecure_user_id_null",
            "auth_insecure_user_id_tab_nl",
        ],
        here: "authenticate 1: refused, AUTH_REQUIRED: token claims are not acceptable; close 1007",
        rows: &[TOKEN_ERRORS],
    },
    Deviation {
        cases: &["auth_*_string", "auth_insecure_exp_null", "auth_insecure_nbf_null"],
        here: "authenticate 1: refused, AUTH_REQUIRED: token claims are not acceptable; close 1007",
        rows: &[WRONG_TYPE, TOKEN_ERRORS],
    },
    Deviation {
        cases: &["auth_insecure-ns_ns_list", "auth_insecure-ns_ns_not_map"],
        here: "authenticate 1: refused, AUTH_REQUIRED: token claims are not acceptable; close 1007",
        rows: &[NO_OBJECT, TOKEN_ERRORS],
    },
    Deviation {
        cases: &[
            "auth_hs256_header_array",
            "auth_insecure_payload_array",
            "auth_insecure_payload_number",
        ],
        here: "authenticate 1: refused, AUTH_REQUIRED: malformed token; close 1007",
        rows: &[NO_OBJECT, TOKEN_ERRORS],
    },
    Deviation {
        cases: &["auth_hs256_crit_header"],
        here: "authenticate 1: refused, AUTH_REQUIRED: malformed token; close 1007",
        rows: &[CRIT, TOKEN_ERRORS],
    },
    Deviation {
        cases: &["auth_insecure_id_nul"],
        here: "authenticate 1: welcome; open",
        rows: &[CLIENT_ID],
    },
    // After authentication.
    Deviation {
        cases: &[
            "authed_again_replied_first",
            "authed_again_same_token",
            "authed_again_same_user_other_token",
        ],
        here: "authenticate 1: welcome; authenticate 2: refused, INVALID_REQUEST; close 1007",
        rows: &[SECOND_AUTHENTICATE],
    },
    Deviation {
        cases: &["authed_reply_startReplication_SatError"],
        here: "authenticate 1: welcome; open",
        rows: &[OWN_START],
    },
    Deviation {
        cases: &["authed_startReplication_twice"],
        here: "authenticate 1: welcome; startReplication 2: started, window 30; \
               startReplication 3: refused, INVALID_REQUEST; close 1007",
        rows: &[SECOND_START],
    },
    Deviation {
        cases: &["authed_start_stop_start_stop"],
        here: "authenticate 1: welcome; startReplication 2: started, window 30; \
               stopReplication 3: stopped; startReplication 4: started, window 30; \
               stopReplication 5: stopped; open",
        rows: &[STOP_WHEN_STARTED],
    },
    Deviation {
        cases: &["authed_start_stop_stop"],
        here: "authenticate 1: welcome; startReplication 2: started, window 30; \
               stopReplication 3: stopped; stopReplication 4: stopped; open",
        rows: &[STOP_WHEN_STARTED, STOP_WHEN_STOPPED],
    },
    Deviation {
        cases: &["authed_SatRelation_unknown"],
        here: "authenticate 1: welcome; open",
        rows: &[UNKNOWN_TABLE],
    },
    Deviation {
        cases: &["authed_unsubscribe_unknown"],
        here: "authenticate 1: welcome; unsubscribe 2: unsubscribed; open",
        rows: &[UNKNOWN_SUBSCRIPTION],
    },
    Deviation {
        cases: &[
            "authed_startReplication_lsn_future",
            "authed_startReplication_lsn_huge",
            "authed_startReplication_lsn_text_num",
            "authed_startReplication_lsn_zero",
        ],
        here: "authenticate 1: welcome; startReplication 2: refused, REPLICATION_FAILED: \
               This service has no data and did not give out this position; \
               it comes from another service; close 1007",
        rows: &[POSITION],
    },
    Deviation {
        cases: &["authed_startReplication_unknown_schema"],
        here: "authenticate 1: welcome; startReplication 2: started, window 30; open",
        rows: &[SCHEMA],
    },
    // Frames.
    Deviation {
        cases: &["preauth_text", "preauth_text_empty", "preauth_text_of_valid_auth"],
        here: "close 1003 \"Text messages are not part of the protocol\"",
        rows: &[TEXT],
    },
    Deviation {
        cases: &["authed_text"],
        here: "authenticate 1: welcome; \
               close 1003 \"Text messages are not part of the protocol\"",
        rows: &[TEXT],
    },
    Deviation { cases: &["preauth_unmasked"], here: "close 1002", rows: &[UNMASKED] },
    Deviation {
        cases: &["preauth_close_1005"],
        here: "close 1002 \"Protocol violation\"",
        rows: &[CLOSE],
    },
    Deviation { cases: &["preauth_close_4000"], here: "close 4000 \"bye\"", rows: &[CLOSE] },
    Deviation { cases: &["preauth_close_empty"], here: "close", rows: &[CLOSE] },
    // HTTP.
    Deviation {
        cases: &["http_two_headers_electric", "http_two_headers_same", "http_two_one_header_*"],
        here: "HTTP/1.1 101 electric.0.12; open",
        rows: &[SUBPROTOCOLS],
    },
    Deviation {
        cases: &["http_proto_electric_0_7_sp"],
        here: "HTTP/1.1 400 \"Cannot connect satellite version 0.7.0: \
               this server requires >= 0.10.0 and <= 0.12.1\"; open",
        rows: &[SUBPROTOCOLS],
    },
    Deviation {
        cases: &["http_no_host"],
        here: "HTTP/1.1 400 \"Bad request\"; open",
        rows: &[HOST],
    },
    Deviation {
        cases: &["http_garbage_line"],
        here: "HTTP/1.1 400 \"\"; closed",
        rows: &[NO_HTTP],
    },
    Deviation {
        cases: &["http_api_status"],
        here: "HTTP/1.1 200 \"The Satellite service is up. WARNING: insecure mode: unsigned tokens are accepted, anybody can say who they are; for development only\"; open",
        rows: &[STATUS],
    },
    Deviation {
        cases: &["http_api_status_close"],
        here: "HTTP/1.1 200 \"The Satellite service is up. WARNING: insecure mode: unsigned tokens are accepted, anybody can say who they are; for development only\"; closed",
        rows: &[STATUS],
    },
];

/// What is expected of us in one case.
pub(crate) struct Expected {
    case: String,
    electric: String,
    deviations: Vec<&'static Deviation>,
}

impl Expected {
    pub(crate) fn of(case: &str, electric: String) -> Expected {
        let deviations = TABLE.iter().filter(|deviation| deviation.concerns(case)).collect();
        Expected { case: case.into(), electric, deviations }
    }

    /// What is wrong, if we say something else.
    pub(crate) fn unless_met_by(&self, said: &str) -> Option<String> {
        let Expected { case, electric, .. } = self;
        let here = self.here();
        let wrong =
            format!("{case}\n  Electric: {electric}\n  expected: {here}\n  said:     {said}");
        (said != here).then_some(wrong)
    }

    fn here(&self) -> &str {
        self.deviations.first().map_or(&self.electric, |deviation| deviation.here)
    }
}

impl Deviation {
    fn concerns(&self, case: &str) -> bool {
        self.cases.iter().any(|pattern| matches(pattern, case))
    }
}

fn matches(pattern: &str, case: &str) -> bool {
    match pattern.split_once('*') {
        None => case == pattern,
        Some((before, after)) => {
            case.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
        }
    }
}

/// Fails if the table names what is no case or no deviation, or names a case twice.
pub(crate) fn check(expectations: &[Expected]) {
    let mut wrong = vec![];
    for pattern in TABLE.iter().flat_map(|deviation| deviation.cases) {
        if !expectations.iter().any(|expected| matches(pattern, &expected.case)) {
            wrong.push(format!("{pattern}: no such case"));
        }
    }
    for expected in expectations {
        let case = &expected.case;
        match expected.deviations[..] {
            [] => {}
            [deviation] if deviation.here == expected.electric => {
                wrong.push(format!("{case}: listed, but no deviation"));
            }
            [_] => {}
            _ => wrong.push(format!("{case}: listed twice")),
        }
    }
    assert!(wrong.is_empty(), "the table of deviations is wrong:\n{}", wrong.join("\n"));
}

/// The rows of the README that the table names.
fn rows() -> BTreeSet<&'static str> {
    let rows = TABLE.iter().flat_map(|deviation| deviation.rows).copied();
    rows.chain([OWN_START]).collect()
}

/// Fails if a row that the table names is not in the README's table of differences.
pub(crate) fn check_readme() {
    let readme = fs::read_to_string("README.md")
        .expect("README.md, which has to hold the table of differences, can be read");
    let told = told_differences(&readme);
    let missing: Vec<_> = rows().into_iter().filter(|row| !told.contains(row)).collect();
    assert!(missing.is_empty(), "not in README.md's table of differences: {missing:#?}");
}

/// The first column of the tables under headings that speak of differences.
fn told_differences(readme: &str) -> BTreeSet<&str> {
    let mut under_heading = false;
    let mut told = BTreeSet::new();
    for line in readme.lines() {
        if line.starts_with('#') {
            under_heading = line.to_lowercase().contains("differ");
        } else if under_heading && let Some(cells) = line.strip_prefix('|') {
            told.extend(cells.split('|').next().map(str::trim));
        }
    }
    told
}

/// Prints the deviations by the row that is their reason.
pub(crate) fn print(expectations: &[Expected], unasked_starts: usize) {
    for row in rows() {
        println!("\n{row}");
        if row == OWN_START {
            println!("  in {unasked_starts} conversations Electric calls it, and we do not");
        }
        for ((electric, here), cases) in cases_of(row, expectations) {
            println!("  {}\n    Electric: {electric}\n    here:     {here}", cases.join(" "));
        }
    }
}

/// The cases that a row is the reason for, by what is said in them.
fn cases_of<'a>(
    row: &str,
    expectations: &'a [Expected],
) -> BTreeMap<(&'a str, &'a str), Vec<&'a str>> {
    let mut cases = BTreeMap::<_, Vec<_>>::new();
    for expected in expectations {
        if expected.deviations.iter().any(|deviation| deviation.rows.contains(&row)) {
            let said = (expected.electric.as_str(), expected.here());
            cases.entry(said).or_default().push(expected.case.as_str());
        }
    }
    cases
}
