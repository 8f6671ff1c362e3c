//! The protocol version, as it travels in `Sec-WebSocket-Protocol`.

use std::{fmt, str::FromStr};

/// A Satellite protocol version: the first two numbers of an Electric release.
///
/// On the wire it is a WebSocket subprotocol
/// ([RFC 6455 §1.9](https://www.rfc-editor.org/rfc/rfc6455#section-1.9)) of the form
/// `electric.MAJOR.MINOR`; versions are ordered by number.
///
/// ```
/// use electric_satellite::wire::Version;
///
/// let version: Version = "electric.0.12".parse()?;
/// assert_eq!(version, Version::V0_12);
/// assert!(version > Version::V0_9);
/// assert_eq!(version.to_string(), "electric.0.12");
/// # Ok::<_, electric_satellite::wire::VersionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number of the release.
    pub major: u64,
    /// The second number of the release.
    pub minor: u64,
}

/// Why a text is no protocol version: it is not exactly `electric.MAJOR.MINOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a subprotocol of the form electric.MAJOR.MINOR")]
pub struct VersionError;

impl Version {
    /// The oldest version with RPC framing, and the oldest this crate speaks.
    pub const V0_6: Version = Version::new(0, 6);
    /// The last version whose clients take the token from their configuration.
    pub const V0_9: Version = Version::new(0, 9);
    /// The first version with acknowledgements and a window.
    pub const V0_10: Version = Version::new(0, 10);
    /// The newest version, and the one this crate's schema describes.
    pub const V0_12: Version = Version::new(0, 12);

    /// The version `major.minor`.
    pub const fn new(major: u64, minor: u64) -> Version {
        Version { major, minor }
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// Reads the subprotocol string.
    ///
    /// # Errors
    ///
    /// Anything that is not exactly `electric.MAJOR.MINOR`, both decimal without leading zeros.
    /// The original server refuses numbers of 20 bytes and more; so does this parser.
    fn from_str(text: &str) -> Result<Version, VersionError> {
        let numbers = text.strip_prefix("electric.").ok_or(VersionError)?;
        if numbers.len() >= 20 {
            return Err(VersionError);
        }
        let (major, minor) = numbers.split_once('.').ok_or(VersionError)?;
        Ok(Version::new(number(major)?, number(minor)?))
    }
}

/// One number of a semantic version: decimal digits, no sign, no leading zero.
fn number(text: &str) -> Result<u64, VersionError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(VersionError);
    }
    text.parse().map_err(|_| VersionError)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "electric.{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_version() {
        for bad in [
            "",
            "electric",
            "electric.",
            "electric.0",
            "electric.0.",
            "electric..7",
            "electric.00.7",
            "electric.0.07",
            "electric.0.7.0",
            "electric.0.7-beta",
            "electric.0.7+x",
            "electric.+0.7",
            "electric.0.7 ",
            "electric.v0.7",
            "ELECTRIC.0.7",
            "graphql-ws",
            "electric.0.777777777777777777777777777777",
        ] {
            assert_eq!(bad.parse::<Version>(), Err(VersionError), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number_not_by_text() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("electric.0.9") < parse("electric.0.10"));
        assert!(parse("electric.0.99") < parse("electric.1.0"));
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        for version in [Version::V0_6, Version::V0_12, Version::new(99, 0)] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
    }
}
