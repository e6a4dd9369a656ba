//! What a section of the file is made of: its keys as settings, from one list.
//!
//! Must not know which sections there are. Invariant: a key that is listed has a setting.

use super::value::Setting;

/// A key within its section.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Lines that say what it means.
    pub(super) about: &'static [&'static str],
    /// A value for the example, in TOML, where there is none by default.
    pub(super) example: Option<&'static str>,
}

/// A section: settings by the names of their keys.
pub(super) trait Section {
    fn keys(&self) -> &'static [Key];
    fn setting(&self, key: &str) -> Option<&dyn Setting>;
    fn setting_mut(&mut self, key: &str) -> Option<&mut dyn Setting>;
}

/// Makes a struct of a list of keys: `"key" ~ example => field: type = default`.
macro_rules! section {
    (
        $(#[$head:meta])*
        $name:ident {
            $(
                $(#[doc = $about:literal])+
                $key:literal $(~ $example:literal)? => $field:ident: $type:ty = $default:expr;
            )+
        }
    ) => {
        $(#[$head])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[doc = $about])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            pub(super) const KEYS: &[Key] = &[$(Key {
                name: $key,
                about: &[$($about),+],
                example: [$(Some($example),)? None][0],
            },)+];
        }

        impl Section for $name {
            fn keys(&self) -> &'static [Key] {
                Self::KEYS
            }

            fn setting(&self, key: &str) -> Option<&dyn Setting> {
                match key {
                    $($key => Some(&self.$field),)+
                    _ => None,
                }
            }

            fn setting_mut(&mut self, key: &str) -> Option<&mut dyn Setting> {
                match key {
                    $($key => Some(&mut self.$field),)+
                    _ => None,
                }
            }
        }
    };
}

/// The same with the keys of a retry policy, which are not given where they are as in `[retry]`.
macro_rules! section_with_retry {
    ($(#[$head:meta])* $name:ident { $($keys:tt)* }) => {
        section! {
            $(#[$head])*
            $name {
                $($keys)*
                /// Attempts after which a record is exhausted.
                "retry.max_attempts" ~ "10" => max_attempts: Option<u32> = None;
                /// Wait after the first failure in a row.
                "retry.backoff.initial" ~ "\"200ms\"" => backoff_initial: Option<Duration> = None;
                /// Each further wait is this many times as long.
                "retry.backoff.multiplier" ~ "2.0" => backoff_multiplier: Option<f64> = None;
                /// The longest wait.
                "retry.backoff.max" ~ "\"30s\"" => backoff_max: Option<Duration> = None;
                /// Whether a wait is drawn evenly from nothing to its length.
                "retry.backoff.jitter" ~ "true" => backoff_jitter: Option<bool> = None;
                /// What becomes of a record whose attempts are exhausted.
                "retry.on_exhausted" ~ "\"dead_letter\"" => on_exhausted: Option<OnExhausted> = None;
                /// What becomes of a record that is refused for what it is.
                "retry.on_poison" ~ "\"dead_letter\"" => on_poison: Option<OnPoison> = None;
            }
        }

        impl $name {
            /// What it says otherwise than `[retry]`, if anything.
            pub(super) fn retry(&self) -> RetryOverride {
                RetryOverride {
                    max_attempts: self.max_attempts,
                    initial_backoff: self.backoff_initial,
                    multiplier: self.backoff_multiplier,
                    max_backoff: self.backoff_max,
                    jitter: self.backoff_jitter,
                    on_exhausted: self.on_exhausted.clone(),
                    on_poison: self.on_poison,
                }
            }
        }
    };
}

pub(super) use section;
pub(super) use section_with_retry;
