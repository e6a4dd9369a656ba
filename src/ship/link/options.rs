//! How a link is watched, and what makes no sense there.
//!
//! Must not know how it is done. A wrong value is refused by the key it has in a configuration.

use std::time::Duration;

use super::{Backoff, Profile};
use crate::kafka::{self, Ping, Plan, Require, Settings, TARGETS_MAX};
use crate::ship::Error;

/// The longest time a probe may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// How a link is watched.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LinkOptions {
    /// Whether the way is probed before the cluster itself is asked. If not, the cluster is asked
    /// at each try.
    pub enabled: bool,
    /// What to connect to, as `host:port`; the bootstrap servers if empty.
    pub targets: Vec<String>,
    /// How many of them must be there.
    pub require: Require,
    /// A page that answers with status 204, or with `ping_body`, and not with a redirect.
    pub ping_url: Option<String>,
    /// What the page says, without white space around it.
    pub ping_body: Option<String>,
    /// How long the whole probe may take.
    pub timeout: Duration,
    /// What a try costs.
    pub profile: Profile,
    /// When to try again; as the profile says, if `None`.
    pub backoff: Option<Backoff>,
}

impl Default for LinkOptions {
    fn default() -> LinkOptions {
        LinkOptions {
            enabled: true,
            targets: Vec::new(),
            require: Require::Any,
            ping_url: None,
            ping_body: None,
            timeout: Duration::from_secs(5),
            profile: Profile::Normal,
            backoff: None,
        }
    }
}

impl LinkOptions {
    /// Looks whether the values make sense. Nothing is connected to.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] with the key and what is wrong with its value.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |key, reason| Err(Error::Option { key, reason });
        if self.targets.iter().any(|target| kafka::names_none(target)) {
            return bad("link.targets", "one of them is empty".to_owned());
        }
        if let Some(target) = self.targets.iter().find_map(|t| kafka::bad_server(t)) {
            return bad("link.targets", format!("`{target}` is no host:port"));
        }
        let count = self.targets.len();
        if count > TARGETS_MAX {
            return bad(
                "link.targets",
                format!("{count} are more than {TARGETS_MAX}"),
            );
        }
        if let Err(reason) = self.ping().transpose() {
            return bad("link.ping_url", reason);
        }
        if self.ping_body.is_some() && self.ping_url.is_none() {
            return bad(
                "link.ping_body",
                "of no use without link.ping_url".to_owned(),
            );
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            let reason = format!(
                "{:?} is not above 0 and up to {TIMEOUT_MAX:?}",
                self.timeout
            );
            return bad("link.timeout", reason);
        }
        if let Err((key, reason)) = self.backoff().check() {
            return bad(key, reason);
        }
        Ok(())
    }

    /// When to try again.
    pub fn backoff(&self) -> Backoff {
        self.backoff.unwrap_or_else(|| self.profile.backoff())
    }

    /// The page that is asked for.
    fn ping(&self) -> Option<Result<Ping, String>> {
        let url = self.ping_url.as_deref().filter(|url| !url.is_empty())?;
        Some(Ping::new(url, self.ping_body.as_deref()))
    }

    /// What is probed. A page with a wrong address is left out: [`LinkOptions::check`] tells.
    pub(in crate::ship) fn plan(&self, settings: &Settings) -> Plan {
        let ping = self.ping().and_then(Result::ok);
        Plan::new(settings, &self.targets, self.require, ping, self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut LinkOptions);

    #[test]
    fn a_wrong_value_is_refused_by_its_key() {
        let cases: [(&str, Spoil); 10] = [
            ("link.targets", |o| o.targets = vec![" ".to_owned()]),
            ("link.targets", |o| o.targets = vec!["a:0".to_owned()]),
            ("link.targets", |o| o.targets = vec!["a".to_owned(); 17]),
            ("link.ping_url", |o| {
                o.ping_url = Some("https://a".to_owned())
            }),
            ("link.ping_body", |o| o.ping_body = Some("ok".to_owned())),
            ("link.timeout", |o| o.timeout = Duration::ZERO),
            ("link.timeout", |o| o.timeout = Duration::from_secs(61)),
            ("link.backoff.initial", |o| {
                o.backoff = Some(Backoff {
                    initial: Duration::ZERO,
                    ..Backoff::default()
                });
            }),
            ("link.backoff.multiplier", |o| {
                o.backoff = Some(Backoff {
                    multiplier: 0.0,
                    ..Backoff::default()
                });
            }),
            ("link.backoff.max", |o| {
                o.backoff = Some(Backoff {
                    max: Duration::ZERO,
                    ..Backoff::default()
                });
            }),
        ];
        for (start, spoil) in cases {
            let mut options = LinkOptions::default();
            options.check().unwrap();
            spoil(&mut options);
            let text = options.check().unwrap_err().to_string();
            assert!(text.starts_with(start), "{start}: {text}");
        }
    }

    #[test]
    fn what_is_given_wins_over_the_profile() {
        let mut options = LinkOptions {
            profile: Profile::Metered,
            ..LinkOptions::default()
        };
        assert_eq!(options.backoff(), Profile::Metered.backoff());
        options.backoff = Some(Backoff::default());
        assert_eq!(options.backoff(), Backoff::default());
    }
}
