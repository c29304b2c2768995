//! Settings out of environment variables.

use std::time::Duration;

use nearfar::{CacheConfig, Disconnected, ErrorKind, RefreshAhead, Switch, Unacknowledged};

#[test]
fn every_kind_of_setting_can_be_a_variable() {
    let variables = [
        ("SHOP_TTL", "1h30m"),
        ("SHOP_L1_TTL", "forever"),
        ("SHOP_IDLE", "off"),
        ("SHOP_L1_MAX_BYTES", "1000000"),
        ("SHOP_L1_MAX_ENTRIES", "500"),
        ("SHOP_PARTITIONS", "4"),
        ("SHOP_SCHEMA", "2"),
        ("SHOP_JITTER", "0.25"),
        ("SHOP_FINISH_TIMED_OUT_LOADS", "false"),
        ("SHOP_DISCONNECTED", "serve_for:10s"),
        ("SHOP_REFRESH_AHEAD", "probabilistic:1"),
        ("SHOP_UNACKNOWLEDGED", "fail"),
        ("SHOPPING_TTL", "another's"),
        ("PATH", "/bin"),
    ];
    let config = CacheConfig::from_vars("SHOP_", variables).unwrap();
    let mut expected = CacheConfig::default();
    (expected.ttl, expected.l1_ttl) = (Some(Duration::from_secs(5400)), Some(Duration::MAX));
    (expected.idle, expected.l1_max_bytes) = (Some(Switch::Off), Some(Switch::On(1_000_000)));
    (expected.l1_max_entries, expected.partitions, expected.schema) = (Some(500), Some(4), Some(2));
    (expected.jitter, expected.finish_timed_out_loads) = (Some(0.25), Some(false));
    expected.disconnected = Some(Disconnected::ServeFor(Duration::from_secs(10)));
    expected.refresh_ahead = Some(Switch::On(RefreshAhead::Probabilistic(1.0)));
    expected.unacknowledged = Some(Unacknowledged::Fail);
    assert_eq!(config, expected);
}

#[test]
fn what_cannot_be_read_is_told_by_the_name_of_its_variable() {
    let cases = [
        ("SHOP_TLL", "5m", "`SHOP_TLL`: there is no setting `tll`; there are ttl, idle, grace"),
        ("SHOP_", "5m", "`SHOP_`: there is no setting ``"),
        ("SHOP_TTL", "300x", "`SHOP_TTL`: expected a duration"),
        ("SHOP_SCHEMA", "-1", "`SHOP_SCHEMA`: expected a number up to 4,294,967,295, not \"-1\""),
        ("SHOP_JITTER", "much", "`SHOP_JITTER`: expected a number, not \"much\""),
        ("SHOP_FINISH_TIMED_OUT_LOADS", "1", "`SHOP_FINISH_TIMED_OUT_LOADS`: expected `true` or `false`"),
        ("SHOP_UNACKNOWLEDGED", "x", "`SHOP_UNACKNOWLEDGED`: expected `queue` or `fail`, not \"x\""),
    ];
    for (variable, value, problem) in cases {
        let refused = CacheConfig::from_vars("SHOP_", [(variable, value)]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.to_string().starts_with(problem), "{variable}: {refused}");
    }
}

#[test]
fn one_setting_is_one_variable() {
    let refused = CacheConfig::from_vars("SHOP_", [("SHOP_TTL", "1s"), ("SHOP_ttl", "2s")]).unwrap_err();
    assert_eq!(refused.to_string(), "`SHOP_ttl`: settings are named in upper case");
}

/// Cargo sets this variable for every test, and it is no setting.
#[test]
fn the_variables_of_the_process_are_read() {
    let refused = CacheConfig::from_env("CARGO_MANIFEST_").unwrap_err();
    assert!(refused.to_string().contains("there is no setting `dir`"), "{refused}");
    assert_eq!(CacheConfig::from_env("NOBODY_SETS_THIS_").unwrap(), CacheConfig::default());
}
