//! Foldable sections in the log of a CI system: relay's step lines become the headers of sections,
//! in that system's own syntax.
//!
//! On GitHub, a line of a log can be a command to its runner. There relay stops commands before the
//! tool prints anything, with a token that the tool cannot know, and resumes them only for its own
//! section lines.
//! Sources: GitHub, "Workflow commands for GitHub Actions"; GitLab, "Custom collapsible sections";
//! Buildkite, "Managing log output".

use relay_console::Failure;
use relay_protocol::outcome::ExitCode;

use crate::args;

/// The syntax of a CI system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    GitHub,
    GitLab,
    Buildkite,
}

/// The sections of one log.
#[derive(Debug)]
pub(crate) struct Fold {
    syntax: Syntax,
    /// The token that lets GitHub's runner execute commands again.
    token: String,
    /// Whether GitHub's runner was told to execute no commands.
    is_stopped: bool,
    /// How many sections were opened.
    opened: usize,
    /// Whether a section is open.
    is_open: bool,
}

impl Fold {
    /// The sections that the caller asks for, or that its CI system knows. `one_file` says whether
    /// stdout and stderr are the same file: only then relay's lines keep their place among the
    /// tool's.
    ///
    /// # Errors
    ///
    /// The caller asks for GitHub's, and the streams are apart: the runner could read a command of
    /// the tool on one stream before it reads on the other that commands are stopped.
    pub(crate) fn of(
        choice: args::Fold,
        one_file: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Failure> {
        let is_set = |name: &str| variable(name).is_some_and(|value| value == "true");
        let syntax = match choice {
            args::Fold::GitHub if !one_file => {
                return Err(Failure::usage("--fold github needs stdout and stderr in one stream")
                    .hint("call relay with 2>&1, or leave --fold out"));
            }
            args::Fold::GitHub => Some(Syntax::GitHub),
            args::Fold::GitLab => Some(Syntax::GitLab),
            args::Fold::Buildkite => Some(Syntax::Buildkite),
            args::Fold::Auto if !one_file => None,
            args::Fold::Auto if is_set("GITHUB_ACTIONS") => Some(Syntax::GitHub),
            args::Fold::Auto if is_set("GITLAB_CI") => Some(Syntax::GitLab),
            args::Fold::Auto if is_set("BUILDKITE") => Some(Syntax::Buildkite),
            args::Fold::Auto | args::Fold::None => None,
        };
        let Some(syntax) = syntax else { return Ok(None) };
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))?;
        let token = format!("{:032x}", u128::from_ne_bytes(token));
        Ok(Some(Self { syntax, token, is_stopped: false, opened: 0, is_open: false }))
    }

    /// The line before what the tool prints, unless GitHub's runner executes no commands already.
    pub(crate) fn before_output(&mut self) -> Option<String> {
        let executes = self.syntax == Syntax::GitHub && !std::mem::replace(&mut self.is_stopped, true);
        executes.then(|| format!("::stop-commands::{}", self.token))
    }

    /// The lines that begin a section with this title, and end the one before. `now` is in seconds
    /// since the Unix epoch.
    pub(crate) fn section(&mut self, title: &str, now: i64) -> String {
        let before = self.end(now).map(|line| line + "\n").unwrap_or_default();
        self.opened += 1;
        self.is_open = true;
        let section = match self.syntax {
            Syntax::GitHub => format!("::group::{}", title.replace('%', "%25")),
            Syntax::GitLab => format!("\x1b[0Ksection_start:{now}:relay_{}\r\x1b[0K{title}", self.opened),
            Syntax::Buildkite => format!("--- {title}"),
        };
        let after = self.before_output().map(|line| format!("\n{line}")).unwrap_or_default();
        format!("{before}{section}{after}")
    }

    /// The lines that end the open section. GitHub's runner executes commands after them.
    pub(crate) fn end(&mut self, now: i64) -> Option<String> {
        let resume = std::mem::take(&mut self.is_stopped).then(|| format!("::{}::", self.token));
        let close = std::mem::take(&mut self.is_open).then(|| match self.syntax {
            Syntax::GitHub => Some("::endgroup::".to_owned()),
            Syntax::GitLab => Some(format!("\x1b[0Ksection_end:{now}:relay_{}\r\x1b[0K", self.opened)),
            // The next section, or the end of the log, ends it.
            Syntax::Buildkite => None,
        });
        let lines: Vec<String> = [resume, close.flatten()].into_iter().flatten().collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(choice: args::Fold, one_file: bool, set: &str) -> Option<Fold> {
        Fold::of(choice, one_file, |name| (name == set).then(|| "true".to_owned())).unwrap()
    }

    #[test]
    fn the_system_is_known_by_its_variable_if_the_streams_are_one() {
        for (set, syntax) in
            [("GITHUB_ACTIONS", Syntax::GitHub), ("GITLAB_CI", Syntax::GitLab), ("BUILDKITE", Syntax::Buildkite)]
        {
            assert_eq!(fold(args::Fold::Auto, true, set).map(|fold| fold.syntax), Some(syntax));
            assert!(fold(args::Fold::Auto, false, set).is_none());
            assert!(fold(args::Fold::None, true, set).is_none());
        }
        assert!(fold(args::Fold::Auto, true, "CI").is_none());
        assert!(Fold::of(args::Fold::GitHub, false, |_| None).is_err());
    }

    /// What the tool prints between two section lines is printed while commands are stopped.
    #[test]
    fn github_executes_only_section_lines() {
        let mut fold = fold(args::Fold::GitHub, true, "").unwrap();
        let mut log = fold.before_output().unwrap() + "\n::set-output name=a::tool\n";
        assert_eq!(fold.before_output(), None);
        for title in ["relay step 1/2 plan", "relay step 2/2 100%"] {
            log += &format!("{}\n::error::tool\n", fold.section(title, 0));
        }
        log += &fold.end(0).unwrap();
        let (token, mut is_stopped, mut executed) = (fold.token.clone(), false, Vec::new());
        for line in log.lines() {
            match line.strip_prefix("::stop-commands::") {
                Some(found) if !is_stopped => is_stopped = found == token,
                _ if is_stopped && line == format!("::{token}::") => is_stopped = false,
                _ if !is_stopped => executed.push(line),
                _ => {}
            }
        }
        let groups = ["::group::relay step 1/2 plan", "::endgroup::", "::group::relay step 2/2 100%25", "::endgroup::"];
        assert_eq!((executed.as_slice(), is_stopped), (groups.as_slice(), false));
        assert_eq!(fold.end(0), None);
    }

    #[test]
    fn a_section_of_gitlab_has_a_name_of_its_own() {
        let mut fold = fold(args::Fold::GitLab, true, "").unwrap();
        assert_eq!(fold.before_output(), None);
        assert_eq!(fold.section("one", 5), "\x1b[0Ksection_start:5:relay_1\r\x1b[0Kone");
        let both = "\x1b[0Ksection_end:6:relay_1\r\x1b[0K\n\x1b[0Ksection_start:6:relay_2\r\x1b[0Ktwo";
        assert_eq!(fold.section("two", 6), both);
        assert_eq!(fold.end(7).as_deref(), Some("\x1b[0Ksection_end:7:relay_2\r\x1b[0K"));
        assert_eq!(fold.end(8), None);
    }
}
