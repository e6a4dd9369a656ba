//! What a cluster that turns us away has against us.
//!
//! Owns the table from codes to that. Must not know what is done about it.

use std::fmt;

/// What keeps a cluster that answers from taking anything, until a person acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Block {
    /// It does not accept who we say we are.
    Authentication,
    /// It does not let us do what we need.
    Authorization,
    /// It does not speak a version of the protocol that we do.
    Version,
}

impl Block {
    /// By the code with which the cluster, or librdkafka for it, turned us away.
    pub(in crate::ship) fn of(code: i32) -> Block {
        match code {
            // Kafka's protocol guide, "Error Codes"; below zero librdkafka's own.
            -169 | 33 | 34 | 54 | 58 | 61 | 62 | 66 | 93 => Block::Authentication,
            -171 | -170 | -165 | 35 | 42 => Block::Version,
            _ => Block::Authorization,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Block::Authentication => "the cluster does not accept the credentials",
            Block::Authorization => "the cluster does not allow it",
            Block::Version => "the cluster speaks another version of the protocol",
        })
    }
}
