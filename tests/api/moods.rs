//! A store that is away, refuses or takes its time, step by step, on paused time: what becomes of the changes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nearfar::backend::{
    Beat, BeatReply, Change, Claim, ClaimOutcome, Fill, FillOutcome, Holder, L2, L2Error, Moment, Namespace,
    NodeId, PartitionId, PurgeCursor, Purged, Reading, Renewal, ServerId, Settings, TagMark,
};
use nearfar::{Cache, InProcess, Loaded, Nearfar, NearfarBuilder, Outcome, Version};
use nearfar_testkit::let_pass;
use tokio::time::Instant;

/// What a store does with what it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    Away,
    /// It lets nobody compare settings.
    RefusesOpen,
    /// Other nodes have recorded a longer fence window.
    Disagrees,
    /// The next change breaks the connection; then it is well again.
    LosesOne,
    /// Changes get no answer.
    HoldsChanges,
}

#[derive(Debug)]
struct MoodyL2 {
    inner: Arc<dyn L2>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mutex<Mood>,
    open_takes_ms: AtomicU64,
    touches: AtomicU64,
    /// When each change came, and until when it may be executed.
    changes: Mutex<Vec<(Instant, Moment)>>,
}

impl State {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn changes(&self) -> usize {
        self.changes.lock().unwrap().len()
    }
}

impl MoodyL2 {
    fn reached(&self) -> Result<&dyn L2, L2Error> {
        if self.state.mood() == Mood::Away { Err(L2Error::Unreachable) } else { Ok(&*self.inner) }
    }
}

#[async_trait]
impl L2 for MoodyL2 {
    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        let l2 = self.reached()?;
        let_pass(Duration::from_millis(self.state.open_takes_ms.load(Relaxed))).await;
        match self.state.mood() {
            Mood::RefusesOpen => Err(L2Error::Rejected(Arc::new(std::fmt::Error))),
            Mood::Disagrees => Ok(Settings { fence_window: settings.fence_window * 2, ..*settings }),
            _ => l2.open(namespace, settings).await,
        }
    }

    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error> {
        self.reached()?.read_many(partition, keys).await
    }

    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error> {
        let l2 = self.reached()?;
        self.state.changes.lock().unwrap().push((Instant::now(), change.deadline));
        match self.state.mood() {
            Mood::LosesOne => {
                self.state.set(Mood::Well);
                Err(L2Error::ConnectionLost(Arc::new(std::fmt::Error)))
            }
            Mood::HoldsChanges => {
                let_pass(Duration::from_secs(1)).await;
                Err(L2Error::TimedOut)
            }
            _ => l2.change(partition, change).await,
        }
    }

    async fn fill_many(
        &self,
        partition: &PartitionId,
        fills: Vec<Fill>,
    ) -> Result<Vec<FillOutcome>, L2Error> {
        self.reached()?.fill_many(partition, fills).await
    }

    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error> {
        self.reached()?.tag_marks(partition, tags).await
    }

    async fn purge(
        &self,
        partition: &PartitionId,
        from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error> {
        self.reached()?.purge(partition, from, fence_window).await
    }

    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error> {
        self.reached()?.renew(partition, renewal).await
    }

    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error> {
        self.state.touches.fetch_add(1, Relaxed);
        self.reached()?.touch(partition, key, fence_window).await
    }

    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error> {
        self.reached()?.claim(partition, claim).await
    }

    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error> {
        self.reached()?.release(partition, key, holder).await
    }

    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        self.reached()?.log(partition, since, until).await
    }

    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error> {
        self.reached()?.beat(partition, beat).await
    }

    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        self.reached()?.nodes(partition).await
    }

    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error> {
        self.reached()?.leave(partition, node).await
    }

    fn reconnect(&self, _server: ServerId) {}

    async fn close(&self) {}
}

/// A node on a store of its own mood, and a shared world behind it.
struct Scene {
    shared: InProcess,
    nearfar: Nearfar,
    state: Arc<State>,
}

impl Scene {
    fn new(mood: Mood) -> Self {
        Self::with(mood, Nearfar::builder().start_degraded())
    }

    fn with(mood: Mood, builder: NearfarBuilder) -> Self {
        let (shared, state) = (InProcess::new(), Arc::new(State::default()));
        state.set(mood);
        let (inner, bus) = shared.backend();
        let l2 = MoodyL2 { inner, state: Arc::clone(&state) };
        Self { shared, nearfar: builder.tokio_time().backend(Arc::new(l2), bus), state }
    }

    async fn cache(&self) -> Cache<u64, String> {
        self.nearfar.cache("texts").build().await.unwrap()
    }

    /// The same cache on a node of good mood.
    async fn other(&self) -> Cache<u64, String> {
        Nearfar::builder().in_process(&self.shared).cache("texts").build().await.unwrap()
    }
}

/// The settings are compared before the first change, which takes its time. The change's deadline is reckoned after
/// that; an outbox that reckoned from before would send the invalidation while the change may still be executed.
#[tokio::test(start_paused = true)]
async fn an_invalidation_is_not_sent_before_the_deadline_of_the_set_that_it_is_for() {
    let (scene, start) = (Scene::new(Mood::Away), Instant::now());
    let cache = scene.cache().await;
    let_pass(Duration::from_secs(1)).await;
    scene.state.open_takes_ms.store(900, Relaxed);
    scene.state.set(Mood::LosesOne);
    assert_eq!(cache.set(&1, "old".into()).await.unwrap(), Outcome::Queued);
    let_pass(Duration::from_secs(3)).await;
    let changes = scene.state.changes.lock().unwrap().clone();
    let [(_, deadline), (sent_at, _)] = changes[..] else { panic!("{changes:?}") };
    assert!(sent_at.duration_since(start) > Duration::from_micros(deadline.micros()), "{changes:?}");
}

/// Nobody may have beaten since the start, so nothing is known of L2's clock; the node goes on beating for what waits.
#[tokio::test(start_paused = true)]
async fn a_cache_that_was_dropped_before_the_store_first_came_delivers() {
    let scene = Scene::new(Mood::Away);
    let cache = scene.cache().await;
    assert_eq!(cache.invalidate(&1).await.unwrap(), Outcome::Queued);
    drop(cache);
    let_pass(Duration::from_secs(1)).await;
    scene.state.set(Mood::Well);
    let_pass(Duration::from_secs(10)).await;
    assert_eq!((scene.state.changes(), scene.nearfar.shutdown().await), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_built_anew_does_not_read_what_the_node_knows_to_be_wrong() {
    let scene = Scene::new(Mood::Well);
    let cache = scene.cache().await;
    cache.set(&1, "old".into()).await.unwrap();
    scene.state.set(Mood::LosesOne);
    assert_eq!(cache.set(&1, "new".into()).await.unwrap(), Outcome::Queued);
    drop(cache);
    let cache = scene.cache().await;
    assert!(cache.get(&1).await.unwrap().is_none());
    let_pass(Duration::from_secs(10)).await;
    assert_eq!((cache.stats().outbox_keys, cache.get(&1).await.unwrap().is_none()), (0, true));
}

/// It fails after the outbox was emptied for the last time, so it must not be told that it is queued.
#[tokio::test(start_paused = true)]
async fn a_change_under_way_at_the_shutdown_is_an_error_if_it_fails() {
    let scene = Scene::new(Mood::Well);
    let cache = scene.cache().await;
    scene.state.set(Mood::HoldsChanges);
    let change = tokio::spawn({
        let cache = cache.clone();
        async move { cache.invalidate(&1).await }
    });
    let_pass(Duration::from_millis(10)).await;
    assert_eq!(scene.nearfar.shutdown().await, []);
    assert!(change.await.unwrap().unwrap_err().outcome_is_unknown());
    assert_eq!(cache.stats().outbox_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_nothing_is_queued() {
    let scene = Scene::new(Mood::Well);
    let cache = scene.cache().await;
    scene.nearfar.shutdown().await;
    assert!(cache.invalidate(&1).await.unwrap_err().is_closed());
    assert_eq!((cache.stats().outbox_keys, cache.stats().queued), (0, 0));
}

/// The longer of the two fence windows protects everybody.
#[tokio::test(start_paused = true)]
async fn what_was_queued_before_a_disagreement_was_found_is_delivered() {
    let scene = Scene::new(Mood::Away);
    let cache = scene.cache().await;
    assert_eq!(cache.invalidate(&1).await.unwrap(), Outcome::Queued);
    scene.state.set(Mood::Disagrees);
    let_pass(Duration::from_secs(10)).await;
    assert_eq!(cache.stats().outbox_keys, 0);
    assert!(cache.invalidate(&1).await.is_err(), "new changes are refused");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_to_compare_settings_is_an_error_and_the_change_waits() {
    let scene = Scene::new(Mood::Away);
    let cache = scene.cache().await;
    scene.state.set(Mood::RefusesOpen);
    let refusal = cache.invalidate(&1).await.unwrap_err();
    assert!(!refusal.outcome_is_unknown(), "{refusal}");
    assert_eq!(cache.stats().outbox_keys, 1);
}

/// A `set` that was given up may still be executed, so the invalidation is not the last word; it helps all the same.
#[tokio::test(start_paused = true)]
async fn an_invalidation_goes_out_at_once_although_a_set_was_given_up() {
    let scene = Scene::with(Mood::Well, Nearfar::builder().command_timeout(Duration::from_secs(300)));
    let (cache, other) = (scene.cache().await, scene.other().await);
    cache.set(&1, "old".into()).await.unwrap();
    other.get(&1).await.unwrap().unwrap();
    scene.state.set(Mood::HoldsChanges);
    let given_up = tokio::time::timeout(Duration::from_millis(10), cache.set(&1, "new".into())).await;
    assert!(given_up.is_err());
    scene.state.set(Mood::Well);
    assert_eq!(cache.invalidate(&1).await.unwrap(), Outcome::Queued);
    let_pass(Duration::from_millis(1)).await;
    assert!(other.get(&1).await.unwrap().is_none());
    assert_eq!(cache.stats().outbox_keys, 1, "once more when the set cannot be executed any more");
}

/// A clear of long ago is nothing that a loss of history could have lost.
#[tokio::test(start_paused = true)]
async fn a_resync_does_not_clear_because_of_a_clear_an_hour_ago() {
    let scene = Scene::new(Mood::Well);
    let (cache, other) = (scene.cache().await, scene.other().await);
    cache.clear().await.unwrap();
    for key in 0..360 {
        let_pass(Duration::from_secs(10)).await;
        cache.set(&key, "value".into()).await.unwrap();
    }
    other.set(&77_777, "theirs".into()).await.unwrap();
    scene.shared.cut_bus();
    for key in 0..10_100 {
        other.invalidate(&(100_000 + key)).await.unwrap();
    }
    scene.shared.heal_bus();
    let_pass(Duration::from_secs(5)).await;
    assert_eq!(cache.stats().resyncs, 2, "the start, and a log that was trimmed");
    assert!(cache.stats().reissued > 0 && cache.stats().outbox_keys == 0);
    assert!(other.get(&77_777).await.unwrap().is_some());
}

/// Its value is not what the outbox is about.
#[tokio::test(start_paused = true)]
async fn a_set_that_comes_through_is_not_invalidated_for_one_that_did_not() {
    let scene = Scene::new(Mood::Well);
    let cache = scene.cache().await;
    cache.set(&0, "anything".into()).await.unwrap();
    scene.state.set(Mood::Away);
    assert_eq!(cache.set(&1, "first".into()).await.unwrap(), Outcome::Queued);
    let_pass(Duration::from_millis(1)).await;
    scene.state.set(Mood::Well);
    assert!(cache.set(&1, "second".into()).await.unwrap().is_applied());
    let_pass(Duration::from_secs(10)).await;
    assert_eq!(*cache.get(&1).await.unwrap().unwrap(), "second");
}

/// A node that fences for another time than the others must not say for how long a value is kept.
#[tokio::test(start_paused = true)]
async fn a_node_that_disagrees_about_the_fence_window_tells_of_no_read() {
    for (mood, touches) in [(Mood::Disagrees, 0), (Mood::Well, 1)] {
        let scene = Scene::new(Mood::Away);
        let cache = scene.cache().await;
        let idle = Loaded::new("v".to_owned()).idle(Duration::from_secs(80));
        scene.other().await.set_with(&1, idle).await.unwrap();
        scene.state.set(mood);
        let_pass(Duration::from_secs(30)).await;
        assert!(cache.get(&1).await.unwrap().is_some());
        let_pass(Duration::from_secs(1)).await;
        assert_eq!(scene.state.touches.load(Relaxed), touches, "{mood:?}");
    }
}
