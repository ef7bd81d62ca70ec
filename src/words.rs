//! Counts and lists in messages.

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
