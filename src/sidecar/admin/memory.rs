//! The memory for buffered bodies and answers, as JSON.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Admin;

/// The use of the memory that the gateway may keep bodies and answers in.
#[derive(Debug, Serialize)]
pub(super) struct MemoryView {
    /// `null` without a gateway.
    buffered: Option<BufferView>,
}

#[derive(Debug, Serialize)]
struct BufferView {
    used_bytes: u64,
    limit_bytes: u64,
    refused: u64,
}

/// Handles `GET /api/memory`.
pub(super) async fn show(State(admin): State<Admin>) -> Json<MemoryView> {
    let buffered = admin.buffered().map(|figures| BufferView {
        used_bytes: figures.used,
        limit_bytes: figures.limit,
        refused: figures.refused,
    });
    Json(MemoryView { buffered })
}
