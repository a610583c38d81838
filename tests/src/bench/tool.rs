//! The tool that is deployed for measurements. It writes lines that carry the time of their
//! writing, or bulk output whose digest is known in advance.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Failure, Outcome};

/// Bytes that are made once and written repeatedly, with a different number in front each time. The
/// block is so large that no frame spans two of them. So the repetition does not help compression.
const BLOCK: usize = 8 << 20;

/// Nanoseconds since the Unix epoch. All processes of the bench read the same clock.
pub(crate) fn now_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// The schedule of the lines. Contenders take turns: each has every `of`-th slot, so that a
/// disturbance affects all of them.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// This file appears when every contender is ready. It holds the start time, in nanoseconds
    /// since the Unix epoch.
    pub(crate) gate: PathBuf,
    pub(crate) slot: Duration,
    pub(crate) turn: u32,
    pub(crate) of: u32,
    pub(crate) slots: u32,
    pub(crate) lines: u32,
    pub(crate) pause: Duration,
}

impl Lines {
    /// The schedule as arguments of this program.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let numbers = [
            self.slot.as_nanos(),
            self.turn.into(),
            self.of.into(),
            self.slots.into(),
            self.lines.into(),
            self.pause.as_nanos(),
        ];
        let mut arguments = vec!["lines".to_owned(), self.gate.to_string_lossy().into_owned()];
        arguments.extend(numbers.iter().map(ToString::to_string));
        arguments
    }

    fn parse(arguments: &[&str]) -> Result<Self, Failure> {
        let [gate, slot, turn, of, slots, lines, pause] = arguments else {
            return Err("tool lines takes seven arguments".into());
        };
        let nanos = |text: &str| text.parse().map(Duration::from_nanos);
        Ok(Self {
            gate: PathBuf::from(gate),
            slot: nanos(slot)?,
            turn: turn.parse()?,
            of: of.parse()?,
            slots: slots.parse()?,
            lines: lines.parse()?,
            pause: nanos(pause)?,
        })
    }

    /// The total number of lines.
    pub(crate) fn count(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.lines)
    }

    fn write(&self) -> Outcome {
        let mut out = io::stdout().lock();
        out.write_all(b"ready\n")?;
        out.flush()?;
        let begin = self.wait()?;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut line = String::new();
        for slot in 0..self.slots {
            let from = begin + nanos(self.slot) * (u64::from(slot) * u64::from(self.of) + u64::from(self.turn));
            for at in 0..self.lines {
                let due = from + nanos(self.pause) * u64::from(at);
                let early = due.saturating_sub(now_ns());
                if early > 0 {
                    std::thread::sleep(Duration::from_nanos(early));
                }
                let number = u64::from(slot) * u64::from(self.lines) + u64::from(at);
                line.clear();
                writeln!(line, "{} {number} aws_instance.web[{at}]: Still creating... [id=i-{number:08x}]", now_ns())?;
                out.write_all(line.as_bytes())?;
                out.flush()?;
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<u64, Failure> {
        // The parent ends within minutes. If it does not, nothing reads the output any more.
        for _ in 0..60_000 {
            match std::fs::read_to_string(&self.gate) {
                Ok(text) => return Ok(text.parse()?),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        Err("the gate was not opened in time".into())
    }
}

/// Opens the gate for every tool that waits at it. `begin` is in nanoseconds since the Unix epoch.
pub(crate) fn open(gate: &Path, begin: u64) -> Outcome {
    let beside = gate.with_extension("new");
    std::fs::write(&beside, begin.to_string())?;
    Ok(std::fs::rename(beside, gate)?)
}

/// The kinds of bulk output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines of a log: a time, a level, words, ids.
    Text,
    /// Bytes that do not compress.
    Random,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Random => "random",
        }
    }
}

/// Passes the first `size` bytes of the endless output of `kind` to `take`, a block at a time.
pub(crate) fn output(kind: Kind, size: u64, mut take: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    let mut block = match kind {
        Kind::Text => text(),
        Kind::Random => random(),
    };
    let mut left = size;
    for number in 0_u64.. {
        let head = format!("{number:>16}\n");
        block[..head.len()].copy_from_slice(head.as_bytes());
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        take(&block[..part])?;
        left -= part as u64;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// A pseudo-random generator, good enough for test data only.
fn noise() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn random() -> Vec<u8> {
    let mut next = noise();
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        block.extend_from_slice(&next().to_le_bytes());
    }
    block
}

fn text() -> Vec<u8> {
    const LEVELS: [&str; 4] = ["INFO", "INFO", "DEBUG", "WARN"];
    const WORDS: [&str; 16] = [
        "module.network.aws_subnet.private",
        "module.network.aws_route_table.main",
        "aws_ecs_service.payments",
        "aws_iam_role_policy.task",
        "aws_security_group_rule.ingress",
        "aws_lb_target_group.blue",
        "Refreshing state...",
        "Still creating...",
        "Creation complete after",
        "Modifications complete after",
        "Reading...",
        "Read complete after",
        "waiting for rollout to finish:",
        "provider registry.terraform.io/hashicorp/aws",
        "request to endpoint took",
        "retrying, the service said",
    ];
    let mut next = noise();
    let mut block = String::with_capacity(BLOCK + 256);
    let mut millis = 0;
    while block.len() < BLOCK {
        let dice = next();
        let word = |shift: u32| WORDS[usize::from((dice >> shift) as u8 & 15)];
        let level = LEVELS[usize::from(dice as u8 & 3)];
        millis += dice >> 8 & 31;
        let (seconds, thousandths) = (millis / 1_000, millis % 1_000);
        // Writing to a string cannot fail.
        let _ = writeln!(
            block,
            "2026-01-31T12:{:02}:{:02}.{thousandths:03}Z {level:<5} {} {} [id={:016x}] {}s",
            seconds / 60 % 60,
            seconds % 60,
            word(16),
            word(24),
            next(),
            dice >> 40 & 255,
        );
    }
    let mut block = block.into_bytes();
    block.truncate(BLOCK);
    block
}

/// Runs `bench tool …`, which is the command of a deployment.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    match arguments {
        ["lines", rest @ ..] => Lines::parse(rest)?.write(),
        ["text", size] => write(Kind::Text, size.parse()?),
        ["random", size] => write(Kind::Random, size.parse()?),
        _ => Err("usage: tool lines … | text BYTES | random BYTES".into()),
    }
}

fn write(kind: Kind, size: u64) -> Outcome {
    let mut out = io::stdout().lock();
    output(kind, size, |bytes| Ok(out.write_all(bytes)?))
}
