//! Asks the sentinels who the primary is.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand};
use futures_util::future::join_all;
use nearfar_core::backend::L2Error;

use crate::lane::{Failure, Lane};
use crate::topology::{Sentinels, majority};

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
        Self { members: sentinels.council.iter().map(lane).collect(), service: sentinels.service.clone() }
    }

    /// Whom most of the sentinels name; `None` if they do not answer, or are of two minds. A few are not enough: they
    /// may be cut off together with a primary that was replaced.
    pub(crate) async fn ask(&self) -> Option<Place> {
        let asked = self.members.iter().map(|member| async {
            let service = self.service.clone();
            let vote = member.command(async |client| named(&client, service).await).await;
            if matches!(vote, Err(Failure::L2(L2Error::TimedOut))) {
                member.reconnect();
            }
            vote.ok().flatten()
        });
        elected(join_all(asked).await)
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

fn elected(votes: Vec<Option<Place>>) -> Option<Place> {
    let all = votes.len();
    majority(votes.into_iter().flatten(), all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elected_of(votes: &[Option<u16>]) -> Option<u16> {
        let votes = votes.iter().map(|vote| vote.map(|port| ("h".to_owned(), port)));
        elected(votes.collect()).map(|(_, port)| port)
    }

    #[test]
    fn most_of_all_decide_and_nobody_else() {
        assert_eq!(elected_of(&[Some(1), Some(2), Some(2)]), Some(2));
        assert_eq!(elected_of(&[None, Some(2), Some(2)]), Some(2));
        assert_eq!(elected_of(&[None, None, Some(2)]), None, "it may be cut off");
        assert_eq!(elected_of(&[Some(1), Some(2)]), None, "of two minds");
        assert_eq!(elected_of(&[Some(1)]), Some(1), "the only one");
    }
}
