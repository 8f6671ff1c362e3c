//! The negotiation of the version: the newest of those that are offered and spoken, or a refusal,
//! as a model of the list in `Sec-WebSocket-Protocol` has it.

use crate::served::hear;

/// The input is the values of header lines, one behind the other with line breaks between.
pub fn check(data: &[u8]) {
    let allowed =
        |line: &&[u8]| line.iter().all(|byte| matches!(byte, b'\t' | b' '..=0x7e | 0x80..));
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').filter(allowed).take(32).collect();
    let mut request =
        b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            .to_vec();
    for line in &lines {
        request.extend([b"Sec-WebSocket-Protocol: ", *line, b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    if request.len() > 8192 {
        return;
    }
    let heard = hear(&[&request], true);
    let [answer] = &heard.answers[..] else { panic!("{heard:?}") };
    let chosen = answer.header("sec-websocket-protocol");
    let offered: Vec<(u64, u64)> = lines.iter().flat_map(|line| offers(line)).collect();
    let spoken = offered.iter().filter(|(major, minor)| *major == 0 && (6..=12).contains(minor));
    match (spoken.max(), offered.iter().max()) {
        (Some((major, minor)), _) => {
            assert_eq!(answer.status, 101, "{answer:?}");
            assert_eq!(chosen, Some(format!("electric.{major}.{minor}").as_str()));
        }
        (None, newest) => {
            assert_eq!((answer.status, chosen), (400, None), "{answer:?}");
            let body = newest.map_or(
                "Missing satellite websocket subprotocol".into(),
                |(major, minor)| {
                    format!(
                        "Cannot connect satellite version {major}.{minor}.0: \
                     this server requires >= 0.6.0 and <= 0.12.1"
                    )
                },
            );
            assert_eq!(answer.body, body);
        }
    }
}

/// The versions in a line. One that is no ASCII is no list.
fn offers(line: &[u8]) -> Vec<(u64, u64)> {
    let Some(line) = std::str::from_utf8(line).ok().filter(|line| line.is_ascii()) else {
        return vec![];
    };
    line.split(',').filter_map(|offer| version(offer.trim_matches([' ', '\t']))).collect()
}

fn version(offer: &str) -> Option<(u64, u64)> {
    let mut parts = offer.split('.');
    let (name, major, minor) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| {
        !text.is_empty()
            && text.chars().all(|digit| digit.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    };
    let is_version = name == "electric"
        && parts.next().is_none()
        && is_number(major)
        && is_number(minor)
        && major.len() + 1 + minor.len() < 20;
    // Less than 20 digits fit into 64 bits.
    is_version.then(|| (major.parse().unwrap(), minor.parse().unwrap()))
}
