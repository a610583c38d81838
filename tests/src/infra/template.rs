//! Parses CloudFormation, in YAML or JSON, into a JSON value, and lists the texts that an
//! expression in it can become.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value, json};

/// Parses a template or a policy. Short forms (`!Sub`) become long ones (`Fn::Sub`).
///
/// # Errors
///
/// If the text is not valid YAML, repeats a key, has a key that is not a scalar, or uses an alias.
pub fn load(text: &str) -> Result<Value, String> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match next(&mut parser)?.0 {
            Event::StreamStart | Event::DocumentStart(_) => {}
            first => return node(&mut parser, first),
        }
    }
}

fn next<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> Result<(Event<'a>, Span), String> {
    parser.next_event().ok_or("the text ends early")?.map_err(|error| error.to_string())
}

fn node<'a>(parser: &mut Parser<'a, StrInput<'a>>, event: Event<'a>) -> Result<Value, String> {
    match event {
        Event::Scalar(text, style, _, tag) => {
            let value =
                if style == ScalarStyle::Plain && tag.is_none() { plain(&text) } else { Value::from(text.as_ref()) };
            Ok(tagged(tag.as_deref(), value))
        }
        Event::SequenceStart(_, tag) => {
            let mut items = Vec::new();
            loop {
                match next(parser)?.0 {
                    Event::SequenceEnd => return Ok(tagged(tag.as_deref(), Value::Array(items))),
                    item => items.push(node(parser, item)?),
                }
            }
        }
        Event::MappingStart(_, tag) => {
            let mut fields = Map::new();
            loop {
                let (event, at) = next(parser)?;
                let Event::Scalar(key, ..) = event else {
                    return match event {
                        Event::MappingEnd => Ok(tagged(tag.as_deref(), Value::Object(fields))),
                        _ => Err(format!("line {}: a key that is not text", at.start.line())),
                    };
                };
                let value = next(parser)?.0;
                let value = node(parser, value)?;
                if fields.insert(key.to_string(), value).is_some() {
                    return Err(format!("line {}: duplicate key {key}", at.start.line()));
                }
            }
        }
        other => Err(format!("{other:?} is not allowed in a template")),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        // An account number may start with a zero; it stays a text.
        _ => text.parse::<i64>().ok().filter(|n| n.to_string() == text).map_or_else(|| text.into(), Value::from),
    }
}

fn tagged(tag: Option<&Tag>, value: Value) -> Value {
    match (tag.map(|tag| tag.suffix.as_str()), value) {
        (None, value) => value,
        (Some(name @ ("Ref" | "Condition")), value) => json!({ name: value }),
        (Some("GetAtt"), Value::String(text)) => {
            json!({ "Fn::GetAtt": text.splitn(2, '.').collect::<Vec<_>>() })
        }
        (Some(name), value) => json!({ format!("Fn::{name}"): value }),
    }
}

/// The name and the argument of an intrinsic function, if the value is one.
pub(super) fn intrinsic(value: &Value) -> Option<(&str, &Value)> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.iter().next().map(|(name, argument)| (name.as_str(), argument)).filter(|(name, _)| is_intrinsic(name))
}

fn is_intrinsic(name: &str) -> bool {
    name == "Ref" || name.starts_with("Fn::")
}

/// The possible values of a value that may be an `Fn::If`: its branches, or the value itself.
/// `AWS::NoValue` gives no value.
pub(super) fn branches(value: &Value) -> Vec<&Value> {
    match intrinsic(value) {
        Some(("Fn::If", Value::Array(parts))) => parts.iter().skip(1).flat_map(branches).collect(),
        Some(("Ref", Value::String(name))) if name == "AWS::NoValue" => Vec::new(),
        _ => vec![value],
    }
}

/// All texts that a value can become, without duplicates. Parts that only AWS knows are in angle
/// brackets: `<account>`, `<Topic>`, `<Role.Arn>`.
pub fn texts(value: &Value) -> Vec<String> {
    let mut seen = HashSet::new();
    all_texts(value).into_iter().filter(|text| seen.insert(text.clone())).collect()
}

fn all_texts(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(all_texts).collect(),
        Value::Object(_) => match intrinsic(value) {
            Some((name, argument)) => evaluated(name, argument),
            None => vec![format!("<{value}>")],
        },
        other => vec![other.to_string()],
    }
}

fn evaluated(name: &str, argument: &Value) -> Vec<String> {
    let first = |value: Option<&Value>| value.and_then(|value| all_texts(value).into_iter().next()).unwrap_or_default();
    match (name, argument) {
        ("Ref", Value::String(name)) => reference(name).into_iter().collect(),
        ("Fn::GetAtt", path) => vec![format!("<{}>", all_texts(path).join("."))],
        ("Fn::ImportValue", what) => vec![format!("<import {}>", first(Some(what)))],
        ("Fn::If", Value::Array(parts)) => parts.iter().skip(1).flat_map(all_texts).collect(),
        ("Fn::Sub", Value::String(text)) => vec![substituted(text, &Value::Null)],
        ("Fn::Sub", Value::Array(parts)) => {
            vec![substituted(&first(parts.first()), parts.get(1).unwrap_or(&Value::Null))]
        }
        ("Fn::Join", Value::Array(parts)) => {
            let (separator, items) = (first(parts.first()), parts.get(1).unwrap_or(&Value::Null));
            let texts = all_texts(items);
            match texts.as_slice() {
                // A list that is unknown here. Two items show the separator between them.
                [one] if !items.is_array() => vec![[one.as_str(), one].join(&separator)],
                _ => vec![texts.join(&separator)],
            }
        }
        ("Fn::Split", Value::Array(parts)) => {
            let (separator, text) = (first(parts.first()), first(parts.get(1)));
            text.split(separator.as_str()).map(str::to_owned).collect()
        }
        ("Fn::Select", Value::Array(parts)) => {
            let at = parts.first().and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
            let items = parts.get(1).map(all_texts).unwrap_or_default();
            vec![items.get(at).cloned().unwrap_or_else(|| format!("<{argument}>"))]
        }
        _ => vec![format!("<{name} {argument}>")],
    }
}

fn reference(name: &str) -> Option<String> {
    Some(match name {
        "AWS::NoValue" => return None,
        "AWS::AccountId" => "<account>".to_owned(),
        "AWS::Region" => "<region>".to_owned(),
        "AWS::Partition" => "<partition>".to_owned(),
        name => format!("<{name}>"),
    })
}

fn substituted(text: &str, variables: &Value) -> String {
    let mut parts = text.split("${");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        match (name.strip_prefix('!'), variables.get(name)) {
            (Some(literal), _) => result += &format!("${{{literal}}}"),
            (None, Some(value)) => result += &texts(value).join(","),
            (None, None) => result += &reference(name).unwrap_or_default(),
        }
        result += rest;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_become_long_ones_and_plain_scalars_what_cloudformation_makes_of_them() {
        let yaml = "A: !GetAtt Role.Arn\nB: !Sub ['${X}-${Y.Z}', {X: !Ref P}]\nC: 2012-10-17\nD: [012, 12, true, 'true', !Ref AWS::NoValue]\n";
        assert_eq!(
            load(yaml).unwrap(),
            json!({
                "A": {"Fn::GetAtt": ["Role", "Arn"]}, "B": {"Fn::Sub": ["${X}-${Y.Z}", {"X": {"Ref": "P"}}]},
                "C": "2012-10-17", "D": ["012", 12, true, "true", {"Ref": "AWS::NoValue"}],
            })
        );
        assert_eq!(load("{\"a\": [1]}").unwrap(), json!({"a": [1]}));
        assert_eq!(load("A: 1\nB: 2\nA: 3\n").unwrap_err(), "line 3: duplicate key A");
    }

    #[test]
    fn an_expression_becomes_the_texts_that_it_can_be() {
        let text = |yaml: &str| texts(&load(yaml).unwrap());
        assert_eq!(
            text("!Sub 'arn:${AWS::Partition}:s3:::${B}/${!x}/${R.Arn}'"),
            ["arn:<partition>:s3:::<B>/${x}/<R.Arn>"]
        );
        assert_eq!(text("!If [A, x, !If [B, y, !Ref AWS::NoValue]]"), ["x", "y"]);
        // One text for each item of a list that is known only at deployment.
        let accounts = "!Split [',', !Sub ['a:${All}:q', {All: !Join [':q,a:', !Ref Accounts]}]]";
        assert_eq!(text(accounts), ["a:<Accounts>:q"]);
        assert_eq!(text("!Select [1, [a, b]]"), ["b"]);
        assert_eq!(text("!ImportValue {'Fn::Sub': '${F}-Key'}"), ["<import <F>-Key>"]);
    }
}
