//! Settings of vector search from environment variables.

use super::{EmbeddingService, Missing, OPENAI, StoreService, VectorConfig, known_length};
use crate::agents::token::Credentials;
use crate::config::Secret;

/// Allowed services, as they are written.
const EMBEDDINGS: [(&str, EmbeddingService); 2] = [
    ("vertex", EmbeddingService::Vertex),
    ("openai", EmbeddingService::OpenAi),
];
const STORES: [(&str, StoreService); 4] = [
    ("vertex", StoreService::Vertex),
    ("qdrant", StoreService::Qdrant),
    ("chroma", StoreService::Chroma),
    ("local", StoreService::Local),
];

/// Greatest length of embeddings that any service has.
const MAX_DIMENSIONS: usize = 65_536;

impl VectorConfig {
    /// Reads the configuration from the environment of this process. Without a variable for them,
    /// Google's credentials are looked for where Google's own tools do:
    /// [`Credentials::application_default`].
    #[must_use]
    pub fn from_environment() -> Self {
        let mut config = Self::from_variables(|name| std::env::var(name).ok());
        if config.uses_google() && matches!(config.credentials, Credentials::Missing) {
            config.credentials = Credentials::application_default();
        }
        config
    }

    /// Reads the configuration from environment variables by `read`; empty ones count as unset.
    /// Values that cannot be used are among [`VectorConfig::missing`].
    pub fn from_variables(read: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        let usual = Self::default();
        let mut unusable = Vec::new();
        let mut embedding = usual.embedding;
        if let Some(given) = read("VECTOR_EMBEDDING_PROVIDER") {
            let variable = "VECTOR_EMBEDDING_PROVIDER";
            match one_of(&EMBEDDINGS, &given, variable) {
                Ok(service) => embedding = service,
                Err(problem) => unusable.push(problem),
            }
        }
        let mut store = usual.store;
        if let Some(given) = read("VECTOR_STORE") {
            match one_of(&STORES, &given, "VECTOR_STORE") {
                Ok(service) => store = service,
                Err(problem) => unusable.push(problem),
            }
        }
        let model = read("VECTOR_EMBEDDING_MODEL").unwrap_or_else(|| match embedding {
            EmbeddingService::Vertex => usual.model,
            EmbeddingService::OpenAi => "text-embedding-3-small".to_owned(),
        });
        let dimensions = match read("VECTOR_EMBEDDING_DIMENSIONS") {
            // 0: missing, unless the model is known.
            None => known_length(&model).unwrap_or_default(),
            Some(given) => length(&given).unwrap_or_else(|problem| {
                unusable.push(problem);
                usual.dimensions
            }),
        };
        let openai = embedding == EmbeddingService::OpenAi;
        let [url, key] = match store {
            StoreService::Chroma => ["CHROMA_URL", "CHROMA_API_KEY"],
            _ => ["QDRANT_URL", "QDRANT_API_KEY"],
        };
        let everywhere = read("GOOGLE_CLOUD_LOCATION");
        Self {
            embedding,
            store,
            project: read("GOOGLE_CLOUD_PROJECT"),
            location: read("VECTOR_SEARCH_LOCATION")
                .or_else(|| everywhere.clone())
                .unwrap_or(usual.location),
            model_location: read("VECTOR_EMBEDDING_LOCATION").or(everywhere),
            index_endpoint: read("VECTOR_SEARCH_ENDPOINT_ID"),
            endpoint_domain: read("VECTOR_SEARCH_ENDPOINT_DOMAIN"),
            deployed_index: read("DEPLOYED_INDEX_ID"),
            index: read("VECTOR_SEARCH_INDEX_ID"),
            credentials: Credentials::from_variables(&read),
            openai_url: read("OPENAI_BASE_URL").map_or_else(
                || OPENAI.to_owned(),
                |url| url.trim_end_matches('/').to_owned(),
            ),
            openai_key: read("OPENAI_API_KEY").filter(|_| openai).map(Secret::new),
            store_url: read(url),
            store_key: read(key).map(Secret::new),
            collection: read("VECTOR_COLLECTION"),
            chroma_database: match (read("CHROMA_TENANT"), read("CHROMA_DATABASE")) {
                (None, None) => None,
                (tenant, database) => Some((
                    tenant.unwrap_or_else(|| "default_tenant".to_owned()),
                    database.unwrap_or_else(|| "default_database".to_owned()),
                )),
            },
            model,
            dimensions,
            max_texts: if openai { 100 } else { usual.max_texts },
            max_tokens: if openai { 8_000 } else { usual.max_tokens },
            unusable,
            ..Self::default()
        }
    }
}

fn one_of<T: Copy>(all: &[(&str, T)], given: &str, variable: &'static str) -> Result<T, Missing> {
    let given = given.trim();
    let found = all
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(given));
    found.map(|(_, service)| *service).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let problem = format!(
            "unknown service: given {given:?}, allowed {}",
            names.join(", ")
        );
        Missing { variable, problem }
    })
}

fn length(given: &str) -> Result<usize, Missing> {
    let number = given.trim().parse().ok();
    let number = number.filter(|number| (1..=MAX_DIMENSIONS).contains(number));
    number.ok_or_else(|| Missing {
        variable: "VECTOR_EMBEDDING_DIMENSIONS",
        problem: format!(
            "length of the embeddings: given {given:?}, allowed 1 to {MAX_DIMENSIONS}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn config(given: &[(&str, &str)]) -> VectorConfig {
        let all: HashMap<&str, &str> = given.iter().copied().collect();
        VectorConfig::from_variables(|name| all.get(name).map(|value| (*value).to_owned()))
    }

    fn missing(given: &[(&str, &str)]) -> Vec<String> {
        config(given)
            .missing()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn agents_model_and_index_have_locations_of_their_own() {
        let usual = config(&[]);
        assert_eq!(
            (&*usual.model, usual.dimensions),
            ("gemini-embedding-001", 768)
        );
        assert_eq!(usual.model_location(), "us-central1");
        let newer = config(&[("VECTOR_EMBEDDING_MODEL", "gemini-embedding-2")]);
        assert_eq!(
            (newer.model_location(), &*newer.location),
            ("global", "us-central1")
        );
        let global = config(&[
            ("GOOGLE_CLOUD_LOCATION", "global"),
            ("VECTOR_SEARCH_LOCATION", "europe-west1"),
        ]);
        assert_eq!(
            (global.model_location(), &*global.location),
            ("global", "europe-west1")
        );
        let index = missing(&[("GOOGLE_CLOUD_LOCATION", "global")]);
        let told =
            "the region of the index: given global, allowed is a region (VECTOR_SEARCH_LOCATION)";
        assert!(index.iter().any(|one| one == told), "{index:?}");
        let hosts = ["global", "europe-west1", "eu"].map(super::super::vertex::host);
        assert_eq!(
            hosts,
            [
                "https://aiplatform.googleapis.com",
                "https://europe-west1-aiplatform.googleapis.com",
                "https://aiplatform.eu.rep.googleapis.com"
            ]
        );
        assert!(usual.ended_model().is_none());
        let ended = config(&[("VECTOR_EMBEDDING_MODEL", "text-embedding-004")]);
        assert!(
            ended
                .ended_model()
                .unwrap()
                .contains("text-embedding-004 has ended")
        );
    }

    #[test]
    fn agents_services_are_chosen_by_variables_with_clear_errors() {
        let qdrant = [
            ("VECTOR_EMBEDDING_PROVIDER", "OpenAI"),
            ("VECTOR_STORE", "qdrant"),
            ("VECTOR_COLLECTION", "notes"),
        ];
        assert_eq!(
            missing(&qdrant),
            [
                "Qdrant's address missing (QDRANT_URL)",
                "the key of OpenAI missing (OPENAI_API_KEY)"
            ]
        );
        let mut whole = qdrant.to_vec();
        whole.extend([
            ("QDRANT_URL", "http://localhost:6333"),
            ("OPENAI_BASE_URL", "http://localhost:11434/v1/"),
            ("VECTOR_EMBEDDING_MODEL", "nomic-embed-text"),
        ]);
        let length = "the length of the embeddings missing (VECTOR_EMBEDDING_DIMENSIONS)";
        assert_eq!(missing(&whole), [length]);
        whole.push(("VECTOR_EMBEDDING_DIMENSIONS", "768"));
        assert_eq!(missing(&whole), Vec::<String>::new());
        assert_eq!(config(&whole).openai_url, "http://localhost:11434/v1");
        let wrong = missing(&[
            ("VECTOR_EMBEDDING_PROVIDER", "openai"),
            ("VECTOR_STORE", "pinecone"),
            ("VECTOR_EMBEDDING_DIMENSIONS", "many"),
        ]);
        assert_eq!(
            wrong[..2],
            [
                "unknown service: given \"pinecone\", allowed vertex, qdrant, chroma, local (VECTOR_STORE)",
                "length of the embeddings: given \"many\", allowed 1 to 65536 (VECTOR_EMBEDDING_DIMENSIONS)"
            ]
        );
    }
}
