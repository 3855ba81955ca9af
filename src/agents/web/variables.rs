//! Providers of web search from environment variables.

use std::sync::Arc;

use super::{
    Brave, CustomSearch, ExaSearch, SearxngSearch, SerperSearch, TavilySearch, WebProvider,
    WebStartError,
};
use crate::config::Secret;

/// Names of the providers, with the variables that each needs, in the order of preference.
const KNOWN: [(&str, &[&str]); 6] = [
    ("brave", &["BRAVE_API_KEY"]),
    ("tavily", &["TAVILY_API_KEY"]),
    ("exa", &["EXA_API_KEY"]),
    ("serper", &["SERPER_API_KEY"]),
    ("searxng", &["SEARXNG_URL"]),
    (
        "google",
        &["GOOGLE_SEARCH_API_KEY", "GOOGLE_SEARCH_ENGINE_ID"],
    ),
];

/// Makes the providers of `WEB_SEARCH_PROVIDERS`, a list such as `brave,searxng`, in its order; or,
/// without that variable, each provider that has its own variables: `BRAVE_API_KEY`,
/// `TAVILY_API_KEY`, `EXA_API_KEY`, `SERPER_API_KEY`, `SEARXNG_URL`, `GOOGLE_SEARCH_API_KEY` with `GOOGLE_SEARCH_ENGINE_ID`. Empty
/// variables count as unset.
///
/// # Errors  A name is unknown, a variable is missing, or none is set.
pub fn web_providers(
    read: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Arc<dyn WebProvider>>, WebStartError> {
    let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
    let wanted: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
    let names = wanted.join(", ");
    let given = read("WEB_SEARCH_PROVIDERS");
    let mut providers = Vec::new();
    for name in given
        .as_deref()
        .map_or(wanted, |list| list.split(',').collect())
    {
        let name = name.trim().to_ascii_lowercase();
        let known = KNOWN.iter().find(|(known, _)| *known == name);
        let (known, variables) = known.ok_or_else(|| {
            let problem = format!("given {name:?}, allowed {names} (WEB_SEARCH_PROVIDERS)");
            WebStartError::Variables(problem)
        })?;
        let values: Vec<String> = variables.iter().filter_map(|name| read(name)).collect();
        if values.len() == variables.len() {
            providers.push(provider(known, values));
        } else if given.is_some() || !values.is_empty() {
            let missing: Vec<&str> = variables
                .iter()
                .copied()
                .filter(|name| read(name).is_none())
                .collect();
            let missing = missing.join(", ");
            return Err(WebStartError::Variables(format!("{known} needs {missing}")));
        }
    }
    if providers.is_empty() {
        let variables: Vec<&str> = KNOWN.iter().map(|(_, variables)| variables[0]).collect();
        let problem = format!("none of {} is set", variables.join(", "));
        return Err(WebStartError::Variables(problem));
    }
    Ok(providers)
}

fn provider(name: &str, values: Vec<String>) -> Arc<dyn WebProvider> {
    let mut values = values.into_iter();
    let first = values.next().unwrap_or_default();
    match name {
        "brave" => Arc::new(Brave::new(Secret::new(first))),
        "tavily" => Arc::new(TavilySearch::new(Secret::new(first))),
        "exa" => Arc::new(ExaSearch::new(Secret::new(first))),
        "serper" => Arc::new(SerperSearch::new(Secret::new(first))),
        "searxng" => Arc::new(SearxngSearch::new(first)),
        _ => {
            let engine = values.next().unwrap_or_default();
            Arc::new(CustomSearch::new(Secret::new(first), engine))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(given: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let read = |name: &str| {
            let found = given.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        let providers = web_providers(read).map_err(|error| error.to_string())?;
        Ok(providers.iter().map(|one| one.name().to_owned()).collect())
    }

    #[test]
    fn agents_providers_come_from_variables_in_their_order() {
        let keys = [
            ("SEARXNG_URL", "http://localhost:8888"),
            ("BRAVE_API_KEY", "k"),
        ];
        assert_eq!(names(&keys).unwrap(), ["web_brave", "web_searxng"]);
        let more = [("SERPER_API_KEY", "k"), ("EXA_API_KEY", "k")];
        assert_eq!(names(&more).unwrap(), ["web_exa", "web_serper"]);
        let mut ordered = keys.to_vec();
        ordered.push(("WEB_SEARCH_PROVIDERS", "searxng, Brave"));
        assert_eq!(names(&ordered).unwrap(), ["web_searxng", "web_brave"]);
        let error = |given: &[(&str, &str)]| names(given).unwrap_err();
        assert_eq!(
            error(&[("WEB_SEARCH_PROVIDERS", "bing")]),
            "web search cannot be configured: given \"bing\", allowed brave, tavily, exa, serper, \
             searxng, google (WEB_SEARCH_PROVIDERS)"
        );
        assert_eq!(
            error(&[("GOOGLE_SEARCH_API_KEY", "k"), ("TAVILY_API_KEY", " ")]),
            "web search cannot be configured: google needs GOOGLE_SEARCH_ENGINE_ID"
        );
        assert!(error(&[]).contains("none of BRAVE_API_KEY, TAVILY_API_KEY"));
    }
}
