//! Which lane a topic's records go to.
//!
//! Owns the patterns, their order, and what makes two of them contradict each other. Pure; it must
//! not know what a lane is: it hands back the index it was given.
//!
//! Invariants: every topic has exactly one lane, whatever the order in which the patterns were
//! given. Two patterns of different lanes that are equally specific fit no common topic.

use std::collections::HashMap;

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

/// How specific a pattern is: its characters that stand for themselves.
fn literals(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| *byte != b'*').count()
}

/// Whether a pattern fits a topic. On a mismatch the last star takes one character more: no earlier
/// one need be tried again, because what stands before it has already matched as early as it can.
fn fits(pattern: &str, topic: &str) -> bool {
    let (pattern, topic) = (pattern.as_bytes(), topic.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < topic.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == topic[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((behind, from)) = star else {
                    return false;
                };
                star = Some((behind, from + 1));
                (p, t) = (behind, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether some text fits both patterns. `reach[j]` says so of `b[j..]` and of what is left of `a`.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut reach = vec![false; b.len() + 1];
    for i in (0..=a.len()).rev() {
        // What `reach[j + 1]` said in the round before: without the first characters of both.
        let mut diagonal = false;
        for j in (0..=b.len()).rev() {
            let here = match (a.get(i), b.get(j)) {
                (None, None) => true,
                // The star ends here, or takes one character more of the other's.
                (Some(b'*'), _) | (_, Some(b'*')) => reach[j] || (j < b.len() && reach[j + 1]),
                (Some(x), Some(y)) => x == y && diagonal,
                (None, Some(_)) | (Some(_), None) => false,
            };
            diagonal = std::mem::replace(&mut reach[j], here);
        }
    }
    reach[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text of at most `len` of these characters.
    fn texts(characters: &str, len: usize) -> Vec<String> {
        let mut texts = vec![String::new()];
        let mut last = texts.clone();
        for _ in 0..len {
            last = last
                .iter()
                .flat_map(|text| characters.chars().map(move |c| format!("{text}{c}")))
                .collect();
            texts.extend(last.clone());
        }
        texts
    }

    /// What a pattern means, in the fewest words.
    fn means(pattern: &str, topic: &str) -> bool {
        match pattern.split_at_checked(1) {
            None => topic.is_empty(),
            Some(("*", rest)) => (0..=topic.len()).any(|at| means(rest, &topic[at..])),
            Some((literal, rest)) => topic.strip_prefix(literal).is_some_and(|t| means(rest, t)),
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn a_pattern_fits_what_it_means() {
        let topics = texts("ab", 5);
        let mut fitting = 0;
        for pattern in texts("ab*", 4) {
            for topic in &topics {
                assert_eq!(
                    fits(&pattern, topic),
                    means(&pattern, topic),
                    "{pattern} {topic}"
                );
                fitting += usize::from(fits(&pattern, topic));
            }
        }
        assert!(fitting > 1000, "{fitting}");
    }

    /// Two patterns of at most three characters that share a text share one of at most six.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn patterns_overlap_if_a_text_fits_both() {
        let (patterns, topics) = (texts("ab*", 3), texts("ab", 6));
        for a in &patterns {
            for b in &patterns {
                let shared = topics.iter().find(|t| means(a, t) && means(b, t));
                assert_eq!(overlap(a, b), shared.is_some(), "{a} {b} {shared:?}");
            }
        }
    }

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

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn a_pattern_of_many_stars_ends_soon() {
        let (pattern, topic) = ("*a".repeat(124), "a".repeat(248) + "b");
        assert!(!fits(&pattern, &topic));
        assert!(overlap(&pattern, &pattern));
    }
}
