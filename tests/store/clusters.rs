//! Lanes of clusters and tenants: the name of a lane says where its records go, and stays.

use std::path::Path;

use ferrylog::message::{Header, MessageRef};
use ferrylog::store::{Error, Lane, MAIN_CLUSTER, Store, StoreOptions, StoreView, TenantOptions};
use ferrylog::wal::{self, OnFull};
use tempfile::tempdir;

fn tenant(cluster: Option<&str>, quota: Option<u64>) -> TenantOptions {
    let mut tenant = TenantOptions::default();
    tenant.cluster = cluster.map(Into::into);
    tenant.quota_bytes = quota;
    tenant
}

fn with_tenant(tenant: TenantOptions) -> StoreOptions {
    let mut options = StoreOptions::default();
    options.tenants.insert("acme".into(), tenant);
    options
}

fn open(dir: &Path, options: &StoreOptions) -> Store {
    Store::open_with(dir, options).unwrap()
}

const ACME: [Header<'static>; 1] = [Header {
    name: "tenant",
    value: Some(b"acme"),
}];

/// Appends a record of acme's; the name of the lane it came to.
fn send(store: &Store) -> String {
    let message = MessageRef {
        headers: &ACME,
        value: Some(b"v"),
        ..MessageRef::to("t")
    };
    let routed = store.routed(&message);
    let lane = &store.lanes()[routed.place];
    lane.append_wait(&message).unwrap();
    lane.name().to_owned()
}

fn queued(store: &Store) -> Vec<(&str, &str, u64, bool)> {
    let told = |lane: &'_ Lane| lane.totals().queued;
    let lanes = store.lanes().iter();
    lanes
        .map(|lane| {
            (
                lane.name(),
                lane.cluster(),
                told(lane),
                lane.is_configured(),
            )
        })
        .collect()
}

#[test]
fn a_record_stays_in_its_lane_and_its_lane_with_its_cluster_whatever_is_configured_later() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &with_tenant(tenant(Some("audit"), None)));
    assert_eq!(send(&store), "default@audit~acme");
    store.close().unwrap();

    // Another cluster: new records go there.
    let store = open(dir.path(), &with_tenant(tenant(Some("other"), None)));
    assert_eq!(send(&store), "default@other~acme");
    assert_eq!(
        queued(&store),
        [
            ("default", MAIN_CLUSTER, 0, true),
            ("default@other~acme", "other", 1, true),
            ("default@audit~acme", "audit", 1, false),
        ]
    );
    store.close().unwrap();

    // No tenant any more.
    let store = open(dir.path(), &StoreOptions::default());
    assert_eq!(send(&store), "default");
    let lanes = queued(&store);
    assert_eq!(lanes.iter().map(|(.., queued, _)| queued).sum::<u64>(), 3);
    assert_eq!(lanes[1].1, "audit");
    store.close().unwrap();

    let view = StoreView::open(dir.path()).unwrap();
    let seen: Vec<(&str, String)> = view
        .lanes()
        .iter()
        .map(|lane| (lane.name(), lane.cluster()))
        .collect();
    assert_eq!(
        seen,
        [
            ("default", MAIN_CLUSTER.to_owned()),
            ("default@audit~acme", "audit".to_owned()),
            ("default@other~acme", "other".to_owned()),
        ]
    );
}

#[test]
fn a_lane_that_moves_to_another_cluster_is_another_log_and_comes_back_to_its_first() {
    let dir = tempdir().unwrap();
    let with = |cluster: &str| {
        let mut options = StoreOptions::default();
        options.default.cluster = cluster.into();
        options
    };
    let mut ids = Vec::new();
    for (cluster, name) in [
        ("audit", "default@audit"),
        ("main", "default"),
        ("audit", "default@audit"),
    ] {
        let store = open(dir.path(), &with(cluster));
        assert_eq!(send(&store), name);
        assert_eq!(store.lane().name(), "default");
        ids.push(store.route("t").log_id());
        store.close().unwrap();
    }
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_tenant_that_is_full_concerns_nobody_else() {
    let dir = tempdir().unwrap();
    let mut options = with_tenant(tenant(None, Some(3 << 20)));
    options.default.wal.segment_size = 1 << 20;
    options.default.wal.on_full = OnFull::Reject;
    let store = open(dir.path(), &options);
    let value = vec![0; 100_000];
    let of_acme = MessageRef {
        headers: &ACME,
        value: Some(&value),
        ..MessageRef::to("t")
    };
    let of_others = MessageRef {
        headers: &[],
        ..of_acme
    };
    let append = |message: &MessageRef<'_>| {
        let routed = store.routed(message);
        store.lanes()[routed.place].append_wait(message)
    };
    let refused = (0..100).find_map(|_| append(&of_acme).err());
    assert!(
        matches!(refused, Some(Error::Log(wal::Error::Full { .. }))),
        "{refused:?}"
    );
    for _ in 0..100 {
        append(&of_others).unwrap();
    }
    assert!(
        store
            .lane_named("default~acme")
            .unwrap()
            .shortage()
            .is_some()
    );
    assert_eq!(store.lane().shortage(), None);
}

#[test]
fn a_quota_that_holds_no_log_is_refused_by_the_name_of_the_lane() {
    let dir = tempdir().unwrap();
    let at = dir.path().join("store");
    let refused = Store::open_with(&at, &with_tenant(tenant(None, Some(1)))).unwrap_err();
    let text = refused.to_string();
    assert!(text.starts_with("lane default~acme: quota_bytes"), "{text}");
    assert!(!at.exists());
}
