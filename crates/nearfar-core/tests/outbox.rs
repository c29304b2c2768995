//! What becomes of invalidations that the store has not acknowledged, and of those that it has lost.

use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{Batch, Moment, Outbox, Setback, Subject, Version};
use proptest::prelude::*;

const NOW: Moment = Moment::from_micros(1_000_000_000);

fn key(number: usize) -> Bytes {
    number.to_string().into()
}

fn keys(numbers: impl IntoIterator<Item = usize>) -> Batch {
    Batch::Keys(numbers.into_iter().map(key).collect())
}

fn with(numbers: impl IntoIterator<Item = usize>) -> Outbox {
    let mut outbox = Outbox::default();
    numbers.into_iter().for_each(|number| outbox.add(NOW, key(number), NOW));
    outbox
}

fn subject(name: &'static str) -> Subject {
    Subject::Key(name.into())
}

/// Sends all that is due, as L2 acknowledges it.
fn sent(outbox: &mut Outbox, now: Moment) -> Vec<Batch> {
    std::iter::from_fn(|| {
        let batch = outbox.poll(now)?;
        outbox.acknowledge();
        Some(batch)
    })
    .collect()
}

#[test]
fn a_key_waits_once_however_often_it_changed_and_since_the_first_time() {
    let mut outbox = with([1, 2]);
    outbox.add(NOW + Duration::from_secs(3), key(1), NOW);
    assert_eq!((outbox.depth(), outbox.oldest()), (2, Some(NOW)));
    assert_eq!(sent(&mut outbox, NOW), [keys([1, 2])]);
    assert_eq!((outbox.depth(), outbox.oldest()), (0, None));
}

#[test]
fn one_batch_is_under_way_at_a_time_and_its_keys_count_as_waiting() {
    let mut outbox = with([1]);
    assert_eq!(outbox.poll(NOW), Some(keys([1])));
    outbox.add(NOW, key(2), NOW);
    assert_eq!((outbox.poll(NOW), outbox.due()), (None, Moment::NEVER));
    assert_eq!((outbox.depth(), outbox.left()), (2, vec![keys([1, 2])]));
    assert!(outbox.holds(&subject("1")) && outbox.holds(&subject("2")) && !outbox.holds(&subject("3")));
    outbox.acknowledge();
    assert_eq!(outbox.poll(NOW), Some(keys([2])));
}

/// The key changed again while its invalidation was under way: that one may have been executed before the change.
#[test]
fn a_key_that_is_added_while_it_is_under_way_is_sent_again() {
    let mut outbox = with([1]);
    assert_eq!(outbox.poll(NOW), Some(keys([1])));
    outbox.add(NOW, key(1), NOW);
    outbox.acknowledge();
    assert_eq!(sent(&mut outbox, NOW), [keys([1])]);
}

#[test]
fn what_fails_is_tried_again_after_pauses_that_grow_up_to_a_second() {
    let mut outbox = with([1]);
    let mut now = NOW;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert!(outbox.poll(now).is_some());
        outbox.fail(now, Setback::Away);
        pauses.push(outbox.due().since(now));
        assert_eq!(outbox.poll(now), None);
        now = outbox.due();
    }
    let millis: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
    assert_eq!(millis, [20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    assert_eq!(outbox.oldest(), Some(NOW));
    assert!(outbox.poll(now).is_some());
    outbox.fail(now, Setback::Away);
    outbox.nudge();
    assert_eq!(sent(&mut outbox, now), [keys([1])], "L2 is back, so there is nothing to wait for");
}

/// The change that timed out may still be executed. An invalidation before it would be overtaken by it.
#[test]
fn nothing_is_sent_while_its_change_may_still_be_executed() {
    let late = NOW + Duration::from_secs(1);
    let mut outbox = with([2]);
    outbox.add(NOW, key(1), late);
    assert!(outbox.may_be_overtaken(Some(&subject("1")), NOW) && outbox.may_be_overtaken(None, NOW));
    assert!(!outbox.may_be_overtaken(Some(&subject("2")), NOW));
    assert_eq!(sent(&mut outbox, NOW), [keys([2])]);
    assert_eq!(outbox.due(), late);
    assert!(outbox.holds(&subject("1")));
    assert!(!outbox.may_be_overtaken(Some(&subject("1")), late));
    assert_eq!(sent(&mut outbox, late), [keys([1])]);
}

#[test]
fn too_many_keys_become_one_raise_of_the_floor() {
    let mut outbox = with(0..Outbox::MAX_KEYS);
    assert_eq!((outbox.depth(), outbox.overflows()), (Outbox::MAX_KEYS, 0));
    outbox.add(NOW, key(Outbox::MAX_KEYS), NOW + Duration::from_secs(1));
    assert_eq!((outbox.depth(), outbox.overflows(), outbox.oldest()), (1, 1, Some(NOW)));
    assert!(outbox.holds(&subject("anything")));
    assert_eq!(sent(&mut outbox, NOW), [], "one of them may still be executed");
    outbox.add(NOW, key(1), NOW);
    assert_eq!((outbox.depth(), outbox.left()), (1, vec![Batch::Everything]));
    assert_eq!(sent(&mut outbox, NOW + Duration::from_secs(1)), [Batch::Everything]);
    assert_eq!(outbox.depth(), 0);
}

#[test]
fn too_many_bytes_of_keys_become_one_raise_of_the_floor() {
    let mut outbox = Outbox::default();
    for number in 0..17_u8 {
        outbox.add(NOW, Bytes::from(vec![number; 1024 * 1024]), NOW);
    }
    assert_eq!((outbox.depth(), outbox.overflows()), (1, 1));
}

#[test]
fn many_keys_go_in_batches() {
    let mut outbox = with(0..2_500);
    let sizes: Vec<usize> = sent(&mut outbox, NOW).iter().map(count).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);

    let mut outbox = Outbox::default();
    for number in 0..3_u8 {
        outbox.add(NOW, Bytes::from(vec![number; 1024 * 1024]), NOW);
    }
    assert_eq!(sent(&mut outbox, NOW).len(), 3, "keys may be long");
}

fn count(batch: &Batch) -> usize {
    match batch {
        Batch::Keys(keys) => keys.len(),
        Batch::Tags(_) => unreachable!("nothing has tags here"),
        Batch::Everything => 0,
    }
}

#[test]
fn what_was_acknowledged_lately_is_sent_again_if_history_is_lost() {
    let mut outbox = Outbox::default();
    outbox.remember(NOW, keys([1]), Version::new(5));
    outbox.remember(NOW + Outbox::REMEMBERED_FOR / 2, keys([2]), Version::new(6));
    outbox.remember(NOW + Outbox::REMEMBERED_FOR, keys([2, 3]), Version::new(7));
    assert_eq!(outbox.reissue(NOW, Version::new(6)), 3);
    assert_eq!(sent(&mut outbox, NOW), [keys([1, 2, 3])]);
    let later = NOW + 2 * Outbox::REMEMBERED_FOR + Outbox::REMEMBERED_FOR;
    assert_eq!(outbox.reissue(later, Version::new(6)), 0, "sending it again makes it no younger");
}

#[test]
fn what_was_acknowledged_long_ago_is_not() {
    let mut outbox = Outbox::default();
    let long_after = NOW + 2 * Outbox::REMEMBERED_FOR;
    outbox.remember(NOW, keys([1]), Version::new(5));
    outbox.remember(NOW, Batch::Everything, Version::new(6));
    outbox.remember(long_after, keys([2]), Version::new(7));
    outbox.reissue(long_after, Version::new(6));
    assert_eq!(sent(&mut outbox, long_after), [keys([2])]);
}

#[test]
fn a_clear_is_remembered_too() {
    let mut outbox = Outbox::default();
    outbox.remember(NOW, keys([1]), Version::new(5));
    outbox.remember(NOW, Batch::Everything, Version::new(6));
    outbox.reissue(NOW, Version::new(4));
    assert_eq!(sent(&mut outbox, NOW), [Batch::Everything]);
}

#[test]
fn no_more_is_remembered_than_there_may_wait() {
    let mut outbox = Outbox::default();
    for number in 0..30_000 {
        outbox.remember(NOW, keys([number]), Version::new(5 + number as u64));
    }
    let count = outbox.reissue(NOW, Version::new(4));
    assert!((Outbox::MAX_KEYS / 2..=Outbox::MAX_KEYS).contains(&count), "{count}");
    assert_eq!(outbox.overflows(), 0);
}

/// R30: a failover lost a change that this node was told is done, before its message came. The chain goes on without.
#[test]
fn a_chain_that_passes_an_acknowledged_change_without_it_is_of_another_history() {
    let mut outbox = Outbox::default();
    outbox.remember(NOW, keys([1]), Version::new(5));
    assert!(outbox.pass(Version::new(4)), "it may still come");
    assert!(!outbox.pass(Version::new(6)));
    assert_eq!(outbox.reissue(NOW, Version::new(6)), 1);
    assert!(outbox.pass(Version::new(7)));
}

#[test]
fn an_acknowledged_change_that_is_heard_is_accounted_for_in_either_order() {
    let mut outbox = Outbox::default();
    outbox.remember(NOW, keys([1]), Version::new(5));
    outbox.hear(Version::new(5));
    assert!(outbox.pass(Version::new(5)));
    outbox.hear(Version::new(6));
    assert!(outbox.pass(Version::new(7)));
    outbox.remember(NOW, keys([2]), Version::new(6));
    assert!(outbox.pass(Version::new(8)));
    assert_eq!(outbox.depth(), 0);
}

/// The acknowledgement was under way while a failover lost its change and the chain went on without it.
#[test]
fn a_change_that_is_acknowledged_after_the_chain_has_passed_it_is_sent_again() {
    let mut outbox = Outbox::default();
    assert!(outbox.pass(Version::new(6)));
    outbox.remember(NOW, keys([1]), Version::new(5));
    let due = outbox.due();
    assert!(NOW < due && due < NOW + Duration::from_secs(1));
    assert_eq!(sent(&mut outbox, due), [keys([1])]);
}

/// After a failover to a server whose clock is behind, each repetition is below what the chain has passed.
#[test]
fn what_is_lost_again_and_again_is_repeated_with_pauses() {
    let mut outbox = with([1]);
    assert!(outbox.pass(Version::new(1_000_000)));
    let (mut now, mut times) = (NOW, 0);
    while now < NOW + Duration::from_secs(10) {
        outbox.poll(now).expect("it is due");
        times += 1;
        outbox.remember_sent(now, Version::new(times));
        outbox.acknowledge();
        now = outbox.due();
    }
    assert!(times < 20, "{times}");
}

/// Many changes were under way when the chain began anew.
#[test]
fn losses_at_the_same_time_are_one() {
    let mut outbox = Outbox::default();
    assert!(outbox.pass(Version::new(1_000)));
    for number in 0..100 {
        outbox.remember(NOW, keys([number]), Version::new(1 + number as u64));
    }
    assert_eq!(outbox.due(), NOW + Duration::from_millis(20));
    assert!(!outbox.may_be_overtaken(Some(&subject("1")), NOW), "L2 has executed it, if it has");
}

#[test]
fn what_is_issued_again_is_remembered_from_the_first_time_on() {
    let mut outbox = Outbox::default();
    let mut now = NOW;
    outbox.remember(now, keys([1]), Version::new(5));
    for version in 6..12 {
        now = now + Outbox::REMEMBERED_FOR / 2;
        outbox.reissue(now, Version::new(version));
        if outbox.poll(now).is_some() {
            outbox.remember_sent(now, Version::new(version + 1));
            outbox.acknowledge();
        }
    }
    assert_eq!(outbox.reissue(now, Version::new(20)), 0);
}

#[test]
fn a_key_that_is_refused_lets_the_others_pass() {
    let mut outbox = with(1..=3);
    let mut delivered = Vec::new();
    for _ in 0..30 {
        let now = outbox.due();
        match outbox.poll(now) {
            Some(Batch::Keys(keys)) if keys.contains(&key(1)) => outbox.fail(now, Setback::Refused),
            Some(Batch::Keys(keys)) => {
                delivered.extend(keys);
                outbox.acknowledge();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, [key(2), key(3)]);
    assert!(outbox.holds(&subject("1")));
}

/// The subscription is away, L2 is not, and everybody writes.
#[test]
fn acknowledged_changes_that_nobody_hears_of_are_counted_up_to_a_limit_and_then_doubted() {
    let mut outbox = Outbox::default();
    for number in 0..20_000 {
        outbox.remember(NOW, keys([1]), Version::new(2 + number));
    }
    assert!(format!("{outbox:?}").matches("Version(").count() < 10_000);
    assert!(!outbox.pass(Version::new(1)), "one of those that are not counted any more may be lost");
    outbox.reissue(NOW, Version::new(20_002));
    assert!(outbox.pass(Version::new(20_003)));
}

#[test]
fn a_clear_is_not_remembered_longer_than_keys_are() {
    let mut outbox = Outbox::default();
    outbox.remember(NOW, Batch::Everything, Version::new(1));
    let mut now = NOW;
    for second in 0..120 {
        now = now + Duration::from_secs(1);
        outbox.remember(now, keys([second]), Version::new(2 + second as u64));
    }
    outbox.reissue(now, Version::new(200));
    assert!(matches!(outbox.left().as_slice(), [Batch::Keys(_)]));
}

#[test]
fn what_was_acknowledged_before_a_long_silence_is_not_sent_again() {
    let mut outbox = Outbox::default();
    outbox.remember(NOW, Batch::Everything, Version::new(1));
    outbox.remember(NOW, keys([1]), Version::new(2));
    assert_eq!(outbox.reissue(NOW + 2 * Outbox::REMEMBERED_FOR, Version::new(200)), 0);
}

/// What does not get through in time at once may do so in parts.
#[test]
fn batches_shrink_with_each_failure_and_grow_again() {
    let mut outbox = with(0..3_000);
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(outbox.poll(outbox.due()).map(|batch| count(&batch)));
        outbox.fail(NOW, Setback::Away);
    }
    counts.push(outbox.poll(outbox.due()).map(|batch| count(&batch)));
    outbox.acknowledge();
    counts.push(outbox.poll(NOW).map(|batch| count(&batch)));
    assert_eq!(counts, [Some(1_000), Some(500), Some(250), Some(125), Some(1_000)]);
}

/// An echo shows that L2 is there, not that it has changed its mind.
#[test]
fn a_sign_of_life_ends_no_pause_after_a_refusal() {
    let mut outbox = with([1]);
    outbox.poll(NOW).expect("it is due");
    outbox.fail(NOW, Setback::Refused);
    outbox.nudge();
    assert_eq!(outbox.poll(NOW), None);
}

#[test]
fn a_change_that_came_through_makes_the_invalidation_of_an_earlier_one_needless() {
    let mut outbox = Outbox::default();
    let second = Duration::from_secs(1);
    outbox.add(NOW, key(1), NOW + second);
    outbox.strike_out([Subject::Key(key(1))], NOW);
    assert!(outbox.holds(&Subject::Key(key(1))), "the earlier one could still be executed after it");
    outbox.add(NOW + second, key(1), NOW);
    outbox.strike_out([Subject::Key(key(1))], NOW + second);
    assert!(outbox.holds(&Subject::Key(key(1))), "one that failed meanwhile is not over");
    outbox.strike_out([Subject::Key(key(1))], NOW + 2 * second);
    assert_eq!((outbox.left(), outbox.due()), (Vec::new(), Moment::NEVER));
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    AddEverything,
    Poll,
    Acknowledge,
    Fail,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_usize).prop_map(Step::Add),
        1 => Just(Step::AddEverything),
        4 => Just(Step::Poll),
        2 => Just(Step::Acknowledge),
        2 => Just(Step::Fail),
        2 => (0..2_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens, a change that was added is in a batch that was polled after it and acknowledged, or waits.
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec(step(), 1..60)) {
        let mut outbox = Outbox::default();
        let mut now = NOW;
        let mut owed = std::collections::BTreeSet::new();
        let mut under_way: Option<(Batch, std::collections::BTreeSet<usize>)> = None;
        for step in steps {
            match step {
                Step::Add(number) => {
                    outbox.add(now, key(number), now);
                    owed.insert(number);
                    if let Some((_, covers)) = &mut under_way {
                        covers.remove(&number);
                    }
                }
                Step::AddEverything => {
                    outbox.add_everything(now, now);
                    owed.extend(0..5);
                    if let Some((_, covers)) = &mut under_way {
                        covers.clear();
                    }
                }
                Step::Poll => {
                    if let Some(batch) = outbox.poll(now) {
                        prop_assert!(under_way.is_none());
                        let covers = match &batch {
                            Batch::Tags(_) => unreachable!("nothing has tags here"),
                            Batch::Everything => (0..5).collect(),
                            Batch::Keys(keys) => keys.iter().map(|key| {
                                std::str::from_utf8(key).unwrap().parse().unwrap()
                            }).collect(),
                        };
                        under_way = Some((batch, covers));
                    }
                }
                Step::Acknowledge => {
                    if let Some((_, covers)) = under_way.take() {
                        outbox.acknowledge();
                        owed.retain(|number| !covers.contains(number));
                    }
                }
                Step::Fail => if under_way.take().is_some() {
                    outbox.fail(now, Setback::Away);
                },
                Step::Pass(millis) => now = now + Duration::from_millis(millis),
            }
            for number in &owed {
                prop_assert!(outbox.holds(&Subject::Key(key(*number))), "{number} is owed");
            }
            prop_assert_eq!(outbox.depth() == 0, outbox.left().is_empty());
            prop_assert!(outbox.depth() > 0 || owed.is_empty());
            prop_assert_eq!(outbox.depth() > 0, outbox.oldest().is_some());
            if under_way.is_none() && outbox.depth() > 0 {
                prop_assert!(outbox.due() < Moment::NEVER, "it will be sent");
            }
        }
    }
}
