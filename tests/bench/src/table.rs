//! The table and its JSON.

use std::path::Path;

/// One row.
struct Row {
    name: String,
    what: String,
    value: f64,
    unit: String,
    aim: String,
}

/// Figures in the order they were taken.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Adds a figure and shows it at once.
    pub(crate) fn figure(&mut self, name: &str, what: &str, value: f64, unit: &str, aim: &str) {
        eprintln!("{name} = {value:.3} {unit}");
        self.0.push(Row { name: name.to_owned(), what: what.to_owned(), value, unit: unit.to_owned(), aim: aim.to_owned() });
    }

    /// Prints all rows.
    pub(crate) fn print(&self) {
        println!("{:<34} {:>14} {:<12} {:<14} what", "figure", "value", "unit", "aim");
        for row in &self.0 {
            println!("{:<34} {:>14.3} {:<12} {:<14} {}", row.name, row.value, row.unit, row.aim, row.what);
        }
    }

    /// Writes a flat object of name to number; figures of an earlier partial run stay.
    pub(crate) fn write(&self, path: &Path, keep_others: bool) -> anyhow::Result<()> {
        let earlier = keep_others.then(|| std::fs::read(path).ok()).flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut object: serde_json::Map<String, serde_json::Value> = earlier.unwrap_or_default();
        object.extend(self.0.iter().map(|row| (row.name.clone(), serde_json::json!((row.value * 1e4).round() / 1e4))));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&object)?)?)
    }
}
