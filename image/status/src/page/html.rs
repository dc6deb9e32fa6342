//! HTML. Text from elsewhere passes through [`Html::text`] only; markup is ours and constant.

use vitalgate_layout::StateWord;

use super::panel::{Cell, Panel, Table, Tone};
use super::{Language, STYLE, advice, panels, spell};
use crate::snapshot::Snapshot;

/// The sign of the product: a pulse that passes a gate. Coloured by the style.
const MARK: &str = r#"<svg class="mark" viewBox="0 0 40 40" aria-hidden="true"><rect x="1" y="1" width="38" height="38" rx="10"/><path d="M6 21h7l3-8 6 15 4-11 2 4h6"/></svg>"#;
/// The same as a browser's icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 40 40'%3E%3Crect width='40' height='40' rx='10' fill='%230b6e6e'/%3E%3Cpath d='M6 21h7l3-8 6 15 4-11 2 4h6' fill='none' stroke='white' stroke-width='3'/%3E%3C/svg%3E";

/// A document that grows.
struct Html(String);

impl Html {
    /// Markup of ours.
    fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere.
    fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if c.is_control() => self.0.push(' '),
                c => self.0.push(c),
            }
        }
        self
    }
}

/// The whole page.
pub(crate) fn document(snapshot: &Snapshot, language: Language) -> String {
    let mut html = Html(String::with_capacity(32 * 1024));
    head(&mut html, snapshot, language);
    top(&mut html, snapshot, language);
    html.raw("<main>");
    state(&mut html, snapshot, language);
    html.raw("<div class=\"grid\">");
    for panel in panels::all(snapshot, language) {
        section(&mut html, &panel, language);
    }
    html.raw("</div></main>");
    foot(&mut html, language);
    html.0
}

fn head(html: &mut Html, snapshot: &Snapshot, language: Language) {
    html.raw("<!doctype html><html lang=\"").raw(language.tag()).raw("\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">");
    html.raw("<link rel=\"icon\" href=\"").raw(ICON).raw("\"><title>").text(snapshot.overall.word.word()).raw(" · ");
    html.text(snapshot.identity.gateway.as_deref().unwrap_or("Vitalgate")).raw("</title><style>").raw(STYLE).raw("</style></head><body>");
}

fn top(html: &mut Html, snapshot: &Snapshot, language: Language) {
    let identity = &snapshot.identity;
    html.raw("<header><div class=\"brand\">").raw(MARK).raw("<div><p class=\"name\">Vitalgate</p><p class=\"place\">");
    let place: Vec<_> = [identity.site.as_deref(), identity.gateway.as_deref()].into_iter().flatten().collect();
    html.text(&place.join(" · ")).raw("</p></div></div><nav><span class=\"moment\">").text(&spell::moment(&snapshot.as_of)).raw("</span>");
    match language {
        Language::English => html.raw("<a href=\"/?lang=de\" lang=\"de\" hreflang=\"de\">Deutsch</a>"),
        Language::German => html.raw("<a href=\"/?lang=en\" lang=\"en\" hreflang=\"en\">English</a>"),
    };
    match language {
        Language::English => html.raw("<a href=\"/?hold&amp;lang=en\">Hold still</a>"),
        Language::German => html.raw("<a href=\"/?hold&amp;lang=de\">Anhalten</a>"),
    };
    html.raw("</nav></header>");
}

fn state(html: &mut Html, snapshot: &Snapshot, language: Language) {
    let overall = &snapshot.overall;
    let tone = advice::tone(overall.word);
    html.raw("<section class=\"state ").raw(tone.class()).raw("\"><span class=\"sign\" aria-hidden=\"true\">").raw(tone.sign());
    html.raw("</span><div><h1>").text(overall.word.word());
    if let Some(code) = overall.code {
        html.raw("<small>(").text(&code.to_string()).raw(")</small>");
    }
    html.raw("</h1><p class=\"meaning\">").raw(advice::meaning(overall.word, language)).raw("</p>");
    if !overall.detail.is_empty() {
        html.raw("<p class=\"detail\">").text(&overall.detail).raw("</p>");
    }
    let remedy = advice::remedy(overall.word, language);
    if !remedy.is_empty() {
        html.raw("<p class=\"remedy\"><b>").raw(language.pick("Do: ", "Tun: ")).raw("</b>").raw(remedy).raw("</p>");
    }
    if !overall.also.is_empty() {
        html.raw("<p class=\"also\">").raw(language.pick("Also: ", "Außerdem: "));
        for word in &overall.also {
            pill(html, advice::tone(*word), StateWord::word(*word));
        }
        html.raw("</p>");
    }
    html.raw("</div></section>");
}

fn section(html: &mut Html, panel: &Panel, language: Language) {
    html.raw("<section class=\"panel\"><div class=\"panel-head\"><h2>").raw(panel.title).raw("</h2>");
    pill(html, panel.tone, panel.tone.word(language));
    html.raw("</div>");
    let table = |html: &mut Html| panel.table.iter().for_each(|rows| table(html, rows, language));
    if panel.table_first {
        table(html);
    }
    if !panel.rows.is_empty() {
        list(html, &panel.rows);
    }
    if !panel.table_first {
        table(html);
    }
    for note in &panel.notes {
        html.raw("<p class=\"note\">");
        value(html, note);
        html.raw("</p>");
    }
    html.raw("</section>");
}

fn list(html: &mut Html, rows: &[(String, Cell)]) {
    html.raw("<dl>");
    for (name, cell) in rows {
        html.raw(if cell.wide { "<div class=\"wide\"><dt>" } else { "<div><dt>" }).text(name).raw("</dt><dd>");
        value(html, cell);
        html.raw("</dd></div>");
    }
    html.raw("</dl>");
}

fn table(html: &mut Html, table: &Table, language: Language) {
    html.raw("<table><thead><tr>");
    for name in &table.head {
        html.raw("<th scope=\"col\">").raw(name).raw("</th>");
    }
    html.raw("</tr></thead><tbody>");
    for row in &table.rows {
        html.raw(if row.below.is_empty() { "<tr>" } else { "<tr class=\"above\">" });
        for cell in &row.cells {
            html.raw("<td>");
            value(html, cell);
            html.raw("</td>");
        }
        html.raw("</tr>");
        if !row.below.is_empty() {
            html.raw("<tr><td colspan=\"").text(&row.cells.len().to_string()).raw("\">").text(&row.below).raw("</td></tr>");
        }
    }
    html.raw("</tbody></table>");
    if table.left_out > 0 {
        html.raw("<p class=\"note\">").raw(language.pick("and more: ", "und weitere: ")).text(&table.left_out.to_string());
        html.raw(" (<a href=\"/status.json\">status.json</a>)</p>");
    }
}

fn value(html: &mut Html, cell: &Cell) {
    match (cell.tone, cell.text.is_empty()) {
        (_, true) => html.raw("<span class=\"none\">–</span>"),
        (Some(tone), _) => html
            .raw("<span class=\"value ")
            .raw(tone.class())
            .raw("\"><i aria-hidden=\"true\">")
            .raw(tone.sign())
            .raw("</i> ")
            .text(&cell.text)
            .raw("</span>"),
        (None, _) if cell.fixed && cell.wide => in_pieces(html, &cell.text),
        (None, _) if cell.fixed => html.raw("<span class=\"fixed\">").text(&cell.text).raw("</span>"),
        (None, _) => html.raw("<span>").text(&cell.text).raw("</span>"),
    };
    if !cell.note.is_empty() {
        html.raw("<span class=\"second\">").text(&cell.note).raw("</span>");
    }
}

/// A fingerprint: a line may end after a colon.
fn in_pieces<'a>(html: &'a mut Html, text: &str) -> &'a mut Html {
    html.raw("<span class=\"fixed\">");
    for piece in text.split_inclusive(':') {
        html.text(piece).raw("<wbr>");
    }
    html.raw("</span>")
}

fn pill(html: &mut Html, tone: Tone, word: &'static str) {
    html.raw("<span class=\"pill ")
        .raw(tone.class())
        .raw("\"><i aria-hidden=\"true\">")
        .raw(tone.sign())
        .raw("</i> ")
        .raw(word)
        .raw("</span>");
}

fn foot(html: &mut Html, language: Language) {
    html.raw("<footer><p>").raw(language.pick(
        "Read-only. This page shows neither readings nor patients. Compare the fingerprint with the commissioning report before you trust it.",
        "Nur lesend. Diese Seite zeigt weder Werte noch Patienten. Vor dem Vertrauen den Fingerabdruck mit dem Inbetriebnahmeprotokoll vergleichen.",
    ));
    html.raw("</p><p><a href=\"/status.json\">status.json</a> · <a href=\"/health\">health</a></p></footer></body></html>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut html = Html(String::new());
        html.text("<script>alert(\"x\")</script>&'\u{7}");
        assert_eq!(html.0, "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39; ");
    }
}
