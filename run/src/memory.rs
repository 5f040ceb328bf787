//! How often the kernel has ended a process of this container for want of memory.

use std::fs;
use std::path::Path;

/// The count in a cgroup's `memory.events`; 0 where there is none, as under cgroup v1.
pub(crate) fn kills(events: &Path) -> u64 {
    fs::read_to_string(events).ok().as_deref().and_then(count).unwrap_or(0)
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_killed_processes_is_read_and_no_other() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(count(text), Some(2));
        for text in ["", "oom 3\noom_group_kill 1\n", "oom_kill many\n"] {
            assert_eq!(count(text), None, "{text:?}");
        }
        assert_eq!(kills(Path::new("/no/such/memory.events")), 0);
    }
}
