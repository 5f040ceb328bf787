//! What part of a run a pod has: it is all of it, its first node, or another one. Pure.

/// A pod among the nodes of an attempt. The first speaks for the run and keeps its records; another tells only how its own trainer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The only node.
    Alone,
    /// The first of several nodes.
    First,
    /// Another node, by its rank.
    Other(u32),
}

impl Part {
    /// The part of the node of a rank among so many.
    #[must_use]
    pub const fn of(nodes: i32, rank: u32) -> Self {
        match (nodes, rank) {
            (..2, _) => Self::Alone,
            (_, 0) => Self::First,
            (_, rank) => Self::Other(rank),
        }
    }

    /// Whether it speaks for the run.
    #[must_use]
    pub const fn leads(self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Name of what it leaves of an attempt beside the checkpoints, without extension.
    #[must_use]
    pub fn record_stem(self, attempt: i64) -> String {
        match self {
            Self::Alone | Self::First => format!("logs/attempt-{attempt}"),
            Self::Other(rank) => format!("logs/attempt-{attempt}-node-{rank}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_node_speaks_for_the_run() {
        let parts = [(1, 0), (1, 3), (2, 0), (2, 1)].map(|(nodes, rank)| Part::of(nodes, rank));
        assert_eq!(parts, [Part::Alone, Part::Alone, Part::First, Part::Other(1)]);
        assert_eq!(parts.map(Part::leads), [true, true, true, false]);
    }

    #[test]
    fn nodes_leave_their_logs_side_by_side() {
        assert_eq!(Part::First.record_stem(3), "logs/attempt-3");
        assert_eq!(Part::Other(2).record_stem(3), "logs/attempt-3-node-2");
    }
}
