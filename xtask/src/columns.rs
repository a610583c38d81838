//! Limits prose to 100 columns, in Markdown and in comments on their own lines. Tables, code
//! blocks, generated parts and lines with a link are exempt, because they are not prose or cannot
//! be wrapped.

use crate::tree::Tree;

/// The maximum width of a line of prose, in columns.
const MOST: usize = 100;

/// The ends of the paths of files that hold prose.
const PROSE: &[&str] = &[".md", ".rs", ".yaml", ".toml", ".guard", ".sh", ".ci/run"];

/// Returns one finding for each line of prose that is too wide.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let wide = |(path, text): (&str, &str)| {
        let lines = match path.rsplit('.').next() {
            Some("md") => markdown(text),
            Some("rs") => comments(text, "//"),
            _ => comments(text, "#"),
        };
        lines
            .into_iter()
            .map(|(at, columns)| format!("{path}:{at}: prose is {columns} columns wide; the limit is {MOST}"))
            .collect()
    };
    let texts = PROSE.iter().flat_map(|suffix| tree.under(&[""], suffix));
    texts.flat_map(|text| -> Vec<String> { wide(text) }).collect()
}

/// The lines of prose that are too wide, each with its number and its width.
fn markdown(text: &str) -> Vec<(usize, usize)> {
    let (mut in_code, mut is_generated) = (false, false);
    let prose = |(at, line): (usize, &str)| {
        in_code ^= line.trim_start().starts_with("```");
        is_generated |= line.starts_with("<!--") && line.contains("made");
        is_generated &= !line.starts_with("<!-- end");
        let is_prose = !in_code && !is_generated && !line.trim_start().starts_with(['|', '<']);
        is_prose.then(|| wide(at, line)).flatten()
    };
    text.lines().enumerate().filter_map(prose).collect()
}

/// The comments that start with `mark` and are too wide, each with its number and its width.
fn comments(text: &str, mark: &str) -> Vec<(usize, usize)> {
    let mut in_code = false;
    let comment = |(at, line): (usize, &str)| {
        let text = line.trim_start().strip_prefix(mark)?.trim_start_matches(['/', '!']).trim_start();
        in_code ^= text.starts_with("```");
        (!in_code && !text.starts_with('|')).then(|| wide(at, line)).flatten()
    };
    text.lines().enumerate().filter_map(comment).collect()
}

fn wide(at: usize, line: &str) -> Option<(usize, usize)> {
    let columns = line.chars().count();
    (columns > MOST && !line.contains("://") && !line.contains("](")).then_some((at + 1, columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_bounded_and_what_cannot_be_wrapped_is_not() {
        let long = "word ".repeat(21);
        assert_eq!(markdown(&format!("short\n{long}")), [(2, 105)]);
        for excepted in [
            format!("| {long} |"),
            format!("```\n{long}\n```"),
            format!("https://{long}"),
            format!("<!-- made from the code -->\n{long}\n<!-- end -->"),
        ] {
            assert_eq!(markdown(&excepted), [], "{excepted}");
        }
        assert_eq!(comments(&format!("let a = 1;\n    /// {long}"), "//"), [(2, 113)]);
        assert_eq!(comments(&format!("//! ```\n//! {long}\n//! ```\n// {long}"), "//").len(), 1);
        assert_eq!(comments(&format!("key: 1\n  # {long}"), "#"), [(2, 109)]);
        assert_eq!(comments(&format!("let text = \"{long}\";"), "//"), []);
    }
}
