//! Asks the sentinels who the primary is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand};
use futures_util::future::join_all;

use crate::lane::Lane;
use crate::topology::Sentinels;

/// Where a server is.
pub(crate) type Place = (String, u16);

/// Connections to the sentinels of a primary.
pub(crate) struct Council {
    members: Vec<Lane>,
    service: String,
}

impl Council {
    /// Must be called inside the runtime.
    pub(crate) fn new(sentinels: &Sentinels, time_limit: Duration) -> Self {
        let lane = |sentinel| Lane::opening(Arc::clone(sentinel), time_limit);
        Self { members: sentinels.sentinels.iter().map(lane).collect(), service: sentinels.service.clone() }
    }

    /// Whom most of those name who answer; `None` if nobody does, or they are of two minds.
    pub(crate) async fn ask(&self) -> Option<Place> {
        let asked = self.members.iter().map(|member| async {
            let service = self.service.clone();
            member.command(async |client| named(&client, service).await).await.ok().flatten()
        });
        elected(join_all(asked).await.into_iter().flatten())
    }
}

/// Whom a sentinel names; `None` if it knows no such service.
pub(crate) async fn named(client: &WithOptions<Client>, service: String) -> Result<Option<Place>, FredError> {
    let question = CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
    let args = vec!["GET-MASTER-ADDR-BY-NAME".to_owned(), service];
    let answer: Vec<String> = Box::pin(client.custom(question, args)).await?;
    let [host, port] = answer.as_slice() else { return Ok(None) };
    Ok(port.parse().ok().map(|port| (host.clone(), port)))
}

fn elected(votes: impl Iterator<Item = Place>) -> Option<Place> {
    let mut count: BTreeMap<Place, usize> = BTreeMap::new();
    votes.for_each(|vote| *count.entry(vote).or_default() += 1);
    let all: usize = count.values().sum();
    count.into_iter().find(|(_, votes)| 2 * votes > all).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elected_of(ports: &[u16]) -> Option<u16> {
        elected(ports.iter().map(|port| ("h".to_owned(), *port))).map(|(_, port)| port)
    }

    #[test]
    fn most_of_those_who_answer_decide_and_nobody_else() {
        assert_eq!(elected_of(&[1, 2, 2]), Some(2));
        assert_eq!(elected_of(&[1]), Some(1));
        assert_eq!(elected_of(&[1, 2]), None, "of two minds");
        assert_eq!(elected_of(&[]), None);
    }
}
