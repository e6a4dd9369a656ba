//! Which lane a topic's records go to.
//!
//! Owns the claims, their order, and what makes two of them contradict each other. Pure; it must
//! not know what a lane is: it hands back the index it was given.
//!
//! Invariants: every topic has exactly one lane, whatever the order in which the patterns were
//! given. Two patterns of different lanes that are equally specific fit no common topic.

use std::collections::HashMap;

use crate::message::pattern::{fits, literals, overlap};
use crate::message::{TOPIC_LEN_MAX, check_topic};

/// The way from a topic to a lane.
#[derive(Debug, Default)]
pub(super) struct Routes {
    names: HashMap<Box<str>, usize>,
    /// The most specific first.
    patterns: Vec<(Box<str>, usize)>,
}

impl Routes {
    /// Routes by names and patterns, each with the lane that claims it.
    ///
    /// # Errors
    ///
    /// The lane and the sentence that says what is wrong with its pattern.
    pub(super) fn new<'a>(
        claims: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Result<Self, (usize, String)> {
        let mut routes = Self::default();
        for (pattern, lane) in claims {
            check_pattern(pattern).map_err(|reason| (lane, reason))?;
            if !pattern.contains('*') {
                if let Some(other) = routes.names.insert(pattern.into(), lane)
                    && other != lane
                {
                    return Err((lane, format!("another lane claims {pattern:?}, too")));
                }
                continue;
            }
            let rival = routes.patterns.iter().find(|(other, of)| {
                *of != lane && literals(other) == literals(pattern) && overlap(other, pattern)
            });
            if let Some((other, _)) = rival {
                let reason = format!(
                    "{pattern:?} fits topics that {other:?} of another lane fits as well; make one of them longer"
                );
                return Err((lane, reason));
            }
            routes.patterns.push((pattern.into(), lane));
        }
        routes
            .patterns
            .sort_by_key(|(pattern, _)| std::cmp::Reverse(literals(pattern)));
        Ok(routes)
    }

    /// The lane that claims a topic, if one does. A name counts before any pattern.
    pub(super) fn lane_of(&self, topic: &str) -> Option<usize> {
        self.names.get(topic).copied().or_else(|| {
            let fits = |(pattern, _): &&(Box<str>, usize)| fits(pattern, topic);
            self.patterns.iter().find(fits).map(|(_, lane)| *lane)
        })
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > TOPIC_LEN_MAX {
        return Err(format!(
            "a pattern of {} bytes is longer than any topic",
            pattern.len()
        ));
    }
    // A star stands for characters of a name: with one in its place the rest must be a name's.
    check_topic(&pattern.replace('*', "a"))
        .map_err(|_| format!("no topic fits {pattern:?}: use a-z, A-Z, 0-9, '.', '_', '-' and '*'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_claim_wins_whatever_the_order() {
        let claims = [
            ("alarm-1", 1),
            ("alarm-*", 2),
            ("*", 3),
            ("*-1", 4),
            ("alarm-1*", 5),
        ];
        for turn in 0..claims.len() {
            let mut claims = claims;
            claims.rotate_left(turn);
            let routes = Routes::new(claims).unwrap();
            for (topic, lane) in [
                ("alarm-1", 1),
                ("alarm-2", 2),
                ("temps", 3),
                ("temps-1", 4),
                ("alarm-12", 5),
            ] {
                assert_eq!(routes.lane_of(topic), Some(lane), "{topic}, turn {turn}");
            }
        }
        assert_eq!(Routes::new([("a*", 0)]).unwrap().lane_of("b"), None);
    }

    #[test]
    fn contradicting_claims_are_refused() {
        for (a, b) in [("temps", "temps"), ("a*", "*a"), ("*", "*"), ("a*", "a**")] {
            let (lane, reason) = Routes::new([(a, 0), (b, 1)]).unwrap_err();
            assert!(lane == 1 && reason.contains("another lane"), "{reason}");
            // In one lane they contradict nothing.
            assert_eq!(Routes::new([(a, 0), (b, 0)]).unwrap().lane_of("b"), {
                (a == "*").then_some(0)
            });
        }
        for (a, b) in [("a*", "b*"), ("*a", "*b"), ("a*", "ab*"), ("a*", "a")] {
            assert!(Routes::new([(a, 0), (b, 1)]).is_ok(), "{a} {b}");
        }
    }

    #[test]
    fn patterns_that_no_topic_can_fit_are_refused() {
        for bad in ["", "a b", "ä*", "..", "a?", &"a*".repeat(130)] {
            let (lane, reason) = Routes::new([(bad, 7)]).unwrap_err();
            assert_eq!(lane, 7, "{bad}: {reason}");
        }
    }
}
