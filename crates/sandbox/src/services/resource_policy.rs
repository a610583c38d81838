//! Resource policies, as far as relay uses them: the part of IAM's evaluation that decides about
//! access from another account.
//!
//! A policy with an unsupported element is refused when it is set; no element is ignored later.

use serde_json::Value;

use super::principal::Principal;
use crate::wire::error::AwsError;

/// What a policy says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it.
    Deny,
    /// No statement applies to it.
    Silent,
}

/// A parsed policy document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone)]
struct Statement {
    allow: bool,
    principals: Vec<String>,
    not_principal: bool,
    actions: Vec<String>,
    not_action: bool,
    resources: Option<Vec<String>>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
struct Condition {
    operator: Operator,
    negated: bool,
    if_exists: bool,
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equals,
    Like,
    Bool,
}

impl Policy {
    /// Reads a policy document; the error says what is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let statements = match document.get("Statement") {
            Some(Value::Array(list)) => list.iter().map(Statement::parse).collect::<Result<_, _>>()?,
            Some(one @ Value::Object(_)) => vec![Statement::parse(one)?],
            _ => return Err("no Statement".to_owned()),
        };
        Ok(Self { statements })
    }

    /// Evaluates all statements; a denial wins.
    pub(crate) fn decide(&self, principal: &Principal, action: &str, resource: &str) -> Decision {
        let mut decision = Decision::Silent;
        for statement in self.statements.iter().filter(|s| s.matches(principal, action, resource)) {
            if !statement.allow {
                return Decision::Deny;
            }
            decision = Decision::Allow;
        }
        decision
    }
}

/// AWS's rule for access within an account and from another. A caller in the owner's account is
/// allowed unless the policy denies it (role policies are not modelled). A caller in another
/// account needs a policy that allows it.
pub(crate) fn authorise(
    owner: &str,
    policy: Option<&Policy>,
    principal: &Principal,
    action: &str,
    resource: &str,
) -> Result<(), AwsError> {
    let decision = policy.map_or(Decision::Silent, |p| p.decide(principal, action, resource));
    let allowed = match decision {
        Decision::Allow => true,
        Decision::Deny => false,
        Decision::Silent => principal.account == owner,
    };
    if allowed {
        return Ok(());
    }
    let why = if decision == Decision::Deny {
        "with an explicit deny in a resource-based policy".to_owned()
    } else {
        format!("because no resource-based policy allows the {action} action")
    };
    let caller = principal.caller_arn();
    let message = format!("User: {caller} is not authorized to perform: {action} on resource: {resource} {why}");
    Err(AwsError::new(403, "AccessDenied", message))
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(s) => Ok(vec![s.clone()]),
        Value::Bool(b) => Ok(vec![b.to_string()]),
        Value::Array(list) => list.iter().map(strings).collect::<Result<Vec<_>, _>>().map(|v| v.concat()),
        other => Err(format!("expected text, found {other}")),
    }
}

impl Statement {
    fn parse(value: &Value) -> Result<Self, String> {
        let allow = match value.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err("Effect must be Allow or Deny".to_owned()),
        };
        let (principal, not_principal) = match (value.get("Principal"), value.get("NotPrincipal")) {
            (Some(p), None) => (p, false),
            (None, Some(p)) => (p, true),
            _ => return Err("one of Principal and NotPrincipal is needed".to_owned()),
        };
        let principals = match principal {
            Value::Object(kinds) => {
                // Service and federated principals never call the sandbox, so they match no caller.
                kinds.get("AWS").map(strings).transpose()?.unwrap_or_default()
            }
            other => strings(other)?,
        };
        let (actions, not_action) = match (value.get("Action"), value.get("NotAction")) {
            (Some(a), None) => (strings(a)?, false),
            (None, Some(a)) => (strings(a)?, true),
            _ => return Err("one of Action and NotAction is needed".to_owned()),
        };
        let resources = value.get("Resource").map(strings).transpose()?;
        let mut conditions = Vec::new();
        for (operator, keys) in value.get("Condition").and_then(Value::as_object).into_iter().flatten() {
            for (key, values) in keys.as_object().ok_or("a condition is an object")? {
                conditions.push(Condition::parse(operator, key, values)?);
            }
        }
        Ok(Self { allow, principals, not_principal, actions, not_action, resources, conditions })
    }

    fn matches(&self, principal: &Principal, action: &str, resource: &str) -> bool {
        let root = format!("arn:aws:iam::{}:root", principal.account);
        let caller = principal.caller_arn();
        let named =
            |p: &String| p == "*" || *p == principal.account || *p == root || *p == principal.role_arn || *p == caller;
        let action = action.to_ascii_lowercase();
        let acts = self.actions.iter().any(|a| glob(&a.to_ascii_lowercase(), &action));
        self.principals.iter().any(named) != self.not_principal
            && acts != self.not_action
            && self.resources.as_ref().is_none_or(|list| list.iter().any(|r| glob(r, resource)))
            && self.conditions.iter().all(|c| c.holds(principal))
    }
}

impl Condition {
    fn parse(operator: &str, key: &str, values: &Value) -> Result<Self, String> {
        let (name, if_exists) = match operator.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (operator, false),
        };
        let (operator, negated) = match name {
            "StringEquals" => (Operator::Equals, false),
            "StringNotEquals" => (Operator::Equals, true),
            "StringLike" | "ArnLike" | "ArnEquals" => (Operator::Like, false),
            "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (Operator::Like, true),
            "Bool" => (Operator::Bool, false),
            other => return Err(format!("condition operator {other} is not known here")),
        };
        Ok(Self { operator, negated, if_exists, key: key.to_ascii_lowercase(), values: strings(values)? })
    }

    fn holds(&self, principal: &Principal) -> bool {
        let actual = match self.key.as_str() {
            "aws:principalarn" => Some(principal.role_arn.clone()),
            "aws:principalaccount" | "aws:sourceaccount" => Some(principal.account.clone()),
            "aws:userid" => Some(format!("AROASANDBOX:{}", principal.session)),
            "aws:securetransport" => Some("true".to_owned()),
            "aws:principalisawsservice" => Some("false".to_owned()),
            "aws:sourceidentity" => principal.source_identity.clone(),
            other => other
                .strip_prefix("aws:principaltag/")
                .and_then(|tag| principal.tags.iter().find(|(k, _)| k.eq_ignore_ascii_case(tag)))
                .map(|(_, v)| v.clone()),
        };
        // As in IAM, if the key is absent, negated operators and `IfExists` hold, and all others do
        // not.
        let Some(actual) = actual else { return self.if_exists || self.negated };
        let any = self.values.iter().any(|value| match self.operator {
            Operator::Equals => *value == actual,
            Operator::Like => glob(value, &actual),
            Operator::Bool => value.eq_ignore_ascii_case(&actual),
        });
        any != self.negated
    }
}

/// Matches IAM's wildcards `*` and `?`. Backtracks only to the last star.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&b) if b == b'?' || text.get(t) == Some(&b) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, matched)) => {
                    star = Some((at, matched + 1));
                    p = at + 1;
                    t = matched + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> Principal {
        Principal::role("222222222222", "relay/relay-demo", "s")
    }

    #[test]
    fn globs() {
        assert!(glob("arn:*:role/relay/*", "arn:aws:iam::222222222222:role/relay/x"));
        assert!(!glob("arn:*:role/relay/*", "arn:aws:iam::222222222222:role/other/x"));
        assert!(glob("*", "") && glob("a?c", "abc") && !glob("a?c", "ac") && glob("a*b*c", "axxbyybzc"));
    }

    #[test]
    fn another_account_needs_an_allow_and_its_condition() {
        let policy = Policy::parse(
            r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::222222222222:root"},
                "Action":"sqs:SendMessage","Resource":"q",
                "Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::222222222222:role/relay/*"}}}]}"#,
        )
        .unwrap();
        assert_eq!(policy.decide(&runner(), "sqs:SendMessage", "q"), Decision::Allow);
        assert_eq!(policy.decide(&runner(), "sqs:ReceiveMessage", "q"), Decision::Silent);
        let tool = Principal::role("222222222222", "relay-deploy/x", "s");
        assert_eq!(policy.decide(&tool, "sqs:SendMessage", "q"), Decision::Silent);
        assert!(authorise("111111111111", Some(&policy), &tool, "sqs:SendMessage", "q").is_err());
        assert!(authorise("222222222222", None, &tool, "sqs:SendMessage", "q").is_ok());
    }

    #[test]
    fn a_denial_wins_and_the_unknown_is_refused() {
        let policy = Policy::parse(
            r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"*"},
                {"Effect":"Deny","Principal":"*","NotAction":"kms:Verify"}]}"#,
        )
        .unwrap();
        assert_eq!(policy.decide(&runner(), "kms:Sign", "k"), Decision::Deny);
        assert_eq!(policy.decide(&runner(), "kms:Verify", "k"), Decision::Allow);
        let odd =
            r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Condition":{"DateLessThan":{"a":"b"}}}}"#;
        assert!(Policy::parse(odd).is_err());
    }
}
