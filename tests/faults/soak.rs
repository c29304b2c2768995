//! A cluster to which everything happens, for as long as one likes.

use std::time::Duration;

use nearfar_testkit::{Cut, Direction, Flow, RedisCluster, let_pass};

use crate::cluster::slot_of_key;
use crate::trial::{KEYS, LAST_MOMENT, Trial};

/// How many seconds it takes, if not a minute.
const SECONDS: &str = "NEARFAR_SOAK_SECONDS";
/// The longest that a mishap lasts, and the longest pause between two: less than it takes to be replaced, and more.
const LONGEST: Duration = Duration::from_millis(3_500);
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
enum Mishap {
    Kill { server: usize },
    Pause { server: usize },
    Flow { server: usize, direction: Direction, flow: Flow },
    Cut { server: usize },
    KillSubscriptions { server: usize },
    FlushAll { server: usize },
    Failover { primary: usize },
    MoveSlot { slot: u16, to: usize },
}

impl Mishap {
    async fn any(random: &mut fastrand::Rng, cluster: &RedisCluster) -> Self {
        let primaries = cluster.primaries().await;
        let primary = random.choice(&primaries).copied().unwrap();
        let server = random.usize(..6);
        let direction = random.choice([Direction::ToServer, Direction::ToClient, Direction::Both]).unwrap();
        let delay = Duration::from_millis(random.u64(1..200));
        match random.u8(..10) {
            0 => Self::Kill { server },
            1 => Self::Pause { server },
            2 | 3 => Self::Flow { server, direction, flow: Flow::Hold },
            4 => Self::Flow { server, direction, flow: Flow::Delay(delay) },
            5 => Self::Cut { server },
            6 => Self::KillSubscriptions { server },
            7 => Self::FlushAll { server: primary },
            8 => Self::Failover { primary },
            _ => Self::MoveSlot { slot: slot_of_key(cluster, random.u64(..KEYS)).await, to: primary },
        }
    }

    async fn begins(self, cluster: &mut RedisCluster) {
        match self {
            Self::Kill { server } => cluster[server].kill().await,
            Self::Pause { server } => cluster[server].pause().await,
            Self::Flow { server, direction, flow } => cluster[server].proxy().set(direction, flow),
            Self::Cut { server } => cluster[server].proxy().cut(Cut::Reset).await,
            Self::KillSubscriptions { server } => {
                drop(cluster[server].command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await);
            }
            Self::FlushAll { server } => drop(cluster[server].command(&["FLUSHALL"]).await),
            Self::Failover { primary } => drop(cluster.failover(primary).await),
            Self::MoveSlot { slot, to } if cluster.owner_of_slot(slot).await == to => {}
            Self::MoveSlot { slot, to } => cluster.migrate_slot(slot, to).await,
        }
    }

    async fn ends(self, cluster: &mut RedisCluster) {
        match self {
            Self::Kill { server } => cluster[server].restart().await,
            Self::Pause { server } => cluster[server].resume().await,
            Self::Flow { server, .. } => cluster[server].proxy().set(Direction::Both, Flow::Forward),
            // They are over when they have happened.
            Self::Cut { .. }
            | Self::KillSubscriptions { .. }
            | Self::FlushAll { .. }
            | Self::Failover { .. }
            | Self::MoveSlot { .. } => {}
        }
        cluster.settled().await;
    }
}

fn duration() -> Duration {
    let seconds = std::env::var(SECONDS).map_or(60, |seconds| seconds.parse().expect(SECONDS));
    Duration::from_secs(seconds)
}

/// `scripts/soak` has it go on for ten minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_to_which_everything_happens_stretches_no_bound() {
    let builder = RedisCluster::builder()
        .arg("cluster-require-full-coverage", "no")
        .arg("cluster-replica-no-failover", "no");
    let mut cluster = builder.persistent().proxied().start().await;
    let mut trial = Trial::start_on("cluster: mishaps at random", &cluster.url()).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut mishaps = 0;
    trial.breaks();
    while trial.now() < duration() {
        let mishap = Mishap::any(&mut random, &cluster).await;
        println!("{:.3} s: {mishap:?}", trial.now().as_secs_f64());
        let (began, primaries) = (trial.now(), cluster.primaries().await);
        mishap.begins(&mut cluster).await;
        let_pass(LONGEST.mul_f64(random.f64())).await;
        mishap.ends(&mut cluster).await;
        // A primary that was replaced may have acknowledged changes until it knew.
        if cluster.primaries().await != primaries {
            trial.loses_what_was_acknowledged_since(began.saturating_sub(LAST_MOMENT));
        }
        let_pass(PAUSE.mul_f64(random.f64())).await;
        mishaps += 1;
    }
    trial.remarks(format_args!("{mishaps} mishaps in {} s", duration().as_secs()));
    trial.ends().await;
}
