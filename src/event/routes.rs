//! Which topic an event goes to, by its type.
//!
//! Pure. Owns the routes, which of several wins, and those that are built in. Must not know how an event
//! is sent.
//!
//! Invariants: an event type has at most one topic, whatever the order in which the routes were given.
//! Of two patterns that fit one type and are equally specific, both lead to the same topic.

use super::Error;
use super::typed::{API_ERROR, API_REQUEST, SYSTEM_ALERT, TOKEN_REFRESHED};
use super::typed::{USER_LOGGED_IN, USER_LOGGED_OUT, USER_REGISTERED};
use crate::message::check_topic;
use crate::message::pattern::{fits, literals, overlap};

/// Longest pattern, in bytes.
const PATTERN_LEN_MAX: usize = 1024;

const BUILT_IN: [(&str, &str); 7] = [
    (USER_LOGGED_IN, "user-events"),
    (USER_REGISTERED, "user-events"),
    (USER_LOGGED_OUT, "user-events"),
    (TOKEN_REFRESHED, "auth-events"),
    (API_REQUEST, "api-events"),
    (API_ERROR, "error-events"),
    (SYSTEM_ALERT, "system-events"),
];
const BUILT_IN_DEFAULT: &str = "default-events";

/// The topics of events, by type.
///
/// A pattern may have `*` for any characters, also none: `user.*`. A name without one counts before any
/// pattern; of the patterns that fit, the one with the most other characters wins. Where no route fits,
/// those that are built in are looked at, then there is the default:
///
/// | type | topic |
/// |---|---|
/// | `user.logged_in`, `user.registered`, `user.logged_out` | `user-events` |
/// | `user.token_refreshed` | `auth-events` |
/// | `api.request` | `api-events` |
/// | `api.error` | `error-events` |
/// | `system.alert` | `system-events` |
/// | any other | `default-events` |
///
/// ```
/// use ferrylog::event::Routes;
///
/// let mut routes = Routes::default();
/// routes.set("user.*", "people")?;
/// routes.set("user.deleted", "audit")?;
/// assert_eq!(routes.topic_of("user.deleted"), Some("audit"));
/// assert_eq!(routes.topic_of("user.logged_in"), Some("people"));
/// assert_eq!(routes.topic_of("api.error"), Some("error-events"));
/// assert_eq!(routes.topic_of("door.opened"), Some("default-events"));
/// # Ok::<(), ferrylog::event::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Routes {
    /// Patterns and topics, the most specific first.
    given: Vec<(String, String)>,
    has_built_in: bool,
    default: Option<String>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            has_built_in: true,
            default: Some(BUILT_IN_DEFAULT.into()),
            ..Self::none()
        }
    }
}

impl Routes {
    /// None at all, also none that are built in: events go to the producer's default topic.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            given: Vec::new(),
            has_built_in: false,
            default: None,
        }
    }

    /// Routes events of these types to a topic, in place of a route with the same pattern.
    ///
    /// # Errors
    ///
    /// [`Error::Route`]: no topic is called so, or the pattern fits types that another one, which is as
    /// specific, sends elsewhere. Nothing was changed.
    pub fn set(&mut self, pattern: &str, topic: &str) -> Result<(), Error> {
        let refused = |reason: String| {
            Err(Error::Route {
                pattern: pattern.chars().take(PATTERN_LEN_MAX).collect(),
                reason,
            })
        };
        if let Err(invalid) = check_topic(topic) {
            return refused(invalid.to_string());
        }
        if pattern.is_empty() || pattern.len() > PATTERN_LEN_MAX {
            return refused(format!("a pattern has 1 to {PATTERN_LEN_MAX} bytes"));
        }
        let rival = self.given.iter().find(|(other, to)| {
            let is_tie = rank(other) == rank(pattern) && other != pattern;
            is_tie && to != topic && overlap(other, pattern)
        });
        if let Some((other, to)) = rival {
            return refused(format!(
                "{other:?} fits types that it fits as well, and leads to {to}; make one of them longer"
            ));
        }
        self.unset(pattern);
        let at = |(other, _): &(String, String)| rank(other) < rank(pattern);
        let at = self.given.partition_point(at);
        self.given.insert(at, (pattern.into(), topic.into()));
        Ok(())
    }

    /// Takes a route back that was [`set`](Self::set); false if there is none with this pattern.
    pub fn unset(&mut self, pattern: &str) -> bool {
        let before = self.given.len();
        self.given.retain(|(other, _)| other != pattern);
        self.given.len() < before
    }

    /// Where events go that no route fits; `None`: to the producer's default topic.
    ///
    /// # Errors
    ///
    /// [`Error::Route`]: no topic is called so. Nothing was changed.
    pub fn set_default(&mut self, topic: Option<&str>) -> Result<(), Error> {
        if let Some(Err(invalid)) = topic.map(check_topic) {
            return Err(Error::Route {
                pattern: "*".into(),
                reason: invalid.to_string(),
            });
        }
        self.default = topic.map(Into::into);
        Ok(())
    }

    /// The topic of events of this type, if there is one.
    #[must_use]
    pub fn topic_of(&self, event_type: &str) -> Option<&str> {
        let mut given = self.given.iter();
        if let Some((_, topic)) = given.find(|(pattern, _)| fits(pattern, event_type)) {
            return Some(topic);
        }
        let mut built_in = BUILT_IN.iter().filter(|_| self.has_built_in);
        let built_in = built_in.find(|(name, _)| *name == event_type);
        built_in.map_or(self.default.as_deref(), |(_, topic)| Some(*topic))
    }
}

/// Less is more specific: names first, then by the characters that stand for themselves.
fn rank(pattern: &str) -> (bool, std::cmp::Reverse<usize>) {
    let has_star = pattern.contains('*');
    (has_star, std::cmp::Reverse(literals(pattern)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text of one to `len` of these characters.
    fn texts(characters: &str, len: usize) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut last = vec![String::new()];
        for _ in 0..len {
            let longer = |text: &String| {
                let text = text.clone();
                characters.chars().map(move |c| format!("{text}{c}"))
            };
            last = last.iter().flat_map(longer).collect();
            all.extend(last.clone());
        }
        all
    }

    /// The rule, in the fewest words: the patterns that fit, a name before the others, the most
    /// literals first.
    fn means<'a>(routes: &[(&'a str, &'a str)], event_type: &str) -> Vec<&'a str> {
        if let Some((_, topic)) = routes.iter().find(|(name, _)| *name == event_type) {
            return vec![topic];
        }
        let fitting = routes
            .iter()
            .filter(|(pattern, _)| fits(pattern, event_type));
        let most = fitting.clone().map(|(pattern, _)| literals(pattern)).max();
        fitting
            .filter(|(pattern, _)| Some(literals(pattern)) == most)
            .map(|(_, topic)| *topic)
            .collect()
    }

    /// All pairs and some triples of short patterns, in every order, on all short types.
    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        let (patterns, types) = (texts("ab*", 3), texts("ab", 6));
        let (mut accepted, mut refused) = (0, 0);
        for (place, a) in patterns.iter().enumerate() {
            for (other, b) in patterns.iter().enumerate() {
                if a == b {
                    continue;
                }
                let c = &patterns[(place * 7 + other * 13) % patterns.len()];
                let mut claims = vec![(a.as_str(), "1"), (b.as_str(), "2")];
                if c != a && c != b {
                    claims.push((c, "3"));
                }
                let mut routes = Routes::none();
                let set = claims
                    .iter()
                    .try_for_each(|(p, topic)| routes.set(p, topic));
                // Two that contradict each other do so whatever a third one takes from them.
                let is_clear =
                    |pair: &[(&str, &str)]| types.iter().all(|t| means(pair, t).len() <= 1);
                let pairs = [[0, 1], [0, 2], [1, 2]];
                let pairs = pairs.iter().filter(|[_, b]| *b < claims.len());
                let is_clear = pairs
                    .clone()
                    .all(|[a, b]| is_clear(&[claims[*a], claims[*b]]));
                assert_eq!(set.is_ok(), is_clear, "{claims:?}");
                if set.is_err() {
                    refused += 1;
                    continue;
                }
                accepted += 1;
                for t in &types {
                    let meant = means(&claims, t).first().copied();
                    assert_eq!(routes.topic_of(t), meant, "{claims:?} {t}");
                }
            }
        }
        assert!(accepted > 500 && refused > 100, "{accepted} {refused}");
    }

    #[test]
    fn built_in_routes_are_those_of_the_service_that_they_are_for() {
        let routes = Routes::default();
        for (event_type, topic) in [
            ("user.logged_in", "user-events"),
            ("user.registered", "user-events"),
            ("user.logged_out", "user-events"),
            ("user.token_refreshed", "auth-events"),
            ("api.request", "api-events"),
            ("api.error", "error-events"),
            ("system.alert", "system-events"),
            ("user.deleted", "default-events"),
            ("", "default-events"),
        ] {
            assert_eq!(routes.topic_of(event_type), Some(topic), "{event_type}");
            assert_eq!(Routes::none().topic_of(event_type), None);
        }
    }

    #[test]
    fn a_route_that_is_given_counts_before_those_that_are_built_in() {
        let mut routes = Routes::default();
        routes.set("user.*", "people").unwrap();
        assert_eq!(routes.topic_of("user.logged_in"), Some("people"));
        routes.set("user.logged_in", "logins").unwrap();
        assert_eq!(routes.topic_of("user.logged_in"), Some("logins"));
        routes.set("user.logged_in", "other").unwrap();
        assert_eq!(routes.topic_of("user.logged_in"), Some("other"));
        assert!(routes.unset("user.logged_in") && !routes.unset("user.logged_in"));
        assert_eq!(routes.topic_of("user.logged_in"), Some("people"));
        assert!(routes.unset("user.*"));
        assert_eq!(routes, Routes::default());
        routes.set_default(Some("rest")).unwrap();
        assert_eq!(routes.topic_of("x"), Some("rest"));
        routes.set_default(None).unwrap();
        assert_eq!(routes.topic_of("x"), None);
        assert_eq!(routes.topic_of("api.request"), Some("api-events"));
    }

    #[test]
    fn a_wrong_route_is_refused_and_changes_nothing() {
        let mut routes = Routes::none();
        routes.set("a*", "x").unwrap();
        let before = routes.clone();
        for (pattern, topic) in [
            ("b", "no topic"),
            ("b", ""),
            ("", "x"),
            ("*a", "y"),
            (&"x".repeat(1025), "x"),
        ] {
            let error = routes.set(pattern, topic).unwrap_err();
            assert!(matches!(error, Error::Route { .. }), "{error}");
        }
        assert!(routes.set_default(Some("a b")).is_err());
        assert_eq!(routes, before);
        // Where both lead to one topic nothing is unclear.
        routes.set("*a", "x").unwrap();
        let moved = routes.set("*a", "y").unwrap_err().to_string();
        assert!(
            moved.contains("\"a*\"") && moved.contains("leads to x"),
            "{moved}"
        );
        assert_eq!(routes.topic_of("aa"), Some("x"));
    }
}
