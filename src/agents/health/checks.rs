//! The four health checks, and the advice when one fails.

use std::sync::Arc;

use super::{Advice, Check, CheckStatus, HealthReport};
use crate::agents::token::Credentials;
use crate::agents::vector::{Embedding, VectorSearch};
use crate::config::credentials;
use crate::{CallError, Clock};
use breakerbox_actors::redact;

/// The text that the checks embed.
const QUESTION: &str = "a short test text";

impl VectorSearch {
    /// Checks environment, authentication, embedding and search, bypassing every fallback.
    ///
    /// Each round costs one token request, one embedding and one search.
    pub async fn check_health(&self, clock: &Clock) -> HealthReport {
        let mut round = CheckRound {
            clock,
            checks: Vec::new(),
            advice: Vec::new(),
        };
        round.environment(self);
        round.authentication(self).await;
        let embedding = round.embedding(self).await;
        round.search(self, embedding).await;
        let order = ["high", "medium", "low"];
        let urgency = |one: &Advice| order.iter().position(|word| *word == one.priority);
        round.advice.sort_by_key(urgency);
        HealthReport::of(clock.wall(), round.checks, round.advice)
    }
}

/// A round of checks in progress.
struct CheckRound<'c> {
    clock: &'c Clock,
    checks: Vec<Check>,
    advice: Vec<Advice>,
}

impl CheckRound<'_> {
    fn end(
        &mut self,
        name: &'static str,
        began: crate::policy::Time,
        mark: CheckStatus,
        detail: String,
    ) {
        let took = self.clock.now().since(began).as_millis();
        self.checks.push(Check {
            name,
            mark,
            detail,
            took_ms: u64::try_from(took).unwrap_or(u64::MAX),
        });
    }

    fn advise(
        &mut self,
        priority: &'static str,
        category: &'static str,
        title: impl Into<String>,
        action: impl Into<String>,
    ) {
        self.advice.push(Advice {
            priority,
            category,
            title: title.into(),
            action: action.into(),
        });
    }

    fn environment(&mut self, search: &VectorSearch) {
        const NAME: &str = "environment";
        let began = self.clock.now();
        let missing = search.missing();
        if !missing.is_empty() {
            let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
            for one in missing {
                let action = format!("set {}, and start the program again", one.variable);
                self.advise("high", NAME, one.problem.clone(), action);
            }
            return self.end(NAME, began, CheckStatus::Error, all.join(", "));
        }
        if let Credentials::KeyFile(path) = search.credentials()
            && let Ok(Some(exposed)) = credentials::check(path)
        {
            let action = "take the rights of others off the key file (chmod 600)";
            self.advise("low", NAME, "the key file is open to others", action);
            return self.end(NAME, began, CheckStatus::Warn, exposed.to_string());
        }
        self.end(
            NAME,
            began,
            CheckStatus::Ok,
            "nothing is missing".to_owned(),
        );
    }

    async fn authentication(&mut self, search: &VectorSearch) {
        const NAME: &str = "authentication";
        let began = self.clock.now();
        match search.probe_tokens().await {
            Ok(number) => {
                let detail = if number == 0 {
                    "the services need no token"
                } else {
                    "a token was given"
                };
                self.end(NAME, began, CheckStatus::Ok, detail.to_owned());
            }
            Err(error) => {
                let action = if error.is_misconfigured() {
                    "check the credentials and their account; make a new key if it was deleted"
                } else {
                    "see whether the token endpoint can be reached from here"
                };
                self.advise("high", NAME, "no access token could be obtained", action);
                self.end(NAME, began, CheckStatus::Error, error.to_string());
            }
        }
    }

    async fn embedding(&mut self, search: &VectorSearch) -> Option<Embedding> {
        const NAME: &str = "embedding";
        let began = self.clock.now();
        match search.probe_embedding(QUESTION).await {
            Ok(embedding) => {
                let first = embedding.values.first();
                if embedding.values.iter().all(|value| Some(value) == first) {
                    let title = "all numbers of an embedding are the same";
                    self.advise(
                        "medium",
                        NAME,
                        title,
                        "see whether a mock answers at this address",
                    );
                    self.end(NAME, began, CheckStatus::Warn, title.to_owned());
                } else {
                    let detail = format!("{} numbers", embedding.values.len());
                    self.end(NAME, began, CheckStatus::Ok, detail);
                }
                Some(embedding)
            }
            Err(error) => {
                let action = advice_on(&error, "the model's name and region");
                self.advise("high", NAME, "no embeddings could be obtained", action);
                let detail = redact(&error.to_string()).into_owned();
                self.end(NAME, began, CheckStatus::Error, detail);
                None
            }
        }
    }

    async fn search(&mut self, search: &VectorSearch, embedding: Option<Embedding>) {
        const NAME: &str = "search";
        let began = self.clock.now();
        let vector = embedding.unwrap_or_else(|| search.any_vector());
        match search.probe_index(vector).await {
            Ok(0) => {
                let title = "the index found nothing";
                self.advise(
                    "medium",
                    NAME,
                    title,
                    "see whether the index has been filled",
                );
                self.end(NAME, began, CheckStatus::Warn, title.to_owned());
            }
            Ok(found) => self.end(NAME, began, CheckStatus::Ok, format!("{found} found")),
            Err(error) => {
                let action = advice_on(
                    &error,
                    "the index endpoint, its domain and the deployed index",
                );
                self.advise("high", NAME, "the index does not answer", action);
                let detail = redact(&error.to_string()).into_owned();
                self.end(NAME, began, CheckStatus::Error, detail);
            }
        }
    }
}

/// Returns the recommended action for an error of the service.
fn advice_on(error: &CallError<crate::agents::ServiceError>, names: &str) -> String {
    match error {
        CallError::Failed { error, .. } if error.is_misconfigured() => {
            format!("check {names}, and the rights of the account")
        }
        CallError::Open(_) => "wait for the breaker's next try, or close it by hand".to_owned(),
        CallError::RateLimited { .. } => "ask less, or for a higher quota".to_owned(),
        CallError::NotExecuted { .. } => {
            "it answers from its fallbacks only, or is down: see its status".to_owned()
        }
        _ => "see the service's own status, and the way to it".to_owned(),
    }
}

impl VectorSearch {
    /// Returns a valid vector for the index, for a check that only needs a response.
    fn any_vector(&self) -> Embedding {
        let model = self.model();
        let mut values = vec![0.0; model.dimensions];
        if let Some(first) = values.first_mut() {
            *first = 1.0;
        }
        Embedding {
            values: Arc::from(values),
            model: std::sync::Arc::clone(&model.name),
            truncated: false,
        }
    }
}
