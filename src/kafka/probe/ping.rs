//! A page that answers as expected only where the way out is open: behind the login page of a
//! hotel's or a ship's network every connection succeeds, and leads to that page.
//!
//! Pure. Owns the address, the request and the judgement of the answer. Must not know sockets.
//! Invariant: a redirect is never followed; what the other side says is shown cut and clean.

/// The longest part of an answer that is looked at.
pub(super) const ANSWER_MAX_LEN: usize = 16 * 1024;

/// How much of a foreign text is shown.
const SHOWN_LEN: usize = 100;

/// A page to ask for, and what it must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// `host:port`.
    pub(super) address: String,
    path: String,
    /// The page's text, without white space around it; an empty answer with status 204 if `None`.
    body: Option<String>,
}

impl Ping {
    /// A page by its address.
    ///
    /// # Errors
    ///
    /// What is wrong with the address.
    pub fn new(url: &str, body: Option<&str>) -> Result<Ping, String> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(format!(
                "`{url}` does not begin with http://; a page over https cannot be asked for, and \
                 a login page is told by plain http as well"
            ));
        };
        let (host, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if path.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(format!("the path in `{url}` has characters to be escaped"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, p)| !p.contains(']'));
        let address = format!("{host}{}", if has_port { "" } else { ":80" });
        if host.contains(['@', ',', '#']) || super::bad_server(&address).is_some() {
            return Err(format!("`{url}` names no host, or no port, to connect to"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Ping {
            address,
            path: format!("{slash}{}", path.split('#').next().unwrap_or("")),
            body: body.map(|body| body.trim().to_owned()),
        })
    }

    /// What is sent: version 1.0, so that the answer is not sent in chunks and ends.
    pub(super) fn request(&self) -> String {
        let Ping { address, path, .. } = self;
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: ferrylog\r\n\r\n")
    }

    /// Judges what came back.
    pub(super) fn judge(&self, answer: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(status).ok_or("answers no HTTP")?;
        match status {
            300..400 => {
                let place = lines.find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("location").then_some(value)
                });
                let place = shown(place.unwrap_or("elsewhere"));
                Err(format!("leads to {place}: a captive portal, log in there"))
            }
            204 if self.body.is_none() => Ok(()),
            200 if self.body.as_deref() == Some(body.trim()) => Ok(()),
            200 => Err("answers with another page: a captive portal".to_owned()),
            other => Err(format!("answers with status {other}")),
        }
    }
}

fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// A foreign text as it may be shown.
fn shown(text: &str) -> String {
    let clean = text.trim().chars().filter(char::is_ascii_graphic);
    clean.take(SHOWN_LEN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_host_and_a_path() {
        for (url, address, path) in [
            ("http://a", "a:80", "/"),
            ("http://a:8080/generate_204", "a:8080", "/generate_204"),
            ("http://[::1]/x#y", "[::1]:80", "/x"),
            ("http://[::1]:7", "[::1]:7", "/"),
            ("http://a?q=1", "a:80", "/?q=1"),
        ] {
            let ping = Ping::new(url, None).unwrap();
            assert_eq!((&*ping.address, &*ping.path), (address, path), "{url}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_asked_is_refused_with_the_reason() {
        for (url, reason) in [
            ("https://a/", "https cannot"),
            ("a/b", "does not begin"),
            ("http://", "names no host"),
            ("http://a:b/", "names no host"),
            ("http://user:secret@a/", "names no host"),
            ("http://a/x y", "escaped"),
            ("http://a/\r\nX: 1", "escaped"),
        ] {
            let error = Ping::new(url, None).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn only_the_expected_answer_passes() {
        let empty = Ping::new("http://a/", None).unwrap();
        let page = Ping::new("http://a/", Some("ok\n")).unwrap();
        for (ping, answer, reason) in [
            (&empty, "HTTP/1.1 204 No Content\r\n\r\n", None),
            (&page, "HTTP/1.0 200 OK\r\nX: y\r\n\r\nok\n", None),
            (&page, "HTTP/1.0 200 OK\r\n\r\n<html>", Some("another page")),
            (&page, "HTTP/1.1 204 No Content\r\n\r\n", Some("status 204")),
            (&empty, "HTTP/1.1 200 OK\r\n\r\n", Some("another page")),
            (
                &empty,
                "HTTP/1.1 302 F\r\nLOCATION: http://portal/\x1b[2J\r\n\r\n",
                Some("leads to http://portal/[2J: a captive portal"),
            ),
            (&empty, "HTTP/1.1 511 X\r\n\r\n", Some("status 511")),
            (&empty, "SSH-2.0-x", Some("no HTTP")),
            (&empty, "", Some("no HTTP")),
        ] {
            let verdict = ping.judge(answer.as_bytes());
            match reason {
                None => assert_eq!(verdict, Ok(()), "{answer}"),
                Some(reason) => {
                    let error = verdict.unwrap_err();
                    assert!(error.contains(reason), "{answer}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_long_place_is_cut() {
        let answer = format!("HTTP/1.1 302 F\r\nLocation: {}\r\n\r\n", "x".repeat(9999));
        let error = Ping::new("http://a", None)
            .unwrap()
            .judge(answer.as_bytes());
        assert!(error.unwrap_err().len() < 200);
    }
}
