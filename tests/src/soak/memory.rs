//! Samples the memory of processes while they run and compares each process with itself. A leak
//! shows as a second half that is higher than the first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use relay_tests::Sandbox;
use rustix::process::Pid;

use crate::report::Report;

/// The number of parts into which the report divides the run time of a process.
const PARTS: usize = 8;

/// A thread that samples until it is stopped.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, Vec<u64>>>,
}

/// The resident memory of a process in KiB, or `None` if it has ended.
fn resident(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

impl Sampler {
    pub(crate) fn start(processes: Vec<(String, Pid)>, every: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut samples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for (name, pid) in &processes {
                    if let Some(size) = resident(*pid) {
                        samples.entry(name.clone()).or_default().push(size);
                    }
                }
                std::thread::sleep(every);
            }
            samples
        });
        Self { stop, thread }
    }

    /// Reports the highest memory of each process and checks that it stayed flat: the maximum of
    /// its second half may exceed that of its first by at most `slack` KiB. The sandbox keeps its
    /// whole history, so it may grow.
    pub(crate) fn end(self, report: &mut Report, slack: u64) {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.thread.join().expect("the sampler does not panic");
        for (name, sizes) in samples {
            if sizes.len() < PARTS {
                report.wrong(format!("{name}: too few memory samples: {}", sizes.len()));
                continue;
            }
            let part = |n: usize| sizes.get(sizes.len() * n / PARTS..sizes.len() * (n + 1) / PARTS);
            let highest: Vec<u64> = (0..PARTS).filter_map(part).filter_map(|part| part.iter().copied().max()).collect();
            // The first part is left out, because the process starts up in it.
            let most =
                |parts: Range<usize>| highest.get(parts).into_iter().flatten().copied().max().unwrap_or_default();
            let (early, late) = (most(1..PARTS / 2), most(PARTS / 2..PARTS));
            report.fact(&format!("{name}: KiB at most, by eighths"), highest);
            if name != "sandbox" {
                report.demand(late <= early + slack, || format!("{name} grows: {early} KiB, then {late} KiB"));
            }
        }
    }
}

/// The processes of a deployment, once all of them run.
pub(crate) fn processes(sandbox: &Sandbox, cli: Pid) -> Vec<(String, Pid)> {
    let runner = relay_tests::eventually("the runner runs", || sandbox.tasks().iter().find_map(relay_tests::Task::pid));
    let mut processes =
        vec![("cli".to_owned(), cli), ("runner".to_owned(), runner), ("sandbox".to_owned(), sandbox.pid())];
    let launchers = sandbox.launchers().into_iter().enumerate();
    processes.extend(launchers.map(|(n, pid)| (format!("launcher {n}"), pid)));
    processes
}
