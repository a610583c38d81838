//! The memory of a process, sampled while it runs: the peak, and whether it grows. Also its
//! processor time, which is more telling than a clock when other processes use the same cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PERIOD: Duration = Duration::from_millis(50);

/// The largest number of points in a curve.
const POINTS: usize = 100;

/// Linux's clock ticks per second, as user space sees them.
const TICKS: f64 = 100.0;

/// The time since the start, the resident set, and the highest resident set so far. Memory is in
/// KiB.
type Sample = (Duration, u64, u64);

/// Memory of the whole machine that programs could still have, in MiB.
pub(crate) fn available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() >> 10
}

/// Watches one process to its end.
#[derive(Debug)]
pub(crate) struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    processor: Arc<Mutex<f64>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts to sample. `pid` is polled until it returns a process id.
    pub(crate) fn start(pid: impl Fn() -> Option<u32> + Send + 'static) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (into, stopped) = (Arc::clone(&samples), Arc::clone(&stop));
        let processor: Arc<Mutex<f64>> = Arc::default();
        let latest = Arc::clone(&processor);
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut found = None;
            while !stopped.load(Ordering::Acquire) {
                found = found.or_else(&pid);
                if let Some((resident, peak)) = found.and_then(resident) {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), resident, peak));
                }
                if let Some(seconds) = found.and_then(|pid| processor_seconds(&pid.to_string())) {
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = seconds;
                }
                std::thread::sleep(PERIOD);
            }
        });
        Self { samples, processor, stop, thread }
    }

    /// The processor time in seconds, the peak in MiB, the growth, and the curve. The growth is the
    /// mean of the run's last quarter minus the mean of its second quarter.
    pub(crate) fn end(self) -> Value {
        self.stop.store(true, Ordering::Release);
        // If the watching thread panicked, there are no samples to report.
        let _ = self.thread.join();
        let samples = std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        let peak = samples.last().map_or(0, |(_, _, peak)| *peak);
        let quarter = samples.len() / 4;
        let mean = |from: usize| {
            let part = samples.iter().skip(from).take(quarter).map(|(_, resident, _)| mib(*resident));
            part.sum::<f64>() / f64::from(u32::try_from(quarter).unwrap_or(u32::MAX).max(1))
        };
        let curve: Vec<Value> = samples
            .iter()
            .step_by(samples.len() / POINTS + 1)
            .map(|(at, resident, _)| json!([at.as_secs_f64(), mib(*resident)]))
            .collect();
        json!({
            "cpu_seconds": *self.processor.lock().unwrap_or_else(PoisonError::into_inner),
            "peak_mib": mib(peak),
            "growth_mib": mean(quarter * 3) - mean(quarter),
            "samples": samples.len(),
            "curve": curve,
        })
    }
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1_024.0
}

fn resident(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// The processor time that a process has used so far, in user and system mode. The pid `self` is
/// this process.
pub(crate) fn processor_seconds(pid: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain spaces.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok().map(f64::from);
    Some((ticks()? + ticks()?) / TICKS)
}
