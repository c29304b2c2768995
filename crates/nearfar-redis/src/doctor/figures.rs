//! How figures are written.

/// `12.3 MiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn bytes(count: u64) -> String {
    let mut count = count as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if count < 1024.0 {
            return if unit == "bytes" { format!("{count} {unit}") } else { format!("{count:.1} {unit}") };
        }
        count /= 1024.0;
    }
    format!("{count:.1} TiB")
}

/// How many of a hundred; 100 if there is nothing to have a share of.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units_that_people_read() {
        let shown = [0, 1023, 1024, 33_554_432, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.0 KiB", "32.0 MiB", "16777216.0 TiB"]);
        assert_eq!(
            [percent(1, 3), percent(3, 3), percent(0, 0), percent(u64::MAX, 1)],
            [33, 100, 100, u64::MAX]
        );
    }
}
