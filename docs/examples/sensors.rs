//! A gateway with sensors: a task for each of them on tokio, alarms in a lane of their own that
//! outruns the bulk, and readings that are worth nothing after a day.
//!
//! `cargo run --example sensors [DIR] [BOOTSTRAP_SERVERS]` plays a year of temperatures.

use std::error::Error;
use std::time::Duration;

use ferrylog::kafka::Settings;
use ferrylog::store::{LaneOptions, Order, StoreOptions};
use ferrylog::{MessageRef, Outcome, Producer};

type Failure = Box<dyn Error + Send + Sync>;

const READINGS: &str = include_str!("../../tests/data/seattle-temps.csv");
const SENSORS: usize = 8;

/// Above this many degrees Fahrenheit somebody should know at once.
const HOT: f64 = 90.0;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or("ferrylog-data".into());
    let servers = arguments.next().unwrap_or("127.0.0.1:9092".into());
    let (sent, alarms) = run(&dir, &servers)?;
    println!("{sent} readings and {alarms} alarms are in Kafka");
    Ok(())
}

/// How many readings and alarms were delivered.
pub(crate) fn run(dir: &str, servers: &str) -> Result<(u64, u64), Failure> {
    let mut store = StoreOptions::default();
    store.default.expires_after = Some(Duration::from_secs(24 * 3600));
    let mut alarms = LaneOptions::default();
    alarms.topics = vec!["alarms*".to_owned()];
    alarms.weight = 8;
    alarms.order = Order::LiveFirst;
    store.lanes.insert("alarms".to_owned(), alarms);
    let producer = Producer::builder(dir, Settings::new(servers))
        .store(store)
        .open()?;

    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let alarms = runtime.block_on(async {
        let sensors = (0..SENSORS).map(|number| tokio::spawn(sensor(number, producer.clone())));
        let mut alarms = 0;
        for sensor in sensors.collect::<Vec<_>>() {
            alarms += sensor.await??;
        }
        Ok::<u64, Failure>(alarms)
    })?;

    let closed = producer.close(Duration::from_secs(30))?;
    if let Some(why) = closed.why.filter(|_| closed.totals.queued > 0) {
        println!("{} wait for the next start: {why}", closed.totals.queued);
    }
    Ok((closed.totals.shipped - alarms, alarms))
}

/// Sends every eighth reading, and waits for the alarms among them only.
async fn sensor(number: usize, producer: Producer) -> Result<u64, Failure> {
    let key = format!("sensor-{number}");
    let mut alarms = 0;
    for line in READINGS.lines().skip(1 + number).step_by(SENSORS) {
        let reading = MessageRef {
            key: Some(key.as_bytes()),
            value: Some(line.as_bytes()),
            ..MessageRef::to("readings")
        };
        // Nobody waits for this one.
        drop(producer.send_async(&reading).await?);
        let degrees = line.split(',').nth(1).and_then(|text| text.parse().ok());
        if degrees.is_some_and(|degrees: f64| degrees > HOT) {
            let alarm = MessageRef {
                topic: "alarms",
                ..reading
            };
            let receipt = producer.send_async(&alarm).await?;
            if receipt.delivered().await? == Outcome::Shipped {
                alarms += 1;
            }
        }
    }
    Ok(alarms)
}
