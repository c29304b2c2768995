use serde::{Deserialize, Serialize};

/// What is cached: about 1 KiB when encoded.
///
/// ```
/// use nearfar_bench::Row;
///
/// assert_eq!(Row::new(7).name, "row 7");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub id: u64,
    /// Some text.
    pub name: String,
    /// Most of it.
    pub description: String,
}

impl Row {
    /// The row of a key.
    pub fn new(id: u64) -> Self {
        Self { id, name: format!("row {id}"), description: "x".repeat(980) }
    }
}
