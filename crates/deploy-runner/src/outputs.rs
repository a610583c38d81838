//! The file `$RELAY_OUTPUT`, in the form of GitHub's `$GITHUB_OUTPUT`: a line `name=value`, or a
//! line `name<<END`, the lines of the value, and a line `END`. One CR before a line's end is
//! dropped, as tools on Windows write it.

/// Reads the pairs in order. `None` stands for a line, or an unfinished value, that is no output.
pub(crate) fn parse(text: &str) -> Vec<Option<(String, String)>> {
    let mut all = Vec::new();
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let long = line.split_once("<<").filter(|(name, end)| is_name(name) && !end.is_empty());
        if let Some((name, end)) = long {
            let mut value = Vec::new();
            let ended = lines.by_ref().any(|line| {
                line == end || {
                    value.push(line);
                    false
                }
            });
            all.push(ended.then(|| (name.to_owned(), value.join("\n"))));
            continue;
        }
        let short = line.split_once('=').filter(|(name, _)| is_name(name));
        all.push(short.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    all
}

/// Whether a step may call an output so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> Option<(String, String)> {
        Some((name.to_owned(), value.to_owned()))
    }

    #[test]
    fn values_have_one_line_or_an_end() {
        let text = "a=1\r\nb=x=y\n\nc<<EOF\nd=2\n\nmore\r\nEOF\nno output\n=x\ne=<<EOF\nf<<END\nlost";
        let expected =
            [pair("a", "1"), pair("b", "x=y"), pair("c", "d=2\n\nmore"), None, None, pair("e", "<<EOF"), None];
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), []);
    }
}
