//! The report of a part: a table for the terminal, and JSON for machines.

use std::io;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

/// Facts and findings, in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Report {
    part: String,
    scale: f64,
    began: Instant,
    facts: Vec<(String, Value)>,
    wrong: Vec<String>,
}

impl Report {
    pub(crate) fn new(part: &str, scale: f64) -> Self {
        Self { part: part.to_owned(), scale, began: Instant::now(), facts: Vec::new(), wrong: Vec::new() }
    }

    /// Adds a fact.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.push((name.to_owned(), value.into()));
    }

    /// Adds a finding: something that must not happen.
    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Adds a finding if the condition does not hold.
    pub(crate) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// Prints the report and writes it to `folder`. Returns whether there are no findings.
    pub(crate) fn end(mut self, folder: &Path) -> io::Result<bool> {
        let took = self.began.elapsed().as_secs();
        self.fact("seconds", took);
        println!("soak {} (scale {})", self.part, self.scale);
        for (name, value) in &self.facts {
            println!("  {name:<44} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        for what in &self.wrong {
            println!("  WRONG: {what}");
        }
        let facts: Map<String, Value> = self.facts.into_iter().collect();
        let report = json!({ "part": self.part, "scale": self.scale, "facts": facts, "wrong": self.wrong });
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{}.json", self.part)), format!("{report:#}\n"))?;
        Ok(self.wrong.is_empty())
    }
}
