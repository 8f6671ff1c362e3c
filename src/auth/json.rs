//! The JSON of a token, read in one pass and without building a tree.
//!
//! A member name that comes twice is refused at every depth: readers that pick different ones
//! would see different tokens
//! ([RFC 8725 §2.6](https://www.rfc-editor.org/rfc/rfc8725#section-2.6)).

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// The header of a token, as far as verification looks into it
/// ([RFC 7515 §4.1](https://www.rfc-editor.org/rfc/rfc7515#section-4.1)).
#[derive(Debug, Default)]
pub(super) struct Header<'a> {
    pub(super) alg: Value<'a>,
    /// Most headers have it and nothing looks at it. What is known by name needs no list of names.
    typ: Value<'a>,
    pub(super) kid: Value<'a>,
    pub(super) cty: Value<'a>,
    pub(super) b64: Value<'a>,
    pub(super) crit: Value<'a>,
    pub(super) zip: Value<'a>,
    pub(super) enc: Value<'a>,
}

/// The claims of a token, as far as the rules look into them
/// ([RFC 7519 §4.1](https://www.rfc-editor.org/rfc/rfc7519#section-4.1)).
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    pub(super) iat: Value<'a>,
    pub(super) exp: Value<'a>,
    pub(super) nbf: Value<'a>,
    pub(super) iss: Value<'a>,
    pub(super) aud: Value<'a>,
    pub(super) jti: Value<'a>,
    /// The claims that name the user, from inside the namespace if one is configured.
    pub(super) user: User<'a>,
}

/// The two claims that can name the user.
#[derive(Debug, Default)]
pub(super) struct User<'a> {
    pub(super) sub: Value<'a>,
    pub(super) user_id: Value<'a>,
}

/// A JSON value, as far as any rule looks into it.
#[derive(Debug, Default)]
pub(super) enum Value<'a> {
    /// There is no such member.
    #[default]
    Absent,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    /// An array of texts and nothing else.
    Texts(Vec<Cow<'a, str>>),
    /// An array of anything else.
    Array,
    /// An object, of which only the user's claims are kept.
    Object(Box<User<'a>>),
}

impl Value<'_> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Value::Absent)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// For whoever holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Absent => f.write_str("absent"),
            Value::Null => f.write_str("null"),
            Value::Bool(value) => value.fmt(f),
            Value::Number(Number::Whole(number)) => number.fmt(f),
            Value::Number(Number::Fractional(number)) => number.fmt(f),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Texts(texts) => write!(f, "{texts:?}"),
            Value::Array => f.write_str("an array"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}

/// A number in a claim: seconds may be whole or fractional.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Fractional(f64),
}

impl Number {
    /// How the number compares with a whole one.
    pub(super) fn cmp(self, whole: i64) -> Ordering {
        match self {
            Number::Whole(number) => number.cmp(&i128::from(whole)),
            // JSON has no NaN, and clocks are far below 2^53: comparable, and exactly so.
            Number::Fractional(number) => number.total_cmp(&(whole as f64)),
        }
    }

    /// Whether there are more than so many seconds from `earlier` to this.
    pub(super) fn is_later_by_more_than(self, seconds: u32, earlier: Number) -> bool {
        match (self, earlier) {
            (Number::Whole(later), Number::Whole(earlier)) => {
                later.saturating_sub(earlier) > seconds.into()
            }
            (later, earlier) => later.as_f64() - earlier.as_f64() > seconds.into(),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Number::Whole(number) => number as f64,
            Number::Fractional(number) => number,
        }
    }

    /// Rounded down, and held to what 64 bits can say.
    pub(super) fn floor(self) -> i64 {
        match self {
            Number::Whole(number) => number.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            Number::Fractional(number) => number.floor() as i64,
        }
    }

    /// Rounded up, and held to what 64 bits can say.
    pub(super) fn ceil(self) -> i64 {
        match self {
            Number::Whole(_) => self.floor(),
            Number::Fractional(number) => number.ceil() as i64,
        }
    }
}

/// An object that knows some of its members by name.
trait Members<'a> {
    /// Where the value of a member goes, if anything looks into it.
    fn member(&mut self, name: &str) -> Option<&mut Value<'a>>;
}

impl<'a> Members<'a> for Header<'a> {
    fn member(&mut self, name: &str) -> Option<&mut Value<'a>> {
        Some(match name {
            "alg" => &mut self.alg,
            "typ" => &mut self.typ,
            "kid" => &mut self.kid,
            "cty" => &mut self.cty,
            "b64" => &mut self.b64,
            "crit" => &mut self.crit,
            "zip" => &mut self.zip,
            "enc" => &mut self.enc,
            _ => return None,
        })
    }
}

/// Claims, and the member that holds the user's.
struct Namespaced<'n, 'a>(Option<&'n str>, Claims<'a>, Value<'a>);

impl<'a> Members<'a> for Namespaced<'_, 'a> {
    fn member(&mut self, name: &str) -> Option<&mut Value<'a>> {
        let Namespaced(namespace, claims, namespaced) = self;
        Some(match name {
            _ if *namespace == Some(name) => namespaced,
            "iat" => &mut claims.iat,
            "exp" => &mut claims.exp,
            "nbf" => &mut claims.nbf,
            "iss" => &mut claims.iss,
            "aud" => &mut claims.aud,
            "jti" => &mut claims.jti,
            _ if namespace.is_some() => return None,
            _ => return claims.user.member(name),
        })
    }
}

impl<'a> Members<'a> for User<'a> {
    fn member(&mut self, name: &str) -> Option<&mut Value<'a>> {
        match name {
            "sub" => Some(&mut self.sub),
            "user_id" => Some(&mut self.user_id),
            _ => None,
        }
    }
}

/// Reads the header of a token.
pub(super) fn header(json: &[u8]) -> serde_json::Result<Header<'_>> {
    let mut header = Header::default();
    object(json, &mut header)?;
    Ok(header)
}

/// Reads the claims of a token. With a namespace, the user is looked for inside it alone; a
/// namespace that is no object names nobody.
pub(super) fn claims<'a>(
    json: &'a [u8],
    namespace: Option<&str>,
) -> serde_json::Result<Claims<'a>> {
    let mut all = Namespaced(namespace, Claims::default(), Value::Absent);
    object(json, &mut all)?;
    let Namespaced(_, mut claims, namespaced) = all;
    if let Value::Object(user) = namespaced {
        claims.user = *user;
    }
    Ok(claims)
}

/// Reads a whole text as one object.
fn object<'a>(json: &'a [u8], members: &mut impl Members<'a>) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(ObjectVisitor(members))?;
    deserializer.end()
}

/// Visits an object and nothing else.
struct ObjectVisitor<'m, M>(&'m mut M);

impl<'de, M: Members<'de>> Visitor<'de> for ObjectVisitor<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let twice = || A::Error::custom("a member name comes twice");
        let mut others = vec![];
        while let Some((Name(name), value)) = map.next_entry()? {
            match self.0.member(&name) {
                Some(member @ Value::Absent) => *member = value,
                Some(_) => return Err(twice()),
                None => others.push(name),
            }
        }
        others.sort_unstable();
        if others.windows(2).any(|pair| pair[0] == pair[1]) { Err(twice()) } else { Ok(()) }
    }
}

/// A member name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'a>, D::Error> {
        match deserializer.deserialize_str(ValueVisitor)? {
            Value::Text(text) => Ok(Name(text)),
            _ => Err(D::Error::custom("a member name is a text")),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<'a>, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Visits any value.
struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(Number::Whole(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(Number::Whole(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(Number::Fractional(number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(element) = seq.next_element()? {
            match (element, &mut texts) {
                (Value::Text(text), Some(texts)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(Value::Array, Value::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value<'de>, A::Error> {
        let mut user = User::default();
        ObjectVisitor(&mut user).visit_map(map)?;
        Ok(Value::Object(Box::new(user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_typed_by_what_they_hold() {
        let json = br#"{"iat":1,"exp":1.5,"nbf":-1,"iss":"i","aud":["a","\u0062"],"jti":null,
            "sub":"s\u0075b","x":{"sub":"inner"}}"#;
        let claims = claims(json, None).unwrap();
        assert!(matches!(claims.iat, Value::Number(Number::Whole(1))));
        assert!(matches!(claims.exp, Value::Number(Number::Fractional(exp)) if exp == 1.5));
        assert!(matches!(claims.nbf, Value::Number(Number::Whole(-1))));
        assert!(matches!(claims.aud, Value::Texts(texts) if texts == ["a", "b"]));
        assert!(matches!(claims.jti, Value::Null));
        assert_eq!(claims.user.sub.text(), Some("sub"));
        assert!(claims.user.user_id.is_absent());
    }

    #[test]
    fn a_namespace_hides_the_claims_outside_it() {
        let json = br#"{"sub":"outer","ns":{"user_id":"inner","more":[{"a":1}]}}"#;
        let namespaced = claims(json, Some("ns")).unwrap();
        assert_eq!(namespaced.user.user_id.text(), Some("inner"));
        assert!(namespaced.user.sub.is_absent());
        assert!(
            claims(br#"{"ns":"text","sub":"outer"}"#, Some("ns")).unwrap().user.sub.is_absent()
        );
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_at_every_depth() {
        for json in [
            r#"{"sub":"a","sub":"a"}"#,
            r#"{"sub":"a","s\u0075b":"a"}"#,
            r#"{"x":{"y":1,"y":2}}"#,
            r#"{"x":[[{"y":1,"y":2}]]}"#,
        ] {
            assert!(claims(json.as_bytes(), None).is_err(), "{json}");
            assert!(header(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn only_one_whole_object_is_read() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for json in ["", "[]", "1", "null", "\"x\"", "{} {}", "{}x", "\u{feff}{}", "{\"a\":1e400}"]
            .into_iter()
            .chain([format!("{{\"a\":{deep}}}").as_str()])
        {
            assert!(claims(json.as_bytes(), None).is_err(), "{json}");
        }
        assert!(claims(b"{\"a\":\"\xff\"}", None).is_err());
    }

    #[test]
    fn numbers_compare_exactly_and_round_down() {
        assert!(Number::Fractional(10.5).cmp(10).is_gt());
        assert!(Number::Fractional(9.999).cmp(10).is_lt());
        assert!(Number::Fractional(10.0).cmp(10).is_eq());
        assert!(Number::Whole(i128::from(u64::MAX)).cmp(i64::MAX).is_gt());
        assert_eq!(Number::Fractional(-0.5).floor(), -1);
        assert_eq!(Number::Fractional(1e30).floor(), i64::MAX);
        assert_eq!(Number::Whole(i128::from(u64::MAX)).floor(), i64::MAX);
        assert_eq!(Number::Whole(i128::MIN).floor(), i64::MIN);
    }

    #[test]
    fn the_time_between_two_numbers_is_exact_whole_or_not() {
        use Number::{Fractional, Whole};
        for (earlier, later, more_than_60) in [
            (Whole(40), Whole(100), false),
            (Whole(40), Whole(101), true),
            (Whole(i128::MIN), Whole(i128::MAX), true),
            (Fractional(40.5), Fractional(100.5), false),
            (Fractional(40.5), Fractional(100.75), true),
            (Fractional(40.5), Whole(100), false),
            (Fractional(39.5), Whole(100), true),
            (Whole(41), Fractional(100.5), false),
            (Whole(40), Fractional(100.5), true),
            (Fractional(100.5), Fractional(40.5), false),
        ] {
            let is_later = later.is_later_by_more_than(60, earlier);
            assert_eq!(is_later, more_than_60, "{earlier:?} {later:?}");
        }
    }
}
