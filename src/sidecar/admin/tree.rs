//! The supervision tree, as JSON.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use breakerbox_policy::supervision::ChildState;
use serde::Serialize;

use super::Admin;
use super::problem::AdminProblem;
use crate::TreeNode;
use breakerbox_actors::redact;

/// Time limit for a supervisor to reply; one that does not is shown without its children.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct TreeView {
    children: Vec<TreeNodeView>,
}

#[derive(Debug, Serialize)]
struct TreeNodeView {
    name: String,
    state: &'static str,
    incarnation: u64,
    restarts: u64,
    last_exit: Option<String>,
    /// `null` if it is not a group, or does not reply.
    children: Option<Vec<TreeNodeView>>,
}

pub(super) async fn show(State(admin): State<Admin>) -> Result<Json<TreeView>, AdminProblem> {
    let Some(nodes) = admin.runtime().tree(PATIENCE).await else {
        let detail = "the root supervisor does not answer";
        return Err(AdminProblem::new(503, "no-tree", detail));
    };
    let children = nodes.into_iter().map(TreeNodeView::from).collect();
    Ok(Json(TreeView { children }))
}

impl From<TreeNode> for TreeNodeView {
    fn from(node: TreeNode) -> Self {
        let below = node.children;
        let exit = node.child.last_exit;
        Self {
            name: node.child.name,
            state: match node.child.state {
                ChildState::Stopped => "stopped",
                ChildState::Pending => "pending",
                ChildState::Starting => "starting",
                ChildState::Running => "running",
                ChildState::Stopping => "stopping",
                ChildState::Waiting { .. } => "waiting",
                ChildState::Parked => "parked",
            },
            incarnation: node.child.incarnation,
            restarts: node.child.restarts,
            last_exit: exit.map(|cause| redact(&cause.to_string()).into_owned()),
            children: below.map(|below| below.into_iter().map(Self::from).collect()),
        }
    }
}
