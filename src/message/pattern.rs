//! Patterns of names: `*` stands for any characters, also none.
//!
//! Pure. Must not know what the names are of, nor what a pattern leads to.

/// How specific a pattern is: its characters that stand for themselves.
pub(crate) fn literals(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| *byte != b'*').count()
}

/// Whether a pattern fits a name. On a mismatch the last star takes one character more: no earlier
/// one need be tried again, because what stands before it has already matched as early as it can.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == name[t] => (p, t) = (p + 1, t + 1),
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
pub(crate) fn overlap(a: &str, b: &str) -> bool {
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
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn a_pattern_of_many_stars_ends_soon() {
        let (pattern, topic) = ("*a".repeat(124), "a".repeat(248) + "b");
        assert!(!fits(&pattern, &topic));
        assert!(overlap(&pattern, &pattern));
    }
}
