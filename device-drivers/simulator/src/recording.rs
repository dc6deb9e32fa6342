//! Real recordings of vital signs, as charted at the bedside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitalgate_domain::Metric;

/// First line of a recording file.
const HEADER: &str = "patient,offset_s,vital,value,unit";

/// Why a recording could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file could not be read.
    #[error("{path}: the recording cannot be read; check that the file is there")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The first line is another one.
    #[error("line 1: not a recording; expected {HEADER:?}")]
    Header,
    /// A line does not have its five columns, or an offset that is no number.
    #[error("line {line}: {what}; expected {HEADER:?}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// One charted value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChartedValue {
    /// What was observed.
    pub metric: Metric,
    /// The number as charted.
    pub value: Arc<str>,
    /// The UCUM unit as charted.
    pub unit: Arc<str>,
}

/// What was charted for one patient at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChartedSet {
    /// Seconds since the patient's admission.
    pub offset_s: u64,
    /// The values, in the order of the file.
    pub values: Vec<ChartedValue>,
}

/// Charted sets of several patients.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    patients: BTreeMap<Arc<str>, Vec<ChartedSet>>,
    left_out: usize,
}

/// What the vital's name in a recording means in the catalogue. Glucose in serum has no metric of
/// its own there, and another specimen's code would be wrong: such rows are left out.
fn metric_of(vital: &str) -> Option<Metric> {
    match vital {
        "sao2" => Some(Metric::OxygenSaturation),
        other => Metric::parse(other),
    }
}

impl Recording {
    /// Loads a `patient,offset_s,vital,value,unit` file, sorted by patient and offset.
    ///
    /// # Errors
    /// When the file cannot be read or is no recording.
    pub fn load(path: &Path) -> Result<Self, RecordingError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecordingError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// Names the first line that is no recording's.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, header)| header.trim_end()) != Some(HEADER) {
            return Err(RecordingError::Header);
        }
        let mut recording = Self::default();
        for (index, line) in lines {
            recording.take(line.trim_end(), index + 1)?;
        }
        Ok(recording)
    }

    fn take(&mut self, text: &str, line: usize) -> Result<(), RecordingError> {
        let columns: Vec<&str> = text.split(',').collect();
        let [patient, offset, vital, value, unit] = columns[..] else {
            return Err(RecordingError::Line { line, what: "not five columns" });
        };
        let offset_s = offset.parse().map_err(|_| RecordingError::Line { line, what: "the offset is not a number of seconds" })?;
        let Some(metric) = metric_of(vital) else {
            self.left_out += 1;
            return Ok(());
        };
        let sets = self.patients.entry(Arc::from(patient)).or_default();
        let value = ChartedValue { metric, value: Arc::from(value), unit: Arc::from(unit) };
        match sets.last_mut() {
            // A vital charted twice for one moment starts another set: two values are two readings.
            Some(set) if set.offset_s == offset_s && set.values.iter().all(|other| other.metric != metric) => set.values.push(value),
            _ => sets.push(ChartedSet { offset_s, values: vec![value] }),
        }
        Ok(())
    }

    /// The patients, sorted.
    pub fn patients(&self) -> impl Iterator<Item = &Arc<str>> {
        self.patients.keys()
    }

    /// What was charted for a patient, in order of time; empty for an unknown one.
    #[must_use]
    pub fn sets(&self, patient: &str) -> &[ChartedSet] {
        self.patients.get(patient).map_or(&[], Vec::as_slice)
    }

    /// Rows that no metric of the catalogue stands for.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository_recording() -> Recording {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vitals-replay.csv");
        Recording::load(&path).unwrap()
    }

    #[test]
    fn every_charted_row_is_replayed_or_counted_as_left_out() {
        let recording = repository_recording();
        let replayed: usize = recording.patients().flat_map(|patient| recording.sets(patient)).map(|set| set.values.len()).sum();
        assert_eq!(recording.patients().count(), 36);
        assert_eq!(replayed + recording.left_out(), 21_739);
        assert_eq!(recording.left_out(), 132, "only glucose in serum has no metric");
    }

    #[test]
    fn a_set_holds_what_was_charted_at_one_moment() {
        let recording = repository_recording();
        let first = &recording.sets("c12-132551")[0];
        assert_eq!((first.offset_s, first.values.len()), (0, 6));
        assert_eq!(first.values[1].metric, Metric::HeartRate);
        assert_eq!(&*first.values[1].value, "111");
    }

    #[test]
    fn a_file_that_is_no_recording_is_refused_with_its_line() {
        assert!(matches!(Recording::parse("a,b\n"), Err(RecordingError::Header)));
        let text = format!("{HEADER}\np,x,heart_rate,1,/min\n");
        assert!(matches!(Recording::parse(&text), Err(RecordingError::Line { line: 2, .. })));
    }
}
