//! What became of each letter, in memory: derived from the records of the log and nothing else.
//!
//! Owns the state machine of a letter ([`Index::apply`]) and the way from an origin to its letter.
//! Pure: it must not know files, nor who decides.
//!
//! Invariants: applying the same records in the same order gives the same index; a final state is
//! never left; a number that is no letter changes nothing. It holds no more than
//! [`LETTERS_MAX`] letters, because no more are appended.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

use super::{
    codec::Change,
    letter::{Copied, DeadLetterCounts, LETTERS_MAX, Origin, State},
};
use crate::{
    store::{LaneName, MAIN_CLUSTER},
    wal::{Class, SeqNo},
};

/// What is known of one letter without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slip {
    /// `None`: it could not be read.
    pub(crate) origin: Option<Origin>,
    /// The number of the cluster that its lane belongs to: [`Index::cluster`].
    pub(crate) cluster: usize,
    pub(crate) state: State,
    pub(crate) copied: Copied,
    /// Bytes of its record.
    pub(crate) len: u64,
    /// When it was appended, in milliseconds since 1970.
    pub(crate) time_millis: i64,
}

impl Slip {
    fn wants_copy(&self) -> bool {
        self.state.is_open() && self.copied == Copied::No
    }
}

/// All letters whose bytes are still there.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slips: BTreeMap<SeqNo, Slip>,
    /// The newest letter of each origin: an edited one takes the place of the one before.
    origins: HashMap<Origin, SeqNo>,
    clusters: Vec<String>,
    /// By cluster.
    pending: BTreeSet<(usize, SeqNo)>,
    uncopied: BTreeSet<(usize, SeqNo)>,
    bytes: u64,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.slips.len()
    }

    /// The number of the cluster that a lane belongs to; what is no lane's name is of the main one.
    pub(crate) fn cluster(&mut self, lane: &str) -> usize {
        let name = LaneName::parse(lane).map_or_else(|| MAIN_CLUSTER.into(), |lane| lane.cluster);
        self.known(&name).unwrap_or_else(|| {
            self.clusters.push(name);
            self.clusters.len() - 1
        })
    }

    fn known(&self, cluster: &str) -> Option<usize> {
        self.clusters.iter().position(|known| known == cluster)
    }

    /// The letter of an origin, whatever became of it.
    pub(crate) fn of_origin(&self, origin: &Origin) -> Option<SeqNo> {
        self.origins.get(origin).copied()
    }

    pub(crate) fn get(&self, seq: SeqNo) -> Option<&Slip> {
        self.slips.get(&seq)
    }

    /// Letters of a range of numbers, oldest first.
    pub(crate) fn range(&self, range: Range<SeqNo>) -> impl Iterator<Item = (SeqNo, &Slip)> {
        self.slips.range(range).map(|(&seq, slip)| (seq, slip))
    }

    /// Takes a letter in. One that replaces another counts as copied if that one was: the topic has
    /// one copy of each origin.
    pub(crate) fn insert(&mut self, seq: SeqNo, mut slip: Slip, replaces: Option<SeqNo>) {
        if let Some(old) = replaces.and_then(|old| self.slips.get(&old)) {
            slip.copied = old.copied;
        }
        if let Some(origin) = slip.origin {
            self.origins.insert(origin, seq);
        }
        self.bytes += slip.len;
        self.slips.insert(seq, slip);
        self.file(seq);
    }

    /// What this change would make of this letter; `None`: nothing new.
    pub(crate) fn outcome(&self, seq: SeqNo, change: Change) -> Option<(State, Copied)> {
        let slip = self.slips.get(&seq)?;
        let (state, copied) = (slip.state, slip.copied);
        let new = match (change, state) {
            (Change::Pending, State::Kept) => (State::Pending, copied),
            (Change::Kept, State::Pending) => (State::Kept, copied),
            // Also of one that was withdrawn while it was on its way: Kafka has it.
            (Change::Replayed, State::Kept | State::Pending) => (State::Replayed, copied),
            (Change::Dropped, State::Kept | State::Pending) => (State::Dropped, copied),
            (Change::Copied, State::Kept | State::Pending) => (state, Copied::Yes),
            // What the topic has it cannot refuse any more.
            (Change::CopyRefused(code), State::Kept | State::Pending) if copied != Copied::Yes => {
                (state, Copied::Refused(code))
            }
            (
                Change::Pending
                | Change::Kept
                | Change::Replayed
                | Change::Dropped
                | Change::Copied
                | Change::CopyRefused(_),
                State::Kept
                | State::Pending
                | State::Replayed
                | State::Dropped
                | State::Gone
                | State::Unreadable,
            ) => return None,
        };
        (new != (state, copied)).then_some(new)
    }

    /// Applies a change to one letter. Returns the letter's outcome in its log, if this was its end.
    pub(crate) fn apply(&mut self, seq: SeqNo, change: Change) -> Option<Class> {
        let (state, copied) = self.outcome(seq, change)?;
        let slip = self.slips.get_mut(&seq)?;
        (slip.state, slip.copied) = (state, copied);
        self.file(seq);
        match state {
            State::Replayed => Some(Class::Shipped),
            State::Dropped => Some(Class::Dropped),
            State::Kept | State::Pending | State::Gone | State::Unreadable => None,
        }
    }

    /// Its time or its space is over.
    pub(crate) fn give_up(&mut self, seq: SeqNo) {
        if let Some(slip) = self.slips.get_mut(&seq) {
            slip.state = State::Gone;
            self.file(seq);
        }
    }

    /// The same of all that no record ends, but the log has settled: no record says so, because what is
    /// forgotten of it only lies here once more.
    pub(crate) fn give_up_where(&mut self, is_settled: impl Fn(SeqNo) -> bool) {
        let unended = |slip: &Slip| slip.state.is_open() || slip.state == State::Unreadable;
        let slips = self.slips.iter().filter(|(_, slip)| unended(slip));
        let over: Vec<SeqNo> = slips.map(|(&s, _)| s).filter(|&s| is_settled(s)).collect();
        over.into_iter().for_each(|seq| self.give_up(seq));
    }

    /// Where there are as many as may be: forgets those that nothing can become of any more, and with
    /// them their origins, which is to say a record that its lane should still not have settled would
    /// be kept once more.
    pub(crate) fn forget_ended(&mut self) {
        if self.len() < LETTERS_MAX {
            return;
        }
        let ended = |slip: &Slip| !slip.state.is_open() && slip.state != State::Unreadable;
        let slips = self.slips.iter().filter(|(_, slip)| ended(slip));
        let over: Vec<SeqNo> = slips.map(|(&seq, _)| seq).collect();
        over.into_iter().for_each(|seq| self.remove(seq..seq + 1));
    }

    /// Forgets letters whose bytes are gone, and with them their origins.
    pub(crate) fn remove(&mut self, range: Range<SeqNo>) {
        let gone: Vec<SeqNo> = self.slips.range(range).map(|(&seq, _)| seq).collect();
        for seq in gone {
            let Some(slip) = self.slips.remove(&seq) else {
                continue;
            };
            self.bytes -= slip.len;
            self.pending.remove(&(slip.cluster, seq));
            self.uncopied.remove(&(slip.cluster, seq));
            if let Some(origin) = slip.origin
                && self.origins.get(&origin) == Some(&seq)
            {
                self.origins.remove(&origin);
            }
        }
    }

    /// The first pending letter of a cluster behind this one.
    pub(crate) fn next_pending(&self, cluster: &str, after: Option<SeqNo>) -> Option<SeqNo> {
        next(&self.pending, self.known(cluster)?, after)
    }

    /// The first letter of a cluster behind this one that the dead-letter topic has not and did not
    /// refuse.
    pub(crate) fn next_uncopied(&self, cluster: &str, after: Option<SeqNo>) -> Option<SeqNo> {
        next(&self.uncopied, self.known(cluster)?, after)
    }

    /// What can be counted here; the rest is the log's to tell.
    pub(crate) fn counts(&self) -> DeadLetterCounts {
        let mut counts = DeadLetterCounts {
            bytes: self.bytes,
            ..DeadLetterCounts::default()
        };
        for slip in self.slips.values() {
            match slip.state {
                State::Kept => counts.kept += 1,
                State::Pending => counts.pending += 1,
                State::Unreadable => counts.unreadable += 1,
                State::Replayed | State::Dropped | State::Gone => continue,
            }
            match slip.copied {
                Copied::Yes => counts.copied += 1,
                Copied::Refused(_) => counts.copy_refused += 1,
                Copied::No => {}
            }
        }
        counts
    }

    /// Keeps the two lists in step with a letter.
    fn file(&mut self, seq: SeqNo) {
        let Some(slip) = self.slips.get(&seq) else {
            return;
        };
        let lists = [
            (&mut self.pending, slip.state == State::Pending),
            (&mut self.uncopied, slip.wants_copy()),
        ];
        for (list, belongs) in lists {
            if belongs {
                list.insert((slip.cluster, seq));
            } else {
                list.remove(&(slip.cluster, seq));
            }
        }
    }
}

fn next(list: &BTreeSet<(usize, SeqNo)>, cluster: usize, after: Option<SeqNo>) -> Option<SeqNo> {
    let from = (cluster, after.map_or(SeqNo::ZERO, |seq| seq + 1));
    let mut found = list.range(from..(cluster + 1, SeqNo::ZERO));
    found.next().map(|(_, seq)| *seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::LogId;

    const CHANGES: [Change; 7] = [
        Change::Pending,
        Change::Kept,
        Change::Replayed,
        Change::Dropped,
        Change::Copied,
        Change::CopyRefused(1),
        Change::CopyRefused(2),
    ];

    fn origin(n: u64) -> Origin {
        Origin {
            log_id: LogId::new([1; 16]),
            seq: SeqNo::new(n),
        }
    }

    /// An index that knows the main cluster, whose number is 0.
    fn fresh() -> Index {
        let mut index = Index::default();
        assert_eq!(index.cluster("default"), 0);
        index
    }

    fn slip(of: Option<u64>) -> Slip {
        Slip {
            origin: of.map(origin),
            cluster: 0,
            state: if of.is_some() {
                State::Kept
            } else {
                State::Unreadable
            },
            copied: Copied::No,
            len: 10,
            time_millis: 0,
        }
    }

    fn with_one() -> Index {
        let mut index = fresh();
        index.insert(SeqNo::new(5), slip(Some(100)), None);
        index
    }

    /// What these changes make of a letter, told from the whole story and not step by step.
    fn told(story: &[Change]) -> (State, Copied, Option<Class>) {
        let is_end = |change: &Change| matches!(change, Change::Replayed | Change::Dropped);
        let end = story.iter().position(is_end);
        let before = &story[..end.unwrap_or(story.len())];
        let decided = before
            .iter()
            .rfind(|change| matches!(change, Change::Pending | Change::Kept));
        let (state, class) = match (end.map(|at| story[at]), decided) {
            (Some(Change::Replayed), _) => (State::Replayed, Some(Class::Shipped)),
            (Some(_), _) => (State::Dropped, Some(Class::Dropped)),
            (None, Some(Change::Pending)) => (State::Pending, None),
            (None, _) => (State::Kept, None),
        };
        let refused = before.iter().rev().find_map(|change| match change {
            Change::CopyRefused(code) => Some(Copied::Refused(*code)),
            _ => None,
        });
        let copied = if before.contains(&Change::Copied) {
            Copied::Yes
        } else {
            refused.unwrap_or(Copied::No)
        };
        (state, copied, class)
    }

    #[test]
    fn every_story_of_up_to_five_changes_ends_as_it_is_told() {
        let seq = SeqNo::new(5);
        let mut stories: Vec<Vec<Change>> = vec![Vec::new()];
        let mut count = 0;
        for _ in 0..=5 {
            for story in &stories {
                let mut index = with_one();
                let classes: Vec<Class> = story
                    .iter()
                    .filter_map(|&change| index.apply(seq, change))
                    .collect();
                let (state, copied, class) = told(story);
                let slip = index.get(seq).unwrap();
                assert_eq!((slip.state, slip.copied), (state, copied), "{story:?}");
                assert_eq!(classes, Vec::from_iter(class), "settled once: {story:?}");
                let pending = (state == State::Pending).then_some(seq);
                assert_eq!(index.next_pending("main", None), pending, "{story:?}");
                let uncopied = (state.is_open() && copied == Copied::No).then_some(seq);
                assert_eq!(index.next_uncopied("main", None), uncopied, "{story:?}");
                // The same story once more: a record that is read twice harms nothing.
                if class.is_some() {
                    assert!(story.iter().all(|&c| index.apply(seq, c).is_none()));
                }
                count += 1;
            }
            stories = stories
                .iter()
                .flat_map(|story| CHANGES.map(|change| [story.as_slice(), &[change]].concat()))
                .collect();
        }
        assert_eq!(count, (0..=5).map(|n| 7_u32.pow(n)).sum::<u32>());
    }

    #[test]
    fn a_change_of_what_is_no_letter_changes_nothing() {
        let mut index = with_one();
        index.insert(SeqNo::new(6), slip(None), None);
        index.insert(SeqNo::new(7), slip(Some(101)), None);
        index.give_up(SeqNo::new(7));
        let before = index.counts();
        for change in CHANGES {
            for seq in [4, 6, 7, 8] {
                assert_eq!(index.apply(SeqNo::new(seq), change), None);
            }
        }
        assert_eq!(index.counts(), before);
        assert_eq!((before.kept, before.unreadable), (1, 1));
    }

    #[test]
    fn an_edited_letter_takes_the_origin_and_the_copy_of_the_old_one() {
        let mut index = with_one();
        let (old, new) = (SeqNo::new(5), SeqNo::new(6));
        index.apply(old, Change::Copied);
        index.insert(new, slip(Some(100)), Some(old));
        index.apply(old, Change::Dropped);
        assert_eq!(index.of_origin(&origin(100)), Some(new));
        assert_eq!(
            index.next_uncopied("main", None),
            None,
            "one copy of each origin"
        );
        index.remove(SeqNo::ZERO..new);
        assert_eq!(
            index.of_origin(&origin(100)),
            Some(new),
            "the old one is gone"
        );
        assert_eq!((index.len(), index.counts().bytes), (1, 10));
        index.remove(SeqNo::ZERO..SeqNo::new(9));
        assert_eq!((index.len(), index.counts().bytes), (0, 0));
        assert_eq!(index.of_origin(&origin(100)), None);
    }

    #[test]
    fn walks_go_on_behind_the_number_they_are_given() {
        let mut index = fresh();
        for n in [3, 5, 9] {
            index.insert(SeqNo::new(n), slip(Some(n)), None);
            index.apply(SeqNo::new(n), Change::Pending);
        }
        index.apply(SeqNo::new(5), Change::Copied);
        let walk = |next: &dyn Fn(Option<SeqNo>) -> Option<SeqNo>| {
            let mut met = Vec::new();
            while let Some(seq) = next(met.last().copied()) {
                met.push(seq);
            }
            met.into_iter().map(SeqNo::get).collect::<Vec<_>>()
        };
        assert_eq!(walk(&|after| index.next_pending("main", after)), [3, 5, 9]);
        assert_eq!(walk(&|after| index.next_uncopied("main", after)), [3, 9]);
    }

    #[test]
    fn a_letter_is_of_the_cluster_that_its_lanes_name_says() {
        let mut index = fresh();
        let audit = index.cluster("default@audit~acme");
        assert_eq!((index.cluster("x"), index.cluster("?")), (0, 0));
        assert_eq!(index.cluster("x@audit"), audit);
        for (seq, cluster) in [(1, 0), (2, audit), (3, 0), (4, audit)] {
            let slip = Slip {
                cluster,
                ..slip(Some(seq))
            };
            index.insert(SeqNo::new(seq), slip, None);
            index.apply(SeqNo::new(seq), Change::Pending);
        }
        let walk = |cluster| {
            let mut after = None;
            let next = std::iter::from_fn(|| {
                let pending = index.next_pending(cluster, after)?;
                assert_eq!(index.next_uncopied(cluster, after), Some(pending));
                after = Some(pending);
                Some(pending.get())
            });
            next.collect::<Vec<u64>>()
        };
        assert_eq!(walk("main"), [1, 3]);
        assert_eq!(walk("audit"), [2, 4]);
        assert!(walk("other").is_empty());
    }
}
