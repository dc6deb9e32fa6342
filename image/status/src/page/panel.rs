//! What a panel is made of, before it becomes HTML.

use super::Language;

/// How urgent something looks. Always shown as a word and a sign, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tone {
    /// Nobody knows.
    Unknown,
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Somebody should look.
    Attention,
    /// Somebody has to act.
    Bad,
}

impl Tone {
    /// The class in the style.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Attention => "attention",
            Self::Bad => "bad",
        }
    }

    /// The sign beside the word, for who does not see the colour.
    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::Unknown => "?",
            Self::Good => "✓",
            Self::Busy => "…",
            Self::Attention => "!",
            Self::Bad => "✕",
        }
    }

    /// The word in a panel's head.
    pub(crate) const fn word(self, language: Language) -> &'static str {
        match self {
            Self::Unknown => language.pick("unknown", "unbekannt"),
            Self::Good => language.pick("good", "gut"),
            Self::Busy => language.pick("under way", "läuft"),
            Self::Attention => language.pick("look here", "beachten"),
            Self::Bad => language.pick("act now", "handeln"),
        }
    }
}

/// A value, how urgent it is, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// The text; empty is shown as a dash.
    pub(crate) text: String,
    /// A smaller second line.
    pub(crate) note: String,
    /// Its tone, where it has one.
    pub(crate) tone: Option<Tone>,
    /// Whether it is set in a fixed pitch.
    pub(crate) fixed: bool,
    /// Whether it stands below its name and not beside it.
    pub(crate) wide: bool,
}

impl Cell {
    /// Plain text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), note: String::new(), tone: None, fixed: false, wide: false }
    }

    /// What may not be known.
    pub(crate) fn known(text: Option<impl Into<String>>) -> Self {
        Self::text(text.map(Into::into).unwrap_or_default())
    }

    /// In a fixed pitch: addresses, fingerprints.
    pub(crate) fn fixed(text: impl Into<String>) -> Self {
        Self { fixed: true, ..Self::text(text) }
    }

    /// With a second line.
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Below its name.
    pub(crate) fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// With a tone.
    pub(crate) fn tone(self, tone: Tone) -> Self {
        Self { tone: Some(tone), ..self }
    }
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// One a column.
    pub(crate) cells: Vec<Cell>,
    /// What stands below, over all columns.
    pub(crate) below: String,
}

/// A table of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The columns' heads.
    pub(crate) head: Vec<&'static str>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
    /// Rows that are left out.
    pub(crate) left_out: usize,
}

/// One of the six panels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Its title.
    pub(crate) title: &'static str,
    /// The tone of the whole.
    pub(crate) tone: Tone,
    /// Names and values.
    pub(crate) rows: Vec<(String, Cell)>,
    /// A table below them.
    pub(crate) table: Option<Table>,
    /// Whether the table stands above.
    pub(crate) table_first: bool,
    /// Lines below that.
    pub(crate) notes: Vec<Cell>,
}

impl Panel {
    /// An empty one.
    pub(crate) const fn new(title: &'static str, tone: Tone) -> Self {
        Self { title, tone, rows: Vec::new(), table: None, table_first: false, notes: Vec::new() }
    }

    /// Adds a name and its value.
    pub(crate) fn row(&mut self, name: &str, cell: Cell) {
        self.rows.push((name.to_owned(), cell));
    }

    /// Makes the whole at least this urgent.
    pub(crate) fn raise(&mut self, tone: Tone) {
        self.tone = self.tone.max(tone);
    }
}
