//! What a lane is called, and what that says: `LANE[@CLUSTER][~TENANT]`.
//!
//! Owns the names, and how they are written. Pure; it must not know what a cluster or a tenant is.
//!
//! Invariants: the name is that of the lane's directory, and so durable before the first record. It
//! alone says to which cluster a lane belongs: no option can send its records elsewhere later.
//! Different parts make different names.

use std::fmt;

/// The cluster that a lane belongs to whose name says nothing else.
pub const MAIN_CLUSTER: &str = "main";
/// Longest name of a lane, a cluster or a tenant, in bytes: together they are a directory's, and go into
/// transactional ids.
pub const LANE_NAME_LEN_MAX: usize = 64;

/// The name of a lane in its parts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct LaneName {
    /// The name that its options have.
    pub lane: String,
    /// The cluster that its records go to; [`MAIN_CLUSTER`] is not written.
    pub cluster: String,
    /// The tenant whose records it keeps, if it keeps those of one alone.
    pub tenant: Option<String>,
}

impl LaneName {
    /// The name of the lane of this name that belongs to [`MAIN_CLUSTER`], for all tenants.
    #[must_use]
    pub fn new(lane: &str) -> Self {
        Self {
            lane: lane.into(),
            cluster: MAIN_CLUSTER.into(),
            tenant: None,
        }
    }

    /// Reads a name; `None` if it is none, or would be written otherwise.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, tenant) = match text.split_once('~') {
            Some((rest, tenant)) => (rest, Some(tenant)),
            None => (text, None),
        };
        let (lane, cluster) = match rest.split_once('@') {
            Some((_, MAIN_CLUSTER)) => return None,
            Some(parts) => parts,
            None => (rest, MAIN_CLUSTER),
        };
        let is_name = |name: &str| is_lane_name(name);
        let is_known = is_name(lane) && is_name(cluster) && tenant.is_none_or(is_name);
        is_known.then(|| Self {
            lane: lane.into(),
            cluster: cluster.into(),
            tenant: tenant.map(Into::into),
        })
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lane)?;
        if self.cluster != MAIN_CLUSTER {
            write!(f, "@{}", self.cluster)?;
        }
        match &self.tenant {
            Some(tenant) => write!(f, "~{tenant}"),
            None => Ok(()),
        }
    }
}

/// Whether a lane may be called so, or a cluster, or a tenant: 1 to [`LANE_NAME_LEN_MAX`] of
/// `a-z 0-9 - _`.
#[must_use]
pub fn is_lane_name(name: &str) -> bool {
    (1..=LANE_NAME_LEN_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_directory_and_a_transactional_id_can_hold() {
        for good in ["a", "high", "x-1_y", "0", &"a".repeat(64)] {
            assert!(is_lane_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "High",
            "a b",
            "ä",
            "a.b",
            "a@b",
            "a~b",
            "\0",
            &"a".repeat(65),
        ] {
            assert!(!is_lane_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_read_as_it_was_written_and_different_parts_make_different_names() {
        let names = ["a", "main", "b-1"];
        let mut written = std::collections::BTreeSet::new();
        for lane in names {
            for cluster in names {
                for tenant in [None, Some("a"), Some("main")] {
                    let name = LaneName {
                        lane: lane.into(),
                        cluster: cluster.into(),
                        tenant: tenant.map(Into::into),
                    };
                    let text = name.to_string();
                    assert_eq!(LaneName::parse(&text), Some(name), "{text}");
                    assert!(written.insert(text));
                }
            }
        }
        assert_eq!(LaneName::new("a").to_string(), "a");
        for bad in [
            "", "@", "~", "a@", "a~", "@a", "~a", "a@main", "a~b@c", "a@b@c", "a~b~c", "A", "a@B",
            "a~B", "a/b",
        ] {
            assert_eq!(LaneName::parse(bad), None, "{bad}");
        }
    }
}
