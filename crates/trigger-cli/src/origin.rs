//! Where a request comes from, as the CI system's variables say. It informs people who read the
//! record, and decides nothing.

use relay_protocol::request::{Origin, Text};

/// Returns the origin, as far as the environment names it.
pub(crate) fn origin(variable: impl Fn(&str) -> Option<String>) -> Origin {
    let text = |name: &str| variable(name).filter(|value| !value.is_empty()).map(|value| Text::lossy(&value));
    let system = |name: &str| Some(Text::lossy(name));
    if variable("GITHUB_ACTIONS").is_some() {
        let url = match (variable("GITHUB_SERVER_URL"), variable("GITHUB_REPOSITORY"), variable("GITHUB_RUN_ID")) {
            (Some(server), Some(repository), Some(run)) => {
                Some(Text::lossy(&format!("{server}/{repository}/actions/runs/{run}")))
            }
            _ => None,
        };
        return Origin {
            system: system("github"),
            run_url: url,
            commit: text("GITHUB_SHA"),
            actor: text("GITHUB_ACTOR"),
        };
    }
    if variable("GITLAB_CI").is_some() {
        return Origin {
            system: system("gitlab"),
            run_url: text("CI_JOB_URL"),
            commit: text("CI_COMMIT_SHA"),
            actor: text("GITLAB_USER_LOGIN"),
        };
    }
    if variable("JENKINS_URL").is_some() {
        return Origin {
            system: system("jenkins"),
            run_url: text("BUILD_URL"),
            commit: text("GIT_COMMIT"),
            actor: text("BUILD_USER_ID"),
        };
    }
    Origin::default()
}
