//! Which attributes a span keeps, written apart from the Go decoder.

const KEPT: &[&str] = &[
    "busy_ns",
    "idle_ns",
    "mod",
    "cid",
    "container_id",
    "ns_type",
    "fs_type",
    "source",
    "destination",
    "flags",
    "mount_point",
];

pub fn kept(key: &str) -> bool {
    KEPT.contains(&key) || key.starts_with("code.") || key.starts_with("thread.")
}

/// Keys that only the host may set.
pub fn reserved(key: &str) -> bool {
    key == "container.id" || key.starts_with("shimtrace.")
}

/// The container id and exec id at the beginning of a request's debug print:
/// `Name { container_id: "c", exec_id: "e", …` and, before Kata 3.1,
/// `container_id: "c" exec_id: "e" …`. An exec id that repeats the container's
/// is its first process, which is no exec.
pub fn ids(request: &str) -> (Option<String>, Option<String>) {
    let is_id = |s: &str| {
        !s.is_empty()
            && s.len() <= 128
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let fields = match request.split_once(" { ") {
        Some((name, rest)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => rest,
        _ => request,
    };
    let parts: Vec<&str> = fields.splitn(5, '"').collect();
    if parts.len() < 3 || parts[0] != "container_id: " || !is_id(parts[1]) {
        return (None, None);
    }
    let exec = (parts.len() == 5
        && parts[2].trim_start_matches(',') == " exec_id: "
        && is_id(parts[3])
        && parts[3] != parts[1])
        .then(|| parts[3].to_string());
    (Some(parts[1].to_string()), exec)
}
