//! Templates for arguments. A parameter is substituted inside one argument; it can never become two
//! arguments, nor an option (clauses REQ-15, RUN-9).

use std::collections::BTreeMap;

use relay_protocol::ParameterName;

/// One argument of a step, with the parameters to fill in.
///
/// ```
/// use relay_policy::Template;
/// use relay_protocol::ParameterName;
///
/// let template = Template::parse("image={image}")?;
/// let name: ParameterName = "image".parse()?;
/// let values = [(name, "a b; rm".to_owned())].into();
/// assert_eq!(template.fill(&values)?, "image=a b; rm");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole(ParameterName),
}

/// A template that cannot be parsed, or a substitution that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstitutionError {
    /// A brace without its partner, or braces around something that is not the name of a parameter.
    #[error("`{0}`: write a parameter as {{name}}, and a brace as {{{{ or }}}}")]
    Form(String),
    /// The request has no value for this parameter. Configurations are checked, so this indicates a
    /// bug.
    #[error("the parameter `{0}` has no value")]
    Missing(ParameterName),
    /// The value would turn the argument into an option.
    #[error("the value of `{0}` begins with `-` and would be read as an option")]
    Option(ParameterName),
}

impl Template {
    /// Reads a template: `{name}` is a parameter, `{{` and `}}` are literal braces.
    ///
    /// # Errors
    ///
    /// If a brace has no partner, or if `name` is not the name of a parameter.
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

    /// The parameters that the template uses.
    pub fn holes(&self) -> impl Iterator<Item = &ParameterName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// Fills in the values. The result is always exactly one argument.
    ///
    /// # Errors
    ///
    /// If a value is missing, or if it starts with `-` at the beginning of the argument.
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
