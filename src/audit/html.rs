//! The report as a self-contained HTML page: style and thumbnails are embedded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use super::thumbnail::thumbnail;
use super::{AuditReport, Finding, FindingKind, Severity};
use crate::{Result, files};

/// Maximum number of cards per kind; CSV and JSON have all findings.
const CARDS: usize = 60;
/// Maximum number of near-duplicates on a card.
const COPIES: usize = 8;

const STYLE: &str = include_str!("report.css");

/// Writes the page. Picture paths are relative to `root`.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write(path: &Path, report: &AuditReport, root: &Path) -> Result<()> {
    let page = page(report, root);
    files::write_atomically(path, |out| std::io::Write::write_all(out, page.as_bytes()))
}

/// The page as text. Unreadable pictures have a placeholder instead of a thumbnail.
pub fn page(report: &AuditReport, root: &Path) -> String {
    let sections: Vec<Section> = FindingKind::ALL
        .into_iter()
        .map(|kind| Section::of(kind, &report.findings))
        .filter(|section| section.findings > 0)
        .collect();
    let names: BTreeSet<&str> = sections.iter().flat_map(Section::pictures).collect();
    let thumbnails: BTreeMap<&str, String> = names
        .into_par_iter()
        .filter_map(|name| {
            let (address, width, height) = thumbnail(&root.join(name))?;
            let size = format!("width=\"{width}\" height=\"{height}\"");
            Some((name, format!("<img src=\"{address}\" {size} alt=\"{}\">", escape(name))))
        })
        .collect();
    let title = format!("Audit of {}", escape(&report.folder));
    let body: String = sections.iter().map(|section| section.html(&thumbnails)).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n{}</header>\n<main>\n{}{body}</main>\n</body>\n</html>\n",
        summary(report),
        contents(report),
    )
}

/// The figures at the top.
fn summary(report: &AuditReport) -> String {
    let mut figures = vec![
        (report.pictures.to_string(), "pictures".to_owned(), ""),
        (report.identities.to_string(), "identities".to_owned(), ""),
    ];
    if let Some(sizes) = report.sizes {
        let range = format!("{} / {} / {}", sizes.min, sizes.median, sizes.max);
        figures.push((range, "pictures per identity: min / median / max".to_owned(), ""));
    }
    for severity in [Severity::High, Severity::Medium, Severity::Low] {
        let words = format!("{} severity", severity.name());
        figures.push((report.count(severity).to_string(), words, severity.name()));
    }
    let figure = |(value, words, class): (String, String, &str)| {
        format!("<div class=\"figure {class}\"><b>{value}</b><span>{words}</span></div>\n")
    };
    let figures: String = figures.into_iter().map(figure).collect();
    let notes: String =
        report.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    let notes =
        if notes.is_empty() { notes } else { format!("<ul class=\"notes\">\n{notes}</ul>\n") };
    format!("<div class=\"figures\">\n{figures}</div>\n{notes}")
}

/// Links to the kinds with findings, and a sentence with the other kinds.
fn contents(report: &AuditReport) -> String {
    let (found, clean): (Vec<_>, Vec<_>) =
        report.counts().into_iter().partition(|&(_, count)| count > 0);
    let row = |(kind, count): (FindingKind, usize)| {
        let (name, severity, title) = (kind.name(), kind.severity().name(), kind.title());
        format!(
            "<li><a href=\"#{name}\"><i class=\"{severity}\"></i>{title} <b>{count}</b></a></li>\n"
        )
    };
    let rows: String = found.into_iter().map(row).collect();
    let clean: Vec<&str> = clean.into_iter().map(|(kind, _)| kind.name()).collect();
    let clean = match clean.is_empty() {
        true => String::new(),
        false => format!("<p class=\"clean\">No findings: {}.</p>\n", clean.join(", ")),
    };
    format!("<nav>\n<ul>\n{rows}</ul>\n{clean}</nav>\n")
}

/// The findings of a kind, grouped into cards.
struct Section<'a> {
    kind: FindingKind,
    findings: usize,
    cards: Vec<Vec<&'a Finding>>,
    left_out: usize,
}

impl<'a> Section<'a> {
    fn of(kind: FindingKind, findings: &'a [Finding]) -> Self {
        let mine: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind).collect();
        let count = mine.len();
        let mut cards: Vec<Vec<&Finding>> = Vec::new();
        let mut of_photo = BTreeMap::new();
        for finding in mine {
            match finding.other.as_ref().map(|other| of_photo.entry(other).or_insert(cards.len())) {
                Some(card) if *card < cards.len() => cards[*card].push(finding),
                _ => cards.push(vec![finding]),
            }
        }
        let left_out = cards.iter().skip(CARDS).map(Vec::len).sum();
        cards.truncate(CARDS);
        Self { kind, findings: count, cards, left_out }
    }

    /// The pictures shown in the section.
    fn pictures(&self) -> impl Iterator<Item = &'a str> + '_ {
        let of_card = |card: &Vec<&'a Finding>| {
            let shown = card.iter().take(COPIES).copied();
            let names = shown.flat_map(|finding| {
                let near = finding.nearest.iter().flatten();
                finding.file.iter().chain(&finding.other).chain(near)
            });
            names.map(String::as_str).collect::<Vec<_>>()
        };
        self.cards.iter().flat_map(of_card)
    }

    fn html(&self, thumbnails: &BTreeMap<&str, String>) -> String {
        let (name, severity, title) =
            (self.kind.name(), self.kind.severity().name(), self.kind.title());
        let count = self.findings;
        let fix = self.kind.fix();
        let cards: String = self.cards.iter().map(|card| self.card(card, thumbnails)).collect();
        let more = match self.left_out {
            0 => String::new(),
            more => format!("<p class=\"more\">{more} more: see the CSV (--csv FILE).</p>\n"),
        };
        format!(
            "<section id=\"{name}\">\n<h2><i class=\"{severity}\"></i>{title} <b>{count}</b></h2>\n\
             <p class=\"fix\">{fix}</p>\n<div class=\"cards\">\n{cards}</div>\n{more}</section>\n"
        )
    }

    fn card(&self, card: &[&Finding], thumbnails: &BTreeMap<&str, String>) -> String {
        let Some(first) = card.first() else { return String::new() };
        let figure = |name: &str, words: &str| figure(name, words, thumbnails);
        let Some(file) = &first.file else {
            let name = first.identity.as_deref().unwrap_or_default();
            let what = escape(&first.what);
            return format!("<div class=\"card words\"><b>{}</b> {what}</div>\n", escape(name));
        };
        if let Some(other) = &first.other {
            let original = figure(other, "");
            let copies = card.iter().take(COPIES).filter_map(|finding| {
                let words = finding.what.split(" as ").next().unwrap_or_default();
                Some(figure(finding.file.as_deref()?, words))
            });
            let copies: String = copies.collect();
            let more = match card.len().saturating_sub(COPIES) {
                0 => String::new(),
                more => format!("<p class=\"more\">and {more} more</p>"),
            };
            return format!("<div class=\"card\">{original}{copies}{more}</div>\n");
        }
        if first.looks_like.is_none() {
            return format!("<div class=\"card\">{}</div>\n", figure(file, &first.what));
        }
        let side = |words: &str, names: &[String]| {
            let faces: String = names.iter().map(|name| figure(name, "")).collect();
            format!("<div class=\"side\"><h3>{}</h3>{faces}</div>", escape(words))
        };
        let (own, like) = (first.identity.as_deref(), first.looks_like.as_deref());
        format!(
            "<div class=\"card wide\">{}{}{}</div>\n",
            figure(file, &first.what),
            side(&format!("nearest of {} (its label)", own.unwrap_or_default()), &first.nearest[0]),
            side(&format!("nearest of {}", like.unwrap_or_default()), &first.nearest[1]),
        )
    }
}

/// A picture with its path and a caption.
fn figure(name: &str, words: &str, thumbnails: &BTreeMap<&str, String>) -> String {
    let picture =
        thumbnails.get(name).map_or("<span class=\"none\">unreadable</span>", |image| image);
    let words = match words.is_empty() {
        true => String::new(),
        false => format!("<em>{}</em>", escape(words)),
    };
    let name = escape(name);
    // Allow line breaks within long names.
    let broken = name.replace('/', "/<wbr>").replace('_', "_<wbr>").replace('.', "<wbr>.");
    format!("<figure title=\"{name}\">{picture}<figcaption>{broken}{words}</figcaption></figure>")
}

/// Escapes text for HTML content and quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn report(findings: Vec<Finding>) -> AuditReport {
        let mut report = AuditReport {
            folder: "fa<ces".into(),
            pictures: 4,
            identities: 2,
            scored: 0,
            sizes: None,
            findings,
            notes: vec!["a & b".into()],
        };
        report.sort();
        report
    }

    fn finding(kind: FindingKind, file: &str, other: Option<&str>) -> Finding {
        Finding {
            file: Some(file.into()),
            other: other.map(str::to_owned),
            ..Finding::new(kind, Some(1.0), format!("same photo as {}", other.unwrap_or_default()))
        }
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let evil = "\"><script>alert('x')</script>.png";
        let page =
            page(&report(vec![finding(FindingKind::Unreadable, evil, None)]), Path::new("none"));
        assert!(!page.contains("<script") && !page.contains(evil), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
        assert!(page.contains("Audit of fa&lt;ces") && page.contains("a &amp; b"), "{page}");
        assert!(page.contains("unreadable</span>"), "{page}");
    }

    #[test]
    fn copies_of_one_photo_share_a_card_and_long_lists_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png", "c.png"] {
            let picture = RgbImage::from_pixel(8, 8, Rgb([200, 3, 9]));
            picture.save(folder.path().join(name)).unwrap();
        }
        let mut findings = vec![
            finding(FindingKind::NearDuplicate, "b.png", Some("a.png")),
            finding(FindingKind::NearDuplicate, "c.png", Some("a.png")),
        ];
        findings
            .extend((0..CARDS + 7).map(|k| finding(FindingKind::Tiny, &format!("{k}.png"), None)));
        let page = page(&report(findings), folder.path());
        assert_eq!(page.matches("<img ").count(), 3, "{page}");
        assert_eq!(page.matches("<div class=\"card\">").count(), 1 + CARDS);
        assert!(page.contains("<p class=\"more\">7 more: see the CSV"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }
}
