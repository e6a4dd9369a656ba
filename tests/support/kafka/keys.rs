//! Keys and certificates of brokers, made by Java's `keytool`.
//!
//! Owns a key store with the certificate a broker shows, and the file by which clients trust it.
//! Invariant: clients trust every certificate made here; whether it is valid today is the
//! question.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSWORD: &str = "ferrylog";

/// A directory of keys.
pub(super) struct Keys(PathBuf);

impl Keys {
    /// Makes a certificate that ran out five days ago and one that is good for years.
    pub(super) fn make(home: &Path) -> Keys {
        let keys = Keys(home.join("keys"));
        fs::create_dir_all(&keys.0).unwrap();
        let mut trusted = Vec::new();
        for (name, days) in [("expired", "5"), ("valid", "3650")] {
            let store = keys.0.join(name);
            keytool(&store, |tool| {
                tool.args(["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1"])
                    .args(["-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1"])
                    .args(["-startdate", "-10d", "-validity", days])
            });
            trusted.extend(keytool(&store, |tool| tool.args(["-exportcert", "-rfc"])));
        }
        fs::write(keys.trusted(), trusted).unwrap();
        keys
    }

    /// Gives brokers, from their next start on, the certificate that is valid, or the other one.
    pub(super) fn show(&self, is_valid: bool) {
        let name = if is_valid { "valid" } else { "expired" };
        fs::copy(self.0.join(name), self.0.join("shown")).unwrap();
    }

    /// What clients trust.
    pub(super) fn trusted(&self) -> PathBuf {
        self.0.join("trusted.pem")
    }

    /// For the brokers.
    pub(super) fn properties(&self) -> Vec<(String, String)> {
        let shown = self.0.join("shown");
        [
            ("ssl.keystore.type", "PKCS12"),
            ("ssl.keystore.location", shown.to_str().unwrap()),
            ("ssl.keystore.password", PASSWORD),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

fn keytool(store: &Path, arguments: impl Fn(&mut Command) -> &mut Command) -> Vec<u8> {
    let mut command = Command::new("keytool");
    let ran = arguments(&mut command)
        .args(["-alias", "broker", "-storetype", "PKCS12"])
        .args(["-storepass", PASSWORD, "-keystore"])
        .arg(store)
        .output()
        .expect("keytool, which comes with Java");
    assert!(ran.status.success(), "{ran:?}");
    ran.stdout
}
