//! Which addresses a sandbox was given for names that its rules allow.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use crate::limits;

/// A program asks for a name and then connects to an address: this remembers the name in between.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    known: HashMap<IpAddr, Vec<(Arc<str>, Instant)>>,
}

impl Handed {
    /// Remembers that `ip` was the answer for `name`.
    pub(crate) fn add(&mut self, ip: IpAddr, name: &Arc<str>, now: Instant) {
        if !self.known.contains_key(&ip) && self.known.len() >= limits::HANDED {
            let newest = |names: &[(Arc<str>, Instant)]| names.iter().map(|(_, at)| *at).max();
            let oldest = self
                .known
                .iter()
                .min_by_key(|(_, names)| newest(names))
                .map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.known.remove(&ip));
        }
        let names = self.known.entry(ip).or_default();
        names.retain(|(known, _)| known != name);
        if names.len() >= limits::HANDED_NAMES {
            names.remove(0);
        }
        names.push((Arc::clone(name), now));
    }

    /// All that is remembered.
    pub(crate) fn all(&self) -> impl Iterator<Item = (IpAddr, &Arc<str>)> {
        self.known
            .iter()
            .flat_map(|(ip, names)| names.iter().map(|(name, _)| (*ip, name)))
    }

    /// The names `ip` was handed out for, newest first.
    pub(crate) fn names(&self, ip: IpAddr, now: Instant) -> Vec<Arc<str>> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < limits::HANDED_FOR;
        let names = self.known.get(&ip).into_iter().flatten().rev();
        names
            .filter(|(_, at)| fresh(at))
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    #[test]
    fn remembers_for_a_while() {
        let (mut handed, now) = (Handed::default(), Instant::now());
        let ip = IpAddr::from([192, 0, 2, 1]);
        handed.add(ip, &"a.com".into(), now);
        handed.add(ip, &"b.com".into(), now);
        handed.add(ip, &"a.com".into(), now);
        let names = |at| handed.names(ip, at).iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(names(now), ["a.com", "b.com"]);
        assert_eq!(names(now + limits::HANDED_FOR), Vec::<String>::new());
        assert!(handed.names([192, 0, 2, 2].into(), now).is_empty());
    }

    #[test]
    fn is_bounded_and_forgets_the_oldest() {
        let (mut handed, now) = (Handed::default(), Instant::now());
        let ip = |i: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(i).unwrap()));
        for i in 0..=limits::HANDED {
            handed.add(ip(i), &"a.com".into(), now + Duration::from_millis(i as u64));
        }
        for i in 0..100 {
            handed.add(ip(7), &format!("{i}.com").into(), now + Duration::from_secs(60));
        }
        assert_eq!(handed.known.len(), limits::HANDED);
        assert!(handed.names(ip(0), now).is_empty());
        assert_eq!(handed.names(ip(7), now).len(), limits::HANDED_NAMES);
    }
}
