//! Reads the tables of ARCHITECTURE.md that tests hold against the code.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The rows of the table with that header line.
///
/// Panics unless the table is there, once, and every row has as many cells as the header: a test that reads
/// nothing would pass for the wrong reason.
pub(crate) fn table<const CELLS: usize>(header: &str) -> Vec<[String; CELLS]> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert_eq!(page.lines().filter(|line| *line == header).count(), 1, "ARCHITECTURE.md has no table {header}");
    let rows = page.lines().skip_while(|line| *line != header).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "the table {header} is empty");
    rows
}

fn cells<const CELLS: usize>(row: &str) -> [String; CELLS] {
    let cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    cells.try_into().unwrap_or_else(|_| panic!("{row} has not {CELLS} cells"))
}

/// The names in backticks that a cell holds.
pub(crate) fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
