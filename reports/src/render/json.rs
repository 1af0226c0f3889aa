//! The run itself: pretty, in the order of its fields, with a last newline.

use findings::Run;

pub(crate) fn render(run: &Run) -> String {
    pretty(run)
}

/// Any data of a run's.
pub(crate) fn pretty(data: &impl serde::Serialize) -> String {
    // Strings, numbers and lists alone: there is no map whose key could fail to be a string, and writing to memory
    // does not fail.
    let mut text = serde_json::to_string_pretty(data).expect("a run is plain data");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_sample_as_json() {
        insta::assert_snapshot!(render(&sample::run()));
    }

    #[test]
    fn the_same_run_gives_the_same_bytes_and_one_last_newline() {
        let text = render(&sample::run());

        assert_eq!(text, render(&sample::run()));
        assert!(text.ends_with("}\n") && !text.ends_with("\n\n"));
    }
}
