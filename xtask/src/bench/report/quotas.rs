//! AWS's limits: which one a number of deployments a day reaches first, computed from the requests
//! that one deployment makes.

use std::fmt::Write as _;

use serde_json::Value;

use crate::bench::figures::number;

/// The busiest moment of a day, compared with the day's mean.
const PEAK: f64 = 10.0;

const SECONDS_A_DAY: f64 = 86_400.0;

/// A limit on calls a second in one account and region, without an increase.
struct Limit {
    operation: &'static str,
    per_second: f64,
    /// Whether the CI account makes the call; otherwise the target account.
    by_ci: bool,
}

/// The limits that deployments could reach, and their sources: docs/performance.md names them.
const LIMITS: [Limit; 8] = [
    Limit { operation: "ecs:RunTask", per_second: 20.0, by_ci: false },
    Limit { operation: "ecs:DescribeTaskDefinition", per_second: 20.0, by_ci: false },
    Limit { operation: "ecs:DescribeTasks", per_second: 20.0, by_ci: false },
    Limit { operation: "kms:Sign", per_second: 300.0, by_ci: false },
    Limit { operation: "s3:PutObject", per_second: 3_500.0, by_ci: false },
    Limit { operation: "s3:GetObject", per_second: 5_500.0, by_ci: false },
    Limit { operation: "sns:Publish", per_second: 300.0, by_ci: true },
    Limit { operation: "sqs:TagQueue", per_second: 5.0, by_ci: true },
];

/// How much of each limit is used, for numbers of deployments and of target accounts.
pub(super) fn on_paper(results: &Value) -> Option<String> {
    let of_one = &results["growth"]["deployments"].as_array()?.first()?["of_one"];
    let mut out = format!(
        "Which limit is reached first: the share of each limit that is used when {PEAK:.0} times as many deployments begin as \
         in the mean of a day, with one CI account. Above 1, relay waits and retries.\n\n\
         | deployments a day | target accounts | begin a second, in each account | most used in a target account | most used \
         in the CI account |\n|---|---|---|---|---|\n"
    );
    for deployments in [10.0, 1_000.0, 100_000.0] {
        for accounts in [1.0, 50.0, 1_000.0] {
            let all = deployments * PEAK / SECONDS_A_DAY;
            let most = |by_ci: bool| {
                let rate = if by_ci { all } else { all / accounts };
                let limits = LIMITS.iter().filter(|limit| limit.by_ci == by_ci);
                let used = limits.filter_map(|limit| {
                    Some((limit.operation, rate * number(&of_one[limit.operation])? / limit.per_second))
                });
                used.max_by(|one, other| one.1.total_cmp(&other.1))
                    .map_or_else(String::new, |(operation, share)| format!("{operation}, {share:.4}"))
            };
            let _ = writeln!(
                out,
                "| {deployments} | {accounts} | {:.5} | {} | {} |",
                all / accounts,
                most(false),
                most(true),
            );
        }
    }
    let each =
        LIMITS.iter().filter_map(|limit| Some((limit.operation, number(&of_one[limit.operation])?, limit.per_second)));
    let each: Vec<String> =
        each.map(|(operation, count, limit)| format!("{operation} {count:.1} times (limit {limit:.0})")).collect();
    let _ = writeln!(out, "\nA small deployment calls {}.", each.join(", "));
    Some(out)
}

/// What many deployments that begin at the same time meet, with limits as throttle rules.
pub(super) fn on_the_sandbox(results: &Value) -> Option<String> {
    let part = &results["quotas"];
    let pairs = |of: &Value| -> Option<String> {
        Some(of.as_object()?.iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>().join(", "))
    };
    Some(format!(
        "The same limits on the sandbox, a {}th of AWS's, and {} deployments that begin at the same time: half of them had ended after {:.0} s, the last after {:.0} s. Throttled calls: {}. Exit codes: {}.\n",
        number(&part["factor"])?,
        part["deployments"],
        number(&part["median_seconds"])?,
        number(&part["last_seconds"])?,
        pairs(&part["throttled"])?,
        pairs(&part["exit_codes"])?,
    ))
}
