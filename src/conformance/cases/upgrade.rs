//! The upgrade: how a client gets from HTTP to a WebSocket, and which version is spoken on it.

use crate::conformance::{Case, may, must, script::*, should};

/// What is said to who offers no version at all.
const MISSING: &str = "Missing satellite websocket subprotocol";
/// What is said to who asks for something else than a WebSocket.
const BAD_REQUEST: &str = "Bad request";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    cases.extend(each_version());
    cases.extend(lists());
    cases.extend(no_version());
    cases.extend(other_versions());
    cases.extend(no_upgrade());
    cases.extend(good_upgrades());
    cases.extend(paths());
    cases.extend(refusals());
    cases
}

/// An upgrade that offers these lines must agree to this version, which is spoken then.
fn agrees(lines: &[&str], version: &str) -> Vec<Step> {
    vec![
        upgrade().offering(lines.iter().copied()).agreeing_to(version).step(),
        send(authenticate(1)),
        expect(welcome(1)),
        ends(open_still()),
    ]
}

fn refuses(ask: Ask, body: &'static str) -> Vec<Step> {
    vec![ask.answered(status([400]).saying(body))]
}

fn each_version() -> Vec<Case> {
    [
        (
            "SAT-UPG-001",
            "A server MUST agree to version 0.12 where that alone is offered.",
            "electric.0.12",
        ),
        (
            "SAT-UPG-002",
            "A server MUST agree to version 0.11 where that alone is offered.",
            "electric.0.11",
        ),
        (
            "SAT-UPG-003",
            "A server MUST agree to version 0.10 where that alone is offered.",
            "electric.0.10",
        ),
        (
            "SAT-UPG-004",
            "A server SHOULD agree to version 0.9 where that alone is offered.",
            "electric.0.9",
        ),
        (
            "SAT-UPG-005",
            "A server SHOULD agree to version 0.8 where that alone is offered.",
            "electric.0.8",
        ),
        (
            "SAT-UPG-006",
            "A server SHOULD agree to version 0.7 where that alone is offered.",
            "electric.0.7",
        ),
        (
            "SAT-UPG-007",
            "A server SHOULD agree to version 0.6 where that alone is offered.",
            "electric.0.6",
        ),
    ]
    .into_iter()
    .map(|(id, rule, offer)| {
        let case = if rule.contains("MUST") { must(id, rule) } else { should(id, rule) };
        case.from("X02, X03; http_origin")
            .otherwise("Clients of that release, which offer nothing else, cannot connect.")
            .script(agrees(&[offer], offer))
    })
    .collect()
}

fn lists() -> Vec<Case> {
    vec![
        must(
            "SAT-UPG-010",
            "A server MUST take the subprotocols of a comma list as separate offers, and agree to \
             the newest that it speaks.",
        )
        .from("RFC 6455 §4.1, §11.3.4; http_two_one_header_ok_first shows the original")
        .otherwise("A client that speaks several versions cannot say so.")
        .script(agrees(&["electric.0.10, electric.0.12, electric.0.11"], "electric.0.12")),
        must(
            "SAT-UPG-011",
            "A server MUST take the subprotocols of several header lines as one list.",
        )
        .from("RFC 6455 §11.3.4; http_two_headers_electric shows the original")
        .otherwise("Whether a client gets in depends on how a proxy writes the header.")
        .script(agrees(&["electric.0.10", "electric.0.12", "electric.0.11"], "electric.0.12")),
        must(
            "SAT-UPG-012",
            "A server MUST pass over offered subprotocols that are not Satellite's.",
        )
        .from("RFC 6455 §4.2.2; http_two_one_header_foo_first shows the original")
        .otherwise("A client that speaks to several kinds of servers cannot connect.")
        .script(agrees(&["graphql-ws, electric.{the version of the run}, mqtt"], SPOKEN)),
        must(
            "SAT-UPG-013",
            "A server MUST pass over a header line with another subprotocol beside the one with \
             its own.",
        )
        .from("http_two_headers_foo")
        .otherwise("A client that speaks to several kinds of servers cannot connect.")
        .script(agrees(&["foo", SPOKEN], SPOKEN)),
        must(
            "SAT-UPG-014",
            "A server MUST pass over an offered version that it does not speak where it speaks \
             another that is offered.",
        )
        .from("RFC 6455 §4.2.2; http_two_one_header_ok_second shows the original")
        .otherwise("A newer client cannot fall back to what an older server speaks.")
        .script(agrees(
            &["electric.0.99, electric.{the version of the run}, electric.0.1"],
            SPOKEN,
        )),
        must("SAT-UPG-015", "A server MUST compare versions by number, not by text.")
            .from("X03; http_proto_electric_0_13")
            .otherwise("0.9 is taken for newer than 0.12, and 0.10 clients get an old protocol.")
            .script(agrees(&["electric.0.9, electric.0.11"], "electric.0.11")),
        should("SAT-UPG-016", "A server SHOULD take a version that is offered twice as offered.")
            .from("RFC 6455 §4.1 forbids it to clients; http_two_headers_same shows the original")
            .otherwise("A proxy that doubles a header shuts clients out.")
            .script(agrees(&[SPOKEN, SPOKEN], SPOKEN)),
        must("SAT-UPG-017", "A server MUST ignore white space around the elements of the list.")
            .from("RFC 9110 §5.6.1; http_proto_electric_0_7_sp shows the original")
            .otherwise("Whether a client gets in depends on how a library writes lists.")
            .script(agrees(&["electric.0.10 ,\telectric.0.12 "], "electric.0.12")),
        must("SAT-UPG-018", "A server MUST ignore empty elements of the list.")
            .from("RFC 9110 §5.6.1.2")
            .otherwise("Whether a client gets in depends on how a library writes lists.")
            .script(agrees(&[", electric.{the version of the run},,"], SPOKEN)),
    ]
}

fn no_version() -> Vec<Case> {
    let none = must(
        "SAT-UPG-020",
        "A server MUST answer an upgrade without a subprotocol with 400 and `Missing satellite \
         websocket subprotocol`.",
    )
    .from("X01, X02")
    .otherwise("A client of something else is taken for a Satellite client.")
    .script(refuses(Ask::upgrade([""; 0]), MISSING));
    let others = [
        (
            "SAT-UPG-021",
            "A server MUST refuse a subprotocol of another name.",
            "graphql-ws",
            "http_proto_graphql-ws",
        ),
        (
            "SAT-UPG-022",
            "A server MUST refuse a subprotocol without a version.",
            "electric",
            "http_proto_electric",
        ),
        (
            "SAT-UPG-023",
            "A server MUST refuse a subprotocol whose version is empty.",
            "electric.",
            "http_proto_electric_",
        ),
        (
            "SAT-UPG-024",
            "A server MUST refuse a version of one number.",
            "electric.0",
            "http_proto_electric_0",
        ),
        (
            "SAT-UPG-025",
            "A server MUST refuse a version of three numbers.",
            "electric.0.12.1",
            "http_proto_electric_0_7_0",
        ),
        (
            "SAT-UPG-026",
            "A server MUST refuse a version with a leading zero.",
            "electric.00.12",
            "http_proto_electric_00_7",
        ),
        (
            "SAT-UPG-027",
            "A server MUST refuse a version with a pre-release.",
            "electric.0.12-beta",
            "http_proto_electric_0_7-beta",
        ),
        (
            "SAT-UPG-028",
            "A server MUST refuse a version with a build.",
            "electric.0.12+x",
            "http_proto_electric_0_7plusx",
        ),
        (
            "SAT-UPG-029",
            "A server MUST refuse a version with a letter before it.",
            "electric.v0.12",
            "http_proto_electric_v0_7",
        ),
        (
            "SAT-UPG-030",
            "A server MUST refuse a version that is a word.",
            "electric.abc",
            "http_proto_electric_abc",
        ),
        (
            "SAT-UPG-031",
            "A server MUST refuse a version of more than 19 bytes.",
            "electric.0.777777777777777777777777777777",
            "http_proto_electric_0_777777777777777777777777777777",
        ),
        (
            "SAT-UPG-032",
            "A server MUST tell upper case from lower case in a subprotocol.",
            "Electric.0.12",
            "RFC 6455 §4.1, §11.3.4",
        ),
    ];
    let others = others.into_iter().map(|(id, rule, offer, source)| {
        must(id, rule)
            .from(source)
            .otherwise("A client thinks that a version was agreed on, and servers differ in which.")
            .script(refuses(Ask::upgrade([offer]), MISSING))
    });
    [none].into_iter().chain(others).collect()
}

fn other_versions() -> Vec<Case> {
    let outside = [
        (
            "SAT-UPG-035",
            "A server MUST refuse a version that is older than all that it speaks, and name it in \
             its answer.",
            "electric.0.5",
            "Cannot connect satellite version 0.5.0: this server requires >= ",
            "X03; http_proto_electric_0_5",
        ),
        (
            "SAT-UPG-036",
            "A server MUST refuse a version that is newer than all that it speaks, and name it in \
             its answer.",
            "electric.0.13",
            "Cannot connect satellite version 0.13.0: this server requires >= ",
            "X03; http_proto_electric_0_13",
        ),
        (
            "SAT-UPG-037",
            "A server MUST refuse another major version, and name it in its answer.",
            "electric.1.0",
            "Cannot connect satellite version 1.0.0: this server requires >= ",
            "X03; http_proto_electric_1_0",
        ),
        (
            "SAT-UPG-038",
            "A server MUST refuse a version of two large numbers in the same words.",
            "electric.99.0",
            "Cannot connect satellite version 99.0.0: this server requires >= ",
            "X03; http_proto_electric_99_0",
        ),
    ];
    let outside = outside.into_iter().map(|(id, rule, offer, body, source)| {
        must(id, rule)
            .from(source)
            .otherwise("Whoever runs the client does not learn which side is too old.")
            .script(refuses(Ask::upgrade([offer]), body))
    });
    let newest = should(
        "SAT-UPG-039",
        "A server SHOULD name the newest of several offered versions if it speaks none of them.",
    )
    .from("README, subprotocol offers")
    .otherwise("The answer names a version that the client would not have used.")
    .script(refuses(
        Ask::upgrade(["electric.0.4, electric.0.5, electric.0.3"]),
        "Cannot connect satellite version 0.5.0: this server requires >= ",
    ));
    outside.chain([newest]).collect()
}

fn no_upgrade() -> Vec<Case> {
    let ask = || Ask::upgrade([SPOKEN]);
    let table = [
        (
            "SAT-UPG-040",
            "A server MUST answer a request without `Upgrade` with 400.",
            ask().without("Upgrade"),
            "RFC 6455 §4.2.1; http_no_upgrade",
        ),
        (
            "SAT-UPG-041",
            "A server MUST answer a request without `Connection: Upgrade` with 400.",
            ask().without("Connection"),
            "RFC 6455 §4.2.1; http_no_connection",
        ),
        (
            "SAT-UPG-042",
            "A server MUST answer an upgrade without a key with 400.",
            ask().without("Sec-WebSocket-Key"),
            "RFC 6455 §4.2.1; http_no_key",
        ),
        (
            "SAT-UPG-043",
            "A server MUST answer an upgrade without a WebSocket version with 400.",
            ask().without("Sec-WebSocket-Version"),
            "RFC 6455 §4.2.1; http_no_version",
        ),
        (
            "SAT-UPG-044",
            "A server MUST answer an upgrade of the WebSocket version 12 with 400.",
            ask().with("Sec-WebSocket-Version", "12"),
            "RFC 6455 §4.2.2; http_version_12",
        ),
        (
            "SAT-UPG-045",
            "A server MUST answer an upgrade to something else than a WebSocket with 400.",
            ask().with("Upgrade", "h2c"),
            "RFC 6455 §4.2.1",
        ),
        (
            "SAT-UPG-046",
            "A server MUST answer an upgrade by HTTP/1.0 with 400.",
            ask().line("GET /ws HTTP/1.0"),
            "RFC 6455 §4.2.1; http_http10",
        ),
        (
            "SAT-UPG-047",
            "A server MUST answer an upgrade by another method than GET with 400.",
            ask().line("POST /ws HTTP/1.1").with("Content-Length", "0"),
            "RFC 6455 §4.2.1",
        ),
        (
            "SAT-UPG-048",
            "A server MUST answer a plain GET with 400.",
            Ask::text(&["GET /ws HTTP/1.1", "Host: localhost"]),
            "http_plain_get_ws",
        ),
        (
            "SAT-UPG-049",
            "A server MUST answer a plain GET that names a subprotocol with 400.",
            Ask::text(&[
                "GET /ws HTTP/1.1",
                "Host: localhost",
                "Sec-WebSocket-Protocol: electric.0.12",
            ]),
            "http_plain_get_ws_with_proto",
        ),
    ];
    let cases = table.into_iter().map(|(id, rule, ask, source)| {
        must(id, rule)
            .from(source)
            .otherwise("A browser, a proxy or a cache reads frames as HTTP.")
            .script(refuses(ask, BAD_REQUEST))
    });
    let host =
        must("SAT-UPG-050", "A server MUST answer an HTTP/1.1 request without `Host` with 400.")
            .from("RFC 9112 §3.2; http_no_host")
            .otherwise("Proxies and servers differ in whom a request is for.")
            .script([ask().without("Host").answered(status([400]))]);
    let hosts =
        must("SAT-UPG-053", "A server MUST answer a request with two `Host` lines with 400.")
            .from("RFC 9112 §3.2")
            .otherwise("A proxy reads one of them, the server the other.")
            .script([Ask::text(&[
                "GET /ws HTTP/1.1",
                "Host: localhost",
                "Host: elsewhere",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Protocol: electric.{the version of the run}",
            ])
            .answered(status([400]))]);
    let keys = should("SAT-UPG-054", "A server SHOULD answer an upgrade with two keys with 400.")
        .from("RFC 6455 §11.3.1")
        .otherwise("A proxy checks the answer to one of them, the server answers the other.")
        .script([Ask::text(&[
            "GET /ws HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: electric.{the version of the run}",
        ])
        .answered(status([400]))]);
    let first = must(
        "SAT-UPG-051",
        "A server MUST look at the upgrade before the subprotocol, and answer `Bad request` if \
         both are wrong.",
    )
    .from("X01; http_bad_proto_and_no_upgrade")
    .otherwise("What a client is told depends on the server.")
    .script(refuses(Ask::upgrade(["electric.0.1"]).without("Upgrade"), BAD_REQUEST));
    let key = may(
        "SAT-UPG-052",
        "A server MAY accept a key that is not 16 bytes in base64, or answer it with 400.",
    )
    .from("RFC 6455 §4.2.1; http_bad_key")
    .otherwise("A sloppy client gets neither in nor an answer.")
    .script([ask().with("Sec-WebSocket-Key", "abc").answered(status([101, 400]))]);
    cases.chain([host, first, key, hosts, keys]).collect()
}

fn good_upgrades() -> Vec<Case> {
    let ask = || Ask::upgrade([SPOKEN]);
    let switching = || status([101]).header("Sec-WebSocket-Protocol", Some(SPOKEN));
    vec![
        must(
            "SAT-UPG-055",
            "A server MUST ignore case in the values of `Upgrade` and `Connection`.",
        )
        .from("RFC 6455 §4.2.1")
        .otherwise("Clients of some libraries cannot connect.")
        .script([ask()
            .with("Upgrade", "WebSocket")
            .with("Connection", "UPGRADE")
            .answered(switching())]),
        must("SAT-UPG-056", "A server MUST find `Upgrade` in a list of `Connection` options.")
            .from("RFC 6455 §4.2.1; RFC 9110 §7.6.1")
            .otherwise("Firefox, which sends `keep-alive, Upgrade`, cannot connect.")
            .script([ask().with("Connection", "keep-alive, Upgrade").answered(switching())]),
        must("SAT-UPG-057", "A server MUST ignore case in the names of headers.")
            .from("RFC 9110 §5.1")
            .otherwise("Clients behind a proxy that writes them small cannot connect.")
            .script([Ask::text(&[
                "GET /ws HTTP/1.1",
                "host: localhost",
                "upgrade: websocket",
                "connection: upgrade",
                "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
                "sec-websocket-version: 13",
                "sec-websocket-protocol: electric.{the version of the run}",
            ])
            .answered(
                switching().header("Sec-WebSocket-Accept", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
            )]),
        must("SAT-UPG-058", "A server MUST NOT agree to an extension that it does not speak.")
            .from("RFC 6455 §4.2.2, §9.1; http_deflate_offered")
            .otherwise("Frames are compressed for one side only.")
            .script([
                upgrade().header("Sec-WebSocket-Extensions", "x-no-such-extension; level=3").step(),
                send(authenticate(1)),
                expect(welcome(1)),
            ]),
        must(
            "SAT-UPG-059",
            "A server MUST serve a client that offers compression whether or not it agrees to it.",
        )
        .from("http_deflate_offered")
        .otherwise("Browsers, which always offer it, cannot connect.")
        .script([
            ask()
                .with("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
                .answered(switching()),
            send(authenticate(1)),
            expect(welcome(1)),
        ]),
        should("SAT-UPG-060", "A server SHOULD accept any `Origin` unless it is told which.")
            .from("http_origin")
            .otherwise("Web applications, which are served from elsewhere, cannot connect.")
            .script([upgrade().header("Origin", "http://app.example").step()]),
        should(
            "SAT-UPG-061",
            "A server SHOULD accept an upgrade with a header line of 9,000 bytes.",
        )
        .from("http_header_9k")
        .otherwise("Browsers with large cookies cannot connect.")
        .script([ask().with("Cookie", &"a".repeat(9000)).answered(switching())]),
        must("SAT-UPG-062", "A server MUST accept a request target in absolute form.")
            .from("RFC 9112 §3.2.2")
            .otherwise("Clients behind some proxies cannot connect.")
            .script([ask().line("GET http://localhost/ws HTTP/1.1").answered(switching())]),
    ]
}

fn paths() -> Vec<Case> {
    let accepted = [
        ("SAT-UPG-065", "A server MUST accept an upgrade at `/ws/`.", "/ws/", "http_path_ws_slash"),
        (
            "SAT-UPG-066",
            "A server MUST accept an upgrade at any path below `/ws/`.",
            "/ws/foo",
            "http_path_ws_sub",
        ),
        (
            "SAT-UPG-067",
            "A server MUST ignore the query of an upgrade.",
            "/ws?token=none",
            "http_path_ws_query",
        ),
    ];
    let accepted = accepted.into_iter().map(|(id, rule, path, source)| {
        must(id, rule)
            .from(source)
            .otherwise("Clients with such a URL in their configuration cannot connect.")
            .script([upgrade().at(path).step(), send(authenticate(1)), expect(welcome(1))])
    });
    let others = [
        ("SAT-UPG-068", "A server MUST answer an upgrade at `/` with 404.", "/", "http_path_root"),
        (
            "SAT-UPG-069",
            "A server MUST answer an upgrade at a path of another name with 404.",
            "/nope",
            "http_path_nope",
        ),
        (
            "SAT-UPG-070",
            "A server MUST tell upper case from lower case in the path.",
            "/WS",
            "http_path_WS_upper",
        ),
        (
            "SAT-UPG-071",
            "A server MUST NOT take a path that only begins with the same letters for `/ws`.",
            "/wsx",
            "http_path_nope",
        ),
    ];
    let others = others.into_iter().map(|(id, rule, path, source)| {
        must(id, rule)
            .from(source)
            .otherwise("A wrong URL looks right, and what is served beside it is shadowed.")
            .script([Ask::upgrade([SPOKEN])
                .line(&format!("GET {path} HTTP/1.1"))
                .answered(status([404]).saying("Not found"))])
    });
    let order = must(
        "SAT-UPG-072",
        "A server MUST look at the path before the upgrade, and answer 404 if both are wrong.",
    )
    .from("X01; http_unknown_path")
    .otherwise("What a browser is told depends on the server.")
    .script([Ask::text(&["GET /nope HTTP/1.1", "Host: localhost"])
        .answered(status([404]).saying("Not found"))]);
    accepted.chain(others).chain([order]).collect()
}

fn refusals() -> Vec<Case> {
    let get_status = || Ask::text(&["GET /api/status HTTP/1.1", "Host: localhost"]);
    vec![
        should("SAT-UPG-075", "A server SHOULD answer `GET /api/status` with 200 while it serves.")
            .from("http_api_status")
            .otherwise("Health checks that were made for the original take it for dead.")
            .script([get_status().answered(status([200]))]),
        should("SAT-UPG-076", "A server SHOULD answer `POST /api/status` with 404.")
            .from("http_api_status_post")
            .otherwise("A health check passes that asks for something else.")
            .script([get_status()
                .line("POST /api/status HTTP/1.1")
                .with("Content-Length", "0")
                .answered(status([404]))]),
        should("SAT-UPG-077", "A server SHOULD answer what is below `/api/status` with 404.")
            .from("http_api_status_sub")
            .otherwise("A health check passes that asks for something else.")
            .script([get_status().line("GET /api/status/x HTTP/1.1").answered(status([404]))]),
        must(
            "SAT-UPG-078",
            "A server MUST let a client whose upgrade was refused try again on the same \
             connection.",
        )
        .from("http_proto_graphql-ws, closed_by_server")
        .otherwise("The refusal is lost when the connection is reset beneath the next request.")
        .script([
            Ask::upgrade(["electric.0.1"]).answered(status([400])),
            upgrade().here().step(),
            send(authenticate(1)),
            expect(welcome(1)),
        ]),
        must(
            "SAT-UPG-079",
            "A server MUST keep the connection open after `404`, and answer what is asked next.",
        )
        .from("http_unknown_path, closed_by_server")
        .otherwise("Proxies that keep connections show their users errors.")
        .script([
            Ask::text(&["GET /nope HTTP/1.1", "Host: localhost"]).answered(status([404])),
            Ask::upgrade(["foo"]).answered_here(status([400]).saying(MISSING)),
            Ask::text(&["GET /ws HTTP/1.1", "Host: localhost"])
                .answered_here(status([400]).saying(BAD_REQUEST)),
            upgrade().here().step(),
        ]),
        must(
            "SAT-UPG-082",
            "A server MUST answer several requests that come at once one after the other.",
        )
        .from("RFC 9112 §9.3.2")
        .otherwise("Proxies that do not wait show one user the answer to another.")
        .script([
            Ask::text(&[
                "GET /nope HTTP/1.1",
                "Host: localhost",
                "",
                "GET /ws HTTP/1.1",
                "Host: localhost",
            ])
            .answered(status([404])),
            Ask::unfinished("nothing more", String::new()).answered_here(status([400])),
        ]),
        must(
            "SAT-UPG-080",
            "A server MUST close the connection after an answer if the request asks for it.",
        )
        .from("RFC 9112 §9.6; http_api_status_close")
        .otherwise("Health checks wait until they time out.")
        .script([
            Ask::text(&["GET /nope HTTP/1.1", "Host: localhost", "Connection: close"])
                .answered(status([404])),
            ends(gone()),
        ]),
        must("SAT-UPG-081", "A server MUST NOT take HTTP on a connection that it has upgraded.")
            .from("RFC 6455 §4.2.2")
            .otherwise("Requests are smuggled past a proxy that sees one upgrade.")
            .script([
                open(),
                send(raw(
                    "another HTTP request",
                    &b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
                )),
                ends(closed(1002)),
                Step::Alive,
            ]),
    ]
}
