//! The table and its JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// One row.
struct Row {
    name: String,
    what: String,
    value: f64,
    unit: String,
    aim: String,
}

/// Figures in the order they were taken.
pub(crate) struct Table {
    rows: Vec<Row>,
    /// The flat object of name to number.
    output: PathBuf,
    /// The part that is measured.
    part: String,
    /// The figures of each part, those of an earlier run included.
    parts: BTreeMap<String, Map<String, Value>>,
}

impl Table {
    /// Begins a run. Of what an earlier one wrote only the figures of these parts stay: whatever becomes of this run, no figure that
    /// it was to measure is an earlier one's.
    pub(crate) fn begin(output: &Path, kept: &[&str]) -> anyhow::Result<Self> {
        if let Some(folder) = output.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let earlier = std::fs::read(by_part(output)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut parts: BTreeMap<String, Map<String, Value>> = earlier.unwrap_or_default();
        parts.retain(|part, _| kept.contains(&part.as_str()));
        let table = Self { rows: Vec::new(), output: output.to_owned(), part: String::new(), parts };
        table.write()?;
        Ok(table)
    }

    /// The figures from here on are of this part.
    pub(crate) fn part(&mut self, part: &str) {
        part.clone_into(&mut self.part);
    }

    /// Adds a figure and shows it at once.
    pub(crate) fn figure(&mut self, name: &str, what: &str, value: f64, unit: &str, aim: &str) {
        eprintln!("{name} = {value:.3} {unit}");
        let figures = self.parts.entry(self.part.clone()).or_default();
        figures.insert(name.to_owned(), json!((value * 1e4).round() / 1e4));
        self.rows.push(Row { name: name.to_owned(), what: what.to_owned(), value, unit: unit.to_owned(), aim: aim.to_owned() });
    }

    /// Prints all rows.
    pub(crate) fn print(&self) {
        println!("{:<34} {:>14} {:<12} {:<14} what", "figure", "value", "unit", "aim");
        for row in &self.rows {
            println!("{:<34} {:>14.3} {:<12} {:<14} {}", row.name, row.value, row.unit, row.aim, row.what);
        }
    }

    /// Writes the flat object, and beside it which part each figure is of.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let flat: Map<String, Value> = self.parts.values().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
        std::fs::write(&self.output, serde_json::to_vec_pretty(&flat)?)?;
        Ok(std::fs::write(by_part(&self.output), serde_json::to_vec_pretty(&self.parts)?)?)
    }
}

/// The file beside the flat object.
fn by_part(output: &Path) -> PathBuf {
    output.with_extension("parts.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that measures each of these as a figure of its own part.
    fn run(output: &Path, kept: &[&str], measured: &[(&str, f64)]) -> anyhow::Result<()> {
        let mut table = Table::begin(output, kept)?;
        for (part, value) in measured {
            table.part(part);
            table.figure(&format!("{part}_per_s"), "", *value, "", "");
        }
        table.write()
    }

    fn written(output: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(output).unwrap()).unwrap()
    }

    /// Promise: no figure in the file is of an earlier run but those of parts that were not to be measured.
    #[test]
    fn a_run_that_breaks_off_leaves_no_figure_of_an_earlier_one() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("new/bench.json");
        run(&output, &[], &[("commit", 1.0), ("drain", 2.0)])?;
        // Broken off after its first part; its figures are as good as any.
        run(&output, &[], &[("commit", 3.0)])?;
        assert_eq!(written(&output), json!({"commit_per_s": 3.0}));
        // Killed before its first figure.
        Table::begin(&output, &[])?;
        assert_eq!(written(&output), json!({}));
        Ok(())
    }

    #[test]
    fn figures_of_parts_that_are_not_to_be_measured_stay() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("bench.json");
        run(&output, &[], &[("commit", 1.0), ("drain", 2.0), ("latency", 3.0)])?;
        run(&output, &["commit"], &[("drain", 4.0)])?;
        assert_eq!(written(&output), json!({"commit_per_s": 1.0, "drain_per_s": 4.0}));
        Ok(())
    }

    /// A file of which nobody knows which part its figures are of.
    #[test]
    fn figures_of_no_known_part_do_not_stay() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("bench.json");
        std::fs::write(&output, r#"{"commit_per_s": 1.0}"#)?;
        Table::begin(&output, &["commit"])?;
        assert_eq!(written(&output), json!({}));
        Ok(())
    }
}
