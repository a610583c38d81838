//! AWS's rate limits: what becomes of many deployments that begin at the same time, while the calls
//! that AWS limits most are limited here too, all by the same factor.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use serde_json::{Value, json};

use crate::{Form, Outcome};

/// The limits as AWS has them: service, operation, burst and calls a second. docs/performance.md
/// names the sources.
const LIMITS: [(&str, &str, f64, f64); 5] = [
    ("ecs", "RunTask", 20.0, 20.0),
    ("ecs", "DescribeTaskDefinition", 50.0, 20.0),
    ("ecs", "DescribeTasks", 100.0, 20.0),
    ("sqs", "TagQueue", 5.0, 5.0),
    ("kms", "Sign", 300.0, 300.0),
];

/// By how much the limits are lower here, so that fewer deployments reach them.
const FACTOR: f64 = 10.0;

/// Runs the deployments, which all begin at the same time.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let live: u32 = form.pick(16, 48, 128);
    let head = Head { concurrency: 2 * live, ..Head::default() };
    // As many launchers as answer at the same time, if every request waits for RunTask.
    let options = Options { launchers: live as usize / 4, ..Options::default() };
    let sandbox = Sandbox::start(options.target("bench/quotas", target("bench/quotas", &head, SHELL)));
    let rules = LIMITS.map(|(service, operation, burst, per_second)| {
        let (burst, per_second) = ((burst / FACTOR).max(1.0), per_second / FACTOR);
        format!(
            "[[rule]]\nservice = \"{service}\"\noperation = \"{operation}\"\nkind = \"throttle\"\n\
             quota = {{ burst = {burst:?}, per_second = {per_second:?} }}\n"
        )
    });
    sandbox.set_faults(&rules.concat());
    let (ends, began) = (Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..live {
            scope.spawn(|| {
                let deploy =
                    sandbox.deploy("bench/quotas").param("script", "echo deployed").bound(Duration::from_secs(400));
                let done = deploy.run();
                let end = (done.code, began.elapsed().as_secs_f64());
                ends.lock().unwrap_or_else(PoisonError::into_inner).push(end);
            });
        }
    });
    let mut ends = ends.into_inner().unwrap_or_else(PoisonError::into_inner);
    ends.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut throttled: BTreeMap<String, u32> = BTreeMap::new();
    for entry in sandbox.log().iter().filter(|entry| !entry.faults.is_empty()) {
        *throttled.entry(format!("{}:{}", entry.service, entry.operation)).or_default() += 1;
    }
    let mut codes: BTreeMap<i32, u32> = BTreeMap::new();
    ends.iter().for_each(|(code, _)| *codes.entry(*code).or_default() += 1);
    let at = |share: usize| ends.get((ends.len() * share / 100).min(ends.len() - 1)).map(|(_, at)| *at);
    let result = json!({
        "deployments": live, "factor": FACTOR, "median_seconds": at(50), "last_seconds": at(100),
        "throttled": throttled, "exit_codes": codes,
    });
    println!("{result}");
    Ok(result)
}
