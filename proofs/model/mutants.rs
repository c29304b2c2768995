//! The protocol, broken on purpose: each way must be found, or the explorations would prove nothing.

use stateright::{Checker, HasDiscoveries, Model};

use crate::scenario::{self, Mutant, Scenario};

/// Explores until something is wrong.
#[track_caller]
fn catch(mutant: Mutant, scenario: Scenario) {
    let broken = Scenario { mutant: Some(mutant), reaches: &[], ..scenario };
    let checker = broken.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    for (property, path) in &found {
        let (steps, states) = (path.clone().into_actions().len(), checker.unique_state_count());
        println!("model: {mutant:?} | found in {states} states | after {steps} steps | against: {property}");
    }
    assert!(!found.is_empty(), "{mutant:?} was not noticed");
}

#[test]
fn values_that_enter_l1_whatever_their_tickets_say_are_caught() {
    catch(Mutant::NoTicketCheck, scenario::FILLS);
}

#[test]
fn a_fence_that_is_raised_after_the_eviction_is_caught() {
    catch(Mutant::FenceAfterEviction, scenario::HALF_APPLIED);
}

#[test]
fn a_fill_without_the_version_check_is_caught() {
    catch(Mutant::FillUnchecked, scenario::FILLS);
}

#[test]
fn a_flight_that_is_joined_across_an_invalidation_is_caught() {
    catch(Mutant::FlightJoinedAcrossInvalidation, scenario::FILLS);
}

#[test]
fn a_log_that_is_believed_unmatched_is_caught() {
    catch(Mutant::NoLogMatching, scenario::TRIMMED_LOG);
}

#[test]
fn trust_from_a_reply_is_caught() {
    catch(Mutant::TrustFromReply, scenario::LOST_MESSAGES);
}

#[test]
fn gaps_that_are_ignored_are_caught() {
    catch(Mutant::GapsIgnored, scenario::LOST_MESSAGES);
}

#[test]
fn changes_without_a_deadline_are_caught() {
    catch(Mutant::NoDeadline, scenario::OVERTAKEN);
}

#[test]
fn changes_that_are_not_repeated_are_caught() {
    catch(Mutant::NoOutbox, scenario::LOST_ANSWERS);
}

#[test]
fn an_outbox_that_does_not_wait_for_the_deadline_is_caught() {
    catch(Mutant::OutboxTooEarly, scenario::OVERTAKEN);
}

#[test]
fn a_change_of_unknown_outcome_that_does_not_fence_is_caught() {
    catch(Mutant::NoUnsettledFence, scenario::LOST_ANSWERS_TO_READS);
}

#[test]
fn lost_changes_that_are_not_issued_again_are_caught() {
    catch(Mutant::NothingReissued, scenario::OWN_LOST);
}

#[test]
fn lost_changes_that_nobody_watches_for_are_caught() {
    catch(Mutant::NoWitness, scenario::FORK);
}
