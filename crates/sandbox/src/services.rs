//! The services, each a plain state machine. A call goes in; an answer and effects come out. The
//! host carries out the effects.
//!
//! No service uses another, starts a process, waits or reads a clock: the [`Call`] brings
//! everything from outside that it needs. The services are strict where AWS is, and refuse what
//! they do not understand.

pub(crate) mod ecs;
pub(crate) mod events;
pub(crate) mod fault;
pub(crate) mod issuer;
pub(crate) mod kms;
pub(crate) mod lambda;
pub(crate) mod principal;
pub(crate) mod resource_policy;
pub(crate) mod s3;
pub(crate) mod secrets;
pub(crate) mod sns;
pub(crate) mod sqs;
pub(crate) mod sts;

mod call;
mod contract;
pub(crate) mod fate;
mod invocation;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::wire::answer::Answer;
use crate::wire::error::Outcome;
use crate::wire::service::Service;

pub(crate) use call::{Call, Now};
use contract::Table;
pub(crate) use contract::{Effect, Reaction, Rules};
pub use principal::{CI_ACCOUNT, REGION, TARGET_ACCOUNT};

/// The state of every service, each behind a lock of its own.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) ecs: Mutex<ecs::Ecs>,
    pub(crate) events: Mutex<events::Events>,
    /// GitHub, as an issuer of tokens.
    pub(crate) github: Mutex<issuer::Issuer>,
    pub(crate) kms: Mutex<kms::Kms>,
    pub(crate) lambda: Mutex<lambda::Lambda>,
    pub(crate) s3: Mutex<s3::S3>,
    pub(crate) secrets: Mutex<secrets::Secrets>,
    pub(crate) sns: Mutex<sns::Sns>,
    pub(crate) sqs: Mutex<sqs::Sqs>,
    pub(crate) sts: Mutex<sts::Sts>,
}

/// Locks a service's state, even if a panic poisoned the lock: there is no better state to use.
pub(crate) fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Services {
    /// All services, empty. `secure` is the HTTPS endpoint, where the issuers of tokens are.
    pub(crate) fn new(rules: Rules, secure: &str) -> Self {
        Self {
            ecs: Mutex::new(ecs::Ecs::new(rules)),
            events: Mutex::default(),
            github: Mutex::new(issuer::Issuer::github(&format!("{secure}/issuers/github"))),
            kms: Mutex::default(),
            lambda: Mutex::new(lambda::Lambda::new(rules)),
            s3: Mutex::default(),
            secrets: Mutex::default(),
            sns: Mutex::default(),
            sqs: Mutex::new(sqs::Sqs::new(rules)),
            sts: Mutex::new(sts::Sts::new(rules, issuer::Issuer::sts(&format!("{secure}/issuers/sts")))),
        }
    }

    /// Runs one operation; `None` when there is none of that name.
    pub(crate) fn handle(&self, call: &mut Call, effects: &mut Vec<Effect>) -> Option<Outcome<Reaction>> {
        match call.service {
            Service::Credentials => self.credentials(call),
            Service::Ecs => run(ecs::OPERATIONS, &self.ecs, call, effects),
            Service::Events => run(events::OPERATIONS, &self.events, call, effects),
            Service::Kms => run(kms::OPERATIONS, &self.kms, call, effects),
            Service::Lambda => run(lambda::OPERATIONS, &self.lambda, call, effects),
            Service::Metadata => run(ecs::METADATA, &self.ecs, call, effects),
            Service::Runtime => run(lambda::RUNTIME, &self.lambda, call, effects),
            Service::S3 => run(s3::OPERATIONS, &self.s3, call, effects),
            Service::SecretsManager => run(secrets::SECRETS_MANAGER, &self.secrets, call, effects),
            Service::Sns => run(sns::OPERATIONS, &self.sns, call, effects),
            Service::Sqs => run(sqs::OPERATIONS, &self.sqs, call, effects),
            Service::Ssm => run(secrets::SSM, &self.secrets, call, effects),
            Service::Sts => run(sts::OPERATIONS, &self.sts, call, effects),
        }
    }

    /// Answers the credentials endpoint: ECS knows the task's role, and STS creates the session.
    fn credentials(&self, call: &mut Call) -> Option<Outcome<Reaction>> {
        (call.operation == CREDENTIALS).then(|| {
            let (role, principal) = lock(&self.ecs).role_of(call.params.text_or_empty("task"))?;
            call.note("role", role.as_str());
            let minted = lock(&self.sts).mint(call.now, principal, None);
            let answer = json!({
                "RoleArn": role, "AccessKeyId": minted.access_key, "SecretAccessKey": minted.secret_key,
                "Token": minted.token, "Expiration": minted.expiration(),
            });
            Ok(Answer::Json(answer).into())
        })
    }
}

/// The one operation of the credentials endpoint.
const CREDENTIALS: &str = "Get";

fn run<S>(table: Table<S>, state: &Mutex<S>, call: &mut Call, effects: &mut Vec<Effect>) -> Option<Outcome<Reaction>> {
    let (_, operation) = table.iter().find(|(name, _)| *name == call.operation)?;
    Some(operation(&mut lock(state), call, effects))
}

/// The names of a service's operations.
pub(crate) fn operation_names(service: Service) -> Vec<&'static str> {
    fn names<S>(table: Table<S>) -> Vec<&'static str> {
        table.iter().map(|(name, _)| *name).collect()
    }
    match service {
        Service::Credentials => vec![CREDENTIALS],
        Service::Ecs => names(ecs::OPERATIONS),
        Service::Events => names(events::OPERATIONS),
        Service::Kms => names(kms::OPERATIONS),
        Service::Lambda => names(lambda::OPERATIONS),
        Service::Metadata => names(ecs::METADATA),
        Service::Runtime => names(lambda::RUNTIME),
        Service::S3 => names(s3::OPERATIONS),
        Service::SecretsManager => names(secrets::SECRETS_MANAGER),
        Service::Sns => names(sns::OPERATIONS),
        Service::Sqs => names(sqs::OPERATIONS),
        Service::Ssm => names(secrets::SSM),
        Service::Sts => names(sts::OPERATIONS),
    }
}

/// All operations, as (service, operation) pairs. A test combines each of them with every fault.
pub fn operations() -> Vec<(&'static str, &'static str)> {
    let named = |service: Service| operation_names(service).into_iter().map(move |name| (service.name(), name));
    Service::ALL.into_iter().flat_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_no_duplicates() {
        let all = operations();
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert!(all.contains(&("sqs", "ReceiveMessage")) && all.contains(&("lambda", "Invoke")));
    }
}
