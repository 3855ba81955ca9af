//! The breakers of request keys in a fleet: other replicas know them by hashes alone.
//!
//! A key takes part as a member of its own, under the name of its dependency and a hash.

use std::ops::Bound;
use std::sync::Arc;

use breakerbox_actors::{FleetBreaker, FleetView};
use breakerbox_policy::Time;
use breakerbox_policy::fleet::{FleetInput, ReplicaId};
use sha2::{Digest as _, Sha256};

use super::FleetModel;
use crate::Runtime;
use crate::config::KeySharing;

/// Stands between the name of a dependency and a hash; it is in no name.
const MARK: char = '\u{1f}';
/// Number of bytes of a hash that tell keys apart.
const HASH: usize = 16;

/// A breaker of this replica, by its dependency and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnBreaker {
    pub(crate) dependency: String,
    pub(crate) key: Option<Arc<str>>,
}

impl OwnBreaker {
    pub(crate) fn name(&self) -> FleetBreaker<'_> {
        FleetBreaker {
            dependency: &self.dependency,
            key: self.key.as_deref(),
        }
    }

    /// Returns its name in events.
    pub(crate) fn subject(&self) -> String {
        match &self.key {
            None => self.dependency.clone(),
            Some(key) => format!("{}[{key}]", self.dependency),
        }
    }
}

/// Returns true for the member of a key.
pub(crate) fn is_key(member: &str) -> bool {
    member.contains(MARK)
}

/// Returns the name of a member's dependency.
pub(crate) fn dependency_of(member: &str) -> &str {
    member.split(MARK).next().unwrap_or(member)
}

/// Returns the hash of a member's key, as the board has it.
pub(crate) fn hash_of(member: &str) -> Option<&str> {
    member.split_once(MARK).map(|(_, hash)| hash)
}

/// Returns the member of a key.
fn member_of(fleet: &str, dependency: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["breakerbox key", fleet, dependency] {
        hash.update(part);
        hash.update([0]);
    }
    // FLT-16: no key reaches the board.
    hash.update(key);
    let digest = hash.finalize();
    let digits = digest
        .iter()
        .take(HASH)
        .flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    format!("{dependency}{MARK}{}", String::from_iter(digits))
}

impl FleetModel {
    /// Returns false for the member of a key that decides alone, or that cannot be one.
    pub(super) fn takes_part(&self, member: &str) -> bool {
        let Some(hash) = hash_of(member) else {
            return true;
        };
        let digits = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        let part = self.parts.get(dependency_of(member));
        hash.len() == 2 * HASH
            && hash.bytes().all(digits)
            && part.is_some_and(|part| part.fleet.keys == KeySharing::Hashed)
    }

    /// Returns the breaker of a member here; `None` for a key that this replica does not know.
    pub(crate) fn breaker_of(&self, member: &str) -> Option<OwnBreaker> {
        let key = match is_key(member) {
            false => None,
            true => Some(Arc::clone(self.keys.get(member)?)),
        };
        let dependency = dependency_of(member).to_owned();
        Some(OwnBreaker { dependency, key })
    }

    /// Returns the state of a member's breaker; `None` while there is none here.
    pub(super) fn view(&self, member: &str, runtime: &Runtime) -> Option<FleetView> {
        if !self.takes_part(member) {
            return None;
        }
        runtime.fleet_view(self.breaker_of(member)?.name())
    }

    /// Returns the member of an event's subject, such as `web` or `web[tenant-7]`; `None` if its breaker
    /// decides alone.
    pub(super) fn member_of_subject(&mut self, subject: &str, runtime: &Runtime) -> Option<String> {
        if runtime.fleet_view(FleetBreaker::of(subject)).is_some() {
            return Some(subject.to_owned());
        }
        let shares = self.parts.iter();
        let mut shares = shares.filter(|(_, part)| part.fleet.keys == KeySharing::Hashed);
        let (dependency, key) = shares.find_map(|(name, _)| {
            let rest = subject.strip_prefix(&**name)?.strip_prefix('[')?;
            let key = rest.strip_suffix(']')?;
            let of = FleetBreaker {
                dependency: name,
                key: Some(key),
            };
            runtime.fleet_view(of).map(|_| (name.clone(), key))
        })?;
        let member = member_of(&self.config.name, &dependency, key);
        self.keys.insert(member.clone(), Arc::from(key));
        Some(member)
    }

    /// Finds the keys of a dependency's members that are not known by name yet.
    pub(super) fn learn_keys(&mut self, dependency: &str, runtime: &Runtime) {
        let unknown = |name: &&String| is_key(name) && !self.keys.contains_key(*name);
        if !self.names_with_keys(dependency).any(|name| unknown(&name)) {
            return;
        }
        for key in runtime.keys_of(dependency) {
            let member = member_of(&self.config.name, dependency, &key);
            if self.members.contains_key(&member) {
                self.keys.insert(member, key);
            }
        }
    }

    /// Returns the members of a dependency: itself, and its keys.
    pub(crate) fn names_with_keys<'a>(
        &'a self,
        dependency: &'a str,
    ) -> impl Iterator<Item = &'a String> {
        let from = self
            .members
            .range::<str, _>((Bound::Included(dependency), Bound::Unbounded));
        let own = from.take_while(move |(name, _)| name.starts_with(dependency));
        own.map(|(name, _)| name)
            .filter(move |name| dependency_of(name) == dependency)
    }

    /// Takes up the new member of a key.
    pub(super) fn add_key(&mut self, now: Time, member: &str, runtime: &Runtime) {
        self.note_callers(now, member);
        self.learn_keys(dependency_of(member), runtime);
        let life = self.view(member, runtime).map(|view| view.life);
        if let Some(member) = self.members.get_mut(member) {
            member.life = life;
        }
    }

    /// Tells the new member of a key which replicas call its dependency.
    fn note_callers(&mut self, now: Time, member: &str) {
        // FLT-5: heartbeats name no keys, so the callers of a key are those of its dependency.
        let calls =
            |dependencies: &std::collections::BTreeMap<String, super::word::ReportedState>| {
                dependencies
                    .get(dependency_of(member))
                    .is_some_and(|one| one.calls)
            };
        let callers = self
            .replicas
            .iter()
            .filter(|(id, one)| **id != self.me && one.counts() && calls(&one.dependencies));
        let callers: Vec<ReplicaId> = callers.map(|(id, _)| *id).collect();
        if let Some(member) = self.members.get_mut(member) {
            for replica in callers {
                let calls = true;
                member
                    .machine
                    .on(now, FleetInput::Present { replica, calls });
            }
        }
    }

    /// Forgets the members of keys of which there is nothing to know any more.
    pub(super) fn forget_idle_keys(&mut self) {
        self.members
            .retain(|name, one| !is_key(name) || one.pause.is_some() || !one.machine.is_idle());
        let members = &self.members;
        self.keys.retain(|name, _| members.contains_key(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flt_16_a_key_is_known_by_a_hash_that_is_another_one_in_each_fleet_and_dependency() {
        let member = member_of("default", "web", "tenant-7");
        assert!(is_key(&member));
        assert_eq!(dependency_of(&member), "web");
        assert_eq!(hash_of(&member).unwrap().len(), 2 * HASH);
        assert!(!member.contains("tenant"));
        assert_ne!(member, member_of("other", "web", "tenant-7"));
        assert_ne!(member, member_of("default", "we", "btenant-7"));
        assert_eq!((is_key("web"), hash_of("web")), (false, None));
    }
}
