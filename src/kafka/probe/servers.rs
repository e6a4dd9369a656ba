//! A list of servers, as librdkafka reads it.
//!
//! Pure. Must not know what is done with a server.

/// Kafka's port where a server is given without one.
const DEFAULT_PORT: u16 = 9092;

/// One server of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// `host:port`.
    pub(super) address: String,
    /// What stood in front of it, as `SASL_SSL` in `SASL_SSL://host:port`.
    pub(super) protocol: Option<String>,
}

/// The servers of a list: separated by commas, with an optional `PROTOCOL://` in front and an
/// optional port.
pub(super) fn servers(list: &str) -> impl Iterator<Item = Server> + '_ {
    let texts = list.split(',').map(str::trim);
    texts.filter(|text| !text.is_empty()).map(server)
}

fn server(text: &str) -> Server {
    let (protocol, address) = match text.split_once("://") {
        Some((protocol, address)) => (Some(protocol.to_owned()), address),
        None => (None, text),
    };
    let port_follows = match address.rsplit_once(':') {
        // Colons inside brackets belong to an IPv6 address.
        Some((host, port)) => !port.contains(']') && (host.ends_with(']') || !host.contains(':')),
        None => false,
    };
    let address = if port_follows {
        address.to_owned()
    } else {
        format!("{address}:{DEFAULT_PORT}")
    };
    Server { address, protocol }
}

/// Whether a list names no server.
pub(crate) fn names_none(list: &str) -> bool {
    servers(list).next().is_none()
}

/// The first server of a list that no connection could be made to, as it reads.
pub(crate) fn bad_server(list: &str) -> Option<String> {
    let is_bad = |address: &String| {
        let parts = address.rsplit_once(':');
        !parts.is_some_and(|(host, port)| {
            let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
            is_port && !host.is_empty() && !host.contains(char::is_whitespace)
        })
    };
    servers(list).map(|server| server.address).find(is_bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_lists_are_read_as_librdkafka_reads_them() {
        let addresses: Vec<_> = servers("a:1, SASL_SSL://b:2 ,c,,[::1]:3,[::1],::1")
            .map(|server| server.address)
            .collect();
        assert_eq!(
            addresses,
            ["a:1", "b:2", "c:9092", "[::1]:3", "[::1]:9092", "::1:9092"]
        );
    }

    #[test]
    fn a_list_of_commas_names_no_server() {
        assert!(names_none("") && names_none(" , ,") && !names_none(",a"));
    }

    #[test]
    fn a_protocol_in_front_is_kept() {
        let protocols: Vec<_> = servers("a,SASL_SSL://b")
            .map(|server| server.protocol)
            .collect();
        assert_eq!(protocols, [None, Some("SASL_SSL".to_owned())]);
    }

    #[test]
    fn a_server_that_cannot_be_connected_to_is_named() {
        for (list, bad) in [
            ("a:1,b", None),
            ("a:0", Some("a:0")),
            ("a:b", Some("a:b")),
            ("a,x y:1", Some("x y:1")),
            (":1", Some(":1")),
        ] {
            assert_eq!(bad_server(list).as_deref(), bad, "{list}");
        }
    }
}
