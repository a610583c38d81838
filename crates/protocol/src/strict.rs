//! A strict reader for every JSON text that is signed, claimed or published (clauses ENC-5, ENC-6).
//!
//! serde's derived readers are too lenient for such texts. They accept an array in place of an
//! object, keep the last of two members with the same name, and do not look inside members that
//! they ignore, so two readers could understand one text differently. [`from_slice`] wraps
//! serde_json's deserializer and refuses all of the following, at every level:
//!
//! - a text that is not UTF-8, or that continues after its value;
//! - an array where an object is expected, or an object where the name of a variant is expected;
//! - a duplicate member, also among the members that are ignored;
//! - inside ignored values too: a number beyond the range of a double, an unpaired surrogate, or
//!   more than 127 levels of nesting.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

/// Reads exactly one value; anything after it is an error.
pub(crate) fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    from_str(std::str::from_utf8(json).map_err(serde_json::Error::custom)?)
}

/// Reads exactly one value; anything after it is an error.
pub(crate) fn from_str<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = T::deserialize(Strict(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// Reads an enum whose variant is named by `kind` and whose members are in `json`, beside other
/// members, which are ignored. A variant without members reads nothing from `json`.
pub(crate) fn variant_from_str<T: DeserializeOwned>(kind: &str, json: &str) -> Result<T, serde_json::Error> {
    T::deserialize(Beside { kind, json })
}

/// The largest count on the wire: the largest integer that every JSON reader holds exactly (RFC
/// 8259, section 6). Sums of counts cannot overflow.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// Reads a count: an integer from 0 to 2^53 − 1 (clause ENC-7).
pub(crate) fn count<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = u64::deserialize(deserializer)?;
    if number > COUNT_MAX {
        return Err(serde::de::Error::custom("a number above 2^53 - 1"));
    }
    T::try_from(number).map_err(|_| serde::de::Error::custom("a number that is too large"))
}

/// Reads a count, or `null`, which means absent.
pub(crate) fn count_or_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let Some(number) = Option::<u64>::deserialize(deserializer)? else { return Ok(None) };
    count(serde::de::value::U64Deserializer::<D::Error>::new(number)).map(Some)
}

/// For an optional member that has a default: `null` means absent (clause ENC-6).
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A deserializer that refuses what the head of this module lists.
struct Strict<D>(D);

/// Forwards methods whose values cannot contain other values.
macro_rules! scalars {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Within(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Within(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Within(visitor))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_seq(Within(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Within(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Within(visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Within(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Struct { fields, visitor })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(OneOf(visitor))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Within(Ignored))?;
        visitor.visit_unit()
    }
}

/// A visitor that reads everything inside a value through [`Strict`].
struct Within<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<V::Value, E> {
        self.0.visit_bool(value)
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<V::Value, E> {
        self.0.visit_i64(value)
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<V::Value, E> {
        self.0.visit_u64(value)
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<V::Value, E> {
        self.0.visit_f64(value)
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<V::Value, E> {
        self.0.visit_str(value)
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.0.visit_borrowed_str(value)
    }
    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<V::Value, E> {
        self.0.visit_string(value)
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(deserializer))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(deserializer))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Elements(access))
    }
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Members { access, fields: &[], seen: BTreeSet::new() })
    }
}

/// The visitor of a struct. It accepts only an object.
struct Struct<V> {
    fields: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Struct<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Members { access, fields: self.fields, seen: BTreeSet::new() })
    }
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Struct<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// The visitor of an enum. It accepts the bare name of a variant without members, or an object that
/// maps the name to the members.
struct OneOf<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for OneOf<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<V::Value, E> {
        self.0.visit_enum(IntoDeserializer::<E>::into_deserializer(name))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<V::Value, A::Error> {
        let name: String =
            access.next_key()?.ok_or_else(|| A::Error::invalid_value(Unexpected::Map, &"one variant"))?;
        self.0.visit_enum(Tagged { name, access })
    }
}

/// A variant in the form `{"name":{…}}`.
struct Tagged<A> {
    name: String,
    access: A,
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Tagged<A> {
    type Error = A::Error;
    type Variant = TaggedMembers<A>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, TaggedMembers<A>), A::Error> {
        let variant = seed.deserialize(StringDeserializer::<A::Error>::new(self.name))?;
        Ok((variant, TaggedMembers(self.access)))
    }
}

struct TaggedMembers<A>(A);

impl<'de, A: MapAccess<'de>> TaggedMembers<A> {
    fn only<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, A::Error> {
        let value = self.0.next_value_seed(seed)?;
        match self.0.next_key::<IgnoredAny>()? {
            Some(_) => Err(A::Error::invalid_value(Unexpected::Map, &"one variant")),
            None => Ok(value),
        }
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for TaggedMembers<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        Err(A::Error::invalid_type(Unexpected::Map, &"the variant's name alone"))
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.only(Nested(seed))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, A::Error> {
        Err(A::Error::custom("no type of the protocol has a variant that is a list"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.only(Struct { fields, visitor })
    }
}

/// A nested value, read through [`Strict`].
struct Nested<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nested<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

struct Elements<A>(A);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Nested(seed))
    }
}

/// The members of an object. A struct's derived reader detects duplicates among its own `fields`;
/// this type keeps all other names and detects duplicates among them.
struct Members<A> {
    access: A,
    fields: &'static [&'static str],
    seen: BTreeSet<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        match self.access.next_key_seed(Name(self.fields))? {
            None => Ok(None),
            Some(Key::Field(name)) => seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some),
            Some(Key::Other(name)) if self.seen.contains(&name) => {
                Err(A::Error::custom(format_args!("duplicate member `{name}`")))
            }
            Some(Key::Other(name)) => {
                let key = seed.deserialize(StrDeserializer::<A::Error>::new(&name))?;
                self.seen.insert(name);
                Ok(Some(key))
            }
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.access.next_value_seed(Nested(seed))
    }
}

enum Key {
    Field(&'static str),
    Other(String),
}

/// Reads the name of a member, without a copy if it is a field of the struct.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }
    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Key, E> {
        let field = self.0.iter().find(|field| **field == name);
        Ok(field.map_or_else(|| Key::Other(name.to_owned()), |field| Key::Field(field)))
    }
}

/// Accepts any value and reads everything inside it.
struct Ignored;

impl<'de> Visitor<'de> for Ignored {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// The deserializer behind [`variant_from_str`].
struct Beside<'de> {
    kind: &'de str,
    json: &'de str,
}

impl<'de> Beside<'de> {
    fn read<T>(
        &self,
        read: impl FnOnce(
            Strict<&mut serde_json::Deserializer<serde_json::de::StrRead<'de>>>,
        ) -> Result<T, serde_json::Error>,
    ) -> Result<T, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(self.json);
        let value = read(Strict(&mut deserializer))?;
        deserializer.end()?;
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for Beside<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Beside<'de> {
    type Error = serde_json::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Self::Error> {
        Ok((seed.deserialize(StrDeserializer::<Self::Error>::new(self.kind))?, self))
    }
}

impl<'de> VariantAccess<'de> for Beside<'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Self::Error> {
        self.read(|strict| seed.deserialize(strict))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("no type of the protocol has a variant that is a list"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.read(|strict| strict.deserialize_struct("", fields, visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Outer {
        inner: Inner,
        #[serde(default)]
        map: BTreeMap<String, u8>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        word: Option<Word>,
        #[serde(default, deserialize_with = "or_default")]
        flag: bool,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Inner {
        n: u64,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Bare,
        With {
            n: u64,
        },
        Around(Inner),
        #[serde(other)]
        Unknown,
    }

    fn accepts(members: &str) -> bool {
        from_str::<Outer>(&format!(r#"{{"inner":{{"n":1}}{members}}}"#)).is_ok()
    }

    // clause: ENC-5, ENC-6
    #[test]
    fn one_text_has_one_reading() {
        for good in [
            "",
            r#","map":{"a":1,"b":2}"#,
            r#","list":[{"n":1},{"n":2}]"#,
            r#","word":"bare""#,
            r#","word":{"with":{"n":1}}"#,
            r#","word":{"around":{"n":1}}"#,
            r#","word":null,"flag":null"#,
            r#","else":{"a":[1,2.5,true,null,"\ud83d\ude00"],"b":{}}"#,
            r#","else":1e300"#,
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            r#","inner":{"n":1}"#,
            r#","map":{"a":1,"a":2}"#,
            r#","map":[1]"#,
            r#","list":[[1]]"#,
            r#","list":{"n":1}"#,
            r#","word":{"bare":null}"#,
            r#","word":"with""#,
            r#","word":{"with":[1]}"#,
            r#","word":{"around":[1]}"#,
            r#","word":{"with":{"n":1},"bare":null}"#,
            r#","word":{}"#,
            r#","flag":0"#,
            r#","else":1,"else":1"#,
            r#","else":{"a":1,"\u0061":1}"#,
            r#","else":[{"a":1,"a":1}]"#,
            r#","else":1e400"#,
            r#","else":["\ud800"]"#,
            r#","\udc00":1"#,
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(from_str::<Outer>("[[1]]").is_err() && from_str::<Inner>("[1]").is_err());
        assert!(from_slice::<Inner>(b"{\"n\":1,\"else\":\"\xff\"}").is_err(), "not UTF-8");
        assert!(from_slice::<Inner>(b"{\"n\":1} {").is_err() && from_slice::<Inner>(b"{\"n\":1} \n").is_ok());
    }

    // clause: ENC-5
    #[test]
    fn nesting_has_a_bound_where_members_are_ignored_too() {
        let nested = |levels: usize| format!(r#","else":{}1{}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(accepts(&nested(127)) && !accepts(&nested(128)) && !accepts(&nested(100_000)));
    }

    #[test]
    fn a_variant_stands_beside_other_members() {
        let read = |kind, json| variant_from_str::<Word>(kind, json).ok();
        assert_eq!(read("with", r#"{"kind":"with","n":3}"#), Some(Word::With { n: 3 }));
        assert_eq!(read("around", r#"{"n":3,"else":[]}"#), Some(Word::Around(Inner { n: 3 })));
        assert_eq!(read("later", "{}"), Some(Word::Unknown));
        assert_eq!(read("with", "[3]"), None);
        assert_eq!(read("with", r#"{"n":3,"n":3}"#), None);
    }
}
