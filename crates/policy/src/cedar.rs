//! The Cedar policies of a target: parsing, validation against the target's own schema, and
//! evaluation.
//!
//! Without a policy, everything is denied. Any evaluation error denies too: Cedar by itself would
//! skip a `forbid` that fails to evaluate, and let a `permit` through.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr as _;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression, Schema,
    ValidationMode, Validator,
};
use relay_protocol::keys::KnownSigner;
use relay_protocol::{ParameterName, TargetName, Timestamp};

use crate::deep::{self, on_deep_stack};
use crate::parameters::ParameterRule;

/// The policies of one target, with the schema that results from its parameters.
pub struct Policies {
    set: PolicySet,
    schema: Schema,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("policies", &self.set.num_of_policies()).finish_non_exhaustive()
    }
}

/// Why a policy text is invalid, or why the policies gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text is not Cedar.
    #[error("not valid Cedar: {0}")]
    Parse(String),
    /// The text is Cedar, but does not match the schema.
    #[error("{0}")]
    Invalid(String),
    /// The text has a template, which decides nothing: nobody links it.
    #[error(
        "{0} is a template (`?principal` or `?resource`), and relay has nothing to fill it with: name a group or a target"
    )]
    Template(String),
    /// The text nests so deeply that Cedar could not read it safely.
    #[error("{0}")]
    TooDeep(String),
    /// The text has no policy, so everything would be denied.
    #[error("there is no policy, so everything is denied: write at least one permit")]
    Empty,
    /// The question could not be expressed in the schema. This indicates a bug.
    #[error("cannot ask the policies: {0}")]
    Question(String),
    /// The evaluation of a policy failed, so everything is denied.
    #[error("a policy could not be evaluated, so everything is denied: {0}")]
    Evaluation(String),
}

/// A question to the policies.
#[derive(Debug)]
pub struct Question<'a> {
    /// The signer who asks.
    pub signer: &'a KnownSigner,
    /// The action: `deploy` or `cancel`.
    pub action: &'static str,
    /// The target of the deployment.
    pub target: &'a TargetName,
    /// The parameters of the request.
    pub parameters: &'a BTreeMap<ParameterName, String>,
    /// The time that the policies see: when the request or control statement was made, as it states
    /// itself, or the launcher's own clock.
    pub at: Timestamp,
    /// The number of distinct persons who approved, not counting those who ask.
    pub approvals: u32,
}

/// The claims that a signer may have. A missing claim is an empty string, so that a condition on it
/// is false and never an error.
const CLAIMS: [&str; 4] = ["repository_id", "repository_owner_id", "environment", "job_workflow_ref"];

fn schema(parameters: &BTreeMap<ParameterName, ParameterRule>) -> String {
    let claims: String = CLAIMS.iter().map(|claim| format!(", {claim}: String")).collect();
    let parameters: Vec<String> = parameters.keys().map(|name| format!("\"{name}\": String")).collect();
    format!(
        "entity Group;
         entity Signer in [Group] = {{ name: String, person: String, key_id: String{claims} }};
         entity Target = {{ service: String, environment: String }};
         type Asked = {{ parameters: {{ {} }}, issued_at: datetime, weekday: String, hour: Long, approvals: Long }};
         action deploy, cancel appliesTo {{ principal: [Signer], resource: [Target], context: Asked }};",
        parameters.join(", ")
    )
}

impl Policies {
    /// Reads and validates policies. `parameters` define the members of `context.parameters`.
    ///
    /// # Errors
    ///
    /// If the text is not Cedar, nests too deeply, has a template or no policy, or does not match
    /// the schema.
    pub fn parse(text: &str, parameters: &BTreeMap<ParameterName, ParameterRule>) -> Result<Self, PolicyError> {
        deep::check(text).map_err(|error| PolicyError::TooDeep(error.to_string()))?;
        on_deep_stack(|| Self::read(text, parameters)).ok_or_else(no_stack)?
    }

    fn read(text: &str, parameters: &BTreeMap<ParameterName, ParameterRule>) -> Result<Self, PolicyError> {
        let set = PolicySet::from_str(text).map_err(|error| PolicyError::Parse(error.to_string()))?;
        if let Some(template) = set.templates().next() {
            return Err(PolicyError::Template(template.annotation("id").unwrap_or(template.id().as_ref()).to_owned()));
        }
        if set.num_of_policies() == 0 {
            return Err(PolicyError::Empty);
        }
        let (schema, _) = Schema::from_cedarschema_str(&schema(parameters))
            .map_err(|error| PolicyError::Invalid(error.to_string()))?;
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(PolicyError::Invalid(error.to_string()));
        }
        Ok(Self { set, schema })
    }

    /// The validator's warnings, such as policies that can never match, or look-alike characters.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = || {
            let result = Validator::new(self.schema.clone()).validate(&self.set, ValidationMode::Strict);
            result.validation_warnings().map(ToString::to_string).collect()
        };
        on_deep_stack(warnings).unwrap_or_else(|| vec![no_stack().to_string()])
    }

    /// The groups that the policies name.
    pub(crate) fn groups(&self) -> BTreeSet<String> {
        self.collect(group)
    }

    /// The numbers of approvals that the policies ask for.
    pub(crate) fn approvals(&self) -> BTreeSet<i64> {
        self.collect(approvals)
    }

    /// Collects what `find` finds in the nodes of the policies' JSON form.
    fn collect<T: Ord + Send>(&self, find: fn(&Node) -> Option<T>) -> BTreeSet<T> {
        let all = || {
            let mut found = BTreeSet::new();
            for json in self.set.policies().filter_map(|policy| policy.to_json().ok()) {
                walk(&json, &mut |node| found.extend(find(node)));
            }
            found
        };
        on_deep_stack(all).unwrap_or_default()
    }

    /// Asks the policies. `Ok(Some(ids))` means permitted, by these policies; `Ok(None)` means
    /// denied.
    ///
    /// # Errors
    ///
    /// If the question does not match the schema, or if any policy fails to evaluate. The caller
    /// must deny.
    pub fn ask(&self, question: &Question<'_>) -> Result<Option<Vec<String>>, PolicyError> {
        on_deep_stack(|| self.answer(question)).ok_or_else(no_stack)?
    }

    fn answer(&self, question: &Question<'_>) -> Result<Option<Vec<String>>, PolicyError> {
        let put = |error: String| PolicyError::Question(error);
        let principal = uid("Signer", &question.signer.key_id)?;
        let resource = uid("Target", question.target.as_str())?;
        let action = uid("Action", question.action)?;
        let groups =
            question.signer.groups.iter().map(|group| uid("Group", group)).collect::<Result<HashSet<_>, _>>()?;
        let (service, environment) = question.target.as_str().split_once('/').unwrap_or_default();
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let mut attributes = vec![
            ("name", text(&question.signer.name)),
            ("person", text(&question.signer.person)),
            ("key_id", text(&question.signer.key_id)),
        ];
        attributes.extend(CLAIMS.iter().map(|claim| (*claim, text(""))));
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut entities: Vec<Entity> =
            groups.iter().map(|group| Entity::new_no_attrs(group.clone(), HashSet::new())).collect();
        entities.push(Entity::new(principal.clone(), attributes, groups).map_err(|error| put(error.to_string()))?);
        let about = [("service".to_owned(), text(service)), ("environment".to_owned(), text(environment))].into();
        entities.push(Entity::new(resource.clone(), about, HashSet::new()).map_err(|error| put(error.to_string()))?);
        let entities = Entities::from_entities(entities, Some(&self.schema)).map_err(|error| put(error.to_string()))?;
        let context = serde_json::json!({
            "parameters": question.parameters,
            "issued_at": { "__extn": { "fn": "datetime", "arg": question.at.to_string() } },
            "weekday": question.at.weekday(),
            "hour": question.at.hour(),
            "approvals": question.approvals,
        });
        let context =
            Context::from_json_value(context, Some((&self.schema, &action))).map_err(|error| put(error.to_string()))?;
        let request = Request::new(principal, action, resource, context, Some(&self.schema))
            .map_err(|error| put(error.to_string()))?;
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(PolicyError::Evaluation(error.to_string()));
        }
        let named =
            |id: &cedar_policy::PolicyId| self.set.annotation(id, "id").map_or_else(|| id.to_string(), str::to_owned);
        Ok((response.decision() == Decision::Allow).then(|| {
            let mut ids: Vec<String> = response.diagnostics().reason().map(named).collect();
            ids.sort();
            ids
        }))
    }
}

fn no_stack() -> PolicyError {
    PolicyError::Evaluation("the thread that evaluates policies could not be started, or failed".to_owned())
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, PolicyError> {
    let kind =
        cedar_policy::EntityTypeName::from_str(kind).map_err(|error| PolicyError::Question(error.to_string()))?;
    Ok(EntityUid::from_type_name_and_id(kind, cedar_policy::EntityId::new(id)))
}

/// An object in the JSON form of a policy.
type Node = serde_json::Map<String, serde_json::Value>;

/// Hands every object to `visit`.
fn walk(json: &serde_json::Value, visit: &mut impl FnMut(&Node)) {
    match json {
        serde_json::Value::Object(node) => {
            visit(node);
            node.values().for_each(|value| walk(value, visit));
        }
        serde_json::Value::Array(array) => array.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

/// The id in `{"type":"Group","id":…}`.
fn group(node: &Node) -> Option<String> {
    let text = |name: &str| node.get(name)?.as_str();
    if text("type") == Some("Group") { text("id").map(str::to_owned) } else { None }
}

/// The smallest number of approvals that a comparison with `context.approvals` accepts.
fn approvals(node: &Node) -> Option<i64> {
    let (operator, sides) = node.iter().next()?;
    let side = |name: &str| sides.get(name);
    let is_approvals =
        |side: &serde_json::Value| side.pointer("/./attr").and_then(|attr| attr.as_str()) == Some("approvals");
    let number = |side: &serde_json::Value| side.get("Value").and_then(serde_json::Value::as_i64);
    let (left, right) = (side("left")?, side("right")?);
    match operator.as_str() {
        ">=" | "==" if is_approvals(left) => number(right),
        ">" if is_approvals(left) => number(right)?.checked_add(1),
        "<=" | "==" if is_approvals(right) => number(left),
        "<" if is_approvals(right) => number(left)?.checked_add(1),
        _ => None,
    }
}
