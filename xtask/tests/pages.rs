//! What two pages show, they show alike: the library's page has its examples compiled, the front page has not.

use std::path::Path;

/// The blocks of Rust on a page.
fn programs(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.filter(|block| block.starts_with("rust") && !block.starts_with("rust,ignore")).map(str::to_owned).collect()
}

#[test]
fn the_front_page_shows_a_program_that_the_librarys_page_has_compiled() {
    let (front, library) = (programs("README.md"), programs("secmem/README.md"));

    assert_eq!(front.len(), 1);
    assert!(library.contains(&front[0]), "README.md shows another program than secmem/README.md:\n{}", front[0]);
}
