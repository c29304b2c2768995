//! What is logged, at which level, and what is not: keys.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearfar::{Cache, InProcess, LogKeys, Nearfar};
use nearfar_testkit::eventually;
use nearfar_tests::trusted;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata};

/// Lines of level, target and fields, of events and of spans that begin.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Log {
    fn line(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut Line)) {
        let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
        record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn says(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("nearfar")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.line(span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.line(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

async fn load(key: String) -> Result<String, std::io::Error> {
    Ok(format!("value of {key}"))
}

/// The lines of a cache that is read, loaded and changed, with keys shown so; `None` for the default.
async fn lines(keys: Option<LogKeys>) -> Vec<String> {
    let log = Log::default();
    let listening = tracing::subscriber::set_default(log.clone());
    let builder = Nearfar::in_process().cache("people");
    let builder = if let Some(how) = keys { builder.log_keys(how) } else { builder };
    let cache: Cache<String, String> = builder.build().await.unwrap();
    cache.get_or_load("ada@example.org", load).await.unwrap();
    let fails = |_| async { Err::<String, _>(std::io::Error::other("no ada@example.org")) };
    cache.invalidate("ada@example.org").await.unwrap();
    cache.get_or_load("ada@example.org", fails).await.unwrap_err();
    drop(listening);
    log.lines()
}

fn keys_of(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.split(" key=").nth(1)?.split(' ').next()).collect()
}

#[tokio::test(start_paused = true)]
async fn keys_are_hashed_unless_somebody_wants_to_read_them() {
    let hashed = lines(None).await;
    assert!(!hashed.iter().any(|line| line.contains("ada")), "{hashed:#?}");
    let keys = keys_of(&hashed);
    assert!(keys.len() >= 4, "{hashed:#?}");
    assert!(keys.iter().all(|key| key.len() == 16 && *key == keys[0]), "one key, one hash: {keys:?}");

    let plain = lines(Some(LogKeys::Plain)).await;
    assert!(keys_of(&plain).iter().all(|key| *key == "ada@example.org"), "{plain:#?}");
    assert_eq!(keys_of(&plain).len(), keys.len());

    let never = lines(Some(LogKeys::Never)).await;
    assert!(keys_of(&never).is_empty(), "{never:#?}");
    assert_eq!(never.len(), hashed.len(), "it is the key that is missing, not the line");
}

#[tokio::test(start_paused = true)]
async fn loads_are_debug_misses_are_trace_and_a_hit_in_l1_is_silent() {
    let log = Log::default();
    let listening = tracing::subscriber::set_default(log.clone());
    let cache: Cache<String, String> = Nearfar::in_process().cache("people").build().await.unwrap();
    cache.get_or_load("k", load).await.unwrap();
    let of_load = log.lines();
    for begins in [
        "TRACE nearfar::cache message=a miss namespace=\"people\" key=",
        "DEBUG nearfar::cache namespace=\"people\" key=",
        "DEBUG nearfar::cache message=loaded namespace=\"people\" key=",
    ] {
        assert!(of_load.iter().any(|line| line.starts_with(begins)), "{begins}: {of_load:#?}");
    }
    for _ in 0..10 {
        cache.get("k").await.unwrap();
    }
    assert_eq!(log.lines(), of_load);
    drop(listening);
}

#[tokio::test(start_paused = true)]
async fn trust_is_info_when_it_comes_and_a_warning_when_it_stays_away() {
    let log = Log::default();
    let listening = tracing::subscriber::set_default(log.clone());
    let shared = InProcess::new();
    let bound = Duration::from_secs(2);
    let builder = Nearfar::builder().in_process(&shared).cache("people").max_staleness(bound);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    trusted(&cache).await;
    assert!(log.says("INFO nearfar::bus message=trust was gained namespace=\"people\" partition=0"));

    shared.cut_bus();
    eventually("it is told", async || log.says("DEBUG nearfar::bus message=trust was lost")).await;
    assert!(!log.lines().iter().any(|line| line.starts_with(Level::WARN.as_str())), "not at once");
    eventually("it is warned of", async || log.says("WARN nearfar::bus message=there is no trust")).await;

    shared.heal_bus();
    trusted(&cache).await;
    let gained = log.lines().iter().filter(|line| line.contains("trust was gained")).count();
    assert_eq!(gained, 2);
    drop(listening);
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_outbox_and_what_was_delivered_is_debug() {
    let log = Log::default();
    let listening = tracing::subscriber::set_default(log.clone());
    let shared = InProcess::new();
    let cache: Cache<String, String> =
        Nearfar::builder().in_process(&shared).cache("people").build().await.unwrap();
    shared.cut_store();
    cache.invalidate("k").await.unwrap();
    assert!(log.says("DEBUG nearfar::cache message=a change waits in the outbox namespace=\"people\" partition=0 doing=Invalidate"));
    shared.heal_store();
    eventually("it is delivered", async || {
        log.says("DEBUG nearfar::cache message=what waited in the outbox was delivered")
    })
    .await;
    drop(listening);
}
