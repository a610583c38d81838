//! Typed access to the parameters of a call. Parameters from JSON and from the query protocol both
//! become one JSON object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The parameters of one call, or of one entry of a batch. A parameter that is `null` or has the
/// wrong type counts as absent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters(Value);

impl Parameters {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    /// All parameters, as a JSON object.
    pub(crate) fn json(&self) -> &Value {
        &self.0
    }

    /// A parameter, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A string parameter, unless it is empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A text, or an empty one.
    pub(crate) fn text_or_empty(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    /// A non-negative number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(Value::as_u64)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// A list of anything.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// A list of strings; elements of other types are skipped.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.list(name).iter().filter_map(Value::as_str).collect()
    }

    /// An object whose values are strings; members with other values are skipped.
    pub(crate) fn text_map(&self, name: &str) -> BTreeMap<String, String> {
        let pairs = self.get(name).and_then(Value::as_object).into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// An object.
    pub(crate) fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.get(name).and_then(Value::as_object)
    }

    /// Removes and returns a string parameter. This avoids a copy, because bodies are large.
    pub(crate) fn take_text(&mut self, name: &str) -> Option<String> {
        match self.0.get_mut(name).map(Value::take) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Takes an object away.
    pub(crate) fn take_object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.0.get_mut(name).map(Value::take) {
            Some(Value::Object(object)) if !object.is_empty() => Some(object),
            _ => None,
        }
    }

    /// Takes the entries of a batch away.
    pub(crate) fn take_entries(&mut self, name: &str) -> Vec<Parameters> {
        match self.0.get_mut(name).map(Value::take) {
            Some(Value::Array(entries)) => entries.into_iter().map(Self).collect(),
            _ => Vec::new(),
        }
    }

    /// A list in the query protocol's form `PREFIX.N.FIELD`: a map from N to the fields.
    pub(crate) fn numbered(&self, prefix: &str) -> BTreeMap<u32, BTreeMap<String, String>> {
        let mut gathered: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
        for (key, value) in self.0.as_object().into_iter().flatten() {
            let rest = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
            let Some((number, field)) = rest.and_then(|rest| rest.split_once('.')) else { continue };
            if let (Ok(number), Some(value)) = (number.parse(), value.as_str()) {
                gathered.entry(number).or_default().insert(field.to_owned(), value.to_owned());
            }
        }
        gathered
    }
}
