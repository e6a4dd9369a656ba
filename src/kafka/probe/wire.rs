//! The few bytes that tell a Kafka broker, or a TLS server, from anything else that listens.
//!
//! Pure. Owns the `ApiVersions` request of version 0, a TLS `ClientHello`, and the judgement of
//! what comes back. Must not know sockets. Invariants: nothing secret is in what is sent; bytes
//! that came back are never trusted: a length is checked before it is used.

#![expect(
    clippy::big_endian_bytes,
    reason = "Kafka's protocol and TLS are in network order"
)]

/// The largest answer that is read; a broker lists some hundred bytes.
const ANSWER_MAX_LEN: usize = 64 * 1024;

/// An answer's correlation, error code and count.
const ANSWER_MIN_LEN: usize = 10;

/// One entry of an answer: an API's key, its lowest and its highest version.
const API_LEN: usize = 6;

/// A TLS record's header: type, version, length.
pub(super) const TLS_HEADER_LEN: usize = 5;

const API_VERSIONS: i16 = 18;
const PRODUCE: i16 = 0;
const CORRELATION: i32 = 0x6665_7272;
const CLIENT_ID: &str = "ferrylog-probe";

/// A request that every broker answers, before any authentication.
pub(super) fn api_versions_request() -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend(API_VERSIONS.to_be_bytes());
    body.extend(0_i16.to_be_bytes()); // version
    body.extend(CORRELATION.to_be_bytes());
    body.extend(length_of(CLIENT_ID.as_bytes()));
    body.extend(CLIENT_ID.as_bytes());
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], &body].concat()
}

/// How many bytes follow the four that an answer begins with.
pub(super) fn answer_len(first: [u8; 4]) -> Result<usize, &'static str> {
    // An alert or a handshake record: the other side speaks TLS.
    if matches!(first, [0x15 | 0x16, 3, _, _]) {
        return Err("answers in TLS, and `security.protocol` says plain text");
    }
    let len = usize::try_from(u32::from_be_bytes(first)).unwrap_or(usize::MAX);
    if (ANSWER_MIN_LEN..=ANSWER_MAX_LEN).contains(&len) {
        Ok(len)
    } else {
        Err("answers, but not as Kafka does")
    }
}

/// Judges an answer without its length.
pub(super) fn judge_answer(answer: &[u8]) -> Result<(), String> {
    let Some((head, rest)) = answer.split_first_chunk::<ANSWER_MIN_LEN>() else {
        return Err("answers too little for Kafka".to_owned());
    };
    let [c0, c1, c2, c3, e0, e1, n0, n1, n2, n3] = *head;
    if i32::from_be_bytes([c0, c1, c2, c3]) != CORRELATION {
        return Err("answers another question than the one asked".to_owned());
    }
    match i16::from_be_bytes([e0, e1]) {
        0 => {}
        code => return Err(format!("answers with error code {code}")),
    }
    let count = usize::try_from(u32::from_be_bytes([n0, n1, n2, n3])).unwrap_or(usize::MAX);
    if count.saturating_mul(API_LEN) != rest.len() {
        return Err("answers, but not as Kafka does".to_owned());
    }
    let mut apis = rest.chunks_exact(API_LEN);
    if apis.any(|api| api.starts_with(&PRODUCE.to_be_bytes())) {
        Ok(())
    } else {
        Err("takes no records: a controller, not a broker".to_owned())
    }
}

/// A `ClientHello` that a server of TLS 1.2 or 1.3 answers, if only with an alert. The name is
/// told where there is one, because some relays choose the server by it.
pub(super) fn client_hello(host: &str, random: [u8; 32]) -> Vec<u8> {
    const SUITES: &[u8] = &[
        0x13, 0x01, 0x13, 0x02, 0x13, 0x03, // TLS 1.3: AES-GCM 128 and 256, ChaCha20
        0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x2f, 0xc0, 0x30, // ECDHE with AES-GCM
        0xcc, 0xa8, 0xcc, 0xa9, 0x00, 0x9c, 0x00,
        0x9d, // ECDHE with ChaCha20; RSA with AES-GCM
    ];
    const GROUPS: &[u8] = &[0x00, 0x06, 0x00, 0x1d, 0x00, 0x17, 0x00, 0x18]; // X25519, P-256, P-384
    const SIGNATURES: &[u8] = &[
        0x00, 0x10, 0x04, 0x03, 0x05, 0x03, 0x08, 0x04, 0x08, 0x05, 0x08, 0x06, 0x04, 0x01, 0x05,
        0x01, 0x06, 0x01,
    ];
    const VERSIONS: &[u8] = &[0x04, 0x03, 0x04, 0x03, 0x03]; // 1.3, 1.2
    const NO_KEYS: &[u8] = &[0x00, 0x00]; // the server names the group: no key is made in vain

    let mut extensions = Vec::new();
    let is_name = host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[');
    if is_name {
        let name = [&[0][..], &length_of(host.as_bytes()), host.as_bytes()].concat();
        let list = [&length_of(&name)[..], &name].concat();
        extensions.extend(extension(0x0000, &list));
    }
    extensions.extend(extension(0x000a, GROUPS));
    extensions.extend(extension(0x000d, SIGNATURES));
    extensions.extend(extension(0x002b, VERSIONS));
    extensions.extend(extension(0x0033, NO_KEYS));

    let mut hello = vec![0x03, 0x03];
    hello.extend(random);
    hello.push(0); // no session to resume
    hello.extend(length_of(SUITES));
    hello.extend(SUITES);
    hello.extend([0x01, 0x00]); // no compression
    hello.extend(length_of(&extensions));
    hello.extend(extensions);

    let handshake = [&[0x01, 0x00][..], &length_of(&hello), &hello].concat();
    [&[0x16, 0x03, 0x01][..], &length_of(&handshake), &handshake].concat()
}

/// Judges the first bytes after a `ClientHello`: an alert is an answer, too.
pub(super) fn judge_tls(header: [u8; TLS_HEADER_LEN]) -> Result<(), &'static str> {
    match header {
        [0x15 | 0x16, 3, _, _, _] => Ok(()),
        _ => Err("answers, but not in TLS as `security.protocol` says"),
    }
}

fn extension(number: u16, data: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &length_of(data), data].concat()
}

/// A length of two bytes. Nothing here comes near its limit: a host name has 255 bytes at most.
fn length_of(data: &[u8]) -> [u8; 2] {
    u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// What a broker answers that knows these APIs; with its length.
#[cfg(test)]
pub(super) fn api_versions_answer(apis: &[i16]) -> Vec<u8> {
    let mut body = CORRELATION.to_be_bytes().to_vec();
    body.extend(0_i16.to_be_bytes());
    body.extend(u32::try_from(apis.len()).unwrap().to_be_bytes());
    for api in apis {
        body.extend(api.to_be_bytes());
        body.extend([0, 0, 0, 9]);
    }
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_be_bytes()[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_one_of_the_protocol_guide() {
        let mut expected = vec![0, 0, 0, 24, 0, 18, 0, 0];
        expected.extend(b"ferr");
        expected.extend([0, 14]);
        expected.extend(b"ferrylog-probe");
        assert_eq!(api_versions_request(), expected);
    }

    #[test]
    fn a_broker_passes_and_a_controller_does_not() {
        let judge = |apis: &[i16]| judge_answer(&api_versions_answer(apis)[4..]);
        assert_eq!(judge(&[18, 0, 3]), Ok(()));
        assert!(judge(&[18, 3]).unwrap_err().contains("controller"));
    }

    #[test]
    fn an_answer_cut_or_changed_anywhere_never_panics_and_a_cut_one_never_passes() {
        let answer = api_versions_answer(&[0, 3, 18]);
        for len in 0..answer.len() - 4 {
            assert!(judge_answer(&answer[4..4 + len]).is_err(), "{len}");
        }
        for at in 4..answer.len() {
            for bit in 0..8 {
                let mut changed = answer.clone();
                changed[at] ^= 1 << bit;
                // Correlation, error code and count are checked; what else an API says is not.
                let verdict = judge_answer(&changed[4..]);
                assert!(verdict.is_err() || at >= 14, "{at} {bit}");
            }
        }
    }

    #[test]
    fn a_length_that_no_broker_sends_is_refused_before_it_is_read() {
        assert_eq!(answer_len([0, 0, 0, 10]), Ok(10));
        assert_eq!(answer_len([0, 1, 0, 0]), Ok(65_536));
        for first in [[0, 0, 0, 9], [0, 1, 0, 1], [0xff; 4], *b"HTTP"] {
            assert!(answer_len(first).unwrap_err().contains("not as Kafka"));
        }
        assert!(answer_len([0x15, 3, 3, 0]).unwrap_err().contains("TLS"));
    }

    #[test]
    fn every_length_in_the_hello_covers_what_follows() {
        for host in ["broker.example.org", "127.0.0.1", "[::1]", ""] {
            let hello = client_hello(host, [7; 32]);
            let at = |n: usize| usize::from(hello[n]) << 8 | usize::from(hello[n + 1]);
            assert_eq!(at(3), hello.len() - 5, "record");
            assert_eq!(at(7), hello.len() - 9, "handshake");
            // Behind version, random and session id: suites, compression, extensions.
            let suites = 9 + 2 + 32 + 1;
            let extensions = suites + 2 + at(suites) + 2;
            assert_eq!(at(extensions), hello.len() - extensions - 2, "extensions");
            let mut next = extensions + 2;
            while next < hello.len() {
                next += 4 + at(next + 2);
            }
            assert_eq!(next, hello.len(), "each extension");
            let tells = host.is_empty() || hello.windows(host.len()).any(|w| w == host.as_bytes());
            assert_eq!(tells, !host.contains(['[', '1']), "{host}");
        }
    }

    #[test]
    fn an_alert_is_an_answer_and_plain_text_is_none() {
        assert_eq!(judge_tls([0x16, 3, 3, 0, 90]), Ok(()));
        assert_eq!(judge_tls([0x15, 3, 3, 0, 2]), Ok(()));
        assert!(judge_tls(*b"HTTP/").is_err());
        assert!(judge_tls([0, 0, 0, 10, 1]).is_err());
    }
}
