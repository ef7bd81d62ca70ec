//! The members of a tar archive, read in place: POSIX ustar, with GNU's and pax's long names.

const BLOCK: usize = 512;

/// A regular file in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Where its headers begin.
    pub start: usize,
    pub name: String,
    /// Where its content begins.
    pub place: usize,
    pub content: &'a [u8],
    /// Where the next member begins.
    pub next: usize,
}

/// The first regular file whose headers begin at this byte or behind it; `None` at the end.
pub(super) fn member(file: &[u8], mut at: usize) -> Result<Option<Member<'_>>, String> {
    let (mut start, mut long_name, mut long_size) = (at, None, None);
    loop {
        // The end is marked by zeros; archives that end without are read as well.
        let cut = || format!("byte {at}: the file is cut off");
        let rest = file.get(at..).ok_or_else(cut)?;
        if rest.is_empty() {
            return Ok(None);
        }
        let header: &[u8; BLOCK] = rest.first_chunk().ok_or_else(cut)?;
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        let own: u64 = header[148..156].iter().map(|&byte| u64::from(byte)).sum();
        if number(&header[148..156]) != Some(sum - own + 8 * u64::from(b' ')) {
            return Err(format!("the header at byte {at} is damaged, or this is no tar archive"));
        }
        let size = long_size.take().or_else(|| number(&header[124..136]));
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| format!("the header at byte {at} has no size"))?;
        let place = at + BLOCK;
        let content = place.checked_add(size).and_then(|end| file.get(place..end));
        let name = long_name.take().unwrap_or_else(|| short_name(header));
        let content = content.ok_or_else(|| {
            format!(
                "member {}: {size} bytes are announced: the file is cut off",
                name.escape_debug()
            )
        })?;
        let next = place + size.next_multiple_of(BLOCK);
        at = next;
        match header[156] {
            b'0' | b'7' | 0 => return Ok(Some(Member { start, name, place, content, next })),
            b'L' => long_name = Some(text(content)),
            b'x' => (long_name, long_size) = extended(content),
            _ => start = next,
        }
    }
}

/// Text up to the first zero.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn short_name(header: &[u8; BLOCK]) -> String {
    let name = text(&header[..100]);
    match text(&header[345..500]) {
        prefix if !prefix.is_empty() && header[257..263] == *b"ustar\0" => {
            format!("{prefix}/{name}")
        }
        _ => name,
    }
}

/// A number in octal digits, or in binary behind a set bit, as GNU writes large ones.
fn number(field: &[u8]) -> Option<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let start = u64::from(first & 0x3f);
        return rest
            .iter()
            .try_fold(start, |value, &byte| Some(value.checked_mul(256)? | u64::from(byte)));
    }
    let digits = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok()
}

/// Name and size from a pax header: lines of `LENGTH KEY=VALUE`.
fn extended(mut rest: &[u8]) -> (Option<String>, Option<u64>) {
    let (mut name, mut size) = (None, None);
    while let Some(space) = rest.iter().position(|&byte| byte == b' ') {
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok());
        let Some(line) = length.and_then(|length: usize| rest.get(space + 1..length)) else {
            break;
        };
        rest = &rest[space + 1 + line.len()..];
        let line = String::from_utf8_lossy(line);
        match line.trim_end_matches('\n').split_once('=') {
            Some(("path", value)) => name = Some(value.to_owned()),
            Some(("size", value)) => size = value.parse().ok(),
            _ => {}
        }
    }
    (name, size)
}

/// The headers and the content of a member, filled up to whole blocks. Owner and time are always the
/// same, so that equal data gives equal archives.
pub(super) fn framed(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * BLOCK + content.len());
    if name.len() > 100 {
        // As GNU tar does: a member of its own holds the name.
        append(&mut out, "././@LongLink", b'L', &[name.as_bytes(), b"\0"].concat());
    }
    append(&mut out, name, b'0', content);
    out
}

fn append(out: &mut Vec<u8>, name: &str, kind: u8, content: &[u8]) {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar  \0");
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// What an archive ends with.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let (mut at, mut found) = (0, Vec::new());
        while let Some(member) = member(file, at)? {
            assert_eq!(super::member(file, member.start).unwrap().as_ref(), Some(&member));
            at = member.next;
            found.push((member.name, member.content.to_vec()));
        }
        Ok(found)
    }

    #[test]
    fn short_and_long_names_are_read_back() {
        let long = format!("{}/1.jpg", "n".repeat(140));
        let file = [
            framed("ann/1.jpg", b"one"),
            framed(&long, &[7; 600]),
            framed("ann/1.cls", b"0"),
            END.to_vec(),
        ]
        .concat();
        let wanted = [
            ("ann/1.jpg".to_owned(), b"one".to_vec()),
            (long, vec![7; 600]),
            ("ann/1.cls".to_owned(), b"0".to_vec()),
        ];
        assert_eq!(names(&file).unwrap(), wanted);
        assert_eq!(names(&file[..file.len() - END.len()]).unwrap(), wanted);
        assert_eq!(names(&[]).unwrap(), []);
        let error = names(&file[..700]).unwrap_err();
        assert!(error.contains("cut off"), "{error}");
        assert!(names(&[1; 512]).unwrap_err().contains("no tar archive"));
    }

    #[test]
    fn pax_names_and_large_numbers_are_read() {
        let mut file = Vec::new();
        append(&mut file, "pax", b'x', b"19 path=zoe/one.jpg\n11 mtime=1\n");
        append(&mut file, "short", b'0', b"abc");
        append(&mut file, "folder/", b'5', b"");
        file.extend(framed("b.jpg", b"x"));
        let wanted = [("zoe/one.jpg".into(), b"abc".to_vec()), ("b.jpg".into(), b"x".to_vec())];
        // The length of a line counts itself, the space and the newline.
        let fixed = String::from_utf8_lossy(&file).replace("19 path", "20 path").into_bytes();
        let mut file = fixed;
        let sum: u64 = file[..148].iter().chain(&file[156..512]).map(|&byte| u64::from(byte)).sum();
        file[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 256).as_bytes());
        assert_eq!(names(&file).unwrap(), wanted);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\x02"), Some(258));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!((number(b"0000017\0"), number(b"000000x\0")), (Some(15), None));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let file =
            [framed("ann/1.jpg", b"one"), framed(&"n".repeat(120), b"0"), END.to_vec()].concat();
        for at in 0..file.len() {
            let _ = names(&file[..at]);
            let mut bytes = file.clone();
            bytes[at] ^= 1 << (at % 8);
            let _ = names(&bytes);
        }
    }
}
