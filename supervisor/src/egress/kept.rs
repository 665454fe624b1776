//! The recent decisions: of each [`Payer`] a few, so that nobody's are pushed out by another's.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Decision;
use super::caller::Payer;

/// Decisions that are kept for one payer.
const EACH: usize = 64;
/// Decisions that are kept in all.
const IN_ALL: usize = 8192;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rings: HashMap<Payer, Ring>,
    /// Who was decided for, by the number of the last decision.
    by_age: BTreeMap<u64, Payer>,
    /// Decisions in all rings.
    count: usize,
    last: u64,
}

#[derive(Debug, Default)]
struct Ring {
    /// With their numbers, oldest first.
    decisions: VecDeque<(u64, Decision)>,
    /// Number of the last one.
    last: u64,
}

impl Kept {
    /// Keeps one more. Without room those go to whom nothing happened for the longest time.
    pub(super) fn keep(&mut self, payer: Payer, decision: Decision) {
        self.last += 1;
        let ring = self.rings.entry(payer.clone()).or_default();
        self.by_age.remove(&ring.last);
        self.by_age.insert(self.last, payer);
        ring.last = self.last;
        ring.decisions.push_back((self.last, decision));
        if ring.decisions.len() > EACH {
            ring.decisions.pop_front();
            return;
        }
        self.count += 1;
        while self.count > IN_ALL
            && let Some((_, payer)) = self.by_age.pop_first()
            && let Some(ring) = self.rings.remove(&payer)
        {
            self.count -= ring.decisions.len();
        }
    }

    /// Those of whom `whose` takes, oldest first.
    pub(super) fn list(&self, whose: impl Fn(&Payer) -> bool) -> Vec<Decision> {
        let rings = self.rings.iter().filter(|(payer, _)| whose(payer));
        let mut all: Vec<_> = rings.flat_map(|(_, ring)| &ring.decisions).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, decision)| decision.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::WorkerId;

    fn payer(name: &str) -> Payer {
        Payer { worker: WorkerId { namespace: None, name: name.into() }, on_behalf_of: None }
    }

    fn decision(host: &str) -> Decision {
        Decision { host: host.into(), ..Decision::default() }
    }

    fn hosts(kept: &Kept) -> Vec<String> {
        kept.list(|_| true).into_iter().map(|decision| decision.host).collect()
    }

    #[test]
    fn one_that_asks_much_leaves_others_theirs() {
        let mut kept = Kept::default();
        kept.keep(payer("quiet"), decision("quiet"));
        for number in 0..1100 {
            kept.keep(payer("loud"), decision(&number.to_string()));
        }
        kept.keep(payer("quiet"), decision("again"));
        let hosts = hosts(&kept);
        assert_eq!(hosts.len(), EACH + 2);
        assert_eq!((&*hosts[0], &*hosts[1], &*hosts[EACH]), ("quiet", "1036", "1099"));
        assert_eq!(hosts[EACH + 1], "again");
    }

    #[test]
    fn without_room_the_oldest_go() {
        let mut kept = Kept::default();
        for number in 0..2 * IN_ALL {
            kept.keep(payer(&(number / 2).to_string()), decision(""));
            kept.keep(payer("busy"), decision("busy"));
        }
        assert!(kept.count <= IN_ALL && kept.count > IN_ALL - EACH, "{}", kept.count);
        assert_eq!(kept.count, hosts(&kept).len());
        assert_eq!(hosts(&kept).iter().filter(|host| *host == "busy").count(), EACH);
        assert_eq!(kept.rings.len(), kept.by_age.len());
        assert_eq!(kept.list(|payer| &*payer.worker.name == "0").len(), 0);
    }
}
