//! One thing after the other, and several at once.

use std::time::Duration;

use nearfar_testkit::{Cut, Direction, Flow, RedisServer, let_pass};

use crate::trial::{EVERYBODY, Trial};

const MISHAPS: usize = 12;
/// The longest that one of them lasts, and the longest pause between two.
const LONGEST: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
enum Mishap {
    Cut { node: usize },
    Refuse { node: usize },
    Strand { node: usize },
    Flow { node: usize, direction: Direction, flow: Flow },
    KillSubscriptions,
    FlushAll,
    FlushScripts,
    Pause,
    Restart,
}

impl Mishap {
    fn any(random: &mut fastrand::Rng) -> Self {
        let node = random.usize(..EVERYBODY.len());
        let direction = random.choice([Direction::ToServer, Direction::ToClient, Direction::Both]).unwrap();
        let delay = Duration::from_millis(random.u64(1..300));
        match random.u8(..10) {
            0 => Self::Cut { node },
            1 => Self::Refuse { node },
            2 => Self::Strand { node },
            3 | 4 => Self::Flow { node, direction, flow: Flow::Hold },
            5 => Self::Flow { node, direction, flow: Flow::Delay(delay) },
            6 => Self::KillSubscriptions,
            7 => random.choice([Self::FlushAll, Self::FlushScripts]).unwrap(),
            8 => Self::Pause,
            _ => Self::Restart,
        }
    }

    async fn begins(self, trial: &Trial, server: &mut RedisServer) {
        match self {
            Self::Cut { node } => trial.nodes[node].proxy().cut(Cut::Reset).await,
            Self::Refuse { node } => {
                trial.nodes[node].proxy().refuse().await;
                trial.nodes[node].proxy().cut(Cut::Close).await;
            }
            Self::Strand { node } => trial.nodes[node].proxy().strand(),
            Self::Flow { node, direction, flow } => trial.nodes[node].proxy().set(direction, flow),
            Self::KillSubscriptions => drop(server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await),
            Self::FlushAll => drop(server.command(&["FLUSHALL"]).await),
            Self::FlushScripts => drop(server.command(&["SCRIPT", "FLUSH"]).await),
            Self::Pause => server.pause().await,
            Self::Restart => server.kill().await,
        }
    }

    async fn ends(self, trial: &Trial, server: &mut RedisServer) {
        match self {
            Self::Refuse { node } => trial.nodes[node].proxy().accept().await,
            Self::Flow { node, .. } => trial.nodes[node].proxy().set(Direction::Both, Flow::Forward),
            Self::Pause => server.resume().await,
            Self::Restart => server.restart().await,
            // They are over when they have happened.
            Self::Cut { .. }
            | Self::Strand { .. }
            | Self::KillSubscriptions
            | Self::FlushAll
            | Self::FlushScripts => {}
        }
    }
}

/// What one mishap leaves behind is what the next one meets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_mishap_after_the_other_stretches_no_bound() {
    let mut server = RedisServer::builder().persistent().start().await;
    let mut trial = Trial::start("12 mishaps in a row, at random", &server).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    trial.breaks();
    for _ in 0..MISHAPS {
        let mishap = Mishap::any(&mut random);
        println!("{:.3} s: {mishap:?}", trial.now().as_secs_f64());
        mishap.begins(&trial, &mut server).await;
        let_pass(LONGEST.mul_f64(random.f64())).await;
        mishap.ends(&trial, &mut server).await;
        let_pass(PAUSE.mul_f64(random.f64())).await;
    }
    trial.ends().await;
}
