//! How much memory this process takes; for a test that is alone in it.

/// A line of the kernel's account of this process, in bytes.
fn status(line: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|found| found.strip_prefix(line))?;
    value.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kilobytes| kilobytes << 10)
}

/// How much more than now `body` needs at its peak.
pub fn growth(body: impl FnOnce()) -> Option<usize> {
    // Starts the peak afresh (Linux).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = status("VmRSS:")?;
    body();
    Some(status("VmHWM:")?.saturating_sub(before))
}
