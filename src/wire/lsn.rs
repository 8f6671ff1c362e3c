//! Positions in the server's stream.

use bytes::Bytes;

/// A position in the server's stream: the text of a decimal number, with an optional sign.
///
/// To a client it is opaque: it stores the bytes it was given and sends them back verbatim. A
/// server uses [`ServerLsn::parse`] to tell a position from garbage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerLsn(Bytes);

/// The bytes are no decimal number, so they are no position a server ever gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position: it must be the text of a whole decimal number")]
pub struct MalformedLsn;

impl ServerLsn {
    /// The position with the given number.
    pub fn new(number: u64) -> ServerLsn {
        ServerLsn(number.to_string().into())
    }

    /// Takes the bytes of a `startReplication` request as a position, of any length.
    ///
    /// # Errors
    ///
    /// The bytes are not ASCII digits behind at most one sign.
    pub fn parse(bytes: Bytes) -> Result<ServerLsn, MalformedLsn> {
        let digits = match bytes.as_ref() {
            [b'+' | b'-', digits @ ..] => digits,
            digits => digits,
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(MalformedLsn);
        }
        Ok(ServerLsn(bytes))
    }

    /// The bytes as they travel.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_decimal_number_of_any_length() {
        for good in ["0", "28203208", "+5", "-1", "999999999999999999999999999999"] {
            assert!(ServerLsn::parse(Bytes::from_static(good.as_bytes())).is_ok(), "{good}");
        }
        assert_eq!(ServerLsn::new(12).as_bytes(), "12");
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in ["", "+", "--1", "1 ", "garbage", "0/16B3748", "1.0", "\0\u{1}"] {
            let parsed = ServerLsn::parse(Bytes::from_static(bad.as_bytes()));
            assert_eq!(parsed, Err(MalformedLsn), "{bad:?}");
        }
    }
}
