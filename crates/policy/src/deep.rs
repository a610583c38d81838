//! Bounds for Cedar, which recurses over its input when it parses, validates, evaluates and drops a
//! policy, and overflows the stack if the input nests too deeply. A text within
//! [`check`]'s limits cannot overflow the stack of [`on_deep_stack`].

/// The most brackets that may be open at a time.
const NESTING_MAX: usize = 64;

/// The most operators in one policy: a chain of them nests as deeply as it is long. A condition
/// with 400 alternatives needs about 1,600.
const OPERATORS_MAX: usize = 2_000;

/// Bytes of stack for a text within these limits: more than 100 KiB for each operator. The memory
/// is reserved, and used only as far as the recursion goes.
const STACK: usize = 256 << 20;

/// Why a policy nests too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooDeep {
    #[error("brackets are nested more than {NESTING_MAX} levels deep")]
    Nesting,
    #[error(
        "one policy has more than {OPERATORS_MAX} operators: write alternatives as a list, [\"a\", \"b\"].contains(x)"
    )]
    Operators,
}

/// Checks the nesting of a policy text without parsing it.
///
/// # Errors
///
/// If brackets or operators nest too deeply.
pub(crate) fn check(text: &str) -> Result<(), TooDeep> {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    let mut chars = text.chars().peekable();
    let mut word = String::new();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        operators += usize::from(matches!(word.as_str(), "if" | "in" | "has" | "like" | "is"));
        word.clear();
        match c {
            '"' => skip_string(&mut chars),
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => operators = 0,
            '&' | '|' | '=' => {
                chars.next_if_eq(&c);
                operators += 1;
            }
            '!' | '<' | '>' => {
                chars.next_if_eq(&'=');
                operators += 1;
            }
            '.' | '+' | '-' | '*' => operators += 1,
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(TooDeep::Nesting);
        }
        if operators > OPERATORS_MAX {
            return Err(TooDeep::Operators);
        }
    }
    Ok(())
}

/// Skips the rest of a string literal. One that never ends swallows the text; Cedar refuses it.
fn skip_string(chars: &mut impl Iterator<Item = char>) {
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return,
            _ => {}
        }
    }
}

/// Runs `work` on a thread with a deep stack. Returns `None` if no such thread can be started, or
/// if the work panics.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).ok()?;
        thread.join().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nesting_counts() {
        let list = (0..600).map(|n| format!("\"sha256:{n:064}\"")).collect::<Vec<_>>().join(", ");
        assert_eq!(check(&format!("permit(principal, action, resource) when {{ [{list}].contains(x) }};")), Ok(()));
        assert_eq!(check(&"permit(principal, action, resource) when { a == b || c };\n".repeat(2_000)), Ok(()));
        assert_eq!(check(&format!("// {}\n\"{}\"", "(".repeat(100), "[\\\"".repeat(100))), Ok(()));
        assert_eq!(check(&"(".repeat(NESTING_MAX)), Ok(()));
        assert_eq!(check(&"(".repeat(NESTING_MAX + 1)), Err(TooDeep::Nesting));
        assert_eq!(check(&"a || ".repeat(OPERATORS_MAX)), Ok(()));
        for chain in ["a || ", "a && ", "if a then b else ", "a.", "!", "a == ", "-"] {
            assert_eq!(check(&chain.repeat(OPERATORS_MAX + 1)), Err(TooDeep::Operators), "{chain}");
        }
    }
}
