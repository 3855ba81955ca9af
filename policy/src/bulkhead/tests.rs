use super::*;

fn ticket(priority: Priority, write: bool) -> Ticket {
    Ticket { priority, write }
}

#[test]
fn call_6_the_highest_priority_is_next_and_within_it_the_longest_wait() {
    let mut line = WaitQueue::new();
    let asked = [
        (Priority::Normal, "b"),
        (Priority::Low, "d"),
        (Priority::High, "a"),
        (Priority::Normal, "c"),
    ];
    for (priority, who) in asked {
        line.join(ticket(priority, false), who);
    }
    let served: Vec<_> = std::iter::from_fn(|| line.take_next(true)).collect();
    let names: Vec<_> = served.iter().map(|(_, who)| *who).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[test]
fn call_6_the_youngest_of_the_lowest_makes_room_for_a_higher_one_alone() {
    let mut line = WaitQueue::new();
    line.join(ticket(Priority::Low, false), "old low");
    line.join(ticket(Priority::Low, true), "young low");
    line.join(ticket(Priority::Normal, false), "normal");
    let mut shed = |newcomer| line.shed_for(newcomer).map(|(_, who)| who);
    assert_eq!(shed(Priority::Low), None);
    assert_eq!(shed(Priority::Normal), Some("young low"));
    assert_eq!(shed(Priority::High), Some("old low"));
    assert_eq!(shed(Priority::Normal), None);
    assert_eq!(shed(Priority::High), Some("normal"));
    assert_eq!(shed(Priority::High), None);
}

#[test]
fn lim_3_a_write_that_may_not_run_lets_reads_by_and_keeps_its_turn() {
    let mut line = WaitQueue::new();
    let write = line.join(ticket(Priority::Normal, true), "write");
    line.join(ticket(Priority::Normal, false), "read");
    line.join(ticket(Priority::Normal, false), "later read");
    let first = line.take_next(false).unwrap();
    assert_eq!((first.0.ticket().write, first.1), (false, "read"));
    assert_eq!(line.take_next(true), Some((write, "write")));
    assert!(line.get_mut(write).is_none() && line.leave(write).is_none());
    assert!(line.take_next(false).is_some());
    assert!(line.take_next(true).is_none());
}

#[test]
fn call_6_a_waiter_can_be_reached_by_its_position_until_it_leaves() {
    let mut line = WaitQueue::new();
    for (priority, write) in [(Priority::Low, true), (Priority::High, false)] {
        let ticket = ticket(priority, write);
        let position = line.join(ticket, 1);
        assert_eq!(position.ticket(), ticket);
        *line.get_mut(position).unwrap() += 1;
        assert_eq!(line.leave(position), Some(2));
        assert_eq!(line.get_mut(position), None);
    }
}
