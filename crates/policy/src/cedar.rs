//! The Cedar policies of a target: parsing, validation against the target's own schema, and
//! evaluation.
//!
//! Without a policy, everything is denied. Any evaluation error denies too: Cedar by itself would
//! skip a `forbid` that fails to evaluate, and let a `permit` through.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr as _;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression, Schema,
    ValidationMode, Validator,
};
use relay_protocol::keys::KnownSigner;
use relay_protocol::{ParameterName, TargetName, Timestamp};

use crate::deep::{self, on_deep_stack};
use crate::parameters::ParameterRule;
use crate::saved::Saved;

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
    /// The action.
    pub action: Action<'a>,
    /// The target of the deployment.
    pub target: &'a TargetName,
    /// The parameters of the request.
    pub parameters: &'a BTreeMap<ParameterName, String>,
    /// The time that the policies see: when the request, approval or control statement was made, as
    /// it states itself, or the launcher's own clock.
    pub at: Timestamp,
    /// The number of distinct persons whose approvals count; 0 for an approval.
    pub approvals: u32,
    /// Whether relay knows the person behind each signer of the request.
    pub requester_known: bool,
    /// The artifacts that another target saved. A question about a cancel has none.
    pub saved: &'a BTreeMap<ParameterName, Saved>,
}

impl Question<'_> {
    /// The signer of the request.
    fn requester(&self) -> &KnownSigner {
        match self.action {
            Action::Approve { requester } => requester,
            Action::Deploy | Action::Cancel => self.signer,
        }
    }
}

/// What a signer wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// Deploy.
    Deploy,
    /// Stop a deployment.
    Cancel,
    /// Approve a request.
    Approve {
        /// The signer of the request, or one of them.
        requester: &'a KnownSigner,
    },
}

impl Action<'_> {
    /// The name of the action in Cedar.
    fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Cancel => "cancel",
            Self::Approve { .. } => APPROVE,
        }
    }
}

const APPROVE: &str = "approve";

/// The schema. The claims of a token are tags of its signer: a policy has to ask whether there is
/// one before it may read it, so that a missing claim is never an empty string.
fn schema(parameters: &BTreeMap<ParameterName, ParameterRule>) -> String {
    let saved = parameters.iter().filter(|(_, rule)| matches!(rule, ParameterRule::SavedBy { .. }));
    let saved: Vec<String> = saved.map(|(name, _)| format!("\"{name}\": Saved")).collect();
    let saved = if saved.is_empty() { String::new() } else { format!(", saved: {{ {} }}", saved.join(", ")) };
    let parameters: Vec<String> = parameters.keys().map(|name| format!("\"{name}\": String")).collect();
    let asked = format!(
        "parameters: {{ {} }}, issued_at: datetime, weekday: String, hour: Long, approvals: Long, requester_known: Bool",
        parameters.join(", ")
    );
    format!(
        "entity Group;
         entity Signer in [Group] = {{ name: String, kind: String, person?: String, key_id: String }} tags String;
         entity Target = {{ service: String, environment: String }};
         type Saved = {{ exit_code: Long, age_seconds: Long, same_requester: Bool, requester: Signer }};
         type Asked = {{ {asked} }};
         type Deployed = {{ {asked}{saved} }};
         type Approved = {{ {asked}{saved}, requester: Signer }};
         action deploy appliesTo {{ principal: [Signer], resource: [Target], context: Deployed }};
         action cancel appliesTo {{ principal: [Signer], resource: [Target], context: Asked }};
         action {APPROVE} appliesTo {{ principal: [Signer], resource: [Target], context: Approved }};"
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

    /// The policies, for programs that prove something about them.
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The schema that the policies were validated with.
    pub fn schema(&self) -> &Schema {
        &self.schema
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

    /// The tags of signers that the policies ask for.
    pub(crate) fn tags(&self) -> BTreeSet<String> {
        self.collect(tag)
    }

    /// Whether the policies ask if the requester is known.
    pub(crate) fn ask_for_the_requester(&self) -> bool {
        !self.collect(|node| (node.get("attr").is_some_and(|attr| attr == "requester_known")).then_some(())).is_empty()
    }

    /// Whether there is a permit at all.
    pub(crate) fn can_permit(&self) -> bool {
        self.any(|policy| policy["effect"] == "permit")
    }

    /// The tags that a permit asks for in the negative: whoever lacks such a claim is permitted.
    pub(crate) fn negated_tags(&self) -> BTreeSet<String> {
        let all = || {
            let mut found = BTreeSet::new();
            let permits = self.set.policies().filter_map(|policy| policy.to_json().ok());
            for policy in permits.filter(|policy| policy["effect"] == "permit") {
                negated(&policy, &mut found);
            }
            found
        };
        on_deep_stack(all).unwrap_or_default()
    }

    /// Whether a permit can apply to approvals.
    pub(crate) fn can_approve(&self) -> bool {
        self.any(permits_approvals)
    }

    /// Whether this is true of any policy's JSON form.
    fn any(&self, is: fn(&serde_json::Value) -> bool) -> bool {
        let any = || self.set.policies().filter_map(|policy| policy.to_json().ok()).any(|json| is(&json));
        on_deep_stack(any).unwrap_or_default()
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
        let action = uid("Action", question.action.name())?;
        let (service, environment) = question.target.as_str().split_once('/').unwrap_or_default();
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let about = [("service".to_owned(), text(service)), ("environment".to_owned(), text(environment))].into();
        let mut context = serde_json::json!({
            "parameters": question.parameters,
            "issued_at": { "__extn": { "fn": "datetime", "arg": question.at.to_string() } },
            "weekday": question.at.weekday(),
            "hour": question.at.hour(),
            "approvals": question.approvals,
            "requester_known": question.requester_known,
        });
        let mut entities = HashMap::new();
        add(question.signer, &mut entities)?;
        if let Action::Approve { requester } = question.action {
            add(requester, &mut entities)?;
            context["requester"] = serde_json::json!({ "__entity": { "type": "Signer", "id": requester.key_id } });
        }
        if !question.saved.is_empty() {
            context["saved"] = saved(question, &mut entities)?;
        }
        let target = Entity::new(resource.clone(), about, HashSet::new()).map_err(|error| put(error.to_string()))?;
        entities.insert(resource.clone(), target);
        let entities = Entities::from_entities(entities.into_values(), Some(&self.schema))
            .map_err(|error| put(error.to_string()))?;
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

/// What the policies see of each saved artifact. Its requester is an entity of its own: the same
/// signer may have signed with other claims then.
fn saved(question: &Question<'_>, entities: &mut HashMap<EntityUid, Entity>) -> Result<serde_json::Value, PolicyError> {
    let mut all = serde_json::Map::new();
    for (name, saved) in question.saved {
        let id = format!("saved/{name}");
        if let Some(by) = saved.signers.first() {
            // A record does not say of what kind its signers are.
            let attributes = vec![("name", by.name.as_str()), ("kind", "unknown"), ("key_id", by.key_id.as_str())];
            add_signer(&id, attributes, HashSet::new(), &by.claims, entities)?;
        }
        let facts = serde_json::json!({
            "exit_code": saved.exit_code,
            "age_seconds": question.at.since(saved.finished_at),
            "same_requester": saved.is_by(question.requester()),
            "requester": { "__entity": { "type": "Signer", "id": id } },
        });
        all.insert(name.to_string(), facts);
    }
    Ok(serde_json::Value::Object(all))
}

/// Adds a signer with its groups.
fn add(signer: &KnownSigner, entities: &mut HashMap<EntityUid, Entity>) -> Result<(), PolicyError> {
    let groups = signer.groups.iter().map(|group| uid("Group", group)).collect::<Result<HashSet<_>, _>>()?;
    let mut attributes =
        vec![("name", signer.name.as_str()), ("kind", signer.kind.name()), ("key_id", signer.key_id.as_str())];
    attributes.extend(signer.kind.person().map(|person| ("person", person)));
    add_signer(&signer.key_id, attributes, groups, &signer.claims, entities)
}

fn add_signer(
    id: &str,
    attributes: Vec<(&str, &str)>,
    groups: HashSet<EntityUid>,
    claims: &BTreeMap<String, String>,
    entities: &mut HashMap<EntityUid, Entity>,
) -> Result<(), PolicyError> {
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let id = uid("Signer", id)?;
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), text(value)));
    let tags = claims.iter().map(|(name, value)| (name.clone(), text(value)));
    entities.extend(groups.iter().map(|group| (group.clone(), Entity::new_no_attrs(group.clone(), HashSet::new()))));
    let entity = Entity::new_with_tags(id.clone(), attributes, groups, tags)
        .map_err(|error| PolicyError::Question(error.to_string()))?;
    entities.insert(id, entity);
    Ok(())
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

/// The tag in `{"getTag":{"left":…,"right":{"Value":…}}}`, or in `hasTag`.
fn tag(node: &Node) -> Option<String> {
    let sides = node.get("getTag").or_else(|| node.get("hasTag"))?;
    sides.pointer("/right/Value")?.as_str().map(str::to_owned)
}

/// The tags below `unless`, `!` and `!=`.
fn negated(json: &serde_json::Value, found: &mut BTreeSet<String>) {
    let all_of = |inner: &serde_json::Value, found: &mut BTreeSet<String>| {
        walk(inner, &mut |node| found.extend(tag(node)));
    };
    walk(json, &mut |node| {
        let negation = ["!", "!="].iter().find_map(|operator| node.get(*operator));
        let unless = node.get("kind").filter(|kind| *kind == "unless").and_then(|_| node.get("body"));
        if let Some(inner) = negation.or(unless) {
            all_of(inner, found);
        }
    });
}

/// Whether a policy is a permit whose scope includes the action `approve`.
fn permits_approvals(policy: &serde_json::Value) -> bool {
    let is_approve = |action: &serde_json::Value| action.get("id").and_then(serde_json::Value::as_str) == Some(APPROVE);
    let scope = &policy["action"];
    policy["effect"] == "permit"
        && match scope["op"].as_str() {
            Some("==") => is_approve(&scope["entity"]),
            Some("in") => {
                is_approve(&scope["entity"]) || scope["entities"].as_array().into_iter().flatten().any(is_approve)
            }
            _ => true,
        }
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
