//! What every check works with: both accounts, the list of what must be taken down, and the
//! verdict. Whatever a check makes is on the list before it is made, so nothing is left behind
//! after a failure or a Ctrl-C.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_console::Failure;
use serde_json::{Value, json};

use crate::account::{Account, Refused};
use crate::install;

/// How often a check asks again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The account behaves as relay assumes that AWS does; with what was measured.
    AsOnAws(String),
    /// It behaves differently.
    Differs(String),
    /// The check cannot be made here.
    NotApplicable(String),
}

impl Verdict {
    pub(crate) fn yes(measured: impl Into<String>) -> Outcome {
        Ok(Self::AsOnAws(measured.into()))
    }

    pub(crate) fn no(found: impl Into<String>) -> Outcome {
        Ok(Self::Differs(found.into()))
    }

    /// As on AWS if the call was refused with one of these codes.
    pub(crate) fn refused_with<T>(answer: Result<T, Refused>, codes: &[&str]) -> Outcome {
        match answer {
            Err(refused) if codes.iter().any(|code| refused.code.contains(code)) => Self::yes(refused.code),
            Err(refused) => Self::no(format!("the refusal is another: {refused}")),
            Ok(_) => Self::no("the call succeeded"),
        }
    }

    /// As on AWS if the condition holds.
    pub(crate) fn of(holds: bool, found: impl Into<String>) -> Outcome {
        if holds { Self::yes(found) } else { Self::no(found) }
    }
}

/// Why a check has no verdict.
#[derive(Debug)]
pub(crate) enum Problem {
    /// AWS refused a call that the check needs.
    Refused(Refused),
    /// The check cannot go on for another reason.
    Other(String),
    /// A person stopped the self-test.
    Interrupted,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.error)
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

pub(crate) type Outcome = Result<Verdict, Problem>;

type Undo = Box<dyn Fn() -> Result<(), Refused>>;

/// Where tasks can run: what the stacks have made.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) subnets: Vec<String>,
    pub(crate) security_group: String,
    pub(crate) execution_role: String,
    /// An image with a shell, named by its digest.
    pub(crate) image: String,
    /// The folder with relay.toml and the key of CI.
    pub(crate) folder: PathBuf,
    /// The session of CI's role.
    pub(crate) ci: Account,
}

/// Both accounts under test.
pub(crate) struct Trial<'a> {
    pub(crate) ci: Account,
    pub(crate) target: Account,
    /// The prefix of all names, different in each self-test.
    pub(crate) name: String,
    pub(crate) place: Option<Place>,
    interrupted: &'a AtomicBool,
    undo: RefCell<Vec<(String, Undo)>>,
    queues: u32,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(ci: Account, target: Account, name: String, interrupted: &'a AtomicBool) -> Self {
        Self { ci, target, name, place: None, interrupted, undo: RefCell::default(), queues: 0 }
    }

    /// Where tasks can run, once the stacks are there.
    pub(crate) fn place(&self) -> Result<Place, Problem> {
        self.place.clone().ok_or_else(|| Problem::Other("the stacks are not installed".to_owned()))
    }

    /// Notes how to undo what is about to be made.
    pub(crate) fn later(&self, what: impl Into<String>, undo: impl Fn() -> Result<(), Refused> + 'static) {
        self.undo.borrow_mut().push((what.into(), Box::new(undo)));
    }

    /// Notes the one call that undoes what is about to be made.
    pub(crate) fn later_call(&self, account: &Account, service: &'static str, operation: &'static str, with: Value) {
        let account = account.clone();
        let what = format!("{service} {operation} {with} in account {}", account.id);
        self.later(what, move || account.call(service, operation, &with).map(|_| ()));
    }

    /// Takes everything down, the newest first. Returns what is left, and why.
    pub(crate) fn take_down(&self) -> Vec<String> {
        let mut left = Vec::new();
        loop {
            let Some((what, undo)) = self.undo.borrow_mut().pop() else { return left };
            let mut problem = None;
            // AWS may refuse to delete what another resource still uses, which is on its way out.
            for seconds in [0, 5, 10] {
                std::thread::sleep(Duration::from_secs(seconds));
                problem = undo().err().filter(|refused| !is_gone(refused));
                if problem.is_none() {
                    break;
                }
            }
            left.extend(problem.map(|refused| format!("{what}: {refused}")));
        }
    }

    /// An error, once a person has stopped the self-test.
    pub(crate) fn go_on(&self) -> Result<(), Problem> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Problem::Interrupted) } else { Ok(()) }
    }

    /// Asks until there is an answer, or `limit` has passed.
    pub(crate) fn until<T>(
        &self,
        limit: Duration,
        mut ask: impl FnMut() -> Result<Option<T>, Problem>,
    ) -> Result<Option<T>, Problem> {
        let end = Instant::now() + limit;
        loop {
            self.go_on()?;
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes a bucket in the target account, of the self-test's name and a suffix.
    pub(crate) fn bucket(&self, suffix: &str) -> Result<String, Problem> {
        let name = format!("{}-{suffix}", self.name);
        make_bucket(self, &self.target, &name)?;
        Ok(name)
    }

    /// Makes a queue in an account. Returns its URL.
    pub(crate) fn queue(&mut self, account: &Account) -> Result<String, Problem> {
        self.queues += 1;
        let name = format!("{}-{}", self.name, self.queues);
        let answer = account.call("sqs", "create-queue", &json!({ "QueueName": name }))?;
        let url = text(&answer, "QueueUrl")?;
        self.later_call(account, "sqs", "delete-queue", json!({ "QueueUrl": url }));
        Ok(url)
    }

    /// Makes a role in an account that the account's own identities may assume, with one policy.
    /// Returns its ARN.
    pub(crate) fn role(
        &self,
        account: &Account,
        suffix: &str,
        trust: &[&str],
        policy: Option<Value>,
    ) -> Result<String, Problem> {
        let name = format!("{}-{suffix}", self.name);
        let partition = account.region.partition();
        let trust = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": trust,
            "Principal": {"AWS": format!("arn:{partition}:iam::{}:root", account.id)},
        }]});
        self.later_call(account, "iam", "delete-role", json!({ "RoleName": name }));
        let role = json!({"RoleName": name, "AssumeRolePolicyDocument": trust.to_string()});
        let arn = text(&account.call("iam", "create-role", &role)?["Role"], "Arn")?;
        if let Some(statement) = policy {
            let policy = json!({"Version": "2012-10-17", "Statement": statement});
            self.later_call(account, "iam", "delete-role-policy", json!({"RoleName": name, "PolicyName": "may"}));
            let policy = json!({"RoleName": name, "PolicyName": "may", "PolicyDocument": policy.to_string()});
            account.call("iam", "put-role-policy", &policy)?;
        }
        Ok(arn)
    }

    /// Assumes a role as soon as AWS lets it be assumed, which may take half a minute.
    pub(crate) fn assume(&self, account: &Account, arn: &str) -> Result<Account, Problem> {
        let parameters = json!({"RoleArn": arn, "RoleSessionName": self.name});
        let mut last = None;
        let session = self.until(Duration::from_secs(120), || {
            Ok(account.call("sts", "assume-role", &parameters).map_err(|refused| last = Some(refused)).ok())
        })?;
        match (session, last) {
            (Some(session), _) => Ok(account.with_session(&session)?),
            (None, Some(refused)) => Err(refused.into()),
            (None, None) => Err(Problem::Other(format!("{arn} cannot be assumed"))),
        }
    }
}

/// Makes a bucket that is emptied and removed in the end.
pub(crate) fn make_bucket(trial: &Trial<'_>, account: &Account, name: &str) -> Result<(), Problem> {
    let (owner, bucket) = (account.clone(), name.to_owned());
    trial.later(format!("bucket {name} in account {}", account.id), move || remove_bucket(&owner, &bucket));
    Ok(install::make_bucket(account, name)?)
}

/// Removes a bucket with all versions of its objects.
pub(crate) fn remove_bucket(account: &Account, name: &str) -> Result<(), Refused> {
    loop {
        let page = json!({"Bucket": name, "MaxKeys": 500});
        let listed = account.call("s3api", "list-object-versions", &page)?;
        let all = ["Versions", "DeleteMarkers"].iter().flat_map(|kind| listed[kind].as_array().into_iter().flatten());
        let objects: Vec<Value> =
            all.map(|object| json!({"Key": object["Key"], "VersionId": object["VersionId"]})).collect();
        if objects.is_empty() {
            break;
        }
        let delete = json!({"Bucket": name, "Delete": {"Objects": objects, "Quiet": true}});
        let answer = account.call("s3api", "delete-objects", &delete)?;
        if let Some(error) = answer["Errors"].get(0) {
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            return Err(Refused {
                call: "s3api delete-objects".to_owned(),
                code: text("Code"),
                message: text("Message"),
            });
        }
    }
    account.call("s3api", "delete-bucket", &json!({ "Bucket": name })).map(|_| ())
}

/// Whether a refusal says that the thing does not exist, or is being deleted already.
pub(crate) fn is_gone(refused: &Refused) -> bool {
    let words = ["NoSuch", "NotFound", "NonExistent", "does not exist", "PendingDeletion", "pending deletion"];
    words.iter().any(|word| refused.code.contains(word) || refused.message.contains(word))
}

/// The string under `key` of an answer.
pub(crate) fn text(answer: &Value, key: &str) -> Result<String, Problem> {
    let found = answer[key].as_str().map(str::to_owned);
    found.ok_or_else(|| Problem::Other(format!("the answer has no {key}: {answer}")))
}
