//! What the lists in HTTP headers say.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName},
};
use ipnet::IpNet;

/// The elements of a header's comma lists, over all its lines.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// Whether this is a trusted proxy's address.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// Where a request comes from: the peer, or whoever the trusted proxies say it was.
///
/// Each proxy adds, at the end, the address it was called from. So the last address that is not a
/// trusted proxy's is the client's; what stands before it anybody can have written.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut client = peer;
    for hop in hops(headers).into_iter().rev() {
        match hop {
            Some(address) => client = address,
            // Whoever it was, the proxy does not say.
            None => break,
        }
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// The addresses that proxies have noted, in order
/// ([RFC 7239 §4](https://www.rfc-editor.org/rfc/rfc7239#section-4) and its forerunner).
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let forwarded_for = "x-forwarded-for".parse().expect("a header name");
    let forerunner: Vec<_> = tokens(headers, &forwarded_for).map(address).collect();
    if !forerunner.is_empty() {
        return forerunner;
    }
    tokens(headers, &FORWARDED)
        .map(|element| {
            element.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let is_for = name.trim().eq_ignore_ascii_case("for");
                is_for.then(|| address(value.trim().trim_matches('"'))).flatten()
            })
        })
        .collect()
}

/// An address, which may have a port, and brackets if it is IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.split(']').next()).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_believed_if_they_are_trusted() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let from = |peer: &str, lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        let xff = "x-forwarded-for";
        assert_eq!(from("9.9.9.9", &[(xff, "1.2.3.4")]), "9.9.9.9");
        assert_eq!(from("10.0.0.1", &[(xff, "1.2.3.4")]), "1.2.3.4");
        assert_eq!(from("10.0.0.1", &[(xff, "6.6.6.6, 1.2.3.4, 10.0.0.2")]), "1.2.3.4");
        assert_eq!(from("10.0.0.1", &[(xff, "6.6.6.6"), (xff, "1.2.3.4")]), "1.2.3.4");
        assert_eq!(from("10.0.0.1", &[(xff, "nonsense, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("::ffff:10.0.0.1", &[(xff, "1.2.3.4:5678")]), "1.2.3.4");
        assert_eq!(
            from("::1", &[("forwarded", "for=6.6.6.6;proto=http, For=\"[2001:db8::1]:80\"")]),
            "2001:db8::1"
        );
        assert_eq!(from("::1", &[("forwarded", "for=unknown")]), "::1");
    }
}
