//! State of a group of servers, as operators see it.

use breakerbox_policy::CountedNoun;

use crate::Health;

/// A group with its members. It has no breaker and no worker of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its members, in the order of their prefixes.
    pub members: Vec<MemberStatus>,
    /// Number of sessions of its callers.
    pub sessions: usize,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Beginning of the names of its tools and prompts.
    pub prefix: String,
    /// The dependency.
    pub name: String,
    /// Its health, as that of every dependency.
    pub health: Health,
}

impl GroupStatus {
    /// Returns the members that are not well.
    pub fn sick(&self) -> impl Iterator<Item = &MemberStatus> {
        let members = self.members.iter();
        members.filter(|member| member.health != Health::Ok)
    }

    /// Returns the health of the group: it is down with the last of its members, and names those
    /// that are not well.
    #[must_use]
    pub fn health(&self) -> Health {
        let names: Vec<&str> = self.sick().map(|member| member.name.as_str()).collect();
        if names.is_empty() {
            return Health::Ok;
        }
        let is_down = |member: &MemberStatus| matches!(member.health, Health::Down { .. });
        let all = CountedNoun(self.members.len() as u64, "member");
        let are = if names.len() == 1 { "is" } else { "are" };
        let (sick, named) = (names.len(), names.join(", "));
        let reason = format!("{sick} of {all} {are} not well: {named}");
        match self.members.iter().all(is_down) {
            true => Health::Down { reason },
            false => Health::Degraded { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(health: [Health; 2]) -> GroupStatus {
        let [one, two] = health;
        let member = |name: &str, health| MemberStatus {
            prefix: name.to_owned(),
            name: name.to_owned(),
            health,
        };
        GroupStatus {
            name: "all".to_owned(),
            members: vec![member("one", one), member("two", two)],
            sessions: 0,
        }
    }

    #[test]
    fn mcp_6_the_health_of_a_group_names_its_sick_members() {
        let reason = || "a drill".to_owned();
        let (down, degraded) = (
            || Health::Down { reason: reason() },
            || Health::Degraded { reason: reason() },
        );
        assert_eq!(group([Health::Ok, Health::Ok]).health(), Health::Ok);
        for sick in [down(), degraded()] {
            let told = group([Health::Ok, sick]).health();
            let reason = "1 of 2 members is not well: two".to_owned();
            assert_eq!(told, Health::Degraded { reason });
        }
        let reason = "2 of 2 members are not well: one, two".to_owned();
        assert_eq!(group([down(), down()]).health(), Health::Down { reason });
        let mut alone = group([down(), Health::Ok]);
        alone.members.pop();
        let reason = "1 of 1 member is not well: one".to_owned();
        assert_eq!(alone.health(), Health::Down { reason });
        let told = group([down(), degraded()]).health();
        assert!(matches!(told, Health::Degraded { .. }), "{told:?}");
    }
}
