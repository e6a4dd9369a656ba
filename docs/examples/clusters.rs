//! Several clusters and tenants: machines of two firms in one hall behind one gateway. What has no header
//! is the hall's own and goes to its cluster; what is acme's goes to acme's, and fills no more of the disk
//! than acme may. While one of the clusters is away, the other is served.
//!
//! `cargo run --example clusters [DIR] [BOOTSTRAP_SERVERS] [BOOTSTRAP_SERVERS_OF_ACME]`

use std::error::Error;
use std::time::Duration;

use ferrylog::kafka::Settings;
use ferrylog::message::Header;
use ferrylog::ship::{RetryOverride, ShipOptions};
use ferrylog::store::{StoreOptions, TenantOptions};
use ferrylog::{MessageRef, Producer};

const READINGS: u64 = 1_000;

const OF_ACME: &[Header<'_>] = &[Header {
    name: "tenant",
    value: Some(b"acme"),
}];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or("ferrylog-data".into());
    let hall = arguments.next().unwrap_or("127.0.0.1:9092".into());
    run(
        &dir,
        &hall,
        &arguments.next().unwrap_or("127.0.0.1:9093".into()),
    )
}

pub(crate) fn run(dir: &str, hall: &str, acme: &str) -> Result<(), Box<dyn Error>> {
    let mut tenant = TenantOptions::default();
    tenant.cluster = Some("acme".into());
    tenant.topic_prefix = "hall-3.".into();
    tenant.quota_bytes = Some(256 << 20);
    let mut store = StoreOptions::default();
    store.tenants.insert("acme".into(), tenant);
    let mut patient = RetryOverride::default();
    patient.max_attempts = Some(100);
    let mut ship = ShipOptions::default();
    ship.retry_overrides.tenants.insert("acme".into(), patient);

    let producer = Producer::builder(dir, Settings::new(hall))
        .cluster("acme", Settings::new(acme))
        .store(store)
        .ship(ship)
        .open()?;
    for n in 0..READINGS {
        let value = format!("{} C", n % 40);
        let reading = MessageRef {
            value: Some(value.as_bytes()),
            ..MessageRef::to("temps")
        };
        drop(producer.send(&reading)?);
        // To the topic `hall-3.temps` of the other cluster.
        drop(producer.send(&MessageRef {
            headers: OF_ACME,
            ..reading
        })?);
    }
    producer.flush()?;

    let closed = producer.close(Duration::from_secs(30))?;
    for lane in producer.status().lanes {
        let (shipped, queued) = (lane.totals.shipped, lane.totals.queued);
        println!("{}: {shipped} shipped, {queued} wait", lane.cluster);
    }
    if let Some(why) = closed.why {
        println!("{why}");
    }
    Ok(())
}
