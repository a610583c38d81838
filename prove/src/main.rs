//! `relay-prove`: proves properties of a target's policies for every request that there could be,
//! or shows one that breaks them. `relay-admin target prove` and `target diff` run it.
//!
//! A property is a condition that every permitted request fulfils. It is written as a policy that
//! permits exactly these, and the question is whether the target's policies imply it. Cedar's
//! symbolic compiler turns the question into SMT, and cvc5 answers it.
//!
//! What is proved is about policies alone: that a signature, an approval or a claim is what it
//! says, the launcher and the runner check. Arithmetic in a policy may still overflow; relay then
//! denies.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicySet, Env};
use clap::Parser;
use relay_policy::{Configuration, Policies};
use serde::Deserialize;

/// How long the solver may take for one question.
const PATIENCE: Duration = Duration::from_secs(60);

/// The actions that policies decide about.
const ACTIONS: [&str; 3] = ["approve", "cancel", "deploy"];

/// Prove what a target's policies permit.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Prove the properties in a file, each for every request that there could be.
    ///
    /// Exits with 0 if all hold, and with 1 if one does not; then it shows a request that breaks
    /// it.
    Prove {
        /// The target's configuration.
        file: PathBuf,
        /// The properties [default: FILE with the ending .properties.toml].
        #[arg(long, value_name = "FILE")]
        properties: Option<PathBuf>,
    },
    /// Prove that a new version of a target permits nothing that the old one did not.
    ///
    /// Exits with 0 if that is so, and with 1 if not; then it shows a request that only the new
    /// version permits.
    Diff {
        /// The old configuration.
        old: PathBuf,
        /// The new configuration.
        new: PathBuf,
    },
}

/// The form of a file of properties.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    property: Vec<Property>,
}

/// A condition that every permitted request of an action fulfils.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Property {
    name: String,
    action: String,
    /// A Cedar expression over `principal`, `resource` and `context`.
    always: String,
}

type Outcome<T> = Result<T, String>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let run = match Command::parse() {
        Command::Prove { file, properties } => prove(&file, properties.as_deref()).await,
        Command::Diff { old, new } => diff(&old, &new).await,
    };
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(119)
        }
    }
}

async fn prove(file: &Path, properties: Option<&Path>) -> Outcome<bool> {
    let configuration = load(file)?;
    let path = properties.map_or_else(|| file.with_extension("properties.toml"), Path::to_owned);
    let properties: File = toml::from_str(&read(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut all_hold = true;
    for Property { name, action, always } in &properties.property {
        let wrong = |problem: String| format!("{}: the property `{name}`: {problem}", path.display());
        if !ACTIONS.contains(&action.as_str()) {
            return Err(wrong(format!("there is no action `{action}`; there are {}", ACTIONS.join(", "))));
        }
        let text = format!("permit(principal, action == Action::\"{action}\", resource) when {{ {always} }};");
        let wanted = Policies::parse(&text, &configuration.parameters).map_err(|error| wrong(error.to_string()))?;
        match implied(&configuration.policies, &wanted, action).await.map_err(wrong)? {
            None => println!("proved    {name}"),
            Some(broken) => {
                all_hold = false;
                println!("BROKEN    {name}: this request is permitted, and does not fulfil `{always}`");
                println!("{}", indented(&broken));
            }
        }
    }
    Ok(all_hold)
}

async fn diff(old: &Path, new: &Path) -> Outcome<bool> {
    let (before, after) = (load(old)?, load(new)?);
    if before.parameters.keys().ne(after.parameters.keys()) {
        return Err("the two versions have other parameters, so their policies cannot be compared".to_owned());
    }
    let mut nothing_new = true;
    for action in ACTIONS {
        match implied(&after.policies, &before.policies, action).await? {
            None => println!("proved    {action}: nothing is permitted that was not permitted before"),
            Some(only_new) => {
                nothing_new = false;
                println!("NEW       {action}: this request is permitted now, and was not before");
                println!("{}", indented(&only_new));
            }
        }
    }
    Ok(nothing_new)
}

/// A request of `action` that `policies` permit and `wanted` does not; `None` if there is none.
async fn implied(policies: &Policies, wanted: &Policies, action: &str) -> Outcome<Option<Env>> {
    let solver = LocalSolver::cvc5().map_err(|error| {
        format!("the solver cvc5 cannot be started ({error}): install it (Debian's package is `cvc5`), or name it in the variable CVC5")
    })?;
    let mut compiler = CedarSymCompiler::new(solver).map_err(|error| error.to_string())?;
    let schema = policies.schema();
    let about = schema.request_envs().find(|env| env.action().id().unescaped() == action);
    let about = about.ok_or_else(|| format!("the schema has no action `{action}`"))?;
    let compile = |policies: &Policies| {
        CompiledPolicySet::compile(policies.set(), &about, schema).map_err(|error| error.to_string())
    };
    let (policies, wanted) = (compile(policies)?, compile(wanted)?);
    let asking = compiler.check_implies_with_counterexample_opt(&policies, &wanted);
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    let seconds = PATIENCE.as_secs();
    answer.map_err(|_| format!("the solver has found no answer within {seconds} s"))?.map_err(|error| error.to_string())
}

fn load(file: &Path) -> Outcome<Configuration> {
    Configuration::parse(&read(file)?).map_err(|error| format!("{}: {error}", file.display()))
}

fn read(file: &Path) -> Outcome<String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// The request, each line behind a bar. Control characters are escaped: the solver chooses texts.
fn indented(example: &Env) -> String {
    let text = example.to_string();
    let escaped = |line: &str| {
        line.chars()
            .flat_map(|c| if c.is_control() { c.escape_unicode().collect() } else { vec![c] })
            .collect::<String>()
    };
    text.lines().map(|line| format!("          │ {}", escaped(line))).collect::<Vec<_>>().join("\n")
}
