//! Cuts a stream of bytes into lines. Pure: chunks in, lines out.
//!
//! A line ends with `\n` or `\r\n`, and neither is part of it; a `\r` anywhere else is. An empty
//! line is a line; nothing after the last line end is not.
//!
//! Invariant: never more than one line is held, and of it never more than the limit.

/// Cuts chunks into lines. Lines that lie whole in a chunk are not copied.
#[derive(Debug)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    limit: usize,
    /// Number of the line that comes next, from 1.
    number: u64,
}

/// A line is longer than the limit; nothing of what follows was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

impl Lines {
    /// For lines of at most `limit` bytes, line end not counted.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            begun: Vec::new(),
            limit,
            number: 1,
        }
    }

    /// Number of the line that comes next, or at which `use_line` or [`TooLong`] stopped.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Calls `use_line` with each line that ends in `chunk`, until it fails.
    pub(super) fn feed<E: From<TooLong>>(
        &mut self,
        mut chunk: &[u8],
        mut use_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
            let (head, rest) = chunk.split_at(end);
            if self.begun.is_empty() {
                self.use_one(head, &mut use_line)?;
            } else {
                self.hold(head)?;
                let mut line = std::mem::take(&mut self.begun);
                self.use_one(&line, &mut use_line)?;
                line.clear();
                self.begun = line;
            }
            chunk = rest.get(1..).unwrap_or_default();
        }
        Ok(self.hold(chunk)?)
    }

    /// The stream is over: what is held is a line, if it is anything.
    pub(super) fn finish<E: From<TooLong>>(
        &mut self,
        mut use_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.begun);
        if line.is_empty() {
            return Ok(());
        }
        // A `\r` at the very end belongs to a line end that never came.
        self.use_one(&line, &mut use_line)
    }

    fn use_one<E: From<TooLong>>(
        &mut self,
        line: &[u8],
        use_line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.limit {
            return Err(TooLong.into());
        }
        use_line(line)?;
        self.number += 1;
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        // One more for a `\r` whose `\n` is still to come.
        if self.begun.len() + bytes.len() > self.limit + 1 {
            return Err(TooLong);
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `input`, fed in chunks of `size`.
    fn lines(input: &[u8], size: usize, limit: usize) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut found = Vec::new();
        let mut lines = Lines::new(limit);
        for chunk in input.chunks(size) {
            lines.feed(chunk, |line| {
                found.push(line.to_vec());
                Ok::<_, TooLong>(())
            })?;
        }
        lines.finish(|line| {
            found.push(line.to_vec());
            Ok::<_, TooLong>(())
        })?;
        assert_eq!(lines.number() - 1, found.len() as u64);
        Ok(found)
    }

    #[test]
    fn lines_do_not_depend_on_how_the_stream_is_cut() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b"\n", &[b""]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"a\nb", &[b"a", b"b"]),
            (b"a\n\nb\n", &[b"a", b"", b"b"]),
            (b"a\r\nb\r\n", &[b"a", b"b"]),
            (b"a\rb\r\n", &[b"a\rb"]),
            (b"a\r\r\n", &[b"a\r"]),
            (b"a\r", &[b"a"]),
            (b"\xff\0\n", &[b"\xff\0"]),
        ];
        for (input, expected) in cases {
            for size in 1..=8 {
                let found = lines(input, size, 10).unwrap();
                assert_eq!(found, *expected, "{input:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_more_does_not() {
        for size in 1..=16 {
            assert_eq!(lines(b"12345\r\n", size, 5).unwrap(), [b"12345"]);
            assert_eq!(lines(b"123456\n", size, 5), Err(TooLong), "{size}");
            assert_eq!(lines(b"123456", size, 5), Err(TooLong), "{size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_is_held() {
        let mut lines = Lines::new(100);
        let refused =
            (0..1_000).find(|_| lines.feed(&[b'x'; 10], |_| Ok::<_, TooLong>(())).is_err());
        assert_eq!(refused, Some(10));
        assert!(lines.begun.len() <= 101);
    }

    #[test]
    fn the_number_is_that_of_the_line_that_was_refused() {
        let mut lines = Lines::new(100);
        let stopped = lines.feed(b"a\nb\nc\n", |line| {
            if line == b"b" { Err(TooLong) } else { Ok(()) }
        });
        assert_eq!((stopped, lines.number()), (Err(TooLong), 2));
    }
}
