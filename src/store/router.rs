//! Which lane a record goes to, and by which topic it is known to Kafka.
//!
//! Owns what is decided before a record is appended: its tenant, its cluster, its lane, and the prefix
//! of its topic. Pure; it must not know logs, nor what becomes of a record later.
//!
//! ```text
//! tenant:  the header's, else that of the longest prefix that the topic begins with
//! lane:    the one that the record names, else the one that claims the topic without that prefix
//! cluster: the tenant's, else the topic's, else the lane's
//! ```
//!
//! Invariants: every record has exactly one place, whatever the order of the options. All records of
//! one topic in Kafka that have the same tenant go the same way, whether they named the topic with
//! the prefix or without it: their order holds. A place that options can lead to is among the names.

use std::borrow::Cow;
use std::collections::HashMap;

use super::options::LANES_MAX;
use super::route::Routes;
use super::{DEFAULT_LANE, Error, LaneName, MAIN_CLUSTER, StoreOptions, is_lane_name};
use crate::message::{Header, MessageRef, check_topic};

/// Where a record goes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Routed<'a> {
    /// The place of its lane in [`Store::lanes`](super::Store::lanes).
    pub place: usize,
    /// Its topic, with the prefix of its tenant.
    pub topic: Cow<'a, str>,
}

/// The way from a record to a lane.
#[derive(Debug)]
pub(super) struct Router {
    routes: Routes,
    /// Of the lanes, `default` first.
    names: Vec<LaneName>,
    /// The lanes as the options name them: place, and cluster.
    lanes: HashMap<Box<str>, (usize, usize)>,
    lane_clusters: Vec<usize>,
    topic_clusters: HashMap<Box<str>, usize>,
    clusters: Vec<String>,
    tenants: Vec<Tenant>,
    by_name: HashMap<Box<str>, usize>,
    /// The longest first.
    prefixes: Vec<(Box<str>, usize)>,
    header: Box<str>,
    /// How many groups of tenants are apart, all others being the first.
    groups: usize,
    /// By lane, cluster and group: places among the names.
    places: Vec<usize>,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    cluster: Option<usize>,
    prefix: Box<str>,
    group: usize,
}

impl Router {
    pub(super) fn new(options: &StoreOptions) -> Result<Self, Error> {
        let lanes: Vec<_> = options.all().collect();
        let mut router = Self {
            routes: routes(options)?,
            names: vec![LaneName::new(DEFAULT_LANE)],
            lanes: HashMap::new(),
            lane_clusters: Vec::new(),
            topic_clusters: HashMap::new(),
            clusters: vec![MAIN_CLUSTER.into()],
            tenants: Vec::new(),
            by_name: HashMap::new(),
            prefixes: Vec::new(),
            header: options.tenant_header.as_str().into(),
            groups: 1,
            places: Vec::new(),
        };
        for (place, (name, lane)) in lanes.iter().enumerate() {
            let cluster = router.cluster(&lane.cluster);
            router.lanes.insert((*name).into(), (place, cluster));
            router.lane_clusters.push(cluster);
        }
        for (topic, cluster) in &options.topic_clusters {
            let what = || format!("topic {topic:?}");
            check_topic(topic).map_err(|why| routing(what(), why))?;
            check_cluster(cluster).map_err(|why| routing(what(), why))?;
            let cluster = router.cluster(cluster);
            router.topic_clusters.insert(topic.as_str().into(), cluster);
        }
        if options.tenant_header.is_empty() {
            return Err(routing("tenant_header", "is empty, and is a header's name"));
        }
        router.add_tenants(options)?;
        let names: Vec<&str> = lanes.iter().map(|(name, _)| *name).collect();
        router.find_places(&names);
        if router.names.len() > LANES_MAX {
            let reason = format!(
                "they make {} logs, one for each cluster and each tenant with a cluster or quota of its \
                 own; {LANES_MAX} are the limit",
                router.names.len()
            );
            return Err(routing("the lanes", reason));
        }
        Ok(router)
    }

    /// The number of a cluster.
    fn cluster(&mut self, name: &str) -> usize {
        let known = self.clusters.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.clusters.push(name.into());
            self.clusters.len() - 1
        })
    }

    fn add_tenants(&mut self, options: &StoreOptions) -> Result<(), Error> {
        for (name, tenant) in &options.tenants {
            let refused = |why: String| routing(format!("tenant {name:?}"), why);
            if !is_lane_name(name) {
                let why = "a name is 1 to 64 of a-z, 0-9, '-' and '_'";
                return Err(refused(why.into()));
            }
            let prefix: Box<str> = tenant.topic_prefix.as_str().into();
            if !prefix.is_empty() {
                // With one character behind it, it must be a topic.
                check_topic(&format!("{prefix}a")).map_err(|_| {
                    refused(format!("no topic can begin with {:?}", tenant.topic_prefix))
                })?;
                if let Some((_, other)) = self.prefixes.iter().find(|(p, _)| *p == prefix) {
                    let other = &self.tenants[*other].name;
                    return Err(refused(format!("tenant {other:?} has the same prefix")));
                }
                self.prefixes.push((prefix.clone(), self.tenants.len()));
            }
            if let Some(cluster) = &tenant.cluster {
                check_cluster(cluster).map_err(refused)?;
            }
            let group = if tenant.is_apart() { self.groups } else { 0 };
            self.groups += usize::from(tenant.is_apart());
            let cluster = tenant.cluster.as_ref().map(|name| self.cluster(name));
            self.by_name
                .insert(name.as_str().into(), self.tenants.len());
            self.tenants.push(Tenant {
                name: name.clone(),
                cluster,
                prefix,
                group,
            });
        }
        let len = |(prefix, _): &(Box<str>, usize)| std::cmp::Reverse(prefix.len());
        self.prefixes.sort_by_key(len);
        Ok(())
    }

    /// Names every lane that a record can come to.
    fn find_places(&mut self, lanes: &[&str]) {
        self.places = vec![0; lanes.len() * self.clusters.len() * self.groups];
        for (lane, lane_name) in lanes.iter().enumerate() {
            let of_lane = |topic: &str| self.routes.lane_of(topic).unwrap_or(0) == lane;
            let of_topics = self.topic_clusters.iter();
            let of_topics = of_topics.filter(|(topic, _)| of_lane(topic));
            let mut clusters: Vec<usize> = of_topics.map(|(_, cluster)| *cluster).collect();
            clusters.push(self.lane_clusters[lane]);
            clusters.sort_unstable();
            clusters.dedup();
            let all = clusters.into_iter();
            let mut ways: Vec<_> = all.clone().map(|cluster| (cluster, 0, None)).collect();
            for tenant in self.tenants.iter().filter(|tenant| tenant.group > 0) {
                let name = Some(&tenant.name);
                match tenant.cluster {
                    Some(cluster) => ways.push((cluster, tenant.group, name)),
                    None => ways.extend(all.clone().map(|cluster| (cluster, tenant.group, name))),
                }
            }
            for (cluster, group, tenant) in ways {
                let name = LaneName {
                    lane: (*lane_name).into(),
                    cluster: self.clusters[cluster].clone(),
                    tenant: tenant.cloned(),
                };
                let index = self.index(lane, cluster, group);
                self.places[index] = match self.names.iter().position(|known| *known == name) {
                    Some(known) => known,
                    None => {
                        self.names.push(name);
                        self.names.len() - 1
                    }
                };
            }
        }
    }

    fn index(&self, lane: usize, cluster: usize, group: usize) -> usize {
        (lane * self.clusters.len() + cluster) * self.groups + group
    }

    /// The lanes that the options make; `default` is the first.
    pub(super) fn names(&self) -> &[LaneName] {
        &self.names
    }

    /// Where a record goes; into the lane that it names, if that is known.
    #[inline]
    pub(super) fn route<'a>(&self, message: &MessageRef<'a>) -> Routed<'a> {
        // Else what there is to look up for each record is felt.
        if self.names.len() == 1 && self.tenants.is_empty() {
            return Routed {
                place: 0,
                topic: Cow::Borrowed(message.topic),
            };
        }
        self.look_up(message)
    }

    fn look_up<'a>(&self, message: &MessageRef<'a>) -> Routed<'a> {
        let headers = message.headers.iter().copied();
        let tenant = self.tenant(message.topic, headers);
        let plain = self.plain(message.topic, tenant);
        let given = message.lane.and_then(|lane| Some(self.lanes.get(lane)?.0));
        let lane = given.unwrap_or_else(|| self.routes.lane_of(plain).unwrap_or(0));
        let of_tenant = tenant.and_then(|tenant| tenant.cluster);
        let cluster = of_tenant.unwrap_or_else(|| {
            // A topic's cluster counts where its records go by themselves: elsewhere the lane may
            // have none of it.
            let of_topic = self.topic_clusters.get(plain).filter(|_| given.is_none());
            of_topic.copied().unwrap_or(self.lane_clusters[lane])
        });
        let group = tenant.map_or(0, |tenant| tenant.group);
        let topic = match tenant.map_or("", |tenant| &tenant.prefix) {
            "" => Cow::Borrowed(message.topic),
            _ if plain.len() < message.topic.len() => Cow::Borrowed(message.topic),
            prefix => Cow::Owned(format!("{prefix}{plain}")),
        };
        Routed {
            place: self.places[self.index(lane, cluster, group)],
            topic,
        }
    }

    /// A topic without the prefix of its tenant, as lanes and options name it. The prefix alone is no
    /// topic's name with it.
    fn plain<'a>(&self, topic: &'a str, tenant: Option<&Tenant>) -> &'a str {
        let plain = tenant.and_then(|tenant| topic.strip_prefix(&*tenant.prefix));
        plain.filter(|plain| !plain.is_empty()).unwrap_or(topic)
    }

    fn tenant<'a>(
        &self,
        topic: &str,
        mut headers: impl Iterator<Item = Header<'a>>,
    ) -> Option<&Tenant> {
        if self.tenants.is_empty() {
            return None;
        }
        let header = headers.find(|header| *header.name == *self.header);
        let named = header
            .and_then(|header| std::str::from_utf8(header.value?).ok())
            .and_then(|name| self.by_name.get(name));
        let by_prefix = || {
            let fits = |(prefix, _): &&(Box<str>, usize)| topic.starts_with(&**prefix);
            self.prefixes.iter().find(fits).map(|(_, tenant)| tenant)
        };
        Some(&self.tenants[*named.or_else(by_prefix)?])
    }

    /// The tenant of a record with this topic, and the topic without the prefix.
    pub(super) fn told<'a, 'h>(
        &self,
        topic: &'a str,
        headers: impl Iterator<Item = Header<'h>>,
    ) -> (Option<&str>, &'a str) {
        let tenant = self.tenant(topic, headers);
        let plain = self.plain(topic, tenant);
        (tenant.map(|tenant| tenant.name.as_str()), plain)
    }
}

/// The lanes by the topics that they claim.
fn routes(options: &StoreOptions) -> Result<Routes, Error> {
    let claims = options.all().enumerate().flat_map(|(index, (_, lane))| {
        let topics = lane.topics.iter();
        topics.map(move |pattern| (pattern.as_str(), index))
    });
    Routes::new(claims).map_err(|(index, reason)| Error::Options {
        lane: options.all().nth(index).map_or("", |(name, _)| name).into(),
        reason,
    })
}

fn check_cluster(name: &str) -> Result<(), String> {
    if is_lane_name(name) {
        return Ok(());
    }
    Err(format!("no cluster is called {name:?}"))
}

fn routing(what: impl Into<String>, reason: impl ToString) -> Error {
    Error::Routing {
        what: what.into(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{LaneOptions, TenantOptions};

    const CLUSTERS: [Option<&str>; 3] = [None, Some("main"), Some("audit")];

    fn tenant(cluster: Option<&str>, quota: bool, prefix: &str) -> TenantOptions {
        TenantOptions {
            cluster: cluster.map(Into::into),
            quota_bytes: quota.then_some(1 << 30),
            topic_prefix: prefix.into(),
        }
    }

    /// Lanes `default` and `alarms`, which claims `alarm-*`, and one tenant.
    fn options(lane: &str, topic: Option<&str>, acme: TenantOptions) -> StoreOptions {
        let alarms = LaneOptions {
            topics: vec!["alarm-*".into()],
            cluster: lane.into(),
            ..LaneOptions::default()
        };
        let topic = topic.map(|cluster| ("alarm-1".to_owned(), cluster.to_owned()));
        StoreOptions {
            lanes: [("alarms".into(), alarms)].into(),
            topic_clusters: topic.into_iter().collect(),
            tenants: [("acme".into(), acme)].into(),
            ..StoreOptions::default()
        }
    }

    fn header(value: &[u8]) -> Header<'_> {
        Header {
            name: "tenant",
            value: Some(value),
        }
    }

    /// The lane and the topic that a record comes to.
    fn go(router: &Router, topic: &str, tenant: Option<&str>) -> (String, String) {
        let headers = tenant.map(|name| [header(name.as_bytes())]);
        let message = MessageRef {
            headers: headers.as_ref().map_or(&[], |headers| headers),
            ..MessageRef::to(topic)
        };
        let routed = router.route(&message);
        let name = router.names()[routed.place].to_string();
        (name, routed.topic.into_owned())
    }

    /// Every choice of lane, topic and tenant: the most specific cluster counts, and a tenant is apart
    /// if it has a cluster or a quota.
    #[test]
    fn the_tenants_cluster_counts_before_the_topics_and_that_before_the_lanes() {
        let mut seen = std::collections::BTreeSet::new();
        for of_lane in ["main", "audit"] {
            for of_topic in CLUSTERS {
                for of_tenant in CLUSTERS {
                    for quota in [false, true] {
                        for prefix in ["", "acme."] {
                            let acme = tenant(of_tenant, quota, prefix);
                            let router = Router::new(&options(of_lane, of_topic, acme)).unwrap();
                            for (topic, lane) in [
                                ("temps", "default"),
                                ("alarm-1", "alarms"),
                                ("alarm-2", "alarms"),
                            ] {
                                for who in [None, Some("acme"), Some("other")] {
                                    let (own, of_tenant) = match who {
                                        Some("acme") => (of_tenant.is_some() || quota, of_tenant),
                                        _ => (false, None),
                                    };
                                    let of_topic = of_topic.filter(|_| topic == "alarm-1");
                                    let of_lane = if lane == "alarms" { of_lane } else { "main" };
                                    let cluster = of_tenant.or(of_topic).unwrap_or(of_lane);
                                    let mut name = lane.to_owned();
                                    if cluster == "audit" {
                                        name.push_str("@audit");
                                    }
                                    if own {
                                        name.push_str("~acme");
                                    }
                                    let is_its = who == Some("acme");
                                    let prefix = if is_its { prefix } else { "" };
                                    let known = format!("{prefix}{topic}");
                                    let expected = (name.clone(), known.clone());
                                    assert_eq!(go(&router, topic, who), expected);
                                    // Who writes the prefix goes the same way.
                                    assert_eq!(go(&router, &known, who), expected);
                                    if !prefix.is_empty() {
                                        assert_eq!(go(&router, &known, None), expected);
                                    }
                                    seen.insert(name);
                                }
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
    }

    #[test]
    fn a_name_is_made_for_every_place_a_record_can_come_to_and_for_no_other() {
        let router = Router::new(&StoreOptions::default()).unwrap();
        assert_eq!(router.names(), [LaneName::new("default")]);
        let of = |options: &StoreOptions| -> Vec<String> {
            let router = Router::new(options).unwrap();
            router.names().iter().map(ToString::to_string).collect()
        };
        let plain = tenant(None, false, "acme.");
        assert_eq!(
            of(&options("audit", None, plain.clone())),
            ["default", "alarms@audit"]
        );
        assert_eq!(
            of(&options("main", Some("audit"), plain)),
            ["default", "alarms", "alarms@audit"]
        );
        assert_eq!(
            of(&options("main", Some("audit"), tenant(None, true, ""))),
            [
                "default",
                "default~acme",
                "alarms",
                "alarms@audit",
                "alarms~acme",
                "alarms@audit~acme"
            ]
        );
        assert_eq!(
            of(&options("audit", None, tenant(Some("b"), false, ""))),
            ["default", "default@b~acme", "alarms@audit", "alarms@b~acme"]
        );
    }

    #[test]
    fn the_longest_prefix_names_the_tenant_and_the_header_counts_before_it() {
        let mut options = StoreOptions::default();
        for (name, prefix) in [("a", "a."), ("ab", "a.b."), ("c", "")] {
            let tenant = tenant(None, true, prefix);
            options.tenants.insert(name.into(), tenant);
        }
        let router = Router::new(&options).unwrap();
        for (topic, who, lane, known) in [
            ("t", None, "default", "t"),
            ("a.t", None, "default~a", "a.t"),
            ("a.b.t", None, "default~ab", "a.b.t"),
            ("a.b.t", Some("a"), "default~a", "a.b.t"),
            ("a.t", Some("ab"), "default~ab", "a.b.a.t"),
            ("a.t", Some("c"), "default~c", "a.t"),
            ("t", Some("c"), "default~c", "t"),
            // The prefix alone: a topic is more than that.
            ("a.", None, "default~a", "a.a."),
            // A name that nobody has, and none at all.
            ("a.t", Some("x"), "default~a", "a.t"),
            ("t", Some(""), "default", "t"),
        ] {
            let expected = (lane.to_owned(), known.to_owned());
            assert_eq!(go(&router, topic, who), expected, "{topic} {who:?}");
        }
        let null = [Header {
            name: "tenant",
            value: None,
        }];
        let message = MessageRef {
            headers: &null,
            ..MessageRef::to("t")
        };
        assert_eq!(router.route(&message).place, 0);
        let told = router.told("a.b.t", [header(b"a")].into_iter());
        assert_eq!(told, (Some("a"), "b.t"));
        assert_eq!(router.told("t", std::iter::empty()), (None, "t"));
    }

    #[test]
    fn a_lane_may_be_named_and_the_tenant_and_its_prefix_hold_all_the_same() {
        let options = options("audit", Some("main"), tenant(None, true, "acme."));
        let router = Router::new(&options).unwrap();
        let to = |topic, lane| {
            let routed = router.route(&MessageRef {
                lane: Some(lane),
                ..MessageRef::to(topic)
            });
            router.names()[routed.place].to_string()
        };
        assert_eq!(to("temps", "alarms"), "alarms@audit");
        assert_eq!(to("alarm-1", "default"), "default");
        assert_eq!(to("alarm-1", "alarms"), "alarms@audit");
        assert_eq!(to("acme.temps", "alarms"), "alarms@audit~acme");
        assert_eq!(to("temps", "none"), "default");
    }

    #[test]
    fn what_no_record_can_be_for_is_refused() {
        let of = |tenants: &[(&str, &str, Option<&str>)], topic: (&str, &str)| {
            let tenants = tenants.iter().map(|(name, prefix, cluster)| {
                let tenant = tenant(*cluster, false, prefix);
                ((*name).to_owned(), tenant)
            });
            let options = StoreOptions {
                tenants: tenants.collect(),
                topic_clusters: [(topic.0.to_owned(), topic.1.to_owned())].into(),
                ..StoreOptions::default()
            };
            Router::new(&options).unwrap_err().to_string()
        };
        let good = ("t", "main");
        for (text, part) in [
            (of(&[("A", "", None)], good), "tenant \"A\": a name is"),
            (of(&[("a", "x y", None)], good), "no topic can begin with"),
            (
                of(&[("a", "x.", None), ("b", "x.", None)], good),
                "tenant \"b\": tenant \"a\" has the same prefix",
            ),
            (of(&[("a", "", Some("B"))], good), "no cluster is called"),
            (of(&[], ("t t", "main")), "topic \"t t\": no valid topic"),
            (of(&[], ("t", "@")), "no cluster is called"),
        ] {
            assert!(text.contains(part), "{text}");
        }
        let mut many = StoreOptions::default();
        for n in 0..LANES_MAX {
            let tenant = tenant(None, true, "");
            many.tenants.insert(format!("t{n}"), tenant);
        }
        let text = Router::new(&many).unwrap_err().to_string();
        assert!(text.contains("65 logs"), "{text}");
    }
}
