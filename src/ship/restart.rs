//! Beginning again what ended with an error or a panic: after which pause, and what is said meanwhile.
//!
//! Pure; must not know what is begun again, nor how anybody waits. A pause doubles from one error to the
//! next, so that what never goes well costs next to nothing.

use std::any::Any;
use std::error::Error;
use std::thread;
use std::time::Duration;

/// The pause after a first error, and the longest one; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What ran for so long begins with the shortest pause again.
const STABLE: Duration = Duration::from_secs(60);

/// The pauses of something that is begun again and again.
#[derive(Debug)]
pub(crate) struct Restarts {
    next: Duration,
}

impl Restarts {
    pub(crate) const fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// The pause after an end that came when it had run for so long.
    pub(crate) fn pause(&mut self, ran: Duration) -> Duration {
        let pause = if ran < STABLE { self.next } else { PAUSE_MIN };
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

/// How something ended that was not to end, on one line.
pub(crate) fn told<T, E: Error>(ended: &thread::Result<Result<T, E>>) -> String {
    match ended {
        Ok(Ok(_)) => "it ended although it was not told to".to_owned(),
        Ok(Err(error)) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            text
        }
        Err(panic) => format!("it panicked: {}", said(&**panic)),
    }
}

/// What somebody said who panicked.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_minute_without_an_error() {
        let mut restarts = Restarts::new();
        let mut after = |ran| restarts.pause(Duration::from_secs(ran)).as_secs();
        assert_eq!([0; 8].map(&mut after), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!([59, 60, 0].map(&mut after), [60, 1, 2]);
    }
}
