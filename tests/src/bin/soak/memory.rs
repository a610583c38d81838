//! The memory of processes while they run: sampled, and held against itself. What grows with what it has handled shows as a later half that is
//! higher than the earlier.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use relay_tests::Sandbox;
use rustix::process::Pid;

use crate::report::Report;

/// By how much the later half may be higher than the earlier, in KiB: an allocator's own ups and downs.
const SLACK: u64 = 4 * 1_024;

/// Samples until it is stopped.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, Vec<u64>>>,
}

/// KiB that a process has in memory; none when it is gone.
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

    /// Says for each process how high it went, and that it stayed flat; the sandbox keeps all that ever happened, and may grow.
    pub(crate) fn end(self, report: &mut Report) {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.thread.join().expect("the sampler does not panic");
        for (name, sizes) in samples {
            // What a process needs to get going is in neither half.
            let half = |from: usize, to: usize| {
                sizes.get(sizes.len() * from / 8..sizes.len() * to / 8).into_iter().flatten().copied().max()
            };
            let (Some(early), Some(late)) = (half(1, 4), half(4, 8)) else {
                report.wrong(format!("{name}: too few samples of its memory: {}", sizes.len()));
                continue;
            };
            report.fact(&format!("{name}: KiB, earlier half"), early);
            report.fact(&format!("{name}: KiB, later half"), late);
            if name != "sandbox" {
                report.demand(late <= early + early / 10 + SLACK, || {
                    format!("{name} grows: {early} KiB, then {late} KiB")
                });
            }
        }
    }
}

/// A deployment's processes, once they are all there.
pub(crate) fn processes(sandbox: &Sandbox, cli: Pid) -> Vec<(String, Pid)> {
    let runner = relay_tests::eventually("the runner runs", || sandbox.tasks().iter().find_map(relay_tests::Task::pid));
    let mut processes =
        vec![("cli".to_owned(), cli), ("runner".to_owned(), runner), ("sandbox".to_owned(), sandbox.pid())];
    let launchers = sandbox.launchers().into_iter().enumerate();
    processes.extend(launchers.map(|(n, pid)| (format!("launcher {n}"), pid)));
    processes
}
