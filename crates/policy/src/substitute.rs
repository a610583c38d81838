//! Templates of arguments: a parameter is substituted inside one argument; it can never become two, nor an option (clauses REQ-15, RUN-9).

use std::collections::BTreeMap;

use relay_protocol::ParameterName;

/// One argument of a step, with its holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole(ParameterName),
}

/// A template or a substitution that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstitutionError {
    /// A brace without its partner, or a hole without a parameter's name in it.
    #[error("`{0}`: write a parameter as {{name}}, and a brace as {{{{ or }}}}")]
    Form(String),
    /// A parameter that the request does not have. Configurations are checked, so this is a bug if it is ever seen.
    #[error("no value for the parameter `{0}`")]
    Missing(ParameterName),
    /// The value would make the argument an option.
    #[error("the value of `{0}` begins with `-` and would be read as an option")]
    Option(ParameterName),
}

impl Template {
    /// Reads a template: `{name}` is a hole, `{{` and `}}` are braces.
    pub fn parse(text: &str) -> Result<Self, SubstitutionError> {
        let odd = || SubstitutionError::Form(text.to_owned());
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' if rest.next_if_eq(&'{').is_some() => plain.push('{'),
                '}' if rest.next_if_eq(&'}').is_some() => plain.push('}'),
                '}' => return Err(odd()),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match rest.next().ok_or_else(odd)? {
                            '}' => break,
                            c => name.push(c),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Hole(name.parse().map_err(|_| odd())?));
                }
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The parameters that it uses.
    pub fn holes(&self) -> impl Iterator<Item = &ParameterName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The argument, always exactly one.
    pub fn fill(&self, values: &BTreeMap<ParameterName, String>) -> Result<String, SubstitutionError> {
        let mut argument = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => argument.push_str(text),
                Part::Hole(name) => {
                    let value = values.get(name).ok_or_else(|| SubstitutionError::Missing(name.clone()))?;
                    if argument.is_empty() && value.starts_with('-') {
                        return Err(SubstitutionError::Option(name.clone()));
                    }
                    argument.push_str(value);
                }
            }
        }
        Ok(argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, value: &str) -> Result<String, SubstitutionError> {
        let name: ParameterName = "x".parse().unwrap();
        Template::parse(template)?.fill(&BTreeMap::from([(name, value.to_owned())]))
    }

    // clause: RUN-9
    #[test]
    fn a_value_stays_inside_its_argument_and_is_no_option() {
        assert_eq!(fill("image={x}", "a b; $(c)\n--d").unwrap(), "image=a b; $(c)\n--d");
        assert_eq!(fill("-var=image={x}", "--y").unwrap(), "-var=image=--y");
        assert_eq!(fill("{{{x}}}", "v").unwrap(), "{v}");
        assert_eq!(fill("{x}", "--force"), Err(SubstitutionError::Option("x".parse().unwrap())));
        assert_eq!(fill("{x}{x}", ""), Ok(String::new()));
    }

    #[test]
    fn odd_braces_are_refused() {
        for odd in ["{", "}", "{x", "x}", "{}", "{X}", "{x y}", "{{x}", "{x}}"] {
            assert!(matches!(Template::parse(odd), Err(SubstitutionError::Form(_))), "{odd}");
        }
    }
}
