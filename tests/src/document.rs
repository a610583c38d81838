//! Parts of documents that are generated from the code. Each part lies between two marks. A test
//! compares it with the code, and rewrites it if `RELAY_BLESS` is set.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const END: &str = "<!-- end -->\n";

/// Asserts that `file`, a path relative to the workspace root, holds `made` after the mark `what`.
/// If `RELAY_BLESS` is set, writes `made` there instead.
#[track_caller]
pub fn holds(file: &str, what: &str, made: &str) {
    // Two tests may write parts of the same document at the same time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let (head, present, tail) = split(&text, what).unwrap_or_else(|| panic!("{file} has no generated part `{what}`"));
    if std::env::var_os("RELAY_BLESS").is_some() {
        fs::write(&path, format!("{head}{made}{tail}")).unwrap();
    } else {
        assert_eq!(present, made, "{file} differs from the code: run this test with RELAY_BLESS=1 to rewrite it");
    }
}

/// Splits a document into the text before the part, the part, and the text after it. The marks
/// belong to the outer two.
fn split<'a>(text: &'a str, what: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mark = format!("<!-- made from the code: {what} -->\n");
    let begin = text.find(&mark)? + mark.len();
    let end = begin + text.get(begin..)?.find(END)?;
    Some((&text[..begin], &text[begin..end], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_part_stands_between_its_marks() {
        let text = "a\n<!-- made from the code: x -->\nold\n<!-- end -->\nb\n";
        let (head, part, tail) = split(text, "x").unwrap();
        assert_eq!((part, format!("{head}{part}{tail}")), ("old\n", text.to_owned()));
        assert_eq!(split(text, "y"), None);
    }
}
