//! Decides a concrete call by statements of policies, as IAM does: which statement denies it, and
//! whether one allows it.
//!
//! Only the operators that the policies in `infra/` use are known. Any other makes the decision
//! panic, so that a new operator cannot pass unread.

use std::collections::BTreeMap;

use super::policy::Statement;

/// A call as IAM sees it.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The action, such as `iam:CreateRole`.
    pub action: String,
    /// The ARN of the resource, or `*` for an action without one.
    pub resource: String,
    /// The condition keys that the request carries. A key that is missing here is missing in the
    /// request. Several values are separated by commas.
    pub context: BTreeMap<String, String>,
    /// What the templates' placeholders stand for, such as `<Bucket.Arn>`.
    pub values: BTreeMap<String, String>,
}

impl Call {
    /// A call with the caller's ARN, that of its role, in the context.
    pub fn new(caller: &str, action: &str, resource: &str) -> Self {
        let context = BTreeMap::from([("aws:PrincipalArn".to_owned(), caller.to_owned())]);
        Self { action: action.to_owned(), resource: resource.to_owned(), context, values: BTreeMap::new() }
    }

    /// Adds a key to the context.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.context.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The Sid of the first statement that denies the call.
    pub fn denied_by<'a>(&self, mut statements: impl Iterator<Item = &'a Statement>) -> Option<&'a str> {
        statements.find(|statement| !statement.allows && self.is_meant_by(statement)).map(|found| found.sid.as_str())
    }

    /// Whether a statement allows the call.
    pub fn is_allowed_by<'a>(&self, mut statements: impl Iterator<Item = &'a Statement>) -> bool {
        statements.any(|statement| statement.allows && self.is_meant_by(statement))
    }

    /// Whether a statement applies to the call. Its principals are not compared.
    fn is_meant_by(&self, statement: &Statement) -> bool {
        let action = |pattern: &String| matches(&pattern.to_ascii_lowercase(), &self.action.to_ascii_lowercase());
        let resource = |pattern: &String| matches(&self.filled(pattern), &self.resource);
        let on_it = match (statement.resources.as_slice(), statement.not_resources.as_slice()) {
            // A trust policy has no resource: it is the role's own.
            ([], []) => true,
            ([], others) => !others.iter().any(resource),
            (resources, _) => resources.iter().any(resource),
        };
        let known = statement.others.iter().all(|other| other == "NotResource");
        assert!(known, "{}: {:?} is not evaluated", statement.sid, statement.others);
        on_it && statement.actions.iter().any(action) && statement.conditions.iter().all(|one| self.holds(one))
    }

    /// A text of a template with its placeholders filled in.
    fn filled(&self, text: &str) -> String {
        let known = [("<partition>", "aws"), ("<account>", "222222222222"), ("<region>", "eu-west-1")];
        let known = known.into_iter().chain(self.values.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let text = known.fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        self.context.iter().fold(text, |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
    }

    fn holds(&self, (operator, key, expected): &(String, String, Vec<String>)) -> bool {
        let found = self.context.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        let (set, rest) = operator.split_once(':').map_or(("", operator.as_str()), |(set, rest)| (set, rest));
        let if_exists = rest.strip_suffix("IfExists");
        let bare = if_exists.unwrap_or(rest);
        if bare == "Null" {
            return expected.iter().any(|wanted| (wanted == "true") == found.is_none());
        }
        let Some(found) = found else {
            // A missing key satisfies a negated operator, and no other.
            return if_exists.is_some() || bare.contains("Not");
        };
        let equal = |value: &str| expected.iter().any(|wanted| compared(bare, &self.filled(wanted), value));
        match set {
            "" => equal(found) != bare.contains("Not"),
            "ForAnyValue" => found.split(',').any(equal),
            other => panic!("the set operator {other} is not evaluated"),
        }
    }
}

/// Whether a value is an expected one, for the operator without its negation.
fn compared(operator: &str, expected: &str, value: &str) -> bool {
    match operator {
        "StringEquals" | "StringNotEquals" | "Bool" => expected == value,
        // AWS evaluates ArnEquals as ArnLike.
        "StringLike" | "StringNotLike" | "ArnEquals" | "ArnLike" | "ArnNotEquals" | "ArnNotLike" => {
            matches(expected, value)
        }
        other => panic!("the operator {other} is not evaluated"),
    }
}

/// Whether a text matches a pattern of IAM, in which `*` stands for any text and `?` for one
/// character.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where to go on if what follows the last `*` does not fit.
    let mut again = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                again = Some((at + 1, read));
                at += 1;
            }
            Some(one) if *one == b'?' || *one == text[read] => {
                at += 1;
                read += 1;
            }
            _ => match again {
                Some((after, from)) => {
                    again = Some((after, from + 1));
                    (at, read) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_that_of_iam() {
        for (pattern, text) in [("*", ""), ("a*", "a/b"), ("a*c*e", "abcde"), ("*b", "ab"), ("a?c", "abc"), ("**", "x")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", "ab"), ("a*c*e", "aec"), ("a?", "a"), ("*b", "ba"), ("a*b", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_missing_key_satisfies_a_negated_operator_only() {
        let condition = |operator: &str| (operator.to_owned(), "k".to_owned(), vec!["a".to_owned()]);
        let without = Call::new("arn", "x:Y", "*");
        for (operator, holds) in
            [("StringEquals", false), ("StringNotEquals", true), ("StringEqualsIfExists", true), ("ArnNotLike", true)]
        {
            assert_eq!(without.holds(&condition(operator)), holds, "{operator}");
        }
        let with = without.with("K", "a,b");
        assert!(with.holds(&condition("ForAnyValue:StringLike")) && !with.holds(&condition("StringEquals")));
    }

    #[test]
    #[should_panic(expected = "NumericLessThan is not evaluated")]
    fn an_operator_that_is_unknown_is_not_ignored() {
        Call::new("arn", "x:Y", "*").with("k", "1").holds(&("NumericLessThan".into(), "k".into(), vec!["2".into()]));
    }
}
