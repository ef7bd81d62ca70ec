//! Counts, lists and names in messages and tables.

use std::borrow::Cow;

/// Maximum number of names in a list.
const LISTED: usize = 5;

/// `3 pictures`, `1 picture`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A number with thousands separators: `3,733,968`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// `3 identities`, `1 identity`.
pub fn identities(number: usize) -> String {
    if number == 1 { "1 identity".into() } else { format!("{number} identities") }
}

/// `3 people`, `1 person`.
pub fn people(number: usize) -> String {
    if number == 1 { "1 person".into() } else { format!("{number} people") }
}

/// The first names, and the number of others.
pub fn enumerate(names: &[&str]) -> String {
    let first = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// A line without control characters, which would steer the terminal: `\u001b` for the escape
/// character. The form is also JSON's.
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return text.into();
    }
    let write = |c: char| match steers(c) {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    text.chars().map(write).collect()
}

/// Text in a cell of a CSV file. Spreadsheets take what begins with `=`, `+`, `-`, `@` or a tab for a
/// formula; they take it for text behind an apostrophe.
pub fn cell(text: &str) -> Cow<'_, str> {
    if is_formula(text) { format!("'{text}").into() } else { text.into() }
}

/// The text in a cell that [`cell`] made, or anyone else.
pub fn cell_text(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|text| is_formula(text)).unwrap_or(cell)
}

/// Behind any number of apostrophes, so that every text is read as it was written.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        let json = r#"{"name": "a\u0007b"}"#;
        for (text, wanted) in [
            ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
            ("caf\u{e9}\u{9b}2J\x7f", "caf\u{e9}\\u009b2J\\u007f"),
            ("a\tb\nc", "a\tb\nc"),
            (json, json),
        ] {
            assert_eq!(printable(text), wanted);
        }
    }

    #[test]
    fn no_cell_is_a_formula_and_every_text_is_read_as_written() {
        for (text, wanted) in [
            ("=1+2", "'=1+2"),
            ("+a/b.png", "'+a/b.png"),
            ("-", "'-"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("'=x", "''=x"),
            ("'quoted'", "'quoted'"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(cell(text), wanted);
            assert_eq!(cell_text(wanted), text);
        }
    }
}
