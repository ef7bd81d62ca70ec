//! Counts and lists as sentences have them.

/// How many names a sentence lists before it says how many more there are.
const LISTED: usize = 5;

/// `3 pictures`, `1 picture`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A number with commas: `3,733,968`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// `3 identities`, `1 identity`.
pub fn identities(number: usize) -> String {
    if number == 1 { "1 identity".into() } else { format!("{number} identities") }
}

/// The first few names, and how many there are besides.
pub fn enumerate(names: &[&str]) -> String {
    let first = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
