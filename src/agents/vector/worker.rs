//! Workers for the operations of vector search: each calls its provider for one attempt, and checks
//! the shape of its answer.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::provider::{
    EmbeddedText, EmbeddingBatch, EmbeddingModel, EmbeddingProvider, VectorPoint, VectorQuery,
    VectorStore,
};
use super::{Embedding, Neighbor};
use crate::agents::{InvalidInput, ServiceError, ServicePort};
use crate::policy::Class;
use crate::{CallContext, Dependency, Verdict};

/// A worker for embeddings.
pub(crate) struct EmbeddingWorker {
    pub(super) provider: Arc<dyn EmbeddingProvider>,
    pub(super) port: ServicePort,
}

/// A worker for searches of a store.
pub(crate) struct FindWorker {
    pub(super) store: Arc<dyn VectorStore>,
    pub(super) port: ServicePort,
}

/// A worker for writes to a store.
pub(crate) struct StoreWriter {
    pub(super) store: Arc<dyn VectorStore>,
    pub(super) port: ServicePort,
}

/// A write to a store. Repeated, it changes nothing.
#[derive(Debug, Clone)]
pub(crate) enum StoreWrite {
    /// Points to store.
    Upsert(Arc<[VectorPoint]>),
    /// Ids of points to remove.
    Remove(Arc<[String]>),
}

impl Dependency for EmbeddingWorker {
    type Request = EmbeddingBatch;
    type Response = Vec<Embedding>;
    type Error = ServiceError;

    async fn call(
        &self,
        batch: EmbeddingBatch,
        call: &CallContext,
    ) -> Result<Vec<Embedding>, ServiceError> {
        let embedded = self.provider.embed(&batch, &self.port, call).await?;
        let model = self.provider.model();
        let (given, asked) = (embedded.len(), batch.texts.len());
        if given != asked {
            let text = format!("it returned {given} embeddings for {asked} texts");
            return Err(ServiceError::malformed(text));
        }
        embedded.into_iter().map(|one| model.check(one)).collect()
    }

    fn classify(result: Result<&Vec<Embedding>, &ServiceError>) -> Verdict {
        verdict(result)
    }

    fn is_idempotent(_: &EmbeddingBatch) -> bool {
        true
    }

    fn weight(batch: &EmbeddingBatch) -> NonZeroU32 {
        batch.tokens
    }
}

impl EmbeddingModel {
    /// Checks a vector and scales it to the norm one.
    fn check(&self, embedded: EmbeddedText) -> Result<Embedding, ServiceError> {
        let EmbeddedText {
            mut values,
            truncated,
        } = embedded;
        let (given, allowed) = (values.len(), self.dimensions);
        if given != allowed {
            // Every vector of this model has that length: an operator must correct the setting.
            let text = format!("its embeddings have the length {given}, configured is {allowed}");
            return Err(ServiceError::misconfigured(text));
        }
        if !values.iter().all(|value| value.is_finite()) {
            let text = "an embedding holds a number that is not finite";
            return Err(ServiceError::malformed(text));
        }
        if !self.normalized {
            scale_to_one(&mut values);
        }
        Ok(Embedding {
            values: Arc::from(values),
            model: Arc::clone(&self.name),
            truncated,
        })
    }

    /// Checks that this vector is comparable with those of the model.
    pub(super) fn accept(&self, vector: &Embedding) -> Result<(), InvalidInput> {
        let Embedding { values, model, .. } = vector;
        if *model != self.name {
            let (given, allowed) = (format!("one of {model}"), format!("one of {}", self.name));
            return Err(InvalidInput::new("the vector", given, allowed));
        }
        if values.len() != self.dimensions {
            let given = format!("{} numbers", values.len());
            let allowed = self.dimensions.to_string();
            return Err(InvalidInput::new("the vector", given, allowed));
        }
        Ok(())
    }
}

/// Scales a vector to the norm one; zeros stay zeros.
fn scale_to_one(values: &mut [f32]) {
    let squares = values.iter().map(|value| f64::from(*value).powi(2));
    let norm = squares.sum::<f64>().sqrt();
    if norm > 0.0 {
        for value in values {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
}

impl Dependency for FindWorker {
    type Request = VectorQuery;
    type Response = Vec<Neighbor>;
    type Error = ServiceError;

    async fn call(
        &self,
        query: VectorQuery,
        call: &CallContext,
    ) -> Result<Vec<Neighbor>, ServiceError> {
        self.store.find(&query, &self.port, call).await
    }

    fn classify(result: Result<&Vec<Neighbor>, &ServiceError>) -> Verdict {
        verdict(result)
    }

    fn is_idempotent(_: &VectorQuery) -> bool {
        true
    }
}

impl Dependency for StoreWriter {
    type Request = StoreWrite;
    type Response = ();
    type Error = ServiceError;

    async fn call(&self, write: StoreWrite, call: &CallContext) -> Result<(), ServiceError> {
        match write {
            StoreWrite::Upsert(points) => self.store.upsert(&points, &self.port, call).await,
            StoreWrite::Remove(ids) => self.store.remove(&ids, &self.port, call).await,
        }
    }

    fn classify(result: Result<&(), &ServiceError>) -> Verdict {
        verdict(result)
    }

    fn is_idempotent(_: &StoreWrite) -> bool {
        true
    }

    fn is_write(_: &StoreWrite) -> bool {
        true
    }
}

fn verdict<T>(result: Result<&T, &ServiceError>) -> Verdict {
    match result {
        Ok(_) => Verdict::from(Class::Success),
        Err(error) => error.verdict(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_vectors_are_scaled_to_one_and_of_the_stated_length() {
        let model = EmbeddingModel::new("m", 2);
        let scaled = model.check(vec![3.0, 4.0].into()).unwrap();
        assert_eq!(&*scaled.values, [0.6, 0.8]);
        assert_eq!(
            &*model.check(vec![0.0, 0.0].into()).unwrap().values,
            [0.0, 0.0]
        );
        let error = model.check(vec![1.0].into()).unwrap_err();
        assert!(error.is_misconfigured());
        assert_eq!(
            error.to_string(),
            "its embeddings have the length 1, configured is 2"
        );
        let odd = model.check(vec![f32::NAN, 1.0].into()).unwrap_err();
        assert!(!odd.is_misconfigured());
        let as_it_is = model.normalized().check(vec![3.0, 4.0].into()).unwrap();
        assert_eq!(&*as_it_is.values, [3.0, 4.0]);
    }
}
