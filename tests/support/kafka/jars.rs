//! Apache Kafka's jars: fetched by Maven the first time, into the build directory.
//!
//! Owns the cache. Knows nothing of brokers. Invariant: the folder is there whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const POM: &str = include_str!("pom.xml");

/// The directory with Kafka's jars.
pub(super) fn jars() -> PathBuf {
    for (program, argument, package) in [("java", "-version", "Java 17"), ("mvn", "-v", "Maven 3")]
    {
        let found = Command::new(program)
            .arg(argument)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        assert!(
            found,
            "`{program}` does not run: the tests against a real Kafka need {package} \
             (Debian: apt install openjdk-17-jre-headless maven)"
        );
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-4.1.1");
    let libs = cache.join("libs");
    fs::create_dir_all(&cache).unwrap();
    // Test binaries may run side by side; the first one fetches, the others wait here.
    let lock = File::create(cache.join("lock")).unwrap();
    lock.lock().unwrap();
    if !libs.exists() {
        fs::write(cache.join("pom.xml"), POM).unwrap();
        let partial = cache.join("libs.partial");
        let fetched = Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies"])
            .arg(format!("-DoutputDirectory={}", partial.display()))
            .current_dir(&cache)
            .output()
            .unwrap();
        assert!(
            fetched.status.success(),
            "Maven could not fetch Apache Kafka:\n{}{}",
            String::from_utf8_lossy(&fetched.stdout),
            String::from_utf8_lossy(&fetched.stderr)
        );
        fs::rename(partial, &libs).unwrap();
    }
    libs
}
